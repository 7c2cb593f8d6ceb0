"""Answers as data: what `verdicts.json` holds."""

from __future__ import annotations

import math
from typing import Any

from benchmarks.report.answers.answer import Answer
from benchmarks.report.answers.comparisons import ModelComparison
from benchmarks.report.answers.pairwise import Pairwise
from benchmarks.report.statistics.noninferiority import GridVerdict


def as_json(answer: Answer) -> dict[str, Any]:
    """Verdicts, retention, best choices and front of a table; metrics in their own unit, fractions for per cent.

    Example: `as_json(answers(entries([store]))[0])["comparisons"][0]["verdicts"]`
    """
    task, data, protocol, split, metric = answer.group
    best = answer.best
    return {
        "task": task, "data": data, "protocol": protocol, "split": split, "metric": metric,
        "unit": answer.words.unit, "scale": answer.words.scale, "higher_is_better": answer.rules.higher,
        "chance": answer.words.chance, "margin": answer.rules.margin, "share": answer.rules.share,
        "alpha": answer.rules.alpha, "samples": answer.words.samples, "independent": answer.words.units or None,
        "independent_units": answer.words.drawn or None,
        "comparisons": [_comparison(c) for c in answer.comparisons],
        "retention": [
            {
                "flexible": k.flexible, "train": k.train, "value": k.retention.estimate.value,
                "interval": list(k.retention.estimate.interval()), "se": k.retention.estimate.se,
                "df": k.retention.estimate.df, "scope": k.retention.estimate.scope, "specialists": dict(k.specialists),
                "weights": dict(zip(k.retention.grids, k.retention.weights, strict=True)),
                "gaps": dict(zip(k.retention.grids, k.retention.gaps, strict=True)),
            }
            for k in answer.kept
        ],
        "penalties": [
            {
                "backbone": p.backbone, "train": p.train, "grid": grid, "between": list(p.neighbours[grid]),
                "value": own.value, "interval": list(own.interval()), "se": own.se, "df": own.df, "scope": own.scope,
            }
            for p in answer.penalties for grid, own in p.grids.items()
        ],
        "one_index": [own.as_json() for own in answer.indexes],
        "views": [own.as_json() for own in answer.views],
        "choices": [
            {
                "backbone": p.backbone, "train": p.train, "grid": p.grid, "value": p.quality, "macs": p.macs,
                "front": share, "could_be_best": best is not None and i in best.could_be,
            }
            for i, (p, share) in enumerate(zip(answer.choices, answer.front, strict=True))
        ],
        "best": best and {
            "measured": answer.choices[best.measured].name, "value_on_other_halves": best.halved,
            "surely_within": answer.allowance,
            "cheapest": None if best.cheapest is None else answer.choices[best.cheapest].name,
        },
    }  # fmt: skip


def _comparison(compared: ModelComparison) -> dict[str, Any]:
    return {
        "flexible": compared.flexible, "fixed": compared.fixed, "train": compared.train,
        "fixed_train": compared.fixed_train, "view": compared.view, "answering": compared.answering,
        "everywhere": compared.comparison.everywhere, "unknown": dict(compared.unknown),
        "verdicts": [verdict_json(v) for v in compared.comparison.verdicts],
    }  # fmt: skip


def verdict_json(v: GridVerdict) -> dict[str, Any]:
    """One verdict with everything it rests on."""
    low, high = v.interval
    return {
        "grid": v.grid, "verdict": v.verdict, "ahead": v.ahead, "scope": v.difference.scope,
        "hollow": v.difference.hollow, "a": v.a, "b": v.b, "difference": v.difference.value, "low": low, "high": high,
        "se": v.difference.se, "df": v.difference.df, "margin": v.margin, "t": v.t if math.isfinite(v.t) else None,
        "p": v.p, "p_holm": v.p_holm, "level": v.level, "uncorrected": v.uncorrected, "yes_from": v.yes_from,
        "no_below": v.no_below, "decidable": v.decidable, "seed_share": v.difference.seed_share,
        "needs_seeds": v.needs_seeds, "needs_samples": v.needs_samples, "falls_at": v.falls_at,
        "seeds": list(v.difference.parts.counts), "borrowed": v.difference.borrowed,
    }  # fmt: skip


def pairwise_json(pair: Pairwise) -> dict[str, Any]:
    """A comparison that was asked for, with the table it is of and its sentences."""
    task, data, protocol, split, metric = pair.group
    table = {"task": task, "data": data, "protocol": protocol, "split": split, "metric": metric}
    return {**table, **_comparison(pair.compared), "sentences": pair.lines()}
