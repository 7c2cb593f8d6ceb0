"""The suite's command line, from a clone: `python run_all.py --help`."""

from benchmarks.cli.app import app, main

__all__ = ["app", "main"]

if __name__ == "__main__":
    main()
