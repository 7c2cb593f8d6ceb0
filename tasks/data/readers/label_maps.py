"""Label maps: masks of 8 bits, in palettes or in colours, and what their values mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tasks.data.errors import Missing, Wrong
from tasks.data.pictures import read_picture

IGNORE = 255  # the label of pixels that do not count, in every label map inside this package
_ONE_BYTE = ("L", "P", "1")  # modes whose pixels are small integers; palette images are read by index
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Labels:
    """What the values of a set's masks mean.

    `values`: stored value -> class 0..C-1 or 255 (ignored), where it is not the class itself; values that it does not
    name are out of range, unless `others_ignored`. `palette`: colour -> class, for masks that are drawn in colours.
    """

    names: tuple[str, ...]
    ignore: int = IGNORE
    reduce_zero: bool = False
    values: Mapping[int, int] = field(default_factory=dict)
    palette: Mapping[Colour, int] = field(default_factory=dict)
    others_ignored: bool = False

    def table(self) -> np.ndarray:
        """int16 [256]: class of each stored value, 255 for ignored ones, -1 for those that are out of range."""
        table = np.full(256, IGNORE if self.others_ignored else -1, np.int16)
        if self.values:
            table[self.ignore] = IGNORE
            table[list(self.values)] = list(self.values.values())
        elif self.reduce_zero:
            table[1 : len(self.names) + 1] = np.arange(len(self.names))
            table[[0, 255]] = IGNORE
            if 0 <= self.ignore < 255:  # looked for after the reduction, as in mmseg
                table[self.ignore + 1] = IGNORE
        else:
            table[: len(self.names)] = np.arange(len(self.names))
            if 0 <= self.ignore < 256:
                table[self.ignore] = IGNORE
        return table

    def classes(self, content: bytes | Path, name: str) -> np.ndarray:
        """uint8 [H, W]: classes 0..C-1 and 255 out of an encoded mask.

        Raises: Wrong naming the mask and the value or colour that means nothing.
        """
        if self.palette:
            return _by_colour(content, name, self.palette, self.ignore)
        return _mapped(read_label_map(content, name), self.table(), name, self._allowed())

    def _allowed(self) -> str:
        if self.values:
            return f"one of {', '.join(map(str, sorted(self.values)[:9]))}, or {self.ignore} (ignored)"
        first, last = (1, len(self.names)) if self.reduce_zero else (0, len(self.names) - 1)
        return f"{first}..{last} or {'0' if self.reduce_zero else self.ignore} (ignored)"


def read_label_map(content: bytes | str | Path, name: str = "label map") -> np.ndarray:
    """Values of a label map, uint8 `[H, W]`, as stored: palette PNGs give their indices, not their colours.

    Raises: Missing for a file that is not there. Wrong for one that is unreadable, 16-bit or in colour.

    Example: `read_label_map("annotations/validation/2007_000175.png")`
    """
    where = {"place": name} if isinstance(content, bytes) else {"path": content}
    if not isinstance(content, bytes) and not Path(content).is_file():
        raise Missing("no such label map", path=content)
    image = read_picture(content, name)
    if image.format in ("JPEG", "MPO"):
        raise Wrong("is JPEG, which does not keep values: a label map is a PNG", **where)
    if image.mode not in _ONE_BYTE:
        kind = "16-bit" if image.mode.startswith("I") else f"mode {image.mode}"
        advice = "" if image.mode not in ("RGB", "RGBA") else "colours are mapped to classes by `palette` in meta.json"
        raise Wrong(
            f"is a {kind} image; label maps have 8 bits, in one channel or with a palette", advice=advice, **where
        )
    return np.array(image).astype(np.uint8, copy=False)


def to_classes(
    values: np.ndarray, num_classes: int, ignore_index: int = IGNORE, reduce_zero_label: bool = False, path: object = ""
) -> np.ndarray:
    """Stored values to classes 0..C-1 and 255 (ignored), uint8 `[H, W]`.

    With `reduce_zero_label` 0 is ignored and k becomes k-1 (ADE20k); `ignore_index` is then looked for after that, as
    in mmseg, and 255 stays ignored too.

    Raises: Wrong naming the file and the value that is out of range.

    Example: `to_classes(np.array([[0, 1, 150]]), 150, reduce_zero_label=True)` -> `[[255, 0, 149]]`
    """
    labels = Labels(tuple(map(str, range(num_classes))), ignore_index, reduce_zero_label)
    return _mapped(values, labels.table(), str(path), labels._allowed())


def _mapped(values: np.ndarray, table: np.ndarray, name: str, allowed: str) -> np.ndarray:
    found = np.bincount(values.reshape(-1), minlength=256) > 0
    bad = np.flatnonzero(found & (table < 0))
    if len(bad):
        raise Wrong(f"label {bad[0]} is out of range; labels are {allowed}", place=name)
    return table.astype(np.uint8)[values]


def _by_colour(content: bytes | Path, name: str, palette: Mapping[Colour, int], ignore: int) -> np.ndarray:
    image = read_picture(content, name)
    if image.mode not in ("RGB", "RGBA", "P"):
        raise Wrong(f"is a mode {image.mode} image; `palette` in meta.json is for masks in colours", place=name)
    colours = np.asarray(image.convert("RGB")).astype(np.int32)
    codes = colours[..., 0] << 16 | colours[..., 1] << 8 | colours[..., 2]
    known = np.array([r << 16 | g << 8 | b for r, g, b in palette], np.int32)
    order = np.argsort(known)
    index = np.searchsorted(known[order], codes).clip(max=len(known) - 1)
    wrong = known[order][index] != codes
    if wrong.any():
        colour = tuple(int(v) for v in colours[wrong][0])
        raise Wrong(f"colour {colour} is not in the palette of meta.json", place=name)
    return np.array(list(palette.values()), np.uint8)[order][index]


UPRIGHT = "pixels are read as stored, EXIF's orientation is not followed: save the picture upright"


def check_sizes(
    image: tuple[int, ...], label: tuple[int, ...], image_path: object, label_path: object, turned: str = ""
) -> None:
    """Sizes are `(height, width)` of stored pixels. `turned`: what helps where one is the other turned by 90 degrees.

    Raises: Wrong naming both files where they differ.
    """
    if tuple(image[:2]) != tuple(label[:2]):
        raise Wrong(
            f"is {label[1]}x{label[0]} (width x height) but {image_path} is {image[1]}x{image[0]}; "
            "an image and its label map must have one size",
            place=str(label_path),
            advice=turned if tuple(image[:2]) == tuple(label[1::-1]) else "",
        )
