"""The matrix of answers: a line for each table and flexible model, a column for each fixed model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.report.answers.answer import AWAY, Answer
from benchmarks.report.answers.comparisons import ModelComparison
from benchmarks.report.answers.questions import title
from benchmarks.report.statistics.retention import retain_across
from benchmarks.report.statistics.sentences import Shown, across_sentence, and_joined

MARKS = {"yes": "✓", "no": "✗", "undecided": "?", "empty": "∅", "": "-"}


@dataclass(frozen=True)
class Cell:
    """The answer of one flexible model for one fixed model on one table.

    Args:
        verdict: yes, no, undecided, empty, or "" where there is none.
        text: grid and difference, `grid 8: +0.3 [-0.5, +1.1]`.
        hollow: one training run each: it judges files, and is no solid yes.
    """

    verdict: str = ""
    text: str = ""
    hollow: bool = False
    ahead: bool = False

    @property
    def mark(self) -> str:
        return MARKS[self.verdict]

    @property
    def label(self) -> str:
        """For readers that see no colour and no shape."""
        words = {"yes": "yes, and better" if self.ahead else "yes", "": "no comparison"}
        return f"{words.get(self.verdict, self.verdict)}{' (one training run each)' if self.hollow else ''}"


@dataclass(frozen=True)
class Line:
    """Table, flexible model, and a cell for each column of the matrix."""

    title: str
    flexible: str
    cells: tuple[Cell, ...]


def matrix(answers: Sequence[Answer]) -> tuple[list[str], list[Line]]:
    """Names of the fixed models, and the lines; without those of tables that compare nothing.

    Example: `columns, lines = matrix(answers(entries([store])))`
    """
    columns = list(dict.fromkeys(c.fixed for one in answers for c in one.answering()))
    lines = []
    for one in answers:
        for flexible in dict.fromkeys(c.flexible for c in one.answering()):
            own = {c.fixed: c for c in one.answering() if c.flexible == flexible}
            cells = tuple(_cell(one, own[name]) if name in own else Cell() for name in columns)
            lines.append(Line(title(one.group), flexible, cells))
    return columns, lines


def _cell(one: Answer, compared: ModelComparison) -> Cell:
    verdict = compared.answer
    if verdict is None:
        return Cell()
    text = f"grid {verdict.grid}"
    if verdict.verdict != "empty":
        text += f": {Shown(verdict, one.words).difference(unit=False)}"
    return Cell(verdict.verdict, text, verdict.difference.hollow, verdict.ahead)


def tally(answers: Sequence[Answer]) -> dict[str, dict[str, int]]:
    """For each flexible model how many of its answers are yes, no and so on; a hollow yes counts as "yes, hollow".

    Example: `tally(found)["flexivit_nano"]["yes"]`
    """
    found: dict[str, dict[str, int]] = {}
    for one in answers:
        for compared in one.answering():
            verdict = compared.answer
            if verdict is not None:
                name = f"{verdict.verdict}, hollow" if verdict.difference.hollow else verdict.verdict
                own = found.setdefault(compared.flexible, {})
                own[name] = own.get(name, 0) + 1
    return found


def headline(answers: Sequence[Answer]) -> str:
    """The answer in one sentence. A hollow yes is no yes: it judges files.

    Example: `headline(answers(entries([store])))`
    """
    counts = tally(answers)
    if not counts and any(one.comparisons for one in answers):
        return AWAY
    if not counts:
        return "No flexible model stands beside a fixed one that was trained and evaluated alike: nothing is answered."
    if len(counts) == 1:
        ((name, own),) = counts.items()
        return _in_short(name, own)
    everywhere = [name for name, own in counts.items() if own.get("yes", 0) == sum(own.values())]
    if everywhere:
        return f"Yes for {and_joined(everywhere)}: each may replace every fixed model that it stands beside here."
    some = [name for name, own in counts.items() if own.get("yes", 0)]
    if some:
        return f"In part: {len(some)} of {len(counts)} flexible models may replace some fixed models, none all of them."
    whole: dict[str, int] = {}
    for own in counts.values():
        for word, number in own.items():
            whole[word] = whole.get(word, 0) + number
    return _in_short(f"any of {len(counts)} flexible models", whole)


def _in_short(name: str, counts: dict[str, int]) -> str:
    total, yes = sum(counts.values()), counts.get("yes", 0)
    files = counts.get("yes, hollow", 0)
    kinds = {word: counts.get(word, 0) + counts.get(f"{word}, hollow", 0) for word in ("no", "undecided", "empty")}
    kinds["yes of two files alone"] = files
    others = and_joined([f"{number} {word}" for word, number in kinds.items() if number])
    if yes == total:
        return f"Yes: {name} may replace every fixed model that it stands beside here ({total} of {_answers(total)})."
    if yes:
        return f"In part: {name} may replace the fixed model in {yes} of {_answers(total)}; {others}."
    if kinds["no"] == total:
        return f"No: in none of {_answers(total)} may {name} replace the fixed model."
    also = " (one training run each: it takes several to speak of backbones)" if files else ""
    return f"Not shown that {name} may replace a fixed model: of {_answers(total)} {others}{also}."


def _answers(number: int) -> str:
    return f"{number} answer{'s' if number != 1 else ''}"


def overall(answers: Sequence[Answer]) -> list[str]:
    """Over all tables, for each flexible model: how many answers are yes, and what it keeps of the specialists.

    Where a table has several trainings of a model, the first of the suite stands for it. A hollow yes is no yes.

    Example: `print("\n".join(overall(answers(entries([store])))))`
    """
    lines = []
    for flexible, counts in tally(answers).items():
        total = sum(counts.values())
        others = ", ".join(f"{n} {word}" for word, n in counts.items() if word != "yes")
        rest = f" ({others})" if others else ""
        lines.append(f"{flexible}: yes on {counts.get('yes', 0)} of {_answers(total)}{rest}.")
        every = [(title(one.group), k) for one in answers for k in one.kept if k.flexible == flexible]
        every = [(name, k) for name, k in every if k.retention.estimate.value > 0]
        first = dict(reversed(every))
        kept = {name: first[name].retention.estimate for name in dict.fromkeys(name for name, _ in every)}
        if len(kept) > 1:
            found = retain_across([(e.value, e.se, e.df) for e in kept.values()])
            worst = min(kept, key=lambda name: kept[name].value)
            trained = [first[name].train for name in kept if first[name].train != "-"]
            text = across_sentence(found, flexible, list(dict.fromkeys(trained)), len(kept), worst)
            others = " Its other trainings are not counted." if len(every) > len(kept) else ""
            hollow = " One training run each in some of them." if any(e.hollow for e in kept.values()) else ""
            lines.append(f"{text}{others}{hollow}")
    return lines
