"""Data as people have them: every small input that once went wrong without a word, and what is right instead."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from data_tools import folders, picture, saved, sized, table

from tasks import build_task
from tasks.data.checks import fingerprints
from tasks.data.checks.inspection import inspect
from tasks.data.errors import Missing, Wrong
from tasks.data.sets.boxed import boxed_set
from tasks.data.sets.labelled import labelled_set

# --- identity is content


def test_what_changes_under_the_same_name_is_another_split(tmp_path) -> None:
    """B1, B2: other pictures, labels, members; the same size, and the same time of change."""
    folders(tmp_path)
    before = {s: labelled_set("own/", tmp_path).load(s).fingerprint for s in ("train", "test")}
    assert before == {s: labelled_set("own/", tmp_path).load(s).fingerprint for s in ("train", "test")}
    one = tmp_path / "own" / "test" / "ant" / "0.png"
    kept, times = one.read_bytes(), os.stat(one)
    changed = bytearray(kept)
    changed[-20] ^= 1
    one.write_bytes(bytes(changed))
    os.utime(one, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert labelled_set("own/", tmp_path).load("test").fingerprint != before["test"]
    assert labelled_set("own/", tmp_path).load("train").fingerprint == before["train"]
    one.write_bytes(kept)
    assert labelled_set("own/", tmp_path).load("test").fingerprint == before["test"]
    shutil.move(one, tmp_path / "own" / "test" / "bee" / "9.png")  # another label
    assert labelled_set("own/", tmp_path).load("test").fingerprint != before["test"]
    other = folders(tmp_path / "other")
    picture(other / "own" / "train" / "ant" / "0.png", 77)  # the same names under another root
    assert labelled_set("own/", other).load("train").fingerprint != before["train"]


def test_hashes_are_remembered_and_never_trusted_too_early(tmp_path, monkeypatch) -> None:
    folders(tmp_path)
    reads: list[int] = []
    plain = fingerprints.hash_of
    monkeypatch.setattr(fingerprints, "hash_of", lambda content: reads.append(1) or plain(content))
    first = labelled_set("own/", tmp_path).load("test").fingerprint
    assert len(reads) == 6 and labelled_set("own/", tmp_path).load("test").fingerprint == first
    assert len(reads) == 12  # changed a moment ago: it may change again within one tick of its clock
    monkeypatch.setattr(fingerprints, "SETTLED", -1.0)
    labelled_set("own/", tmp_path).load("test").fingerprint  # noqa: B018
    assert labelled_set("own/", tmp_path).load("test").fingerprint == first and len(reads) == 18
    (cache,) = [p for p in Path(os.environ["FLEXIVIT_CACHE"], "fingerprints").iterdir() if _holds(p, 6)][-1:]
    cache.write_bytes(cache.read_bytes()[:40])  # a torn cache costs time, nothing else
    assert labelled_set("own/", tmp_path).load("test").fingerprint == first


def _holds(path: Path, count: int) -> bool:
    with np.load(path) as kept:
        return len(kept["known"]) == count


def test_large_splits_are_sampled_and_say_so(tmp_path, monkeypatch) -> None:
    folders(tmp_path, each=6)
    whole = labelled_set("own/", tmp_path).load("test").fingerprint
    monkeypatch.setattr(fingerprints, "LARGE", 100)
    sampled = labelled_set("own/", tmp_path).load("test").fingerprint
    assert len(whole) == 16 and sampled.endswith(" (1 in 100)")
    picture(tmp_path / "own" / "test" / "bee" / "5.png", 3, size=(30, 30))  # not read, but its size tells
    assert labelled_set("own/", tmp_path).load("test").fingerprint not in (sampled, whole)


# --- splits


def test_one_saved_set_is_no_train_and_test(tmp_path) -> None:
    """B3"""
    saved(tmp_path / "one", [0, 1, 0, 1], ["a", "b"])
    with pytest.raises(Missing, match=r"has no split 'test'; it is one split that datasets saved; save a DatasetDict"):
        labelled_set("hf:one", tmp_path).load("test")
    assert len(build_task("classification", tmp_path, {"data": "hf:one"}).missing()) == 2


def test_val_stands_for_a_test_that_is_not_there(tmp_path) -> None:
    """B19"""
    folders(tmp_path, ("train", "val"))
    assert len(labelled_set("own/", tmp_path).load("test")) == 6
    folders(tmp_path, ("train", "val", "test"), each=2)
    assert labelled_set("own/", tmp_path).load("test").pictures.where(0).split("/")[-3] == "test"
    shutil.rmtree(tmp_path / "own" / "test"), shutil.rmtree(tmp_path / "own" / "val")
    with pytest.raises(Missing, match="has no split 'test'; it has: train; a split is a folder"):
        labelled_set("own/", tmp_path).load("test")


# --- labels


def test_classes_of_a_test_split_are_matched_by_name(tmp_path) -> None:
    """B4: another order of the names in the test's metadata is another numbering, not other classes."""
    for split, names, labels in (("train", ["ant", "bee"], [0, 1, 0, 1]), ("test", ["bee", "ant"], [0, 0, 1])):
        saved(tmp_path / "set" / split, labels, names)
        table(tmp_path / "hub" / "data" / f"{split}-00000.parquet", labels, features={"label": {"names": names}})
    for name in ("hf:set", "hub/"):
        test = labelled_set(name, tmp_path).load("test")
        assert test.classes == ("ant", "bee") and test.labels.tolist() == [1, 1, 0], name


