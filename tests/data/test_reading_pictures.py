"""The one reader of pictures: every pixel format to 8-bit RGB, stored or upright pixels, what is no picture named."""

import io
import itertools
import struct
import warnings

import numpy as np
import pytest
from fuzz_tools import fuzzed
from hypothesis import strategies as st
from PIL import Image, ImageOps

from tasks.contract import TaskError
from tasks.data import pictures
from tasks.data.errors import Missing, Wrong
from tasks.data.pictures import FORMATS, SUFFIXES, check_picture, read_picture, read_rgb

RAMP = np.linspace(0, 65535, 24 * 17).reshape(24, 17)
PHOTO = np.random.default_rng(0).integers(0, 256, (24, 17, 3), np.uint8)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    sink = io.BytesIO()
    image.save(sink, kind, **options)
    return sink.getvalue()


def tiff(pixels: bytes, size: tuple[int, int], bits: int, sample_format: int = 1, photometric: int = 1) -> bytes:
    """A plain grey TIFF with tags that Pillow does not write."""
    tags = [(256, size[0]), (257, size[1]), (258, bits), (259, 1), (262, photometric), (273, 8), (277, 1),
            (278, size[1]), (279, len(pixels)), (339, sample_format)]  # fmt: skip
    body = b"".join(struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 1, value) for tag, value in tags)
    head = struct.pack("<2sHI", b"II", 42, 8 + len(pixels) + len(pixels) % 2)
    return head + pixels + bytes(len(pixels) % 2) + struct.pack("<H", len(tags)) + body + bytes(4)


def grey(content: bytes) -> np.ndarray:
    found = read_rgb(content)
    assert found.dtype == np.uint8 and found.shape[2] == 3 and (found == found[..., :1]).all()
    return found[..., 0].astype(int)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM", "TIFF big-endian", "TIFF white is zero"])
def test_sixteen_bits_are_scaled_by_their_range(kind: str) -> None:
    values = RAMP.astype(np.uint16)
    if kind == "TIFF white is zero":
        content = tiff((65535 - values).tobytes(), (17, 24), 16, photometric=0)
    elif kind == "TIFF big-endian":
        content = encoded(Image.frombytes("I;16B", (17, 24), values.astype(">u2").tobytes()), "TIFF")
    else:
        content = encoded(Image.fromarray(values), kind)
    assert np.abs(grey(content) - values / 257).max() <= 0.5 + 1e-9


def test_twelve_bits_are_scaled_by_their_range() -> None:
    values = np.linspace(0, 4095, 24 * 16).astype(int)
    packed = bytearray()
    for a, b in values.reshape(-1, 2):
        packed += bytes([a >> 4, (a & 15) << 4 | b >> 8, b & 255])
    found = grey(tiff(bytes(packed), (16, 24), 12)).ravel()
    assert np.abs(found - values * 255 / 4095).max() <= 0.5 + 1e-9


def test_floats_of_zero_to_one_are_scaled_and_it_is_said_once() -> None:
    pictures._once.cache_clear()
    content = encoded(Image.fromarray((RAMP / 65535).astype(np.float32)), "TIFF")
    with pytest.warns(UserWarning, match=r"a\.tif holds floats: 0 is read as black and 1 as white"):
        assert np.abs(read_rgb(content, "a.tif")[..., 0] - RAMP / 257).max() <= 0.5 + 1e-3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_rgb(content, "b.tif")


