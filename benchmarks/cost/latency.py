"""Latencies that were measured for the rows of a folder: `latency.jsonl` beside them, outside of every key."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from benchmarks.store import Store

FILE = "latency.jsonl"


@dataclass(frozen=True)
class Latency:
    """Of one call of the very model of a row, warm, with a pause before each call.

    Args:
        row: its key.
        device: as `device_key` names it; `precision` as in the row.
        batch: images of a call.
        ms: median over `calls` of the whole call; `low` and `high` are its quartiles.
        slowed: what says that the device was slowed down meanwhile; "" for nothing.
        made: revision and date.
    """

    row: str
    label: str
    device: str
    precision: str
    batch: int
    ms: float
    low: float
    high: float
    calls: int
    pause: float
    slowed: str
    made: str

    @property
    def setting(self) -> str:
        """`AMD EPYC, 1 thread, float32, batch 1`: only such latencies stand beside each other."""
        return f"{self.device}, {self.precision}, batch {self.batch}"

    @property
    def per_image(self) -> float:
        """Milliseconds of an image."""
        return self.ms / self.batch

    def shown(self) -> str:
        """`3.21 [3.15, 3.40]`, with a mark where the device was slowed down."""
        numbers = [f"{value / self.batch:.3g}" for value in (self.ms, self.low, self.high)]
        return f"{numbers[0]} [{numbers[1]}, {numbers[2]}]{' slowed' if self.slowed else ''}"


Latencies = Mapping[str, Mapping[str, Latency]]  # by setting and row key


def keep_latencies(store: Store, found: Iterable[Latency]) -> None:
    """Append them, each line whole."""
    text = "".join(json.dumps(asdict(one), ensure_ascii=False) + "\n" for one in found)
    with store.locked("latency"), open(store.folder / FILE, "a", encoding="utf-8") as file:
        file.write(text)


def read_latencies(stores: Sequence[Store]) -> Latencies:
    """The newest of each row and setting; a line that cannot be read is a fault of its store.

    Example: `read_latencies([Store("results/runs/demo")]).keys()`
    """
    found: dict[str, dict[str, Latency]] = {}
    for store in stores:
        path = store.folder / FILE
        if not path.is_file():
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            try:
                one = _latency(json.loads(line))
            except (ValueError, TypeError, RecursionError) as error:
                store.report_fault(f"{path}:{number}: no latency, left out: {error}")
                continue
            found.setdefault(one.setting, {})[one.row] = one
    return found


def _latency(told: Any) -> Latency:
    kinds = {"str": str, "int": int, "float": (int, float)}
    if not isinstance(told, dict):
        raise ValueError(f"a {type(told).__name__}, not an object")
    for field in fields(Latency):
        if not isinstance(told.get(field.name), kinds[str(field.type)]):
            raise ValueError(f"{field.name} is {told.get(field.name)!r}")
    if not (math.isfinite(told["ms"]) and told["ms"] > 0 and told["batch"] > 0):
        raise ValueError(f"ms {told['ms']}, batch {told['batch']}")
    return Latency(**{field.name: told[field.name] for field in fields(Latency)})
