"""Preparing: whole or not at all; archives and names that would leave their folder; layouts that are not official."""

import dataclasses
import io
import os
import stat
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import official_forms
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import run_all
from benchmarks.prepare import PACKS, prepare
from benchmarks.prepare.downloads import unpack
from tasks.contract import TaskError


def silent(text: str) -> None:
    pass


def left(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*"))


def evil_tar(path: Path, member: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w") as tar:
        tar.addfile(member, io.BytesIO(b"x" * member.size))
    return path


def info(name: str, **changes: object) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = 1
    for key, value in changes.items():
        setattr(member, key, value)
    return member


@pytest.mark.parametrize(
    "member",
    [
        info("../evil"), info("a/../../evil"), info("link", type=tarfile.SYMTYPE, linkname="../../evil", size=0),
        info("device", type=tarfile.CHRTYPE, size=0),
    ],
    ids=["up", "up later", "link", "device"],
)  # fmt: skip
def test_tars_that_would_leave_their_folder_are_refused(tmp_path, member) -> None:
    archive = evil_tar(tmp_path / "evil.tar", member)
    with pytest.raises(TaskError, match="evil.tar is not unpacked"):
        unpack(archive, tmp_path / "in" / "side")
    assert left(tmp_path) == ["evil.tar", "in", "in/side"]


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "C:/evil", "a\\..\\..\\evil"])
def test_zips_that_would_leave_their_folder_are_refused(tmp_path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr("good", "x")
        archive.writestr(name, "x")
    with pytest.raises(TaskError, match="would leave its folder"):
        unpack(tmp_path / "evil.zip", tmp_path / "in" / "side")
    assert left(tmp_path) == ["evil.zip", "in", "in/side"]


def test_zips_with_links_are_refused(tmp_path) -> None:
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        link = zipfile.ZipInfo("link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(TaskError, match="'link' is a link or a device"):
        unpack(tmp_path / "evil.zip", tmp_path / "out")


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_archives_larger_than_the_disk_are_refused(tmp_path, monkeypatch, kind: str) -> None:
    from benchmarks.prepare import downloads

    source = tmp_path / "a"
    official_forms.picture(source / "a.png")
    make = official_forms.zipped if kind == "zip" else official_forms.tarred
    archive = make(source, tmp_path / ("a.zip" if kind == "zip" else "a.tgz"))
    monkeypatch.setattr(downloads, "_room", lambda target: 100)
    with pytest.raises(TaskError, match="needs more than"):
        unpack(archive, tmp_path / "out")


def test_truncated_archives_are_named(tmp_path) -> None:
    source = official_forms.imagewoof(tmp_path)
    for archive in (
        official_forms.tarred(source, tmp_path / "torn.tgz"), official_forms.zipped(source, tmp_path / "torn.zip")
    ):  # fmt: skip
        archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
        with pytest.raises(TaskError, match=f"{archive.name} cannot be unpacked"):
            prepare("imagewoof9", [archive], tmp_path / "data", {"train": 1, "test": 1}, silent)
        assert not (tmp_path / "data").exists()


def test_names_in_lists_cannot_leave_the_folders(tmp_path) -> None:
    voc = official_forms.voc(tmp_path)
    (voc / "VOC2012" / "ImageSets" / "Segmentation" / "train.txt").write_text("../../../evil\n" * 3)
    with pytest.raises(TaskError, match="evil' would leave its folder"):
        prepare("voc21", [voc], tmp_path / "data", {"train": 1, "val": 1}, silent)
    coco = official_forms.coco(tmp_path)
    labels = coco / "annotations" / "instances_val2017.json"
    labels.write_text(labels.read_text().replace('"file_name": "', '"file_name": "/etc/'))
    with pytest.raises(TaskError, match="would leave its folder"):
        prepare("lvis_coco80", [coco], tmp_path / "data", {"train": 1, "val": 1}, silent)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    "name, looked",
    [
        ("tinyimagenet100", "wnids.txt"), ("cars98", "cars_train_annos.mat"), ("imagewoof9", "train/n02086240"),
        ("voc21", "ImageSets/Segmentation/train.txt"), ("camvid11", "trainannot"), ("flickr8k", "Flickr8k.token.txt"),
        ("lvis_coco80", "instances_val2017.json"),
    ],
)  # fmt: skip
def test_wrong_layouts_are_named_in_one_line(tmp_path, name: str, looked: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(TaskError) as error:
        prepare(name, [tmp_path / "empty"], tmp_path / "data", say=silent)
    text = str(error.value)
    assert looked in text and "another layout than the official download" in text and "\n" not in text


def test_wrong_files_are_named(tmp_path) -> None:
    def refused(text: str, name: str, source: Path, **sizes: int) -> None:
        with pytest.raises(TaskError, match=text):
            prepare(name, [source], tmp_path / "data", sizes, silent)
        assert not (tmp_path / "data").exists()

    voc = official_forms.voc(tmp_path)
    mask = voc / "VOC2012" / "SegmentationClass" / "2007_000000.png"
    official_forms.picture(mask, (500, 375))
    refused("2007_000000.png has mode RGB", "voc21", voc, train=4, val=3)
    mask.write_bytes(mask.read_bytes()[:90])
    refused("2007_000000.png: cannot be decoded", "voc21", voc, train=4, val=3)
    mask.unlink()
    refused("2007_000000.png: no such picture", "voc21", voc, train=4, val=3)
    coco = official_forms.coco(tmp_path)
    (coco / "annotations" / "captions_val2017.json").write_text('{"annotations": [')
    refused("captions_val2017.json is not JSON", "lvis_coco80", coco, train=4, val=3)
    cars = official_forms.cars(tmp_path)
    (cars / "devkit" / "cars_meta.mat").write_bytes(b"no matlab file")
    refused("is not the official car_devkit", "cars98", cars, test=1, train=1)
    refused("a.txt is neither a folder nor an archive", "cars98", _written(tmp_path / "a.txt"), test=1, train=1)
    refused("no .*nowhere", "cars98", tmp_path / "nowhere", test=1, train=1)


def _written(path: Path) -> Path:
    path.write_text("")
    return path


def test_a_pack_is_placed_whole_or_not_at_all(tmp_path, monkeypatch) -> None:
    source, rename, moved = official_forms.voc(tmp_path), os.rename, []

    def full(old: object, new: object) -> None:
        if len(moved) == 2:
            raise OSError(28, "No space left on device", str(new))
        moved.append(new)
        rename(old, new)

    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(TaskError, match="voc21 cannot be written under .*No space left"):
        prepare("voc21", [source], tmp_path / "data", {"train": 1, "val": 1}, silent)
    assert len(moved) == 2 and left(tmp_path / "data") == ["segmentation"]
    monkeypatch.setattr(os, "rename", rename)
    prepare("voc21", [source], tmp_path / "data", {"train": 1, "val": 1}, silent)
    whole = left(tmp_path / "data")
    assert len(whole) == 4 and not any(".prepare" in name for name in whole)
    with pytest.raises(TaskError, match="is there already; remove it"):
        prepare("voc21", [source], tmp_path / "data", {"train": 1, "val": 1}, silent)
    (tmp_path / "data/segmentation/voc21_training_00.tar").rename(tmp_path / "data/segmentation/voc21_training_01.tar")
    for name in ("voc21_meta.json", "voc21_validation_00.tar"):
        (tmp_path / "data" / "segmentation" / name).unlink()
    with pytest.raises(TaskError, match="voc21_training_01.tar is there already"):  # a shard of another build
        prepare("voc21", [source], tmp_path / "data", {"train": 1, "val": 1}, silent)


def test_a_killed_preparation_leaves_no_pack(tmp_path, monkeypatch) -> None:
    from benchmarks.prepare import segmentation

    source = official_forms.voc(tmp_path)

    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(segmentation, "write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        prepare("voc21", [source], tmp_path / "data", {"train": 1, "val": 1}, silent)
    assert not (tmp_path / "data").exists()


def test_the_verb(tmp_path, monkeypatch, capsys) -> None:
    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["run_all.py", "prepare", *arguments])
        with pytest.raises(SystemExit) as stop:
            run_all.main()
            raise SystemExit(0)
        out = capsys.readouterr()
        return int(stop.value.code or 0), out.out, out.err

    code, out, _ = call("--help")
    assert code == 0 and "run_all.py prepare" in " ".join(out.split())
    code, _, err = call("camvit", "--from", str(tmp_path), "--out", str(tmp_path / "data"))
    assert code == 2 and err.count("\n") == 1 and "camvid11" in err
    code, _, err = call("voc21", "--from", str(tmp_path), "--out", "/proc/nowhere")
    assert code == 2 and err.count("\n") == 1 and "voc21 cannot be written under /proc/nowhere" in err
    source = official_forms.camvid(tmp_path, {"train": 3, "val": 1, "test": 1})
    code, _, err = call("camvid11", "--from", str(source), "--out", str(tmp_path / "data"))
    assert code == 2 and "train has 3 pictures, 367 are needed" in err and left(tmp_path / "data") == []
    sizes = {"train": 3, "val": 1, "test": 1}
    monkeypatch.setitem(PACKS, "camvid11", dataclasses.replace(PACKS["camvid11"], sizes=sizes))
    code, out, _ = call("camvid11", "--from", str(source), "--out", str(tmp_path / "data"))
    assert code == 0 and "camvid11_test_00.tar" in out and "check data camvid11" in out


def packed(kind: str) -> bytes:
    """A small archive of two files."""
    out, content = io.BytesIO(), bytes(range(256)) * 8
    if kind.startswith("zip"):
        method = {"zip": zipfile.ZIP_DEFLATED, "zip stored": zipfile.ZIP_STORED, "zip lzma": zipfile.ZIP_LZMA}[kind]
        with zipfile.ZipFile(out, "w", method) as archive:
            for name in ("a.txt", "b/c.txt"):
                archive.writestr(name, content)
    else:
        with tarfile.open(fileobj=out, mode={"tar": "w", "tgz": "w:gz", "tar.xz": "w:xz"}[kind]) as archive:
            for name in ("a.txt", "b/c.txt"):
                member = info(name, size=len(content))
                archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


KINDS = {kind: packed(kind) for kind in ("zip", "zip stored", "zip lzma", "tar", "tgz", "tar.xz")}


@given(st.sampled_from(sorted(KINDS)), st.integers(0, 10**6), st.integers(1, 255), st.booleans())
@settings(max_examples=150, deadline=None)
def test_a_damaged_archive_is_one_line_or_unpacked(kind: str, place: int, flip: int, cut: bool) -> None:
    content = bytearray(KINDS[kind])
    place %= len(content)
    content[place] ^= flip
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / f"a.{kind.split()[0]}"
        archive.write_bytes(content[:place] if cut else content)
        try:
            unpack(archive, Path(folder) / "out")
        except TaskError as error:
            assert str(archive) in str(error) and "\n" not in str(error)
        assert {p.name for p in Path(folder).iterdir()} == {archive.name, "out"}


@pytest.mark.parametrize("offset, value, why", [
    (6, 1, "is encrypted; unpack it by hand"), (8, 97, "compression"), (60, None, "cannot be unpacked"),
])  # fmt: skip
def test_zips_of_forms_that_cannot_be_read_are_named(tmp_path, offset: int, value: int | None, why: str) -> None:
    content = bytearray(KINDS["zip"])
    central = content.index(b"PK\x01\x02")
    if value is None:  # damage inside of the compressed bytes
        content[offset] ^= 255
    else:
        content[offset] = content[central + offset + 2] = value
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(TaskError, match=why):
        unpack(tmp_path / "a.zip", tmp_path / "out")
