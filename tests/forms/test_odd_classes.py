"""Class folders as phones, converters and archives leave them: taken rightly, or one line with the nearest form."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from data_tools import folders, picture
from PIL import Image

from benchmarks.prepare.check import Checked, check_sets
from tasks.contract import TaskError
from tasks.data.decoding import decode

RNG = np.random.default_rng(0)
BLACK = Image.new("L", (8, 6))
GREY = RNG.integers(0, 255, (6, 8), np.uint8)


def checked(root: Path, name: str = "own/") -> Checked:
    (found,) = check_sets([name], root)
    assert all("\n" not in text and text.isprintable() for text in (*found.problems, *found.notes))
    return found


def palette(path: Path) -> None:
    image = Image.fromarray(RNG.integers(0, 255, (6, 8, 3), np.uint8)).convert("P")
    image.save(path, transparency=bytes(range(255)))


TAKEN: dict[str, tuple[str, Callable[[Path], object]]] = {
    "16-bit": ("x.png", lambda p: Image.fromarray(GREY.astype(np.uint16) * 257).save(p)),
    "floats": ("x.tiff", lambda p: Image.fromarray(GREY.astype(np.float32) / 255).save(p)),
    "palette": ("x.png", palette),
    "CMYK": ("x.jpg", lambda p: Image.fromarray(RNG.integers(0, 255, (6, 8, 4), np.uint8), "CMYK").save(p)),
    "LA": ("x.png", lambda p: Image.fromarray(np.stack([GREY, GREY], 2), "LA").save(p)),
    "1 bit": ("x.png", lambda p: Image.fromarray(GREY > 99).save(p)),
    "narrow": ("x.png", lambda p: Image.new("L", (1, 20_000)).save(p)),
    "flat": ("x.jpg", lambda p: Image.new("RGB", (20_000, 1)).save(p)),
    "capitals": ("X.JPEG", lambda p: Image.fromarray(GREY).save(p)),
    "another type": ("x.jpg", lambda p: Image.fromarray(GREY).save(p, "PNG")),
    "animation": ("x.gif", lambda p: Image.fromarray(GREY).save(p, save_all=True, append_images=[BLACK])),
    "link": ("x.png", lambda p: p.symlink_to(p.parent / "0.png")),
    "nested": ("more/x.png", lambda p: (p.parent.mkdir(), Image.fromarray(GREY).save(p))),
    "line break": ("a\nb.png", lambda p: Image.fromarray(GREY).save(p)),
}  # fmt: skip


@pytest.mark.parametrize("kind", TAKEN)
def test_odd_pictures_are_taken(tmp_path, kind: str) -> None:
    name, write = TAKEN[kind]
    place = folders(tmp_path) / "own" / "train" / "ant" / name
    write(place)
    found = checked(tmp_path)
    assert found.state == "ok" and sum(found.splits.values()) == 13, found
    pixels = decode(place)
    assert pixels.shape[0] == 3 and pixels.dtype.is_floating_point is False
    if kind in ("16-bit", "floats"):
        assert np.abs(pixels[0].numpy().astype(int) - GREY).max() <= 1


REFUSED = {
    "floats of another range": ("x.tiff", GREY.astype(np.float32), "holds floats from .* whose range is not known"),
    "no number": ("x.tiff", np.full((6, 8), np.nan, np.float32), "holds floats from nan"),
    "32 bits": ("x.tiff", GREY.astype(np.int32), "holds integers of 32 bits"),
    "empty": ("x.jpg", b"", "cannot be decoded: not a picture, the file is empty"),
    "text": ("x.jpg", b"hello", "cannot be decoded: not a picture"),
    "a page": ("x.jpg", b"<!DOCTYPE html><html>404", r"not a picture \(HTML\)"),
    "a pointer": ("x.jpg", b"version https://git-lfs.github.com/spec/v1\n", r"not a picture \(Git LFS pointer\)"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_picture_is_named(tmp_path, kind: str) -> None:
    name, content, said = REFUSED[kind]
    place = folders(tmp_path) / "own" / "train" / "ant" / name
    if isinstance(content, bytes):
        place.write_bytes(content)
    else:
        Image.fromarray(content).save(place)
    found = checked(tmp_path)
    assert found.state == "wrong" and re.match(f"{place}: .*{said}", found.problems[0]), found.problems


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".tiff", ".gif"])
def test_torn_pictures_are_named_whatever_their_type(tmp_path, suffix: str) -> None:
    place = picture(folders(tmp_path) / "own" / "train" / "ant" / f"x{suffix}", 5, size=(80, 60))
    place.write_bytes(place.read_bytes()[: place.stat().st_size * 2 // 3])
    found = checked(tmp_path)
    assert found.state == "wrong" and found.problems[0].startswith(f"{place}: cannot be decoded"), found


def test_what_is_no_file_is_passed_over_and_a_torn_link_named(tmp_path) -> None:
    """A named pipe was waited for without end."""
    ant = folders(tmp_path) / "own" / "train" / "ant"
    os.mkfifo(ant / "x.png"), (ant / "y.png").mkdir()
    for name in ("._0.png", "Thumbs.db", ".DS_Store", "desktop.ini"):
        (ant / name).write_bytes(b"junk")
    assert checked(tmp_path).state == "ok" and checked(tmp_path).notes == []
    (ant / "z.png").symlink_to(tmp_path / "nowhere.png")
    assert checked(tmp_path).problems == [f"{ant / 'z.png'}: no such file"]


def test_names_that_are_no_text_are_named(tmp_path) -> None:
    own = folders(tmp_path) / "own"
    odd = os.fsdecode(os.fsencode(own / "train" / "ant") + b"/\xff.png")
    (own / "train" / "ant" / "0.png").rename(odd)
    assert checked(tmp_path).problems[0].startswith(f"{own / 'train' / 'ant'}: has a name that is not UTF-8")
    os.rename(odd, own / "train" / "ant" / "0.png")
    os.rename(own / "test" / "bee", os.fsdecode(os.fsencode(own / "test") + b"/\xfe"))
    assert "has a name that is not UTF-8" in checked(tmp_path).problems[0]


def test_names_with_spaces_and_of_any_script(tmp_path) -> None:
    for split in ("train", "test"):
        for name in ("red ant", "Biene ü", "ねこ [1] *"):
            picture(tmp_path / "my own" / split / name / "a b.png", len(split + name))
    found = checked(tmp_path, "my own/")
    assert found.state == "ok" and found.classes == 3 and found.last == "ねこ [1] *"


def test_pictures_in_no_class_folder_are_told(tmp_path) -> None:
    own = folders(tmp_path) / "own"
    picture(own / "train" / "stray.png")
    note = f"{own / 'train'}: 1 picture lies in no class folder: a class is a folder, train/CLASS/"
    assert checked(tmp_path).state == "ok" and checked(tmp_path).notes == [note]
    for split in ("train", "test"):
        picture(tmp_path / "loose" / split / "0.png")
    assert "1 picture lies in no class folder" in checked(tmp_path, "loose/").problems[0]


def test_a_folder_named_without_its_slash_is_looked_at_and_told(tmp_path) -> None:
    folders(tmp_path)
    assert checked(tmp_path, "own").state == "ok"
    from tasks.data.sets.labelled import labelled_set

    with pytest.raises(TaskError, match="the folder is named with a slash, own/"):
        labelled_set("own", tmp_path)


def test_the_nearest_form_is_told(tmp_path) -> None:
    folders(tmp_path / "deep")
    for name in ("ant", "bee"):
        picture(tmp_path / "flat" / name / "0.png")
    picture(tmp_path / "listed" / "img" / "0.png")
    (tmp_path / "listed" / "train.csv").write_text("image,label\n")
    (tmp_path / "own.zip").write_bytes(b"PK"), (tmp_path / "own.parquet").write_bytes(b"PAR1")
    (tmp_path / "own.docx").write_bytes(b"PK")
    for name, said in (
        ("deep/", "the splits are one folder further down: deep/own/"),
        ("flat/", "class folders lie below their split: train/CLASS/ and test/CLASS/"),
        ("listed/", "a list of labels is read for captions alone; classes are folders"),
        ("own.zip", "unpack it and name the folder"), ("own.parquet", "name its folder, with a slash"),
        ("own.docx", "is a file of no form that is read; read are .json of boxes or captions"),
    ):  # fmt: skip
        with pytest.raises(TaskError, match=said) as error:
            checked(tmp_path, name)
        assert str(error.value).startswith(str(tmp_path / name.rstrip("/"))) and "\n" not in str(error.value)
