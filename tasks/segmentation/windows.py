"""Sliding windows over images of any size, windows of several images in one batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def starts(side: int, window: int, stride: int) -> list[int]:
    """Where windows begin along a side, as in mmseg: every `stride`, the last one moved back to end at the border.

    Example: `starts(320, 240, 160) == [0, 80]`
    """
    assert side > 0 and window > 0 and 0 < stride <= window, (side, window, stride)
    count = max(side - window + stride - 1, 0) // stride + 1
    return [max(min(i * stride + window, side) - window, 0) for i in range(count)]


def _padded(image: Tensor, window: int) -> Tensor:
    """Zeros (the mean colour, after normalisation) to the right and below where the image is smaller than a window."""
    height, width = image.shape[-2:]
    return F.pad(image, (0, max(0, window - width), 0, max(0, window - height)))


def slide(
    logits_of: Callable[[Tensor], Tensor],
    images: Sequence[Tensor],
    window: int,
    stride: int,
    chunks: Callable[[Tensor], Iterable[Tensor]] | None = None,
) -> Iterator[Tensor]:
    """Logits `[C, H, W]` of each image in turn, averaged where windows overlap.

    `logits_of` maps windows `[N, 3, window, window]` to logits `[N, C, h, w]` of any h, w, which are resized
    (bilinear) to the window. `images` are normalised floats `[3, H, W]` whose sizes may differ. `chunks` cuts a stack
    of windows into batches; None: all windows of all images in one batch. An image is yielded as soon as its last
    window is there, so only the logits of one chunk and one image are held at full resolution.

    Example: `for logits in slide(lambda x: model(x, grid), images, 480, 450): label = logits.argmax(0)`
    """
    padded = [_padded(image, window) for image in images]
    places = [
        (i, top, left)
        for i, image in enumerate(padded)
        for top in starts(image.shape[1], window, stride)
        for left in starts(image.shape[2], window, stride)
    ]
    stack = torch.stack([padded[i][:, top : top + window, left : left + window] for i, top, left in places])
    total, hits, current, done = None, None, 0, 0

    def finish() -> Tensor:
        height, width = images[current].shape[1:]
        return (total / hits)[:, :height, :width]

    for chunk in chunks(stack) if chunks is not None else (stack,):
        for small in logits_of(chunk):
            i, top, left = places[done]
            done += 1
            if total is not None and i != current:
                yield finish()
                total = None
            if total is None:
                current = i
                total = small.new_zeros(len(small), *padded[i].shape[1:], dtype=torch.float32)
                hits = total.new_zeros(padded[i].shape[1:])
            # in float32 also under autocast: sums of many windows in bfloat16 lose the digits that decide an argmax
            size = (window, window)
            total[:, top : top + window, left : left + window] += F.interpolate(
                small[None].float(), size=size, mode="bilinear", align_corners=False
            )[0]
            hits[top : top + window, left : left + window] += 1
    assert done == len(places), (done, len(places))
    yield finish()


def resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    """A normalised image `[3, H, W]` at `(height, width)`, bilinear with antialias; itself where the size is right."""
    if tuple(image.shape[1:]) == tuple(size):
        return image
    return F.interpolate(image[None], size=size, mode="bilinear", align_corners=False, antialias=True)[0]


def predict_labels(
    logits_of: Callable[[Tensor], Tensor],
    images: Sequence[Tensor],
    window: int,
    stride: int,
    sizes: Sequence[tuple[int, int]] | None = None,
    short_side: int = 0,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    chunks: Callable[[Tensor], Iterable[Tensor]] | None = None,
) -> list[Tensor]:
    """Label map uint8 `[H, W]` of each image, at `sizes` (default: the image's own).

    The image is looked at in its own size, or with its shorter side at `short_side` pixels, times each of `scales`,
    and mirrored too with `flip`. Within one look logits are averaged and resized to the label's size; several looks
    are averaged as probabilities, as mmseg and Segmenter do.

    Example: `predict_labels(lambda x: model(x, (15, 15)), images, 240, 225)[0].shape == images[0].shape[1:]`
    """
    assert scales and all(s > 0 for s in scales), scales
    looks = [(scale, mirrored) for scale in scales for mirrored in ((False, True) if flip else (False,))]
    sizes = [tuple(image.shape[1:]) for image in images] if sizes is None else [tuple(s) for s in sizes]
    sums: list[Tensor | None] = [None] * len(images)
    for scale, mirrored in looks:
        seen = []
        for image in images:
            height, width = image.shape[1:]
            factor = scale * (short_side / min(height, width) if short_side else 1.0)
            look = resized(image, (max(1, round(height * factor)), max(1, round(width * factor))))
            seen.append(look.flip(-1) if mirrored else look)
        for i, logits in enumerate(slide(logits_of, seen, window, stride, chunks)):
            logits = logits.flip(-1) if mirrored else logits
            if tuple(logits.shape[1:]) != sizes[i]:
                logits = F.interpolate(logits[None], size=sizes[i], mode="bilinear", align_corners=False)[0]
            if len(looks) == 1:
                sums[i] = logits.argmax(0).to(torch.uint8)  # at once, so that the logits of one image are held
            else:
                probabilities = logits.softmax(0)
                sums[i] = probabilities if sums[i] is None else sums[i].add_(probabilities)
    return [s if len(looks) == 1 else s.argmax(0).to(torch.uint8) for s in sums]
