"""Backbones by name: the official FlexiViT files, nano models, any timm ViT, a file, an entry point, a callable."""

from __future__ import annotations

import difflib
import fnmatch
import functools
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from typing import TYPE_CHECKING, Any

from backbones.contract import BackboneSpec, Download
from backbones.trust import check_trusted, trusting
from backbones.zoo import files
from backbones.zoo.options import TIMM as TIMM_OPTIONS
from backbones.zoo.options import check_names, check_values, names_of

if TYPE_CHECKING:  # names are listed without torch and timm, which take seconds to import
    from torch import nn

    from backbones.encoder import Encoder

GROUP = "flexivit_transfer.backbones"
ZOO = ("backbones.zoo.big_vision", "backbones.zoo.nano", "backbones.zoo.scratch")  # each has SPECS
TIMM = "backbones.zoo.timm_models"  # has spec_of(name) and list_timm(pattern)
FORMS = "timm:NAME, a weights file (.npz, .safetensors, .pth), module:callable"

_SPECS: dict[str, BackboneSpec] = {}
_OWN: set[str] = set()  # names of the project's own
_BROKEN: dict[str, str] = {}  # entry points that cannot be loaded, and why


def register_backbone(spec: BackboneSpec) -> BackboneSpec:
    """Add a backbone. Raises ValueError where the name is taken by another."""
    if _own().get(spec.name, spec) != spec:
        raise ValueError(f"backbone {spec.name!r} is already registered")
    _SPECS[spec.name] = spec
    return spec


def _own() -> dict[str, BackboneSpec]:
    """What the project has and what was registered by hand; no entry point is loaded for it."""
    for module in ZOO:
        for spec in importlib.import_module(module).SPECS:
            _SPECS.setdefault(spec.name, spec)
            _OWN.add(spec.name)
    return _SPECS


@functools.lru_cache(maxsize=4)
def _entries(group: str, path: tuple[str, ...]) -> EntryPoints:
    """Entry points as `path` (sys.path) offers them; the search reads every installed package's metadata."""
    return entry_points(group=group)


def _load(entry: EntryPoint) -> None:
    """Register an entry point; one that is broken is told once and passed over."""
    origin = f"entry point {entry.name!r} of {entry.dist.name if entry.dist else GROUP} ({entry.value})"
    try:
        loaded = entry.load()
        if not isinstance(loaded, BackboneSpec) and not callable(loaded):
            raise TypeError(f"{type(loaded).__name__} is neither a BackboneSpec nor a callable")
        spec = loaded if isinstance(loaded, BackboneSpec) else BackboneSpec(entry.name, loaded)
        register_backbone(spec)
    except (Exception, SystemExit) as error:  # whatever a stranger's package does, all others still work
        reason = (str(error).splitlines() or [""])[0]
        _BROKEN[entry.name] = f"{origin} cannot be loaded: {type(error).__name__}: {reason}"
        print(f"warning: {_BROKEN[entry.name]}; passed over", file=sys.stderr)


def _known() -> dict[str, BackboneSpec]:
    own = _own()
    for entry in _entries(GROUP, tuple(sys.path)):
        if entry.name not in own and entry.name not in _BROKEN:
            _load(entry)
    return own


def list_backbones(pattern: str = "*") -> list[str]:
    """Registered names that match a wildcard; `timm:PATTERN` lists timm's ViT family.

    Example: `list_backbones("flexivit_b*")`
    """
    if pattern.startswith("timm:"):
        return importlib.import_module(TIMM).list_timm(pattern.removeprefix("timm:"))
    return sorted(fnmatch.filter(_known(), pattern))


def backbone_spec(name: str, trust: bool = True) -> BackboneSpec:
    """The spec behind a name, a `timm:NAME`, a path to a weights file, or `module:callable`.

    Args: trust: may `module:callable` import that module? False for names that were not typed by the user, such as
        those in a folder of results.

    Raises: ValueError naming the nearest known names, or why the name cannot be used.
    """
    if name in (own := _own()):
        return own[name]
    if name.startswith("timm:"):
        return importlib.import_module(TIMM).spec_of(name)
    if files.is_file_name(name):
        return files.spec_of(name)
    if name in (known := _known()):
        return known[name]
    if name in _BROKEN:
        raise ValueError(_BROKEN[name])
    if ":" in name:
        with trusting(trust):
            check_trusted("backbone", name)
        return BackboneSpec(name, functools.partial(_call, name, _imported(name)))
    near = difflib.get_close_matches(name, known, 3, 0.4)
    hint = f"nearest: {', '.join(near)}" if near else f"known: {', '.join(sorted(known))}"
    raise ValueError(f"no backbone {name!r}; {hint}; also {FORMS}")