@pytest.mark.parametrize("labels, said", [
    ([0, -3], "row 1: label must be a whole number from 0 on, or the name of a class, not -3"),
    ([0, None], "row 1: label must be .*, not None"), ([0.0, float("nan")], "row 1: label must be .*, not NaN"),
    ([0.0, 0.7], "row 1: label must be .*, not 0.7"), ([1, 2, 3], "label has labels 1 to 3: they must start at 0"),
    ([[0], [1]], r"row 0: label must be .*, not \[0\]"), ([True, False], "row 0: label must be .*, not True"),
])  # fmt: skip
def test_labels_that_are_none_are_named_with_file_and_row(tmp_path, labels, said) -> None:
    """B4"""
    path = table(tmp_path / "own" / "train.parquet", labels)
    with pytest.raises(Wrong, match=f"^{path}: .*{said}" if said.startswith("row") else f"^{path}: {said}"):
        labelled_set("own/", tmp_path).load("train")


@pytest.mark.parametrize("train, test, said", [
    ([0, 1, 0], [0, 2], "row 1: label 2 is none of the 2 classes of train"),
    (["ant", "bee", "ant"], ["ant", "beee"], "row 1: label 'beee' is none of the 2 classes of train; nearest: bee"),
])  # fmt: skip
def test_a_label_that_train_lacks_is_named(tmp_path, train, test, said) -> None:
    """B4"""
    table(tmp_path / "own" / "train.parquet", train), table(tmp_path / "own" / "test.parquet", test)
    with pytest.raises(Wrong, match=said):
        labelled_set("own/", tmp_path).load("test")


def test_a_class_folder_that_train_lacks_and_one_without_pictures(tmp_path) -> None:
    folders(tmp_path)
    (tmp_path / "own" / "test" / "bees").mkdir()
    with pytest.raises(Wrong, match="has the class folder 'bees', which the training classes do not; nearest: bee"):
        labelled_set("own/", tmp_path).load("test")
    (tmp_path / "own" / "test" / "bees").rmdir()
    (tmp_path / "own" / "train" / "cat").mkdir(), (tmp_path / "own" / "test" / "cat").mkdir()
    (tmp_path / "own" / "train" / "cat" / "a.heic").write_bytes(b"x")
    with pytest.raises(Missing, match=r"train/cat: has no pictures; 1 file passed over: 1 \.heic"):
        labelled_set("own/", tmp_path).load("train")


