"""Looking for things in pictures: by text, by an example's box, and the drawn answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tasks.contract import TaskError
from tasks.detection.boxes import corners, overlaps, pad_square, to_pixels, to_unit
from tasks.detection.model.detector import Detector
from tasks.text.towers import category_queries
from tasks.text.vectors import unit

SIMILAR = 0.8  # tokens whose box overlaps a query box by this share of the best compete to stand for it
SMALLEST = 0.5  # pixels of a side; less is no box that could be drawn
COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#808000")


class Found(NamedTuple):
    """`label` is the text (or `query`), `score` in 0-1, `box` x, y, w, h in pixels."""

    label: str
    score: float
    box: tuple[float, float, float, float]


class Finder:
    """A detector for use: embeddings of texts are kept, so a text is encoded once.

    Args: detector: in eval mode, its weights no longer changing. side: pixels of the padded square.

    Example::

        finder = Finder(detector, side=720)
        found = finder.predict(image, ["a red mug"], grid=(45, 45))      # image uint8 [3, H, W]
        again = finder.find_like(image, finder.embed_box(other, (10, 20, 64, 64), grid=45), grid=45)
    """

    def __init__(self, detector: Detector, side: int = 720, pad: float = 0.5, prompts: str = "best"):
        self.detector, self.side, self.pad, self.prompts = detector, side, pad, prompts
        self._texts: dict[str, Tensor] = {}

    def queries(self, texts: Sequence[str]) -> Tensor:
        """float32 [T, E]; only texts not met before go through the tower.

        Raises: TaskError for no texts, or one without letters.
        """
        if isinstance(texts, str) or not texts:
            raise TaskError(f"texts must be a list of at least one text, not {texts!r}")
        new = [t for t in dict.fromkeys(texts) if t not in self._texts]
        if new:
            self._texts |= dict(zip(new, category_queries(self.detector.text, new, self.prompts), strict=True))
        return torch.stack([self._texts[t] for t in texts])

    def _look(self, image: Tensor, grid: Any, queries: Tensor | None) -> Any:
        if image.ndim != 3 or image.shape[0] != 3 or image.dtype != torch.uint8:
            raise TaskError(f"image must be uint8 [3, H, W], not {image.dtype} {list(image.shape)}")
        grid = (grid, grid) if isinstance(grid, int) else tuple(grid)
        device = next(self.detector.heads.parameters()).device
        padded = pad_square(image, self.side, self.pad)[0][None].to(device)
        queries = queries.to(device) if queries is not None else None
        with torch.no_grad():
            return self.detector(padded, grid, queries, normalised=True)

    def predict(
        self, image: Tensor, texts: Sequence[str], grid: Any, threshold: float = 0.1, limit: int = 300
    ) -> list[Found]:
        """What of `texts` is in the image, best first, in pixels of the image.

        Args: threshold: 0.1 suits texts, 0.6 example boxes (with suppression of overlaps).
        """
        return self._best(self._look(image, grid, self.queries(texts)), list(texts), image, threshold, limit)

    def find_like(
        self, image: Tensor, query: Tensor, grid: Any, threshold: float = 0.6, limit: int = 300, overlap: float = 0.3
    ) -> list[Found]:
        """What looks like the embeddings `query` [E] or [K, E] (several examples of one thing are averaged).

        Boxes that overlap a better one by more than `overlap` are suppressed.
        """
        mean = unit(query.view(-1, query.shape[-1])).mean(0, keepdim=True)
        found = self._best(self._look(image, grid, unit(mean)), ["query"], image, threshold, limit)
        kept: list[Found] = []
        for one in found:
            boxes = torch.tensor([[b[0], b[1], b[0] + b[2], b[1] + b[3]] for b in (*(k.box for k in kept), one.box)])
            if not (overlaps(boxes[-1], boxes[:-1])[0] > overlap).any():
                kept.append(one)
        return kept

    def _best(self, seen: Any, labels: list[str], image: Tensor, threshold: float, limit: int) -> list[Found]:
        scores = seen.logits[0].sigmoid()
        boxes = to_pixels(seen.boxes[0], *image.shape[1:])
        # what lies in the padding is cut to nothing at the image's edge
        there = (boxes[:, 2:] > SMALLEST).all(1)
        token, label = ((scores >= threshold) & there[:, None]).nonzero(as_tuple=True)
        order = scores[token, label].argsort(descending=True, stable=True)[:limit]
        return [
            Found(labels[i], s, tuple(b))
            for i, s, b in zip(
                label[order].tolist(), scores[token, label][order].tolist(), boxes[token[order]].tolist(), strict=True
            )
        ]  # fmt: skip

    def embed_box(self, image: Tensor, box: Sequence[float], grid: Any) -> Tensor:
        """The embedding [E] that stands for the thing inside `box` (x, y, w, h in pixels).

        Of the tokens whose boxes overlap it about as well as the best, the one least like the average token: the
        background is what tokens have in common (Minderer et al. 2022). Where none overlaps, the nearest by
        generalised IoU.

        Raises: TaskError for a box that is empty or outside the image.
        """
        height, width = image.shape[1:]
        x, y, w, h = (float(v) for v in box)
        if w <= 0 or h <= 0 or x >= width or y >= height or x + w <= 0 or y + h <= 0:
            raise TaskError(f"query box {list(box)} is empty or outside the image ({width}x{height} px)")
        seen = self._look(image, grid, None)
        wanted = corners(to_unit(torch.tensor([x, y, w, h], device=seen.boxes.device), height, width))
        iou, general = overlaps(wanted, corners(seen.boxes[0]))
        # a share of a negative number would select nothing, so the fallback takes the best alone
        chosen = iou >= SIMILAR * iou.max() if iou.max() > 0 else general == general.max()
        candidates = seen.embeddings[0][chosen]
        return candidates[(candidates @ seen.embeddings[0].mean(0)).argmin()]


def draw(image: Any, found: Sequence[Found], path: str | Path | None = None) -> Any:
    """The image (uint8 [3, H, W] or a PIL picture) with boxes, a colour a label, as a PIL picture.

    Saved where a path is given.
    """
    from PIL import Image, ImageDraw

    picture = Image.fromarray(image.permute(1, 2, 0).cpu().numpy()) if isinstance(image, Tensor) else image.copy()
    pen = ImageDraw.Draw(picture)
    colour = {label: COLOURS[i % len(COLOURS)] for i, label in enumerate(dict.fromkeys(f.label for f in found))}
    for one in reversed(found):  # the best on top
        x, y, w, h = one.box
        pen.rectangle((x, y, x + w, y + h), outline=colour[one.label], width=2)
        words = f"{one.label} {one.score:.2f}"
        area = pen.textbbox((x + 2, y + 2), words)
        pen.rectangle(area, fill=colour[one.label])
        pen.text((x + 2, y + 2), words, fill="white")
    if path is not None:
        picture.save(path)
    return picture


def predict(image: Tensor, texts: Sequence[str], grid: Any, detector: Detector, side: int = 720) -> list[Found]:
    """`Finder.predict` for a single call.

    Example: `predict(image, ["a red mug", "a dog"], grid=45, detector=load_owlvit(state), side=720)`
    """
    return Finder(detector, side).predict(image, texts, grid)
