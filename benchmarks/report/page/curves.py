"""What the page's script draws: every choice with its value, interval and costs, and the library that draws it."""

from __future__ import annotations

import colorsys
import functools
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.cost.latency import Latencies, Latency
from benchmarks.report.answers.answer import Answer
from benchmarks.report.answers.points import Point, is_flexible, latency_of
from benchmarks.report.page.budget import budget_steps
from benchmarks.report.page.provenance import Provenance
from benchmarks.report.tables import half_width

# Okabe and Ito: told apart by colour-blind readers; the flexible models take the blues
FLEXIBLE, FIXED = ("#0072B2", "#56B4E9"), ("#D55E00", "#009E73", "#CC79A7", "#E69F00")
MOST_LOSSES = 4_000  # points of training curves a table; of more, those of the first seed are shown


@functools.cache
def library() -> str:
    """Vega, Vega-Lite and Vega-Embed (BSD-3-Clause) as one script without network, out of the package `vl-convert`."""
    import vl_convert

    return vl_convert.javascript_bundle().replace("</script", "<\\/script")


def payload(answers: Sequence[Answer], told: Provenance, latencies: Latencies) -> dict[str, Any]:
    """Backbones, and for each table its choices, its budget steps and its training curves, as JSON values.

    Example: `as_script(payload(answers, Provenance(rows), {}))`
    """
    tables = [_table(one, told, latencies) for one in answers]
    kinds = {p.backbone: is_flexible(p.row) for one in answers for p in one.points}
    return {
        "backbones": [
            {"name": name, "flexible": kinds[name], "colour": colour} for name, colour in colours(kinds).items()
        ],
        "settings": list(latencies),
        "environments": told.environments,
        "origins": told.origins,
        "tables": tables,
    }


def colours(kinds: Mapping[str, bool | None]) -> dict[str, str]:
    """A colour for each backbone, flexible ones first; more than two of them, or four fixed ones, are spread over the
    circle of hues.

    Example: `colours({"flexivit_nano": True})` is `{"flexivit_nano": "#0072B2"}`
    """
    found: dict[str, str] = {}
    for wanted, usual, start in ((True, FLEXIBLE, 0.5), (False, FIXED, 0.0)):
        names = [name for name, flexible in kinds.items() if (flexible is True) == wanted]
        for i, name in enumerate(names):
            if len(names) <= len(usual):
                found[name] = usual[i]
                continue
            hue, light = start + 0.5 * i / len(names), (0.42, 0.55, 0.66)[i % 3]
            found[name] = "#" + "".join(f"{round(255 * c):02x}" for c in colorsys.hls_to_rgb(hue % 1, light, 0.7))
    return found


def as_script(values: Any) -> str:
    """JSON for a script element: nothing that comes from data can end it."""
    text = json.dumps(values, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _table(one: Answer, told: Provenance, latencies: Latencies) -> dict[str, Any]:
    words, places = one.words, {p.name: i for i, p in enumerate(one.points)}
    shares = {p.name: share for p, share in zip(one.choices, one.front, strict=True)}
    costs = {"macs": [p.macs and _short(p.macs / 1e9) for p in one.choices]} | {
        setting: [_ms(latency_of(p, own)) for p in one.choices] for setting, own in latencies.items()
    }
    steps = {
        kind: [
            [cost, places[one.choices[a.measured].name], len(a.could_be),
             -1 if a.cheapest is None else places[one.choices[a.cheapest].name]]
            for cost, a in budget_steps(one, own)
        ]
        for kind, own in costs.items()
    }  # fmt: skip
    return {
        "title": one.title, "metric": one.group[-1], "unit": words.unit, "digits": words.digits,
        "higher": one.rules.higher, "points": [_point(one, p, shares.get(p.name), told, latencies) for p in one.points],
        "steps": steps, "asked": told.asked(one.points), "losses": _losses(one.points),
    }  # fmt: skip


def _point(one: Answer, point: Point, share: float | None, told: Provenance, latencies: Latencies) -> dict[str, Any]:
    scale, half = one.words.scale, half_width(one, point)
    sides = [int(s) for s in point.grid.split("x")]
    return {
        "backbone": point.backbone, "train": point.train, "grid": point.grid, "view": point.view,
        "side": sum(sides) / len(sides), "value": _short(scale * point.quality),
        "half": None if half is None else _short(scale * half), "gmacs": point.macs and _short(point.macs / 1e9),
        "ms": [_ms(latency_of(point, own)) for own in latencies.values()], "share": share and round(share, 2),
        "filled": len(point.rows) > 1 or not point.trained, "why": point.why_not,
        "seeds": [told.seed(row, scale) for row in point.rows],
    }  # fmt: skip


def _ms(found: Latency | None) -> float | None:
    return None if found is None else _short(found.per_image)


def _losses(points: Sequence[Point]) -> list[dict[str, Any]]:
    """Training loss (running mean) by step of each training, once whatever the number of grids."""
    found: dict[tuple[str, str, int], dict[str, Any]] = {}
    for point in points:
        for row in point.rows:
            losses = [v for v in row.training.get("losses") or [] if isinstance(v, int | float) and math.isfinite(v)]
            if losses:
                every, seed = row.training.get("loss_every") or 1, row.seed or 0
                found.setdefault((point.backbone, point.train, seed), {
                    "backbone": point.backbone, "train": point.train, "seed": seed, "every": every,
                    "losses": [_short(v) for v in losses],
                })  # fmt: skip
    if sum(len(own["losses"]) for own in found.values()) > MOST_LOSSES:
        first = min(seed for *_, seed in found)
        return [own for (*_, seed), own in found.items() if seed == first]
    return list(found.values())


def _short(value: float) -> float:
    """Five digits: more are nobody's, and the page must stay light."""
    return float(f"{value:.5g}")