@pytest.mark.parametrize("content, said", [
    (encoded(Image.fromarray(RAMP.astype(np.float32)), "TIFF"), "holds floats from 0 to 65535"),
    (encoded(Image.fromarray(np.full((3, 3), np.nan, np.float32)), "TIFF"), "holds floats from nan to nan"),
    (encoded(Image.fromarray(RAMP.astype(np.int32)), "TIFF"), "holds integers of 32 bits or with a sign"),
    (tiff(RAMP.astype(np.int16).tobytes(), (17, 24), 16, sample_format=2), "integers of 32 bits or with a sign"),
    (encoded(Image.fromarray(PHOTO, "RGB").convert("YCbCr").convert("RGB"), "PDF"), r"not a picture \(PDF\)"),
    (b"", "not a picture, the file is empty"), (b"  <!DOCTYPE html><html>", r"not a picture \(HTML\)"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", r"not a picture \(Git LFS pointer\)"),
    (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC is not among the formats that are"), (b"abc", "not a picture$"),
])  # fmt: skip
def test_what_has_no_known_range_or_is_no_picture_is_named(content: bytes, said: str) -> None:
    with pytest.raises(Wrong, match=f"^a: .*{said}") as caught:
        read_rgb(content, "a")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("mode, kind", [
    ("P", "PNG"), ("P", "GIF"), ("L", "PNG"), ("1", "PNG"), ("LA", "PNG"), ("RGBA", "PNG"), ("RGBA", "WEBP"),
    ("RGBA", "TIFF"), ("CMYK", "TIFF"), ("CMYK", "JPEG"), ("YCbCr", "TIFF"), ("RGB", "BMP"), ("RGB", "PPM"),
])  # fmt: skip
def test_other_modes_are_pillow_s_conversion(mode: str, kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    content = encoded(Image.fromarray(PHOTO).convert(mode), kind, **options)
    with Image.open(io.BytesIO(content)) as image:
        assert np.array_equal(read_rgb(content), np.array(image.convert("RGB")))


def test_transparency_is_dropped() -> None:
    clear = Image.fromarray(np.dstack([PHOTO, np.zeros((24, 17), np.uint8)]), "RGBA")
    assert np.array_equal(read_rgb(encoded(clear, "PNG")), PHOTO)
    palette = Image.fromarray(PHOTO).quantize(16)
    content = encoded(palette, "PNG", transparency=bytes([0] * 16))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(read_rgb(content), np.array(palette.convert("RGB")))


def test_colours_of_sixteen_bits_are_scaled() -> None:
    cv2 = pytest.importorskip("cv2")
    wide = np.random.default_rng(1).integers(0, 65536, (9, 7, 3)).astype(np.uint16)
    for suffix in (".png", ".tiff"):
        content = cv2.imencode(suffix, wide[..., ::-1])[1].tobytes()
        assert np.abs(read_rgb(content) - wide / 257).max() < 1, suffix


@pytest.mark.parametrize("kind, turn", list(itertools.product(["JPEG", "PNG", "WEBP", "TIFF"], range(1, 9))))
def test_stored_pixels_unless_upright_is_asked_for(kind: str, turn: int) -> None:
    exif = Image.Exif()
    exif[pictures.ORIENTATION] = turn
    plain = Image.fromarray(PHOTO)
    options = {"lossless": True} if kind == "WEBP" else {"quality": 95} if kind == "JPEG" else {}
    stored = read_rgb(encoded(plain, kind, **options))
    content = encoded(plain, kind, exif=exif, **options)
    assert check_picture(content) == read_picture(content).size == (17, 24)
    assert np.array_equal(read_rgb(content), stored)
    with Image.open(io.BytesIO(content)) as image:
        upright = np.array(ImageOps.exif_transpose(image))
    assert np.array_equal(read_rgb(content, upright=True), upright)
    assert upright.shape[:2] == ((17, 24) if turn > 4 else (24, 17))


def test_label_maps_of_tiff_are_stored_pixels_too() -> None:
    exif = Image.Exif()
    exif[pictures.ORIENTATION] = 6
    labels = np.arange(24 * 17, dtype=np.uint8).reshape(24, 17)
    assert np.array_equal(np.array(read_picture(encoded(Image.fromarray(labels), "TIFF", exif=exif))), labels)


@fuzzed(60, 3000, at=st.integers(0, 2000), noise=st.binary(min_size=1, max_size=6), upright=st.booleans())
def test_damaged_metadata_and_pixels_are_one_line(at: int, noise: bytes, upright: bool) -> None:
    exif = Image.Exif()
    exif[pictures.ORIENTATION] = 6
    for kind in ("JPEG", "TIFF", "PNG"):
        content = bytearray(encoded(Image.fromarray(PHOTO), kind, exif=exif))
        at %= len(content)
        content[at : at + len(noise)] = noise
        try:
            assert read_rgb(bytes(content), "a", upright=upright).dtype == np.uint8
        except TaskError as error:
            assert str(error).startswith("a: ") and "\n" not in str(error)


def test_suffixes_are_those_of_the_decoders() -> None:
    Image.init()
    own = {suffix for suffix, kind in Image.registered_extensions().items() if kind in (*FORMATS, "DIB", "MPO")}
    assert own == SUFFIXES


def test_paths_are_named(tmp_path) -> None:
    with pytest.raises(Missing) as caught:
        read_rgb(tmp_path / "a.png")
    assert caught.value.path == tmp_path / "a.png" and str(caught.value) == f"{tmp_path / 'a.png'}: no such picture"
    (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(Wrong, match=r"a\.png: cannot be decoded: not a picture"):
        check_picture(tmp_path / "a.png")
    with pytest.raises(Wrong, match="cannot be read: Is a directory"):
        read_rgb(tmp_path)
