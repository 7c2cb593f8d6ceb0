"""What verdicts, retention and the best choice say, in sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.report.statistics.best import Best
from benchmarks.report.statistics.draws import Choice
from benchmarks.report.statistics.jackknife import MAX_GROUPS
from benchmarks.report.statistics.noninferiority import GridVerdict
from benchmarks.report.statistics.retention import Across, Retention
from benchmarks.report.statistics.variance import Estimate


@dataclass(frozen=True)
class Wording:
    """Names for the sentences of one table.

    Args:
        unit: of the metric as it is shown: "%" or "m"; differences of per cent are points.
        scale: what values are multiplied with to be shown, 100 for per cent.
        samples: how many there are, and what they are called ("pictures").
        units: how many independent units there are, where samples come in `clusters` ("blocks of 10 frames"); "" where
            each sample stands for itself.
        drawn: what independent units are called ("pictures with all their captions"); "" as `noun` or `clusters`.
        chance: of the metric, None where it is not known.
        digits: decimals of a value.
    """

    unit: str = "%"
    scale: float = 100.0
    samples: int = 0
    noun: str = "pictures"
    units: int = 0
    clusters: str = ""
    drawn: str = ""
    chance: float | None = None
    digits: int = 1

    @property
    def points(self) -> str:
        return "points" if self.unit == "%" else self.unit

    def size(self) -> str:
        """`5,000 pictures`, `701 frames in 23 blocks`."""
        text = f"{self.samples:,} {self.noun}"
        return f"{text} in {self.units:,} {self.clusters}" if self.clusters else text

    def unit_line(self) -> str:
        """What stays together when intervals are made.

        Example: `Wording(samples=233, units=25, clusters="blocks of 10 frames").unit_line()` is `The unit of the
        intervals: one of 25 blocks of 10 frames (233 pictures), left out as a whole.`
        """
        count = self.units if self.clusters else self.samples
        named = self.drawn or self.clusters or self.noun
        whole = f" ({self.samples:,} {self.noun}), left out as a whole" if self.clusters else ""
        dealt = f"; they are left out in {MAX_GROUPS} groups, dealt at random" if count > MAX_GROUPS else ""
        return f"The unit of the intervals: one of {count:,} {named}{whole}{dealt}."

    def value(self, value: float) -> str:
        """`55.0 %`."""
        return f"{self.scale * value:.{self.digits}f} {self.unit}".strip()


def sentence(verdict: GridVerdict, flexible: str, fixed: str, words: Wording, named: bool = True) -> str:
    """What is known at one grid.

    Args:
        named: False where a sentence before has named both models.

    Example: `sentence(verdict, "flexivit_nano", "vit_nano_g8", Wording(samples=5000))`
    """
    grid, shown = verdict.grid, Shown(verdict, words)
    pair = f"{flexible} may replace {fixed}" if named else "it may"
    if verdict.verdict == "empty":
        who = f"neither {flexible} nor {fixed}" if named else "neither"
        chance = "" if words.chance is None else f" ({words.value(words.chance)})"
        return f"At grid {grid} {who} is above chance{chance}: nothing is compared."
    if verdict.verdict == "yes":
        ahead = ", and is better" if verdict.ahead else ""
        text = f"At grid {grid} {pair}{ahead}: {shown.difference(True)}, margin {shown.margin} ({shown.basis})."
    elif verdict.verdict == "no":
        pair = f"{flexible} may not replace {fixed}" if named else "it may not"
        below = shown.down(verdict.no_below)
        text = f"At grid {grid} {pair}: {shown.difference(named)}. It would fail any margin below {below}."
    else:
        who = f" whether {pair}" if named else ""
        text = f"Undecided at grid {grid}{who}: {shown.difference(named)}. {_remedy(verdict, shown, words)}"
    return f"{text} {_caveat(verdict, shown, words)}".strip()


def digits_of(size: float, words: Wording) -> int:
    """Decimal places that show a number as small as `size`, in the unit of the metric.

    Example: `digits_of(0.0004, Wording())` is 3
    """
    shown = words.scale * size or 1.0
    return min(9, max(1 if words.unit == "%" else 0, 1 - math.floor(math.log10(2 * shown))))


def signed(value: float, words: Wording, digits: int) -> str:
    """`+0.8`; nothing is negative that is 0 as it is shown.

    Example: `signed(-0.0001, Wording(), 1)` is "+0.0"
    """
    text = f"{words.scale * value:+.{digits}f}"
    return text if float(text) else text.replace("-", "+")


class Shown:
    """Numbers of a verdict as text, all with the digits that its margin needs; limits are rounded to the safe side."""

    def __init__(self, verdict: GridVerdict, words: Wording):
        self.verdict, self.words = verdict, words
        margin = words.scale * verdict.margin
        self.digits = digits_of(verdict.margin or verdict.difference.se, words)
        self.margin = f"{margin:.{self.digits}f}".rstrip("0").rstrip(".") or "0"

    def signed(self, value: float) -> str:
        return signed(value, self.words, self.digits)

    def difference(self, unit: bool = True) -> str:
        low, high = self.verdict.interval
        points = f" {self.words.points}" if unit and self.words.points else ""
        return f"{self.signed(self.verdict.difference.value)}{points} [{self.signed(low)}, {self.signed(high)}]"

    def up(self, value: float) -> str:
        step = 10**self.digits
        return f"{math.ceil(self.words.scale * value * step - 1e-9) / step:.{self.digits}f}"

    def down(self, value: float) -> str:
        step = 10**self.digits
        return f"{math.floor(self.words.scale * value * step + 1e-9) / step:.{self.digits}f}"

    @property
    def basis(self) -> str:
        """`3 seeds each, 5,000 pictures; Holm over 7 grids`."""
        parts, grids = self.verdict.difference.parts, self.verdict.grids
        counts = sorted(set(parts.counts))
        trained = self.verdict.difference.retrainable
        if not trained:
            runs = "nothing is trained"
        elif len(counts) == 1:
            runs = f"{counts[0]} seeds each" if counts[0] > 1 else "one training run each"
        else:
            runs = f"{parts.counts[0]} and {parts.counts[1]} seeds"
        corrected = f"Holm over {grids} grids" if grids > 1 else "one grid"
        return f"{runs}, {self.words.size()}; {corrected}"


def _remedy(verdict: GridVerdict, shown: Shown, words: Wording) -> str:
    could, found = shown.up(verdict.decidable), shown.up(verdict.yes_from)
    text = f"These data could decide a margin of {could}; this result would be yes from {found}."
    if verdict.difference.scope == "weights":
        return text
    if verdict.decidable <= verdict.margin:
        return f"{text} The difference lies about at the margin of {shown.margin}."
    share = round(100 * verdict.difference.seed_share)
    remedies = []
    if verdict.needs_seeds is not None:
        remedies.append(f"{verdict.needs_seeds:,} seeds")
    if verdict.needs_samples is not None:
        remedies.append(f"{rounded_up(verdict.needs_samples):,} {words.clusters or words.noun}")
    would = (
        f"{' or '.join(remedies)} would do" if remedies else f"neither more seeds nor more {words.noun} alone would do"
    )
    return f"{text} {share} % of the uncertainty is training noise: for a margin of {shown.margin} {would}."


def _caveat(verdict: GridVerdict, shown: Shown, words: Wording) -> str:
    if verdict.difference.hollow:
        text = "One training run each: this judges these two files, not the backbones."
        if verdict.verdict in ("yes", "no") and verdict.falls_at is not None:
            text += f" It falls if seeds differ by more than {shown.down(verdict.falls_at)} {words.points} (sd)."
        return text
    if verdict.difference.borrowed:
        return "One of them was trained once: its training noise is taken to be that of the other."
    return ""


def rounded_up(number: int) -> int:
    """To two leading digits."""
    step = 10 ** max(0, len(str(number)) - 2)
    return -(-number // step) * step


def retention_sentence(found: Retention, flexible: str, train: str = "-") -> str:
    """`One set of weights (flexivit_nano, trained at 8) keeps 96 % [92, 100] of what the specialists reach above
    chance, at grids 8 and 15.` `train` is "-" where nothing is trained."""
    trained = "" if train == "-" else f", trained at {train}"
    low, high = found.estimate.interval()
    numbers = f"{100 * found.estimate.value:.0f} % [{100 * low:.0f}, {100 * high:.0f}]"
    hollow = " One training run each." if found.estimate.hollow else ""
    return (
        f"One set of weights ({flexible}{trained}) keeps {numbers} of what the specialists reach above chance, "
        f"at {grids_text(found.grids)}.{hollow}"
    )


def penalty_sentence(
    found: Mapping[str, Estimate], neighbours: Mapping[str, tuple[str, str]], backbone: str, train: str, words: Wording
) -> str:
    """What a model loses at grids that it was never trained at, each against a line between its trained neighbours."""
    parts = []
    for grid, own in found.items():
        low, high = (f"{words.scale * end:+.{words.digits}f}" for end in own.interval())
        between = " and ".join(neighbours[grid])
        parts.append(f"{words.scale * own.value:+.{words.digits}f} [{low}, {high}] at grid {grid} (between {between})")
    unit = f", in {words.points}" if words.points else ""
    hollow = " One training run each." if any(own.hollow for own in found.values()) else ""
    return (
        f"At grids that it was never trained at, {backbone}, trained at {train}, loses against a line between the "
        f"trained ones{unit}: {'; '.join(parts)}.{hollow}"
    )


def across_sentence(found: Across, flexible: str, trained: Sequence[str], tasks: int, worst: str) -> str:
    """The geometric mean over the tasks of a table, and the worst of them.

    Args: trained: grids or schedules of the trainings that are counted; empty where nothing is trained.
    """
    which = f", trained at {and_joined(trained)}," if trained else ""
    mean, low, high = (f"{100 * share:.0f}" for share in (found.mean, found.low, found.high))
    return (
        f"Over {tasks} tasks {flexible}{which} keeps {mean} % [{low}, {high}] of the specialists (geometric mean); "
        f"least on {worst}: {100 * found.worst:.0f} %."
    )


def best_sentence(found: Best, choices: Sequence[Choice], margin: float, words: Wording) -> str:
    """The measured best with its value on another half, how many others could be best, and the sure and cheap one."""
    best, others = choices[found.measured], len(found.could_be) - 1
    could = "no other" if not others else f"{others} other{'s' if others > 1 else ''}"
    shown = f"{words.scale * margin:.2g} {words.points if words.scale * margin != 1 or words.unit != '%' else 'point'}"
    sure = "none can be shown" if found.cheapest is None else choices[found.cheapest].name
    return (
        f"Measured best: {best.name}, {words.value(best.value)} (chosen and measured on different halves: "
        f"{words.value(found.halved)}); {could} could be best. Surely within {shown} and cheapest: {sure}."
    )


def footer(comparisons: int) -> str:
    """What the intervals and verdicts of a table are."""
    over = f", not over the {comparisons} comparisons of this table" if comparisons > 1 else ""
    return f"95 % intervals per grid; verdicts corrected within a comparison{over}."


def grids_text(grids: Sequence[str]) -> str:
    """`grid 8`, `grids 8 and 15`, `grids 4, 8 and 15`."""
    return f"grid{'s' if len(grids) > 1 else ''} {and_joined(grids)}"


def and_joined(parts: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return "".join(parts) if len(parts) < 2 else f"{', '.join(parts[:-1])} and {parts[-1]}"
