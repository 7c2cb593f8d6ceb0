"""The one reader of pictures: decoded with limits, every pixel format to 8-bit RGB, pixels as they are stored.

Labels in pixels (boxes, masks) refer to stored pixels, so EXIF's orientation is followed only where `upright` asks for
it. Of animations and stacks the first picture counts. Transparency is dropped, as torchvision and TensorFlow drop it.
"""

from __future__ import annotations

import contextlib
import functools
import io
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from tasks.data.errors import Missing, Wrong

MAX_PIXELS = 89_478_485  # Pillow's own: a quarter of a GiB as RGB
# Pillow opens some fifty formats, one of them through Ghostscript
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "PPM", "GIF", "TIFF")
SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".bmp", ".dib", ".ppm", ".pgm", ".pbm", ".pnm",
    ".pfm", ".gif", ".tif", ".tiff",
})  # fmt: skip
JPEG, JPEG_SCAN, JPEG_END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"
PNG = b"\x89PNG\r\n\x1a\n"
ZEROS = bytes(256)
ORIENTATION = 0x0112  # of EXIF and TIFF
_BITS, _PHOTOMETRIC = 258, 262  # tags of TIFF
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
_BACK = _TURNS | {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
_STRANGERS = {
    b"ftyphei": "HEIC", b"ftyphev": "HEIC", b"ftypmif1": "HEIC", b"ftypavi": "AVIF", b"jP  \r\n": "JPEG 2000",
    b"JXL ": "JPEG XL", b"\xff\x0a": "JPEG XL", b"8BPS": "Photoshop", b"%PDF": "PDF", b"<svg": "SVG",
    b"<!DOC": "HTML", b"<html": "HTML", b"version https://git-lfs": "Git LFS pointer",
}  # fmt: skip
Encoded = bytes | str | Path
Where = Mapping[str, Any]  # what an error says of the picture: its path, or the name that the caller gave it


def read_picture(content: Encoded, name: str = "picture") -> Image.Image:
    """A picture decoded to its last row, in its own mode, pixels as stored. `name` is what bytes are called in errors.

    Raises: Missing for a path without a file. Wrong naming a picture that is torn, no picture at all, or larger than
    `MAX_PIXELS`.

    Example: `read_picture(Path("mask.png")).mode == "P"`
    """
    return _loaded(_bytes(content), _where(content, name))


def _loaded(content: bytes, where: Where, side: int = 0) -> Image.Image:
    if content.startswith(PNG):
        _check_sums(content, where)
    with _opened(content, where) as image:
        if side:
            image.draft("RGB", (side, side))
        tiff = image.format == "TIFF"
        turned = orientation(image) if tiff else 1
        try:
            image.load()
        except MemoryError:
            raise
        except Exception as error:  # decoders raise what they like on torn bytes: OSError, SyntaxError, zlib.error
            raise Wrong(f"cannot be decoded: {error}", **where) from error
        if turned in _BACK:  # Pillow turns TIFF alone
            stored = image.transpose(_BACK[turned])
            stored.format, stored.tag_v2 = image.format, image.tag_v2  # type: ignore[attr-defined]
            return stored
        return image


def _check_sums(content: bytes, where: Where) -> None:
    """Pillow passes over the checksums of a PNG's pixels, and decodes damaged ones to others. libpng does not."""
    view, at = memoryview(content), len(PNG)
    while at + 12 <= len(content):
        end = at + 8 + int.from_bytes(view[at : at + 4])
        kind = bytes(view[at + 4 : at + 8])
        # a capital letter: without this chunk there is no picture
        if kind[:1].isupper() and zlib.crc32(view[at + 4 : end]) != int.from_bytes(view[end : end + 4]):
            raise Wrong(
                f"cannot be decoded: damaged, or torn, the checksum of its {kind.decode('latin1')} does not fit",
                **where,
            )
        if kind == b"IEND":
            return
        at = end + 4


def read_rgb(content: Encoded, name: str = "picture", upright: bool = False) -> np.ndarray:
    """uint8 [h, w, 3] of any picture; JPEG is decoded by simplejpeg where that is installed, half as fast again.

    Grey of 16 bits (or 12, in TIFF) is scaled by its range, floats of 0 to 1 by 255, which is said once. `upright`
    turns the picture as EXIF says: for a photograph that is shown to a person, never beside labels in pixels.

    Raises: as `read_picture`; Wrong too for integers of 32 bits, and floats outside 0 to 1, whose range is not known.

    Example: `read_rgb(Path("a.jpg")).shape` is `(375, 500, 3)`
    """
    where, content = _where(content, name), _bytes(content)
    with _opened(content, where) as image:
        plain = image.format == "JPEG" and image.mode == "RGB"  # Pillow has its own way from CMYK to RGB
        width, height = image.size
        turn = _TURNS.get(orientation(image)) if upright else None
    pixels = None
    if plain and (jpeg := _simplejpeg()):
        # what it is not content with, Pillow refuses or reads after all
        with contextlib.suppress(ValueError):
            if jpeg.decode_jpeg_header(content)[:2] == (height, width):  # the size whose limit was checked
                pixels = jpeg.decode_jpeg(content, colorspace="RGB", strict=True)
    if pixels is None:
        pixels = _as_rgb(_loaded(content, where), where)
    return pixels if turn is None else np.array(Image.fromarray(pixels).transpose(turn))


def read_reduced(content: Encoded, side: int, name: str = "picture") -> np.ndarray:
    """As `read_rgb`, but a JPEG comes at 1/2, 1/4 or 1/8 of its size where its shorter side keeps `side` pixels.

    The decoder then makes that much less of its blocks; pixels are near those of an area resize, and not the same.

    Raises: as `read_rgb`.

    Example: `read_reduced(Path("a.jpg"), 136).shape` is `(188, 250, 3)` where the picture has 375x500
    """
    where, content = _where(content, name), _bytes(content)
    with _opened(content, where) as image:
        plain = image.format == "JPEG" and image.mode == "RGB"
        if not plain or min(image.size) < 2 * side:
            return read_rgb(content, where.get("place", str(where.get("path"))))
    return _as_rgb(_loaded(content, where, side), where)


def check_picture(content: Encoded, name: str = "picture") -> tuple[int, int]:
    """(width, height) of the stored pixels, from the header alone.

    Raises: as `read_picture`, but not for torn pixels.
    """
    with _opened(_bytes(content), _where(content, name)) as image:
        return _stored_size(image)


def look_at_picture(content: Encoded, name: str = "picture") -> tuple[int, int, bool]:
    """(width, height, is it turned by EXIF?) of a picture that `read_rgb` will take, at a tenth of its cost.

    Header, limits and end are looked at; where these leave a doubt, it is decoded.

    Raises: as `read_rgb`.

    Example: `look_at_picture(Path("a.jpg"))` is `(500, 375, False)`
    """
    where, content = _where(content, name), _bytes(content)
    with _opened(content, where) as image:
        width, height = _stored_size(image)
        turned, common = orientation(image) != 1, image.mode in ("RGB", "L", "P", "RGBA", "LA", "1", "CMYK")
    if not common or not _has_end(content):
        read_rgb(content, where.get("place", str(where.get("path"))))
    return width, height, turned


def _has_end(content: bytes) -> bool:
    """Does it end as its format does? False where the format has no mark of its end."""
    start = content[:2]
    if start == JPEG:
        return content.rfind(JPEG_END) > content.rfind(JPEG_SCAN)
    if start == b"RI":
        return len(content) >= int.from_bytes(content[4:8], "little") + 8
    return start == b"\x89P" and content.rfind(b"IEND") > 0


def orientation(image: Image.Image) -> int:
    """EXIF's orientation of an opened picture, 1 to 8; 1 where there is none or EXIF is damaged."""
    try:
        found = image.getexif().get(ORIENTATION, 1)
    except Exception:  # a damaged block that no one needs: struct.error, SyntaxError, OverflowError
        return 1
    return found if found in _TURNS else 1


def _as_rgb(image: Image.Image, where: Where) -> np.ndarray:
    mode = image.mode
    if mode == "RGB":
        return np.array(image)
    if mode.startswith("I;16") or (mode == "I" and image.format in ("PNG", "PPM")):
        grey = _grey(np.asarray(image).astype(np.int64), *_range(image))
    elif mode == "F":
        grey = _grey_of_floats(np.asarray(image), where)
    elif mode in ("I", "LAB"):
        what = "holds colours in LAB" if mode == "LAB" else "holds integers of 32 bits or with a sign"
        raise Wrong(f"{what}, whose range is not known", advice="save it with 8 or 16 bits a colour", **where)
    else:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a palette with transparency, which is dropped
                return np.array(image.convert("RGB"))
        except ValueError as error:
            raise Wrong(f"has pixels of mode {mode}, which are not converted: {error}", **where) from error
    return np.repeat(grey[..., None], 3, axis=2)


def _range(image: Image.Image) -> tuple[int, bool]:
    """(largest value, is it black?) of a picture of more than 8 bits."""
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(_BITS, (16,))
    return 2 ** int(bits[0] if isinstance(bits, tuple) else bits) - 1, tags.get(_PHOTOMETRIC, 1) == 0


def _grey(values: np.ndarray, top: int, inverted: bool) -> np.ndarray:
    values = values.clip(0, top)
    return (((top - values if inverted else values) * 255 + top // 2) // top).astype(np.uint8)


def _grey_of_floats(values: np.ndarray, where: Where) -> np.ndarray:
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):  # NaN among them
        raise Wrong(
            f"holds floats from {low:g} to {high:g}, whose range is not known",
            advice="floats are read from 0 (black) to 1 (white); save it with 8 or 16 bits", **where,
        )  # fmt: skip
    _say_floats(str(next(iter(where.values()))))
    return np.rint(values * 255).astype(np.uint8)


@functools.cache
def _once() -> set[str]:
    return set()


def _say_floats(name: str) -> None:
    if not _once():
        _once().add(name)
        warnings.warn(f"{name} holds floats: 0 is read as black and 1 as white, here and in all such", stacklevel=4)


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


def _where(content: Encoded, name: str) -> Where:
    return {"place": name} if isinstance(content, bytes) else {"path": content}


def _bytes(content: Encoded) -> bytes:
    if isinstance(content, bytes):
        return content
    try:
        return Path(content).read_bytes()
    except FileNotFoundError:
        raise Missing("no such picture", path=content) from None
    except OSError as error:
        raise Wrong(f"cannot be read: {error.strerror or error}", path=content) from error


def _stored_size(image: Image.Image) -> tuple[int, int]:
    width, height = image.size
    turned = image.format == "TIFF" and orientation(image) > 4  # there Pillow tells the size of the turned picture
    return (height, width) if turned else (width, height)


def _opened(content: bytes, where: Where) -> Image.Image:
    zeros = content.startswith(JPEG) and content.endswith(ZEROS)
    if zeros and content.rfind(JPEG_END) < content.rfind(JPEG_SCAN):
        # a copy that broke off after the file was given its size: decoders take the zeros for grey pixels
        raise Wrong("cannot be decoded: it ends in zeros, an interrupted copy", **where)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sizes, which are an error below, and of damaged metadata
            image = Image.open(io.BytesIO(content), formats=FORMATS)
    except MemoryError:
        raise
    except Exception as error:
        # the text of Pillow's error is the address of a buffer
        why = _stranger(content) if isinstance(error, UnidentifiedImageError) else str(error)
        raise Wrong(f"cannot be decoded: {why}", **where) from error
    width, height = image.size
    if width * height > MAX_PIXELS:
        limit = f"more than {MAX_PIXELS / 1e6:.0f} million are not decoded"
        raise Wrong(f"is {width}x{height} px; {limit}", **where)
    return image


def _stranger(content: bytes) -> str:
    """What bytes are that no decoder takes."""
    if not content:
        return "not a picture, the file is empty"
    head = content[:64].lstrip()
    kind = next((kind for sign, kind in _STRANGERS.items() if sign in head), None)
    return f"not a picture ({kind})" if kind in ("HTML", "PDF", "Git LFS pointer") else (
        f"{kind} is not among the formats that are ({', '.join(FORMATS)})" if kind else "not a picture"
    )  # fmt: skip
