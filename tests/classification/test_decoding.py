"""JPEG decoded by simplejpeg: Pillow's pixels, Pillow's errors, and Pillow itself where the two do not agree."""

import io
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import simplejpeg
from PIL import Image

from tasks.contract import TaskError
from tasks.data import pictures
from tasks.data.pictures import read_picture, read_rgb


def photo(height: int = 61, width: int = 83, mode: str = "RGB", seed: int = 0) -> Image.Image:
    """Smooth colours under noise."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8))
    smooth = np.array(small.resize((width, height), Image.Resampling.BICUBIC), float)
    noisy = np.clip(smooth + rng.normal(0, 8, smooth.shape), 0, 255).astype(np.uint8)
    return Image.fromarray(noisy).convert(mode)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    sink = io.BytesIO()
    image.save(sink, kind, **options)
    return sink.getvalue()


def jpeg(image: Image.Image, **options: object) -> bytes:
    return encoded(image, "JPEG", **options)


def by_pillow(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        return np.array(image.convert("RGB"))


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: labels refer to the pixels as stored, so it is not followed
    return exif


KINDS = {
    **{f"{s} {q}": ("RGB", {"subsampling": s, "quality": q}) for s in ("4:2:0", "4:2:2", "4:4:4") for q in (40, 95)},
    "progressive": ("RGB", {"progressive": True}),
    "restarts": ("RGB", {"restart_marker_blocks": 3}),
    "stored as RGB": ("RGB", {"keep_rgb": True}),
    "turned": ("RGB", {"exif": turned()}),
    "grey": ("L", {}),
    "CMYK": ("CMYK", {}),
    "black and white": ("1", {}),
}


@pytest.fixture
def decoded(monkeypatch) -> list[int]:
    """Lengths of what simplejpeg was given to decode."""
    assert pictures._simplejpeg() is simplejpeg
    plain, seen = simplejpeg.decode_jpeg, []

    def counted(content: bytes, **options: object) -> np.ndarray:
        seen.append(len(content))
        return plain(content, **options)

    monkeypatch.setattr(simplejpeg, "decode_jpeg", counted)
    return seen


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(61, 83), (1, 1), (7, 40), (375, 500)], ids=str)
def test_pixels_are_pillow_s(kind: str, size: tuple[int, int], decoded) -> None:
    mode, options = KINDS[kind]
    content = jpeg(photo(*size, mode), **options)
    found = read_rgb(content)
    assert np.array_equal(found, by_pillow(content)) and found.shape == (*size, 3) and found.dtype == np.uint8
    assert found.flags.writeable and found.flags.c_contiguous
    assert len(decoded) == (mode == "RGB")


def test_other_formats_and_several_frames_are_pillow_s_own(decoded) -> None:
    contents = [encoded(photo(), "MPO", save_all=True, append_images=[photo(seed=1)])]
    for kind, mode in (("PNG", "RGB"), ("PNG", "P"), ("WEBP", "RGB"), ("GIF", "P"), ("BMP", "RGB")):
        contents.append(encoded(photo(mode=mode), kind))
    for content in contents:
        assert np.array_equal(read_rgb(content), by_pillow(content))
    assert not decoded


def outcome(read, content: bytes) -> tuple[str, bytes]:
    try:
        return "", np.ascontiguousarray(read(content)).tobytes()
    except TaskError as error:
        return str(error), b""


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 2}], ids=str)
def test_torn_and_damaged_files_are_what_pillow_makes_of_them(options: dict, decoded) -> None:
    rng, whole = np.random.default_rng(0), jpeg(photo(), **options)
    cut = [whole[:n] for n in [*range(2, len(whole), 97), *range(len(whole) - 6, len(whole))]]
    zeros = [c + bytes(len(whole) - len(c)) for c in cut[::5]]
    damaged = []
    for _ in range(150):
        content = bytearray(whole)
        content[int(rng.integers(2, len(whole)))] = int(rng.integers(256))
        at, more = int(rng.integers(2, len(whole))), int(rng.integers(1, 30))
        damaged += [bytes(content), whole[:at] + whole[at + more :], whole[:at] + rng.bytes(more) + whole[at:]]
    torn = 0
    for content in (whole + bytes(1000), *cut, *zeros, *damaged):
        found = outcome(read_rgb, content)
        assert found == outcome(lambda c: np.array(read_picture(c).convert("RGB")), content)
        torn += bool(found[0])
    assert torn > len(cut) and len(decoded) > 200


def test_pixels_of_another_library_are_not_used(monkeypatch) -> None:
    content, plain = jpeg(photo()), simplejpeg.decode_jpeg
    monkeypatch.setattr(simplejpeg, "decode_jpeg", lambda *a, **k: plain(*a, **k) ^ 1)
    pictures._simplejpeg.cache_clear()
    try:
        assert pictures._simplejpeg() is None and np.array_equal(read_rgb(content), by_pillow(content))
        monkeypatch.setitem(sys.modules, "simplejpeg", None)  # importing it fails
        pictures._simplejpeg.cache_clear()
        assert pictures._simplejpeg() is None and np.array_equal(read_rgb(content), by_pillow(content))
    finally:
        pictures._simplejpeg.cache_clear()


def test_a_size_that_was_not_checked_is_not_decoded(monkeypatch, decoded) -> None:
    content = jpeg(photo())
    monkeypatch.setattr(simplejpeg, "decode_jpeg_header", lambda content: (60_000, 60_000, "YCbCr", "420"))
    assert np.array_equal(read_rgb(content), by_pillow(content)) and not decoded


def test_the_comparison_tells_exact_decoders_from_others(tmp_path) -> None:
    from benchmarks.speed import decoding

    files, found = decoding.drawn(2), decoding.decoders()
    assert {Image.open(io.BytesIO(f)).size for f in files} == {(500, 375)} and "simplejpeg, bare" in found
    for name, decoder in found.items():
        largest, mean = decoding.difference(decoder, files)
        assert (largest > 0) == (mean > 0) == (("draft" in name) or ("inexact" in name)), name
    rows = decoding.compare_decoders(files, 1).strip().splitlines()
    assert len(rows) == 2 + len(found) + 1 and "| `read_rgb` |" in rows[2] and "| 1.00 | 0 | 0.000 |" in rows[2]
    pack = pa.table({"image": [encoded(photo(seed=i), "WEBP") for i in range(3)]})
    pq.write_table(pack, tmp_path / "pack.parquet")
    assert [read_picture(f).format for f in decoding.packed(tmp_path / "pack.parquet", 2)] == ["JPEG"] * 2


def test_scaled_decoding_is_compared_on_large_pictures() -> None:
    """A table line for each size and side; 600x450 px is decoded at half for 120 px, and whole for 240."""
    from benchmarks.speed import decoding

    rows = [line.split(" | ") for line in decoding.scaled([(600, 450)], 1, 1).strip().splitlines()[2:]]
    assert [row[2:4] for row in rows] == [["120", "300x225"], ["240", "600x450"]]
    assert int(rows[0][-2]) > 0 and int(rows[1][-2]) == 0
