"""Reading label maps and pictures, with errors that name the file and the value."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tasks.contract import TaskError
from tasks.data.pictures import read_picture
from tasks.segmentation.scoring.confusion import IGNORE

_ONE_BYTE = ("L", "P", "1")  # modes whose pixels are small integers; palette images are read by index


def read_label_map(path: str | Path) -> np.ndarray:
    """Values of a PNG label map, uint8 `[H, W]`, as stored: palette PNGs give their indices, not their colours.

    Raises: TaskError for a file that is missing, unreadable, 16-bit or in colour.

    Example: `read_label_map("annotations/validation/2007_000175.png")`
    """
    if not Path(path).is_file():
        raise TaskError(f"no label map {path}")
    image = read_picture(Path(path), str(path))
    if image.mode not in _ONE_BYTE:
        kind = "16-bit" if image.mode.startswith("I") else f"mode {image.mode}"
        raise TaskError(f"{path} is a {kind} image; label maps have 8 bits, in one channel or with a palette")
    return np.array(image).astype(np.uint8, copy=False)


def to_classes(
    values: np.ndarray, num_classes: int, ignore_index: int = IGNORE, reduce_zero_label: bool = False, path: object = ""
) -> np.ndarray:
    """Stored values to classes 0..C-1 and 255 (ignored), uint8 `[H, W]`.

    With `reduce_zero_label` 0 is ignored and k becomes k-1 (ADE20k); `ignore_index` is then looked for after that, as
    in mmseg, and 255 stays ignored too.

    Raises: TaskError naming the file and the value that is out of range.

    Example: `to_classes(np.array([[0, 1, 150]]), 150, reduce_zero_label=True)` -> `[[255, 0, 149]]`
    """
    table = np.full(256, -1, np.int16)
    if reduce_zero_label:
        table[1 : num_classes + 1] = np.arange(num_classes)
        table[[0, 255]] = IGNORE
        if 0 <= ignore_index < 255:
            table[ignore_index + 1] = IGNORE
    else:
        table[:num_classes] = np.arange(num_classes)
        if 0 <= ignore_index < 256:
            table[ignore_index] = IGNORE
    found = np.bincount(values.reshape(-1), minlength=256) > 0
    bad = np.flatnonzero(found & (table < 0))
    if len(bad):
        first, last = (1, num_classes) if reduce_zero_label else (0, num_classes - 1)
        ignored = "0 (ignored)" if reduce_zero_label else f"{ignore_index} (ignored)"
        raise TaskError(f"label {bad[0]} in {path} is out of range; labels are {first}..{last} or {ignored}")
    return table.astype(np.uint8)[values]


def check_sizes(image: tuple[int, int], label: tuple[int, int], image_path: object, label_path: object) -> None:
    """Sizes are `(height, width)`.

    Raises: TaskError naming both files where they differ.
    """
    if tuple(image[:2]) != tuple(label[:2]):
        raise TaskError(
            f"{label_path} is {label[1]}x{label[0]} (width x height) but {image_path} is {image[1]}x{image[0]}; "
            "an image and its label map must have one size"
        )
