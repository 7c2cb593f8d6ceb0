"""mmsegmentation without a compiled mmcv.

`mmseg.models` imports `mmcv.ops`, which loads the extension `mmcv._ext`; the wheel `mmcv-lite` has none. The finder
here answers for that one name, last in line, so a compiled mmcv (where there is one) is found first and used.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
import warnings
from collections.abc import Callable
from typing import Any


class _MissingExtension(types.ModuleType):
    """Has every op that is asked for (mmcv asserts `hasattr` while it imports); each one raises when called."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)

        def missing(*args: Any, **kwargs: Any) -> Any:
            raise NotImplementedError(f"mmcv op {name!r} needs a compiled mmcv; mmcv-lite is installed")

        return missing


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        return importlib.machinery.ModuleSpec(fullname, self) if fullname == "mmcv._ext" else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _MissingExtension(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


def install() -> None:
    """Make `import mmseg.models` work; call it before the first import of mmseg. Does nothing the second time.

    Example: `mmcv_lite.install(); import mmseg.models`
    """
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
        # mmcv and mmengine warn about their own deprecated calls at import; nothing a user could do about it
        for module in ("mmcv", "mmengine", "mmseg"):
            warnings.filterwarnings("ignore", module=rf"{module}(\.|$)", category=DeprecationWarning)
            warnings.filterwarnings("ignore", module=rf"{module}(\.|$)", category=ImportWarning)
        # mmseg's own heads call what mmseg deprecates
        warnings.filterwarnings("ignore", message="``build_loss`` would be deprecated soon")


def compiled() -> bool:
    """Whether a real `mmcv._ext` is there."""
    install()
    spec = importlib.util.find_spec("mmcv._ext")
    return spec is not None and not isinstance(spec.loader, _Finder)
