"""One static page of a run: the answer first, then tables, plots, pictures, how to make each row again."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.report.compare import Point, cheapest, front, points, verdicts
from benchmarks.report.confidence import DRAWS, Confidence
from benchmarks.report.plots import plot, svg
from benchmarks.report.published import beside
from benchmarks.report.tables import cells, failures, newest, title
from benchmarks.store import Row, Store
from benchmarks.store.gallery import FOLDER

PICTURES = 36  # more make the page heavy; the rest stays in its folder


def answer(choices: Sequence[Point], confidence: Confidence, metric: str, higher: bool, within: float) -> list[str]:
    """Sentences that answer the question of the bench for one table.

    Example: `answer(points(rows)[group], Confidence(store), "top1", True, 0.01)`
    """
    lines = [v.sentence() for v in verdicts(choices, confidence, higher)]
    found = cheapest(choices, within, higher)
    if found:
        good, best = found
        cost = f"{best.macs / 1e9:.3g} GMACs an image"
        lines.append(f"Best on this split: {best.name}, {100 * best.quality:.1f} % {metric} for {cost}.")
        if good != best:
            lines.append(
                f"Within {_points(within)} of it the cheapest is {good.name}: {100 * good.quality:.1f} % for "
                f"{good.macs / 1e9:.3g} GMACs, {best.macs / good.macs:.1f} times fewer."
            )
        else:
            lines.append(f"Nothing cheaper comes within {_points(within)} of it.")
    steps = front(choices, higher)
    if len(steps) > 1:
        shown = "; ".join(f"{p.name}: {100 * p.quality:.1f} % for {p.macs / 1e9:.3g}" for p in steps)
        lines.append(f"More quality costs more GMACs along: {shown}.")
    chance = choices[0].row["metrics"].get(f"chance_{metric}")
    if chance is not None:
        lines.append(f"Chance is {100 * chance:.2g} %.")
    return lines or ["No backbone here can be compared: no flexible one beside a fixed one, no known cost."]


def _points(within: float) -> str:
    return f"{100 * within:g} point{'' if within == 0.01 else 's'}"


def build_page(store: Store, within: float = 0.01) -> str:
    """HTML of a folder's rows; everything is inside the file, and whatever comes from data is escaped.

    Raises: ValueError where the folder has no successful row.

    Example: `Path("page.html").write_text(build_page(Store("results/runs/demo")))`
    """
    from jinja2 import Environment, FileSystemLoader

    rows = store.rows()
    good, confidence = newest(rows), Confidence(store)
    if not good:
        raise ValueError(f"no successful row in {store.path}; run a suite with --out {store.folder} first")
    texts, parts = cells(rows), []
    for group, choices in points(rows).items():
        metric, higher = group[-1], choices[0].row.get("higher_is_better", True)
        grids, lines = texts[group]
        parts.append({
            "title": title(group), "answer": answer(choices, confidence, metric, higher, within),
            "plots": [_both(choices, confidence, a, metric) for a in ("grid", "macs", "rate") if _drawable(choices, a)],
            "grids": grids, "lines": lines, "published": beside(choices),
        })  # fmt: skip
    several = len({r.get("seed") for r in good}) > 1
    dates = sorted(r["finished"][:10] for r in good if r.get("finished"))
    page = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True).get_template("page.html")
    return page.render(
        name=good[-1].get("suite") or store.folder.name, rows=len(good), draws=DRAWS, parts=parts,
        seeds=": tables give mean ± half the range over them" if several else "",
        dates=" to ".join(dict.fromkeys([dates[0], dates[-1]])) if dates else "undated", costs=_costs(good),
        pictures=_pictures(store), failed=[f"{k}: {v}" for k, v in failures(rows).items()],
        commands=commands(good), environments=environments(good),
    )  # fmt: skip


def _drawable(choices: Sequence[Point], against: str) -> bool:
    return against == "grid" or any(c.macs if against == "macs" else c.rate for c in choices)


def _both(choices: Sequence[Point], confidence: Confidence, against: str, metric: str) -> dict[str, str]:
    found = {"alt": f"{metric} against {against}"}
    for theme in ("light", "dark"):
        text = svg(plot(choices, confidence, against, metric, theme))
        found[theme] = "data:image/svg+xml;base64," + base64.b64encode(text.encode()).decode()
    return found


def _costs(rows: Sequence[Row]) -> list[list[str]]:
    """A line for each backbone, image size and grid; the fastest pass that was seen."""
    seen: dict[tuple[str, int, str], list[Any]] = {}
    for row in rows:
        cost = row.get("cost") or {}
        entry = seen.setdefault((row["backbone"], row.get("image_size") or 0, str(row["eval_grid"])), [None, 0.0])
        entry[0] = cost.get("macs") or entry[0]
        entry[1] = max(entry[1], cost.get("images_per_second") or 0.0)
    order = sorted(seen.items(), key=lambda x: (x[0][0], x[0][1], int(x[0][2].split("x")[0])))
    return [
        [name, str(side or "-"), grid, f"{macs / 1e9:.4g}" if macs else "-", f"{rate:.0f}" if rate else "-"]
        for (name, side, grid), (macs, rate) in order
    ]


def _pictures(store: Store) -> list[dict[str, str]]:
    folder = (store.folder / FOLDER).resolve()
    index = folder / "index.json"
    if not index.is_file():
        return []
    found = []
    for name, caption in json.loads(index.read_text(encoding="utf-8")).items():
        path = (folder / name).resolve()
        if path.parent == folder and path.is_file():  # a name can not point out of the folder
            found.append({"data": _jpeg(path), "caption": str(caption)})
    return found[:PICTURES]


def _jpeg(path: Path) -> str:
    """A fifth of the PNG's size: the page must stay light enough for a phone."""
    from PIL import Image

    out = io.BytesIO()
    with Image.open(path) as image:
        image.convert("RGB").save(out, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()


def commands(rows: Sequence[Row]) -> list[dict[str, Any]]:
    found: dict[tuple[str, str], dict[str, None]] = {}
    for row in rows:
        env = row.get("env") or {}
        key = (_short(env.get("command") or "-"), env.get("revision") or "unknown")
        found.setdefault(key, {})[str(row.get("label") or row["backbone"])] = None
    return [{"text": text, "revision": revision, "cells": list(own)} for (text, revision), own in found.items()]


def _short(command: str) -> str:
    """Paths of this machine mean nothing elsewhere: of absolute ones only the last part stays."""
    return re.sub(r"(?<![\w.…])/[^\s=]*/([^\s/=]+)", r"…/\1", command)


def environments(rows: Sequence[Row]) -> list[str]:
    found = {}
    for row in rows:
        env = row.get("env") or {}
        versions = ", ".join(f"{k} {v}" for k, v in (env.get("versions") or {}).items())
        text = f"{env.get('device_name')}, {env.get('cpus')} CPUs, {env.get('threads')} threads; {row.get('device')}, "
        found[text + f"{row.get('precision')}; {versions}; {env.get('system')}"] = None
    return list(found)
