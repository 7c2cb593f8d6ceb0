"""A row: one immutable, typed, self-identifying result."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import numbers
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

LARGEST = 1e100  # sums and squares of a row's numbers stay finite
ROW_FORMAT = 2  # raise it when the meaning of a key changes, and say in `upgrades` how older rows are read


def key_of(parts: Mapping[str, Any]) -> str:
    """16 hex digits that depend on the content of `parts`, not on the order of its keys.

    Example: `key_of({"a": 1, "b": [2]}) == key_of({"b": (2,), "a": 1})`
    """
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=plain)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def plain(value: Any) -> Any:
    """What JSON writes for a value that is none of its own: mappings, NumPy and torch scalars; else its text."""
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "item"):
        return value.item()
    return str(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row(Mapping[str, Any]):
    """One result, or one failure. Its fields are the keys of a line of `rows.jsonl`; as a mapping it is that line.

    Fields that are None are left out of the line, but for those that every row has. Keys that this version does not
    know (a plug-in's) are kept in `more` and written back.

    Raises: ValueError naming the key, for a value of another kind and for a metric that is not finite.

    Example::

        row = Row(row_key="ab", status="ok", task="classification", backbone="flexivit_nano", split="test",
                  eval_grid=8, metrics={"top1": 0.5})
        row.metrics["top1"], row["metrics"]["top1"], row.get("skipped")
    """

    row_format: int = ROW_FORMAT
    # which question
    suite: str | None = None
    task: str
    protocol: str | None = None
    backbone: str
    train_grid: int | str | None = None  # patches a side, `8x12`, or a schedule such as `random:5-15`
    eval_grid: int | str | None = None
    seed: int | None = None
    split: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    backbone_options: Mapping[str, Any] = field(default_factory=dict)
    flexible: bool | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)
    steps: int | None = None
    image_size: int | None = None  # pixels a side
    patch: int | str | None = None  # pixels a side
    resize: str | None = None
    view_options: Mapping[str, Any] = field(default_factory=dict)
    eval_options: Mapping[str, Any] = field(default_factory=dict)
    limit: int | None = None  # of a smoke test: only so many samples of the split
    # which answer
    status: str = "ok"
    metric: str | None = None
    measure: Mapping[str, Any] = field(default_factory=dict)  # the metric's unit, scale, chance and margin
    higher_is_better: bool | None = None
    cluster: str | None = None  # the per-sample value that says which samples belong together
    metrics: Mapping[str, float | None] = field(default_factory=dict)  # fractions from 0 to 1, or the metric's unit
    images: int | None = None
    skipped: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None
    traceback: str | None = None
    samples: str | None = None  # file of per-sample values, relative to the folder
    # its identity
    row_key: str = ""
    cell_key: str | None = None
    train_key: str | None = None
    view_key: str | None = None
    weights_hash: str | None = None
    data_identity: Mapping[str, str] = field(default_factory=dict)  # of each split that was read, its content
    samples_hash: str | None = None  # of the per-sample values
    identical_to: Sequence[str] = field(
        default_factory=list
    )  # row keys of views of the same pass with the same per-sample values
    # how it was made
    label: str | None = None
    started: str | None = None
    finished: str | None = None
    seconds: float | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    precision: str | None = None
    eval_weights: str | None = None  # bf16: weights and residual stream of the blocks in evaluation; else as trained
    device: str | None = None
    cost: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = field(default_factory=list)
    env: Mapping[str, Any] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        types = tuple(map(type, _VALUES(self)))
        if types not in _FITTING:  # rows of a store are alike: of a hundred thousand, a handful are looked at closely
            self._check_kinds()
            _FITTING.add(types)
        self._check_within()
        if self.status not in ("ok", "failed"):
            raise ValueError(f"status must be ok or failed, not {_short(self.status)}")
        for name, value in self.metrics.items():
            if type(value) is float and -LARGEST <= value <= LARGEST:
                continue
            if value is not None and (isinstance(value, bool) or not isinstance(value, numbers.Real)):
                raise ValueError(f"metrics.{name} must be a number or null, not {_short(value)}")
            if value is not None:
                _check_size(f"metrics.{name}", value)
                if not math.isfinite(value):
                    raise ValueError(f"metrics.{name} is {value}: every number is finite, or the row is a failure")
        if self.status == "ok":
            empty = [name for name in ("row_key", "split", "eval_grid", "metrics") if not getattr(self, name)]
            if empty:
                raise ValueError(f"a successful row needs {' and '.join(empty)}")

    def _check_kinds(self) -> None:
        for name, usual, kinds, told in _KINDS:
            value = getattr(self, name)
            if type(value) in usual:
                continue
            if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
                raise ValueError(f"{name} must be {told}, not {_short(value)}")

    def _check_within(self) -> None:
        for name, key, usual, kinds, told in _INSIDE:
            inner = getattr(self, name)
            if not inner or key not in inner:
                continue
            value = inner[key]
            if type(value) not in usual and (
                not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)
            ):
                raise ValueError(f"{name}.{key} must be {told}, not {_short(value)}")
            if type(value) in (int, float):
                _check_size(f"{name}.{key}", value)
                if not math.isfinite(value):
                    raise ValueError(f"{name}.{key} is {value}: every number of a row is finite")
        if not 0 <= self.measure.get("digits", 1) <= 15:
            raise ValueError(f"measure.digits must be from 0 to 15, not {_short(self.measure['digits'])}")
        for name in ("identical_to", "notes"):
            if bad := [part for part in getattr(self, name) if not isinstance(part, str)]:
                raise ValueError(f"{name} must be a list of texts, and holds {_short(bad[0])}")

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> Row:
        """A row of today's format; `upgrades.read_row` takes older ones.

        Raises: ValueError naming the key that is missing or of another kind.
        """
        if missing := [name for name in ("task", "backbone") if name not in line]:
            raise ValueError(f"{' and '.join(missing)} missing")
        if line.keys() <= _NAMES:
            return cls(**line)
        own = {k: v for k, v in line.items() if k in _NAMES}
        return cls(**own, more={k: v for k, v in line.items() if k not in _NAMES})

    def changed(self, **values: Any) -> Row:
        """The row with other values.  Example: `row.changed(seconds=3.5)`"""
        return dataclasses.replace(self, **values)

    def to_json(self) -> dict[str, Any]:
        """The line as a dictionary, keys in the order of the fields."""
        return {name: self[name] for name in self}

    def __getitem__(self, key: str) -> Any:
        if key not in _NAMES:
            return self.more[key]
        value = getattr(self, key)
        if value is None and key not in _ALWAYS:
            raise KeyError(key)
        return value

    def __iter__(self) -> Iterator[str]:
        yield from (n for n in _ORDER if n in _ALWAYS or getattr(self, n) is not None)
        yield from self.more

    def __len__(self) -> int:
        return sum(1 for _ in self)


_ORDER = tuple(f.name for f in dataclasses.fields(Row) if f.name != "more")
_NAMES = frozenset(_ORDER)
_ALWAYS = frozenset(("suite", "task", "protocol", "backbone", "train_grid", "eval_grid", "seed", "split"))
_BASIC: dict[str, tuple[tuple[type, ...], str]] = {
    "str": ((str,), "a text"), "int": ((int,), "a whole number"), "bool": ((bool,), "true or false"),
    "float": ((int, float, numbers.Real), "a number"), "int | str": ((int, str), "a grid"),
    "Mapping": ((Mapping,), "a mapping"), "Sequence": ((list, tuple), "a list"),
}  # fmt: skip


def _kind(annotation: str) -> tuple[tuple[type, ...], str]:
    optional = annotation.endswith(" | None")
    kinds, told = _BASIC[annotation.removesuffix(" | None").partition("[")[0]]
    return (*kinds, type(None)) if optional else kinds, f"{told} or null" if optional else told


def _checks(name: str, annotation: str) -> tuple[str, frozenset[type], tuple[type, ...], str]:
    kinds, told = _kind(annotation)
    return name, frozenset((*kinds, dict) if Mapping in kinds else kinds), kinds, told


_KINDS = tuple(_checks(f.name, str(f.type)) for f in dataclasses.fields(Row))
_VALUES = operator.attrgetter(*(f.name for f in dataclasses.fields(Row)))
_FITTING: set[tuple[type, ...]] = set()  # types of all fields that fit: a check asks for nothing else
_WITHIN: dict[str, dict[str, str]] = {  # what reports and plans compute with, inside the mappings
    "measure": {"name": "str", "unit": "str | None", "scale": "float", "higher_is_better": "bool", "digits": "int",
                "chance": "float | None", "margin": "float | None"},
    "cost": {"macs": "float | None", "macs_per_second": "float | None", "images_per_second": "float | None",
             "grids": "Sequence | None"},
    "training": {"losses": "Sequence | None", "loss_every": "float | None", "steps": "float | None",
                 "seconds": "float | None", "macs": "float | None", "won": "int | None", "notes": "Sequence | None"},
    "env": {"command": "str | None", "revision": "str | None", "versions": "Mapping | None"},
}  # fmt: skip
_INSIDE = tuple((name, *_checks(key, kind)) for name, inner in _WITHIN.items() for key, kind in inner.items())


def _check_size(name: str, value: float) -> None:
    size = abs(value) if isinstance(value, int) else abs(float(value))  # an integer may be larger than any float
    if LARGEST < size < math.inf:
        raise ValueError(f"{name} is {_short(value)}: no number of a row is beyond {LARGEST:g}")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