def _imported(name: str) -> Callable[..., Any]:
    """What `module:callable` names: a class of nn.Module, or a function written in Python.

    Raises: ValueError where it cannot be imported or is neither.
    """
    module, _, attribute = name.partition(":")
    try:
        loaded: Any = importlib.import_module(module)
        for part in attribute.split("."):
            loaded = getattr(loaded, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"backbone {name!r} cannot be imported: {error}") from error
    from torch import nn

    function = loaded.func if isinstance(loaded, functools.partial) else loaded
    usable = (
        issubclass(function, nn.Module)
        if inspect.isclass(function)
        else (inspect.isroutine(function) and not inspect.isbuiltin(function))
    )
    if not usable:
        raise ValueError(f"backbone {name!r} is neither a class of torch.nn.Module nor a function that returns one")
    return loaded


def _call(name: str, make: Callable[..., Any], **options: Any) -> nn.Module:
    from torch import nn

    module = make(**options)
    if not isinstance(module, nn.Module):
        raise ValueError(f"backbone {name!r} gives {type(module).__name__}, not a torch.nn.Module")
    return module


def build_backbone(name: str, trust: bool = True, **options: Any) -> Encoder:
    """Build an image encoder by name; see `backbones.contract.Backbone` for what it offers.

    Options of all flexible backbones: `resize`, `filter`, `position_filter` (see `FlexiBackbone`), `pretrained=False`
    for random weights, `drop_path`, and `num_classes` for a new upstream head. A plain `nn.Module`
    `(images, grid) -> Features` gets the defaults of `backbones.encoder.Encoder`.

    Args: trust: see `backbone_spec`.

    Raises: ValueError for a name or option that there is not; WeightsError for weights that cannot be had or used.

    Example: `features = build_backbone("flexivit_nano")(images, grid=8)`
    """
    from backbones.encoder import completed

    spec = backbone_spec(name, trust)
    check_options(name, options, spec)
    encoder = completed(spec.build(**options), spec.image_size, spec.native_grid)
    if encoder.flexible is None and options.get("pretrained", True):
        encoder.flexible = spec.flexible
    encoder.pretrained = bool(spec.weights) and bool(options.get("pretrained", True))
    return encoder


def takes_option(name: str, option: str) -> bool:
    """Whether a backbone can be built with an option, as far as its signature tells.

    Example: `takes_option("flexivit_nano", "drop_path")`
    """
    known = _option_names(name, backbone_spec(name))
    return known is None or option in known


def _option_names(name: str, spec: BackboneSpec | None = None) -> tuple[str, ...] | None:
    """Options that a backbone can be built with. None: any, or nobody knows before its code is imported."""
    if name.startswith("timm:"):
        return TIMM_OPTIONS
    if files.is_file_name(name):
        return files.option_names(name)
    if (spec := spec or _known().get(name)) is None:
        return None
    if spec.options is not None:
        return spec.options
    build: Any = spec.build
    # `module:callable` is called through a function of ours that would take anything
    return names_of(build.args[1] if isinstance(build, functools.partial) and build.func is _call else build)


def check_options(name: str, options: Mapping[str, Any], spec: BackboneSpec | None = None) -> None:
    """Look at the options of a backbone before it is built. Neither torch nor code that only `name` names is imported.

    Raises: ValueError for the first that it has not, with the nearest; for a value of another kind than the project's
        own backbones read.

    Example: `check_options("flexivit_nano", {"drop_path": 0.1})`
    """
    check_names(name, options, _option_names(name, spec))
    if name.startswith("timm:") or files.is_file_name(name) or name in _OWN:
        check_values(options)


def availability(name: str, trust: bool = True, **options: Any) -> str | None:
    """Why a backbone cannot be built here, in one line; None where nothing is known to be in the way.

    Weights are neither read nor downloaded, and no server is asked: `download_of` tells what is fetched first. timm is
    imported for its names alone.

    Example: `availability("./mine.npz")  # 'no weights file mine.npz'`
    """
    try:
        if _findable_only(name):
            with trusting(trust):
                check_trusted("backbone", name)
            return _findable(name)
        spec = backbone_spec(name, trust)
        return spec.obstacle(**options) if spec.obstacle else None
    except (ValueError, OSError) as error:  # a name of a file may be too long to ask for
        return " ".join(str(error).split())


def download_of(name: str, trust: bool = True, **options: Any) -> Download | None:
    """What would be downloaded before a backbone is built; None where its weights are at hand, or it has none.

    Nothing is downloaded and no server is asked.

    Example: `download_of("flexivit_b_i1k").url`
    """
    try:
        if _findable_only(name):
            return None
        spec = backbone_spec(name, trust)
        return spec.fetches(**options) if spec.fetches else None
    except (ValueError, OSError):  # `availability` says what is in the way
        return None


def _findable_only(name: str) -> bool:
    """Does the name stand for code that would have to be imported to say more?"""
    return ":" in name and not name.startswith("timm:") and not files.is_file_name(name) and name not in _known()


def _findable(name: str) -> str | None:
    """Is there such a module? It is not imported, which may take seconds."""
    module = name.partition(":")[0]
    try:
        there = module in sys.modules or importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        there = False
    return None if there else f"backbone {name!r} cannot be imported: no module {module!r}"
