"""Revisited Oxford and Paris: buildings found among thousands of pictures, mAP easy, medium and hard."""

from __future__ import annotations

import difflib
import hashlib
import io
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from tasks.contract import Batch, Grid, Options, Recipe, Task, TaskCard, TaskError, option, without_gradients
from tasks.contract.task import sums_of_mean
from tasks.data.pictures import read_rgb
from tasks.protocols import protocol

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tasks.retrieval.images.landmark_meter import LandmarkMeter

SOURCE = "http://cmp.felk.cvut.cz/revisitop (gnd_NAME.pkl) and the pictures of Oxford5k and Paris6k in NAME/jpg"
SETS = ("roxford5k", "rparis6k")
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
    answers: list[Mapping[str, Any]]


def read_truth(path: Path) -> Truth:
    """`gnd_*.pkl` of the revisited benchmark.

    Raises: TaskError for a file that is missing, of another form, or would run code.

    Example: `len(read_truth(Path("data/roxford5k/gnd_roxford5k.pkl")).queries) == 70`
    """
    if not path.is_file():
        raise TaskError(f"no {path}; get it from {SOURCE}")
    try:
        found = _Plain(io.BytesIO(path.read_bytes())).load()
        answers = [{k: np.asarray(g[k]).ravel() for k in ("bbx", "easy", "hard", "junk")} for g in found["gnd"]]
        truth = Truth([str(n) for n in found["qimlist"]], [str(n) for n in found["imlist"]], answers)
    except (pickle.UnpicklingError, EOFError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise TaskError(f"{path} is no truth of the revisited benchmark: {error}") from error
    if len(truth.queries) != len(answers) or any(len(a["bbx"]) != 4 for a in answers):
        counts = f"{len(truth.queries)} queries, {len(answers)} answers"
        raise TaskError(f"{path}: {counts}, or a box that is not four numbers")
    return truth


class LandmarkPictures:
    """`dataset[i] -> (image uint8 [3, S, S], i)`; queries are cut to their box, as the benchmark demands."""

    def __init__(self, folder: Path, names: list[str], boxes: list[np.ndarray] | None, side: int):
        self.folder, self.names, self.boxes, self.side = folder, names, boxes, side

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        from tasks.data.decoding import squeezed

        image = Image.fromarray(read_rgb(self.folder / f"{self.names[i]}.jpg"))
        if self.boxes is not None:
            image = image.crop(tuple(float(v) for v in self.boxes[i]))
        return squeezed(image, self.side), i


class Landmarks(Task):
    """Queries cut out of pictures against a gallery, by the backbone alone.

    Example::

        task = build_task("landmark_retrieval", root="data", options={"data": "roxford5k"})
        model = task.model(build_backbone("flexivit_b_i21k_300ep"))
    """

    @dataclass(frozen=True)
    class Options(Options):
        data: str = option("roxford5k", "train", "roxford5k or rparis6k")
        image_size: int = option(480, "train", "pixels per side; pictures are squeezed to a square")
        pooling: str = option("pooled", "train", "pooled (the backbone's own) or mean (of patch tokens)")

    recipe = Recipe(steps=0)

    def __init__(self, root: str | Path = ".", options: Mapping[str, Any] | None = None, seed: int = 0):
        super().__init__(root, options, seed)
        name = self.options.data
        if name not in SETS:
            near = difflib.get_close_matches(name, SETS, 2, 0.3) or sorted(SETS)
            raise TaskError(f"no landmarks {name!r}; nearest: {', '.join(near)}")
        self.card = TaskCard(
            "landmark_retrieval", protocol("retrieval").version("landmark_retrieval"),
            metrics=("mAP_medium", "mAP_hard", "mAP_easy"),
            image_size=self.options.image_size, splits={"test": None},
            sources={name: SOURCE}, citation="Radenovic et al., CVPR 2018, arXiv:1803.11285",
        )  # fmt: skip
        self.folder = self.root / name
        self._truth: Truth | None = None

    @property
    def truth(self) -> Truth:
        if self._truth is None:
            self._truth = read_truth(self.folder / f"gnd_{self.options.data}.pkl")
        return self._truth

    def missing(self) -> list[str]:
        try:
            truth = self.truth
        except TaskError as error:
            return [str(error)]
        names = dict.fromkeys([*truth.queries, *truth.gallery])
        absent = [n for n in names if not (self.folder / "jpg" / f"{n}.jpg").is_file()]
        if not absent:
            return []
        return [f"{len(absent)} pictures are not in {self.folder / 'jpg'}, the first is {absent[0]}.jpg"]

    def fingerprint(self, split: str) -> str:
        return hashlib.sha256(repr(self.truth).encode()).hexdigest()[:16]

    def parts(self, split: str) -> tuple[str, ...]:
        return ("gallery", split)

    def dataset(self, split: str) -> LandmarkPictures:
        if split not in ("gallery", "test"):
            raise TaskError(f"no split {split!r}; there are: gallery, test")
        truth, folder, side = self.truth, self.folder / "jpg", self.options.image_size
        if split == "gallery":
            return LandmarkPictures(folder, truth.gallery, None, side)
        return LandmarkPictures(folder, truth.queries, [a["bbx"] for a in truth.answers], side)

    def model(self, backbone: nn.Module) -> nn.Module:
        from tasks.retrieval.embedder import Embedder

        return Embedder(backbone, self.options.pooling)

    def loss(self, model: nn.Module, batch: Batch, grid: Grid) -> dict[str, Any]:
        raise TaskError("landmark_retrieval trains nothing; its recipe has 0 steps")

    @without_gradients
    def predict(self, model: nn.Module, batch: Batch, grid: Grid, prepared: Any) -> dict[str, Tensor]:
        """`vector` float32 [B, D]."""
        return {"vector": model(batch.images, grid, batch.features)}

    def meter(self, split: str) -> LandmarkMeter:
        from tasks.retrieval.images.landmark_meter import LandmarkMeter

        return LandmarkMeter(self.truth.answers, split)

    def sums(self, samples: Mapping[str, Any]) -> tuple[Any, Callable[[Any], Any]]:
        """Queries are drawn; the gallery stays whole."""
        return sums_of_mean(samples["mAP_medium"].astype("float64"))
