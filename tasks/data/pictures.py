"""Pictures from strangers: decoded with limits, and never more than the common formats."""

from __future__ import annotations

import contextlib
import functools
import io
import warnings
from pathlib import Path
from types import ModuleType

import numpy as np
from PIL import Image

from tasks.contract import TaskError

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
    """uint8 [h, w, 3], the pixels of Pillow; JPEG is decoded by simplejpeg where that is installed, half as fast again.

    Raises: TaskError as `read_picture`.

    Example: `read_rgb(Path("a.jpg")).shape` is `(375, 500, 3)`
    """
    content = _bytes(content, name)
    with _opened(content, name) as image:
        plain = image.format == "JPEG" and image.mode == "RGB"  # Pillow has its own way from CMYK to RGB
        width, height = image.size
    if plain and (jpeg := _simplejpeg()):
        # what it is not content with, Pillow refuses or reads after all
        with contextlib.suppress(ValueError):
            if jpeg.decode_jpeg_header(content)[:2] == (height, width):  # the size whose limit was checked
                return jpeg.decode_jpeg(content, colorspace="RGB", strict=True)
    whole = read_picture(content, name)
    return np.array(whole if whole.mode == "RGB" else whole.convert("RGB"))


@functools.cache
def _simplejpeg() -> ModuleType | None:
    """The package, None where it is not installed or its pixels are not those of Pillow's JPEG library.

    Libraries may differ by a few units in a pixel, and results must not depend on what is installed.
    """
    try:
        import simplejpeg
    except (ImportError, OSError):
        return None
    trial, sink = np.random.default_rng(0).integers(0, 256, (61, 83, 3), np.uint8), io.BytesIO()
    Image.fromarray(trial).save(sink, "JPEG", subsampling="4:2:0")
    with Image.open(sink) as image:
        same = np.array_equal(simplejpeg.decode_jpeg(sink.getvalue(), colorspace="RGB"), np.array(image))
    return simplejpeg if same else None


def check_picture(content: Encoded, name: str = "picture") -> tuple[int, int]:
    """(width, height) from the header alone, for decoders without such limits.

    Raises: TaskError as `read_picture`, but not for torn pixels.
    """
    with _opened(content, name) as image:
        return image.size


def _bytes(content: Encoded, name: str) -> bytes:
    if isinstance(content, bytes):
        return content
    try:
        return Path(content).read_bytes()
    except FileNotFoundError:
        raise TaskError(f"no picture {content!s}") from None
    except OSError as error:
        raise TaskError(f"{name} cannot be read: {error}") from error


def _opened(content: Encoded, name: str) -> Image.Image:
    content = _bytes(content, name)
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
