"""Pictures with boxes, padded to squares, as evaluation sees them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.data.errors import Wrong
from tasks.data.splits import Boxed

if TYPE_CHECKING:
    from torch import Tensor


class DetectionData:
    """Pictures padded to `side`; targets hold `size` int64 [2], height and width in pixels. Ordered by image id."""

    def __init__(self, boxed: Boxed, side: int, pad: float = 0.5):
        self.boxed, self.side, self.pad = boxed, side, pad

    def __len__(self) -> int:
        return len(self.boxed)

    def picture(self, index: int) -> Tensor:
        """uint8 [3, h, w], as its labels see it. Raises: as `labelled_picture`."""
        return labelled_picture(self.boxed, index)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        import torch

        from tasks.detection.boxes import pad_square

        picture = self.picture(index)
        return pad_square(picture, self.side, self.pad)[0], {"size": torch.tensor(picture.shape[1:])}


def labelled_picture(boxed: Boxed, index: int) -> Tensor:
    """uint8 [3, h, w]: stored pixels, to which the boxes refer.

    Raises: DataError for a picture that is missing, torn, or of another size than its labels say.
    """
    from tasks.data.decoding import decode

    place = boxed.pictures.where(index)
    picture = decode(boxed.pictures.read(index), place)
    width, height = map(int, boxed.labels.sizes[index])
    if tuple(picture.shape[1:]) != (height, width):
        # labels of another resolution would give a low AP and no error
        size = f"{picture.shape[2]}x{picture.shape[1]} px"
        raise Wrong(f"is {size}, its labels are for {width}x{height}", place=place)
    return picture
