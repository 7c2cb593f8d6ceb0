"""Revisited Oxford and Paris: queries cut out of pictures, a gallery, and which of it is right."""

from __future__ import annotations

import functools
import io
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tasks.data.cards import Form, SetCard, find_card
from tasks.data.errors import DataError, Missing, Wrong, as_one_line
from tasks.data.readers.files import pictures_in
from tasks.data.splits import Sought

KIND = "landmarks"
GRADES = ("easy", "hard", "junk")
_ALLOWED = {("numpy", "dtype"), ("numpy", "ndarray"), ("numpy.core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "_reconstruct"), ("numpy.core.multiarray", "scalar"),
            ("numpy._core.multiarray", "scalar")}  # fmt: skip


class _Plain(pickle.Unpickler):
    """The truth comes as a pickle; lists, numbers and arrays are read, anything that could run code is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is no data")
        return super().find_class(module, name)


@dataclass(frozen=True)
class Truth:
    """Names of pictures without suffix; for each query its box (x1, y1, x2, y2) and the gallery rows that are right."""

    queries: list[str]
    gallery: list[str]
    answers: Sequence[Mapping[str, np.ndarray]]


def read_truth(path: Path, advice: str = "") -> Truth:
    """`gnd_*.pkl` of the revisited benchmark.

    Raises: Missing for no file. Wrong for one of another form, or that would run code.

    Example: `len(read_truth(Path("data/roxford5k/gnd_roxford5k.pkl")).queries) == 70`
    """
    if not path.is_file():
        raise Missing("no such file", path=path, advice=advice)
    try:
        content = _Plain(io.BytesIO(path.read_bytes())).load()
        answers = [{k: np.asarray(g[k]).ravel() for k in ("bbx", *GRADES)} for g in content["gnd"]]
        truth = Truth([str(n) for n in content["qimlist"]], [str(n) for n in content["imlist"]], answers)
    except MemoryError:
        raise
    except Exception as error:  # a damaged pickle raises what it likes
        raise Wrong(f"is no truth of the revisited benchmark: {as_one_line(error)}", path=path) from error
    if len(truth.queries) != len(answers):
        raise Wrong(f"has {len(truth.queries)} queries and {len(answers)} answers", path=path)
    for i, answer in enumerate(answers):
        box = answer["bbx"]
        if box.shape != (4,) or box.dtype.kind not in "fiu" or not np.isfinite(box).all():
            raise Wrong("must be four finite numbers", path=path, place=f"query {i}", field="bbx")
        for grade in GRADES:
            rows = answer[grade]
            if len(rows) and (rows.dtype.kind not in "iu" or rows.min() < 0 or rows.max() >= len(truth.gallery)):
                said = f"must be rows of the gallery, 0 to {len(truth.gallery) - 1}"
                raise Wrong(said, path=path, place=f"query {i}", field=grade)
    return truth


@dataclass(frozen=True)
class LandmarkSet:
    """A set under a data root; nothing is read before it is asked for."""

    name: str
    root: Path
    card: SetCard
    form: Form

    @property
    def splits(self) -> tuple[str, ...]:
        return ("test", "gallery")

    @functools.cached_property
    def truth(self) -> Truth:
        """Raises: Missing or Wrong, as `read_truth`."""
        return read_truth(self.root / self.form.files, self.card.get_it)

    def load(self, split: str) -> Sought:
        """Queries with their boxes (`test`), or the `gallery`. Raises: Missing or Wrong."""
        if split not in self.splits:
            raise Wrong(f"has no split {split!r}; it has: {', '.join(self.splits)}", place=f"data {self.name!r}")
        truth, folder = self.truth, self.root / self.form.images
        names = truth.queries if split == "test" else truth.gallery
        expected = self.form.splits[split].pictures
        if expected is not None and len(names) != expected:
            said = f"split {split!r} of {self.name} has {len(names):,} images, it must have {expected:,}"
            raise Wrong(said, path=self.root / self.form.files, advice=self.card.get_it)
        files = [f"{name}.jpg" for name in names]
        pictures = pictures_in(folder, files, advice=self.card.get_it, path=self.root / self.form.files)
        return Sought(names, pictures, answers=truth.answers if split == "test" else [])

    whole = load

    def problems(self, splits: tuple[str, ...]) -> list[DataError]:
        """What is missing or wrong of queries and gallery, one error each at most; reads no pictures."""
        found: list[DataError] = []
        for split in self.splits:
            try:
                self.load(split)
            except DataError as error:
                if str(error) not in map(str, found):
                    found.append(error)
        return found


def landmark_set(name: str, root: str | Path) -> LandmarkSet:
    """The set behind a name.

    Raises: Wrong naming the nearest known sets.

    Example: `landmark_set("roxford5k", "data").splits == ("test", "gallery")`
    """
    card = find_card(name, KIND, root)
    return LandmarkSet(name, Path(root), card, card.form(KIND))
