"""Pictures from strangers: decoded with limits, and never more than the common formats."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from tasks.task import TaskError

MAX_PIXELS = 89_478_485  # Pillow's own: a quarter of a GiB as RGB
# Pillow opens some fifty formats, one of them through Ghostscript
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "PPM", "GIF", "TIFF")
JPEG, JPEG_SCAN, JPEG_END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"
ZEROS = bytes(256)
Encoded = bytes | str | Path


def read_picture(content: Encoded, name: str = "picture") -> Image.Image:
    """A picture decoded to its last row, in its own mode.

    Raises: TaskError naming a picture that is torn, no picture at all, or larger than `MAX_PIXELS`.

    Example: `read_picture(Path("a.jpg")).convert("RGB")`
    """
    with _opened(content, name) as image:
        try:
            image.load()
        except MemoryError:
            raise
        except Exception as error:  # decoders raise what they like on torn bytes: OSError, SyntaxError, zlib.error
            raise TaskError(f"{name} cannot be decoded: {error}") from error
        return image


def read_rgb(content: Encoded, name: str = "picture") -> np.ndarray:
    """uint8 [h, w, 3].

    Raises: TaskError as `read_picture`.
    """
    return np.array(read_picture(content, name).convert("RGB"))


def check_picture(content: Encoded, name: str = "picture") -> tuple[int, int]:
    """(width, height) from the header alone, for decoders without such limits.

    Raises: TaskError as `read_picture`, but not for torn pixels.
    """
    with _opened(content, name) as image:
        return image.size


def _opened(content: Encoded, name: str) -> Image.Image:
    if not isinstance(content, bytes):
        try:
            content = Path(content).read_bytes()
        except FileNotFoundError:
            raise TaskError(f"no picture {content!s}") from None
        except OSError as error:
            raise TaskError(f"{name} cannot be read: {error}") from error
    zeros = content.startswith(JPEG) and content.endswith(ZEROS)
    if zeros and content.rfind(JPEG_END) < content.rfind(JPEG_SCAN):
        # a copy that broke off after the file was given its size: decoders take the zeros for grey pixels
        raise TaskError(f"{name} cannot be decoded: it ends in zeros, an interrupted copy")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # it is an error below
            image = Image.open(io.BytesIO(content), formats=FORMATS)
    except MemoryError:
        raise
    except Exception as error:
        # the text of Pillow's error is the address of a buffer
        why = "not a picture" if "cannot identify" in str(error) else str(error)
        raise TaskError(f"{name} cannot be decoded: {why}") from error
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise TaskError(f"{name} is {width}x{height} px; more than {MAX_PIXELS / 1e6:.0f} million are not decoded")
    return image