@pytest.mark.parametrize("columns", [{"image": "img", "label": "fine_label"}, {"label": "labels"}, {"image": "picture"},
                                     {"image": "odd", "label": "kind"}])  # fmt: skip
def test_columns_by_their_usual_names_or_by_option(tmp_path, columns) -> None:
    """B20"""
    for split in ("train", "test"):
        table(tmp_path / "own" / "data" / f"{split}-00000-of-00001.parquet", [0, 1, 0], **columns)
    options = {"image": "odd", "label": "kind"} if "kind" in columns.values() else {}
    assert len(labelled_set("own/", tmp_path, **options).load("test")) == 3
    if options:
        with pytest.raises(Wrong, match="it has: odd, kind; the option image_column names the column"):
            labelled_set("own/", tmp_path).load("test")


def test_tables_may_hold_paths(tmp_path) -> None:
    """B20: a column of paths beside the file, and Hugging Face's struct without bytes."""
    place = picture(tmp_path / "own" / "pictures" / "a.png")
    for images in (["pictures/a.png"] * 2, [{"bytes": None, "path": "pictures/a.png"}] * 2):
        table(tmp_path / "own" / "train.parquet", [0, 1], images)
        assert labelled_set("own/", tmp_path).whole("train").read(1) == place.read_bytes()
    place.unlink()
    (error,) = inspect(labelled_set("own/", tmp_path), ("train",)).problems
    assert "a.png: no such file" in str(error)


# --- what is in folders


@pytest.mark.parametrize("suffix", [".tif", ".tiff", ".gif", ".jfif", ".webp", ".bmp", ".JPG", ".jpe"])
def test_what_the_decoder_reads_is_taken(tmp_path, suffix) -> None:
    """B6"""
    kind = {".jfif": "JPEG", ".jpe": "JPEG"}.get(suffix.lower())
    for split in ("train", "test"):
        for c in ("ant", "bee"):
            picture(tmp_path / "own" / split / c / f"0{suffix}", **({"format": kind} if kind else {}))
    task = build_task("classification", tmp_path, {"data": "own/", "image_size": 8})
    assert task.missing() == [] and task.dataset("test")[1][0].shape == (3, 8, 8)


def test_links_are_followed_and_what_systems_leave_is_passed_over(tmp_path) -> None:
    """B6"""
    folders(tmp_path)
    train = tmp_path / "own" / "train"
    picture(tmp_path / "elsewhere" / "9.png", 9)
    (train / "ant" / "more").symlink_to(tmp_path / "elsewhere"), (train / "bee" / "loop").symlink_to(train)
    for name in (".ipynb_checkpoints", "__MACOSX"):
        picture(train / name / "a.png")
    (train / "ant" / "._0.png").write_bytes(b"x"), (train / "ant" / "Thumbs.db").write_bytes(b"x")
    (train / "ant" / "notes.txt").write_text("x"), (train / "bee" / "b.heic").write_bytes(b"x")
    whole = labelled_set("own/", tmp_path).whole("train")
    assert whole.classes == ("ant", "bee") and "ant/more/9.png" in whole.names and len(whole) == 7
    assert whole.notes == (f"{train}: 2 files passed over: 1 .heic, 1 .txt",)


# --- known sets


def imagenet(root: Path, monkeypatch, classes: int = 3) -> list[str]:
    sized(monkeypatch, "imagenet", "classes")
    wnids = [f"n{i:08d}" for i in range(classes)]
    for i, wnid in enumerate(wnids):
        picture(root / "imagenet" / "train" / wnid / f"{wnid}_1.JPEG", i, format="JPEG")
        picture(root / "imagenet" / "val" / f"ILSVRC2012_val_{classes - i:08d}.JPEG", 50 + i, format="JPEG")
    return wnids


