"""One static page of a run: the answer first, then tables, plots, pictures, how to make each row again."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.report.answers.answer import Answer
from benchmarks.report.answers.matrix import matrix, overall
from benchmarks.report.answers.questions import failures, newest
from benchmarks.report.plots import plot, svg
from benchmarks.report.published import beside
from benchmarks.report.tables import CAPTION, table_of
from benchmarks.store import Row, Store
from benchmarks.store.gallery import kept_pictures

PICTURES = 36  # more make the page heavy; the rest stays in its folder


def build_page(stores: Sequence[Store], answers: Sequence[Answer], notes: Sequence[str] = ()) -> str:
    """HTML of folders of results; everything is inside the file, and whatever comes from data is escaped.

    Args:
        answers: of all their tables.
        notes: what the reader must know of the folders, such as where they do not agree.

    Example: `Path("page.html").write_text(build_page([store], answers(entries([store]))))`
    """
    from jinja2 import Environment, FileSystemLoader

    rows = [row for store in stores for row in store.rows()]
    good = newest(rows)
    parts = []
    for one in answers:
        table = table_of(one)
        parts.append({
            "title": table.title, "answer": one.lines(), "details": one.details(),
            "plots": [_both(one, against) for against in ("grid", "macs", "rate") if _drawable(one, against)],
            "grids": table.columns, "lines": table.lines, "published": beside(one.points),
        })  # fmt: skip
    dates = sorted(r.finished[:10] for r in good if r.finished)
    page = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True).get_template("page.html")
    columns, lines = matrix(answers)
    pictures = [p for store in stores for p in _pictures(store)][:PICTURES]  # before the faults are listed
    return page.render(
        name=" + ".join(dict.fromkeys(r.suite or "" for r in good)) or stores[0].folder.name, rows=len(good),
        dates=" to ".join(dict.fromkeys([dates[0], dates[-1]])) if dates else "undated", parts=parts, caption=CAPTION,
        columns=columns, matrix=lines, overall=overall(answers),
        notes=[*notes, *(f for store in stores for f in store.faults)],
        costs=_costs(good), pictures=pictures,
        failed=[f"{k}: {v}" for k, v in failures(rows).items()], commands=commands(good),
        environments=environments(good),
    )  # fmt: skip


def _drawable(one: Answer, against: str) -> bool:
    return against == "grid" or any(p.macs if against == "macs" else p.rate for p in one.points)


def _both(one: Answer, against: str) -> dict[str, str]:
    found = {"alt": f"{one.group[-1]} against {against}"}
    for theme in ("light", "dark"):
        text = svg(plot(one, against, theme))
        found[theme] = "data:image/svg+xml;base64," + base64.b64encode(text.encode()).decode()
    return found


def _costs(rows: Sequence[Row]) -> list[list[str]]:
    """A line for each backbone, image size and grid, or grids that are averaged; the fastest pass that was seen."""
    seen: dict[tuple[str, int, str], list[Any]] = {}
    for row in rows:
        cost = row.get("cost") or {}
        grids = "+".join(map(str, cost.get("grids") or [row["eval_grid"]]))
        entry = seen.setdefault((row["backbone"], row.get("image_size") or 0, grids), [None, 0.0])
        entry[0] = cost.get("macs") or entry[0]
        entry[1] = max(entry[1], cost.get("images_per_second") or 0.0)
    order = sorted(seen.items(), key=lambda x: (x[0][0], x[0][1], int(re.split("[x+]", x[0][2])[0])))
    return [
        [name, str(side or "-"), grid, f"{macs / 1e9:.4g}" if macs else "-", f"{rate:.0f}" if rate else "-"]
        for (name, side, grid), (macs, rate) in order
    ]


def _pictures(store: Store) -> list[dict[str, str]]:
    shown = []
    for path, caption in kept_pictures(store):
        try:
            shown.append({"data": _jpeg(path), "caption": caption})
        except (OSError, ValueError, SyntaxError) as error:  # PIL raises the last for a damaged PNG
            store.report_fault(f"{path} cannot be read and is left out: {error}")
        if len(shown) == PICTURES:
            break
    return shown


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
    found: dict[str, None] = {}
    for row in rows:
        env = row.get("env") or {}
        versions = ", ".join(f"{k} {v}" for k, v in (env.get("versions") or {}).items())
        text = f"{env.get('device_name')}, {env.get('cpus')} CPUs, {env.get('threads')} threads; {row.get('device')}, "
        found[text + f"{row.get('precision')}; {versions}; {env.get('system')}"] = None
    return list(found)
