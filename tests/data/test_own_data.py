"""Data as people have them: every small input that once went wrong without a word, and what is right instead."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_tools import picture, sized
from PIL import Image

from benchmarks.prepare.check import check_sets
from tasks import build_task
from tasks.data.checks import fingerprints
from tasks.data.checks.inspection import inspect
from tasks.data.errors import Missing, Wrong
from tasks.data.sets.boxed import boxed_set
from tasks.data.sets.captioned import captioned_set
from tasks.data.sets.labelled import labelled_set
from tasks.data.sets.masked import masked_set


def encoded(tmp: Path, seed: int) -> bytes:
    return picture(tmp / "one.png", seed).read_bytes()


def folders(root: Path, splits: tuple[str, ...] = ("train", "test"), suffix: str = ".png", each: int = 3) -> Path:
    """`own/SPLIT/{ant,bee}/i.png`; all pictures differ."""
    for s, split in enumerate(splits):
        for c, name in enumerate(("ant", "bee")):
            for i in range(each):
                picture(root / "own" / split / name / f"{i}{suffix}", 1000 * s + 100 * c + i)
    return root


def table(path: Path, labels: list, images: list | None = None, features: dict | None = None, **names: str) -> Path:
    """A parquet file; `names` renames the columns image and label."""
    images = images or [encoded(path.parent.parent, i) for i in range(len(labels))]
    columns = {names.get("image", "image"): images, names.get("label", "label"): labels}
    content = pa.table(columns)
    if features:
        content = content.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(content, path)
    return path


def saved(folder: Path, labels: list[int], names: list[str]) -> None:
    """What `save_to_disk` writes of one split."""
    folder.mkdir(parents=True)
    images = [{"bytes": encoded(folder.parent, i), "path": None} for i in range(len(labels))]
    content = pa.table({"image": images, "label": labels})
    with pa.OSFile(str(folder / "data.arrow"), "wb") as file, pa.ipc.new_stream(file, content.schema) as out:
        out.write_table(content)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data.arrow"}]}))
    (folder / "dataset_info.json").write_text(json.dumps({"features": {"label": {"names": names}}}))


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


# --- masks, boxes, captions


def test_a_class_that_no_training_mask_holds_is_an_error(tmp_path) -> None:
    """B9: masks 0/255 of two classes would be all background and all ignored."""
    for part in ("images", "annotations"):
        for split in ("train", "val"):
            for i in range(2):
                place = tmp_path / "own" / part / split / f"{i}.png"
                place.parent.mkdir(parents=True, exist_ok=True)
                pixels = np.zeros((6, 8) if part == "annotations" else (6, 8, 3), np.uint8)
                pixels[:2], pixels[4, i] = 255 if part == "annotations" else 9, 0 if part == "annotations" else 90 + i
                Image.fromarray(pixels).save(place)
    (tmp_path / "own" / "meta.json").write_text(json.dumps({"class_names": ["no", "yes"]}))
    (error,) = inspect(masked_set("own", tmp_path), ("train", "val")).errors
    assert "class 'yes' of 2 is in no training mask; the masks hold the values 0, 255; `values` in" in str(error)
    values = {"class_names": ["no", "yes"], "values": {"0": "no", "255": "yes"}}
    (tmp_path / "own" / "meta.json").write_text(json.dumps(values))
    assert inspect(masked_set("own", tmp_path), ("train", "val")).errors == []


def boxes(root: Path, split: str = "train", **change: object) -> dict:
    images = [{"id": i, "file_name": f"{split}{i}.png", "width": 8, "height": 6} for i in (1, 2)]
    for i, image in enumerate(images):
        picture(root / "own" / "images" / image["file_name"], i + 10 * len(split))
    one = {"id": 5, "image_id": 1, "category_id": 7, "bbox": [1, 1, 3, 2], "area": 6, "iscrowd": 0} | change
    labels = {"images": images, "annotations": [one], "categories": [{"id": 7, "name": "a"}]}
    (root / "own" / f"{split}.json").write_text(json.dumps(labels))
    return labels


@pytest.mark.parametrize("change, said", [
    ({"bbox": [5, 1, -3, 2]}, r"bbox \[5.0, 1.0, -3.0, 2.0\] has a negative side"),
    ({"bbox": [20, 1, 3, 2]}, "is outside the image"), ({"bbox": [1, 1, float("nan"), 2]}, "bbox must be four finite"),
    ({"image_id": 9}, "image_id 9 is not among the images"), ({"category_id": 8}, "category_id 8 is not among the"),
    ({"area": None}, "area must be a finite number"), ({"iscrowd": 3}, "iscrowd must be 0 or 1"),
])  # fmt: skip
@pytest.mark.parametrize("split", ["train", "val"])
def test_boxes_of_training_are_checked_as_those_of_evaluation(tmp_path, change, said, split) -> None:
    """B15"""
    for name in ("train", "val"):
        boxes(tmp_path, name, **(change if name == split else {}))
    task = build_task("detection", tmp_path, {"data": "own", "text": "tiny"})
    (problem,) = task.missing(("val",))
    assert str(problem).startswith(f"{tmp_path / 'own' / split}.json: annotation 0 (id 5): ")
    assert re.search(said, str(problem)), problem


def test_other_faults_of_box_labels(tmp_path) -> None:
    """B15: ids that occur twice, no categories, pictures of another size, boxes without area, two corners."""
    labels = boxes(tmp_path)
    path = tmp_path / "own" / "train.json"

    def problem(**change: object) -> str:
        path.write_text(json.dumps({k: v for k, v in (labels | change).items() if v is not None}))
        return "; ".join(map(str, inspect(boxed_set("own", tmp_path), ("train",)).errors))

    assert "image 1 (id 1): id 1 occurs twice" in problem(images=[labels["images"][0]] * 2)
    assert "has no 'categories', so it is not LVIS or COCO labels" in problem(categories=None)
    larger = [{**image, "width": 16} for image in labels["images"]]
    assert "train1.png: is 8x6 px, its labels are for 16x6" in problem(images=larger)
    one = labels["annotations"][0]
    corners = [{**one, "id": i, "bbox": [5, 3, 8, 6], "area": 9} for i in range(5)]
    path.write_text(json.dumps(labels | {"annotations": [*corners, {**one, "bbox": [1, 1, 0, 2], "area": 0}]}))
    findings = inspect(boxed_set("own", tmp_path), ("train",))
    assert any("1 of 6 boxes have no area: they are dropped" in note for note in findings.notes)
    assert any("5 of 6 boxes reach beyond their picture: bbox is x, y, width, height" in n for n in findings.notes)
    (tmp_path / "own" / "images" / "train2.png").unlink()
    assert "1 of 2 pictures that train.json names are missing, the first is train2.png" in problem()


@pytest.mark.parametrize("sentences, read", [
    ([{"raw": "a dog"}], ["a dog"]), (["a dog", "a cat"], ["a dog", "a cat"]), ([{"tokens": ["a", "dog"]}], ["a dog"]),
    ("a dog", ["a dog"]), ([{"raw": None}], "sentences[0] must be a text, or an object with 'raw' or 'tokens', not"),
    ([], "sentences must be a list of sentences, not []"), (None, "sentences must be a list of sentences, not None"),
    ([3], "sentences[0] must be a text"), ([{"raw": " "}], "sentences[0] must be a text"),
])  # fmt: skip
def test_karpathy_json_of_others(tmp_path, sentences, read) -> None:
    """B17: all splits are looked at, not train alone."""
    entries = [{"filename": f"{s}.png", "split": s, "sentences": [{"raw": "x"}]} for s in ("train", "val", "test")]
    entries[2]["sentences"] = sentences
    for entry in entries:
        picture(tmp_path / "images" / entry["filename"])
    (tmp_path / "own.json").write_text(json.dumps({"images": entries}))
    problems = build_task("retrieval", tmp_path, {"data": "own.json", "text": "tiny"}).missing()
    if isinstance(read, list):
        assert problems == [] and captioned_set("own.json", tmp_path).load("test").captions == [read]
    else:
        (problem,) = problems
        assert f"own.json: image 2: {read}" in str(problem)


@pytest.mark.parametrize("form", ["token", "kaggle8k", "kaggle30k", "split column"])
def test_caption_files_as_they_are_downloaded(tmp_path, form) -> None:
    names = [f"{i}.jpg" for i in range(4)]
    for i, name in enumerate(names):
        picture(tmp_path / "flickr" / "Images" / name, i)
    head, row = {
        "token": ("", "{0}#{1}\tA dog , {2} ."), "kaggle8k": ("image,caption\n", '{0},"A dog , {2} ."'),
        "kaggle30k": ("image_name| comment_number| comment\n", "{0}| {1}| A dog , {2} ."),
        "split column": ("split,filename,caption\n", '{3},{0},"A dog , {2} ."'),
    }[form]  # fmt: skip
    splits = ["train", "train", "val", "test"]
    text = "\n".join(row.format(n, k, f"{n} {k}", splits[i]) for i, n in enumerate(names) for k in range(2))
    path = tmp_path / "flickr" / ("results.token" if form == "token" else "captions.txt")
    path.write_text(head + text)
    if form != "split column":
        (problem, *_) = captioned_set(f"flickr/{path.name}", tmp_path).problems(("train",))
        assert "says no splits; put lists of names" in str(problem)
        for called, chosen in (("train", names[:2]), ("dev", names[2:3]), ("test", names[3:])):
            (tmp_path / "flickr" / f"Flickr_8k.{called}Images.txt").write_text("\n".join(chosen))
    test = captioned_set(f"flickr/{path.name}", tmp_path).load("test")
    assert test.names == ["3.jpg"] and test.captions == [["A dog , 3.jpg 0 .", "A dog , 3.jpg 1 ."]]
    assert captioned_set(f"flickr/{path.name}", tmp_path).has_val


# --- check data


def test_check_data_looks_at_own_folders_and_files_as_a_run_would(tmp_path) -> None:
    """B18"""
    folders(tmp_path)
    shutil.copytree(tmp_path / "own", tmp_path / "classes")
    shutil.rmtree(tmp_path / "own")
    for split in ("train", "val"):
        boxes(tmp_path, split)
    states = {c.task: c for c in check_sets(["classes/", "own"], tmp_path)}
    assert {task: c.state for task, c in states.items()} == {"classification": "ok", "detection": "ok"}, states
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="is of no form that is read; it has: nothing; read are: train/"):
        list(check_sets(["empty"], tmp_path))
    torn = tmp_path / "classes" / "test" / "bee" / "1.png"
    torn.write_bytes(torn.read_bytes()[:60])
    (checked,) = check_sets(["classes/"], tmp_path)
    assert checked.state == "wrong" and f"{torn}: cannot be decoded" in checked.problems[0]


def test_pictures_that_train_and_test_share_are_counted_and_told(tmp_path) -> None:
    folders(tmp_path)
    own = tmp_path / "own"
    shutil.copy(own / "train" / "ant" / "1.png", own / "test" / "bee" / "0.png")
    findings = inspect(labelled_set("own/", tmp_path), ("train", "test"))
    assert findings.errors == []
    (note,) = findings.notes
    said = "1 of 6 pictures of test are in train too, byte for byte; the first is bee/0.png, in train ant"
    assert note.startswith(said)


def test_exif_is_told_and_not_followed(tmp_path) -> None:
    folders(tmp_path, suffix=".jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    place = tmp_path / "own" / "test" / "ant" / "0.jpg"
    with Image.open(place) as image:
        image.save(place, exif=exif)
    (note,) = inspect(labelled_set("own/", tmp_path), ("test",)).notes
    assert note == "1 of 6 pictures are turned by EXIF, which is not followed: stored pixels are read"