@pytest.mark.parametrize("form", ["kaggle", "slim", "caffe", "devkit"])
def test_flat_imagenet_is_read_with_an_official_list(tmp_path, monkeypatch, form) -> None:
    """B13"""
    wnids = imagenet(tmp_path, monkeypatch)
    folder, truth = tmp_path / "imagenet", ["n00000002", "n00000000", "n00000001"]
    data = labelled_set("imagenet", tmp_path)
    with pytest.raises(Missing, match="in no class folders, and no list .* put there one of: LOC_val_solution.csv"):
        data.load("val")
    names = [f"ILSVRC2012_val_{i:08d}" for i in (1, 2, 3)]
    if form == "kaggle":
        rows = [f"{name},{wnid} 85 1 499 272 " for name, wnid in zip(names, truth, strict=True)]
        (folder / "LOC_val_solution.csv").write_text("ImageId,PredictionString\n" + "\n".join(rows[::-1]))
    elif form == "slim":
        (folder / "imagenet_2012_validation_synset_labels.txt").write_text("\n".join(truth))
    elif form == "caffe":
        rows = [f"{name}.JPEG {wnids.index(wnid)}" for name, wnid in zip(names, truth, strict=True)]
        (folder / "val.txt").write_text("\n".join(rows))
    else:
        from scipy.io import savemat

        (folder / "data").mkdir()
        kinds = [("ILSVRC2012_ID", object), ("WNID", object)]
        synsets = np.array([(i, wnid) for i, wnid in enumerate(wnids[::-1], 1)], kinds)  # not the order of labels
        savemat(folder / "data" / "meta.mat", {"synsets": synsets[:, None]})
        numbers = [wnids[::-1].index(wnid) + 1 for wnid in truth]
        (folder / "data" / "ILSVRC2012_validation_ground_truth.txt").write_text("\n".join(map(str, numbers)))
    val = labelled_set("imagenet", tmp_path).load("val")
    assert val.labels.tolist() == [2, 0, 1] and val.classes == tuple(wnids)


def test_sizes_of_known_sets_are_checked_before_a_run(tmp_path, monkeypatch) -> None:
    """B12, B14: an incomplete val, and a class folder of A that got lost."""
    imagenet(tmp_path, monkeypatch)
    sized(monkeypatch, "imagenet", "classes", a=2)
    picture(tmp_path / "imagenet-a" / "n00000001" / "a.jpg")
    with pytest.raises(Wrong, match="split 'a' of imagenet has 1 images, it must have 2; get it from https"):
        labelled_set("imagenet", tmp_path).load("a")
    (problem,) = build_task("classification", tmp_path, {"data": "imagenet"}).missing(("a",))
    assert "it must have 2" in str(problem)


def test_the_trap_of_lvis_is_named(tmp_path, monkeypatch) -> None:
    """B12: most pictures of LVIS' val lie in COCO's train2017."""
    sized(monkeypatch, "lvis", "boxes")
    urls = ["http://images.cocodataset.org/train2017/000000000001.jpg", "http://images.cocodataset.org/val2017/2.jpg"]
    images = [
        {"id": i, "coco_url": url, "width": 8, "height": 6, "neg_category_ids": [], "not_exhaustive_category_ids": []}
        for i, url in enumerate(urls)
    ]
    one = {"id": 1, "image_id": 0, "category_id": 1, "bbox": [0, 0, 2, 2], "area": 4.0}
    labels = {"images": images, "annotations": [one], "categories": [{"id": 1, "name": "a", "frequency": "f"}]}
    (tmp_path / "lvis").mkdir()
    (tmp_path / "lvis" / "lvis_v1_val.json").write_text(json.dumps(labels))
    picture(tmp_path / "lvis" / "val2017" / "2.jpg")
    with pytest.raises(Missing, match="1 of 2 pictures .* there is no folder train2017; pictures of LVIS' val lie in"):
        boxed_set("lvis", tmp_path).load("val")
    picture(tmp_path / "coco" / "train2017" / "000000000001.jpg")  # COCO's own folders do as well
    assert len(boxed_set("lvis", tmp_path).load("val")) == 2
