"""Where each number of the page comes from: commands, environments, data, costs, and what is missing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from benchmarks.cost.latency import Latencies
from benchmarks.report.answers.answer import Answer
from benchmarks.report.answers.points import Point
from benchmarks.report.answers.questions import asked_of, failures, grid_order, newest, title
from benchmarks.store import Row


class Provenance:
    """What rows say of how they were made, each environment once.

    Example: `told.origins[told.seed(rows[0], 100.0)["origin"]]`
    """

    def __init__(self, rows: Sequence[Row]):
        self.environments = environments(rows)
        self._places = {text: i for i, text in enumerate(self.environments)}
        self._origins: dict[tuple[str | int, ...], int] = {}

    @property
    def origins(self) -> list[tuple[str | int, ...]]:
        """Training key, weights, when, revision, command and place of the environment, each combination once; those of
        the rows that `seed` was asked for."""
        return list(self._origins)

    def asked(self, points: Sequence[Point]) -> dict[str, str]:
        """Protocol, recipe, options and contents that all choices of a table share."""
        row = points[0].row if points else None
        if row is None:
            return {}
        data = {f"data identity, {split}": text for split, text in row.data_identity.items()}
        shared = {"protocol": row.protocol or "", "split": row.split or "", "images": str(row.images or "")}
        return {k: v for k, v in {**shared, **data, **asked_of(row)}.items() if v not in ("", "None", "()", "{}")}

    def seed(self, row: Row, scale: float) -> dict[str, Any]:
        """One row of a choice: its value, its key, and the place of its origin."""
        env = row.env or {}
        value = row.metrics.get(row.metric or "")
        origin = (
            row.train_key or "", row.weights_hash or "", row.finished or "", str(env.get("revision") or "unknown"),
            _short(str(env.get("command") or "-")), self._places.get(_environment(row), -1),
        )  # fmt: skip
        return {
            "seed": row.seed or 0, "value": None if value is None else float(f"{scale * value:.6g}"),
            "row": row.row_key, "origin": self._origins.setdefault(origin, len(self._origins)),
        }  # fmt: skip


def commands(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """What made the rows, with the revision and the cells of each command."""
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for row in rows:
        env = row.get("env") or {}
        key = (_short(env.get("command") or "-"), env.get("revision") or "unknown")
        label = str(row.get("label") or row["backbone"])
        cells.setdefault(key, {})[str(row.get("cell_key") or label)] = label  # labels of older rows leave options out
    return [{"text": text, "revision": rev, "cells": list(own.values())} for (text, rev), own in cells.items()]


def environments(rows: Sequence[Row]) -> list[str]:
    """Machine, device, precision and versions, each once."""
    return list(dict.fromkeys(_environment(row) for row in rows))


def _environment(row: Row) -> str:
    env = row.get("env") or {}
    versions = ", ".join(f"{k} {v}" for k, v in (env.get("versions") or {}).items())
    cpus, threads = (
        f"{env.get(n)} {w}{'' if env.get(n) == 1 else 's'}" for n, w in (("cpus", "CPU"), ("threads", "thread"))
    )
    text = f"{env.get('device_name')}, {cpus}, {threads}; {row.get('device')}, "
    weights = f", {row['eval_weights']} weights in evaluation" if row.get("eval_weights") else ""
    return text + f"{row.get('precision')}{weights}; {versions}; {env.get('system')}"


def _short(command: str) -> str:
    """Paths of this machine mean nothing elsewhere: of absolute ones only the last part stays."""
    return re.sub(r"(?<![\w.…])/[^\s=]*/([^\s/=]+)", r"…/\1", command)


def costs(rows: Sequence[Row], latencies: Latencies) -> list[list[str]]:
    """A line for each backbone, image size and grid: MACs, latency in each setting, the fastest pass that was seen.

    Grids whose predictions are averaged are one line, such as `15+10`, with the sum of their MACs.
    """
    seen: dict[tuple[str, int, str], list[Any]] = {}
    for row in rows:
        grids = "+".join(map(str, row.cost.get("grids") or [row.eval_grid]))
        entry = seen.setdefault((row.backbone, row.image_size or 0, grids), [None, 0.0, *(None for _ in latencies)])
        entry[0] = row.cost.get("macs") or entry[0]
        entry[1] = max(entry[1], row.cost.get("images_per_second") or 0.0)
        for i, own in enumerate(latencies.values(), 2):
            if row.row_key in own:  # tasks differ in their heads: the slowest is told
                entry[i] = max(entry[i] or own[row.row_key], own[row.row_key], key=lambda one: one.per_image)
    order = sorted(seen.items(), key=lambda x: (x[0][0], x[0][1], grid_order(x[0][2])))
    return [
        [name, str(side or "-"), grid, f"{macs / 1e9:.4g}" if macs else "-",
         *(one.shown() if one else "-" for one in own), f"{rate:.0f}" if rate else "-"]
        for (name, side, grid), (macs, rate, *own) in order
    ]  # fmt: skip


def missing(rows: Sequence[Row], answers: Sequence[Answer]) -> dict[str, list[str]]:
    """What is not as it should be, by kind: failures, holes, pictures passed over, smoke tests, identical samples."""
    good = newest(rows)
    found: dict[str, list[str]] = {
        "Failed": [f"{k}: {v}" for k, v in failures(rows).items()],
        "Holes": [line for one in answers for line in _holes(one)],
        "Passed over": [
            f"{row.label or row.backbone}, {split}: {told}" for row in good for split, told in row.skipped.items()
        ],
        "Only part of a split": [
            f"{row.label or row.backbone} at grid {row.eval_grid}: {row.limit} samples" for row in good if row.limit
        ],
        "Identical samples": _identical(good),
    }
    return {kind: list(dict.fromkeys(lines)) for kind, lines in found.items() if lines}


def _holes(one: Answer) -> list[str]:
    """Choices that have no value, or that others of the table have and this model has not."""
    there = {(p.backbone, p.train, f"{p.grid} {p.view}".strip()) for p in one.points}
    columns = sorted({column for *_, column in one.places}, key=grid_order)
    lines = []
    for backbone, train in dict.fromkeys((b, t) for b, t, _ in one.places):
        without = [c for c in columns if (backbone, train, c) not in there]
        if without:
            trained = "" if train == "-" else f", trained at {train}"
            lines.append(f"{title(one.group)}: {backbone}{trained} has no value at {', '.join(without)}")
    return lines


def _identical(rows: Sequence[Row]) -> list[str]:
    by_key = {row.row_key: row for row in rows}
    found: dict[frozenset[str], str] = {}
    for row in rows:
        others = [by_key[k] for k in row.identical_to if k in by_key]
        if others:
            views = ", ".join(str(r.eval_grid) + (f" {r.resize}" if r.resize else "") for r in (row, *others))
            keys = frozenset((row.row_key, *(r.row_key for r in others)))
            found.setdefault(keys, f"{row.label or row.backbone}, {row.split}: byte-identical samples at {views}")
    return list(found.values())
