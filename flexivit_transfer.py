"""The command line of an installed package: `flexivit-transfer --help`, or `python -m flexivit_transfer --help`.

Its packages have common names. They are imported from beside this file before anything else looks for them, so a
`tasks.py` or a `benchmarks/` of the user's own in the folder of the run, or on PYTHONPATH, does no harm.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
try:
    import backbones  # noqa: F401
    import benchmarks  # noqa: F401
    import tasks  # noqa: F401
finally:
    del sys.path[0]  # what is installed beside them must not come before Python's own modules

from benchmarks.cli.app import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
