"""Damaged labels, captions, tables and pairs: read as they are, or one line that names the file; never a traceback."""

import io
import json
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fuzz_tools import damaged, fuzzed
from hypothesis import strategies as st
from PIL import Image

from tasks.contract import TaskError
from tasks.data.boxes.columns import read_box_labels
from tasks.data.readers.captions import read_caption_lines, read_caption_table, read_coco_captions, read_karpathy
from tasks.data.readers.classes import read_class_table
from tasks.data.readers.meanings import read_meaning
from tasks.data.readers.tables import open_parquet

ODD = [None, True, -1, 0, 1.5, float("nan"), float("inf"), 2**63, 10**400, "", "1", "\ud800", "a\0b", [], [1], {}, [[]]]

LVIS = {
    "images": [{"id": i, "width": 9, "height": 8, "file_name": f"{i}.jpg", "neg_category_ids": [2],
                "not_exhaustive_category_ids": []} for i in (1, 2)],
    "categories": [{"id": c, "name": f"c{c}", "synonyms": ["x"], "frequency": "f"} for c in (1, 2)],
    "annotations": [{"id": i, "image_id": 1, "category_id": 1, "bbox": [1, 1, 2, 2], "area": 4.0, "iscrowd": 0,
                     "segmentation": [[1, 1, 2, 2, 1, 2]]} for i in (1, 2)],
}  # fmt: skip
KARPATHY = {"images": [{"filename": f"{i}.jpg", "filepath": "a", "split": s, "sentences": [{"raw": "a"}, {"raw": "b"}]}
                       for i, s in enumerate(("train", "test"))]}  # fmt: skip
COCO = {"images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}],
        "annotations": [{"id": i, "image_id": i, "caption": "x"} for i in (1, 2)]}  # fmt: skip
META = {"class_names": ["a", "b"], "ignore_label": 255, "reduce_zero_label": False, "values": {"0": "a", "9": "b"}}
PALETTE = {"class_names": ["a", "b"], "palette": {"a": [0, 0, 0], "b": [1, 2, 3]}}
DOCUMENTS = {
    "lvis": (LVIS, read_box_labels), "karpathy": (KARPATHY, read_karpathy), "coco": (COCO, read_coco_captions),
    "meta": (META, read_meaning), "palette": (PALETTE, read_meaning),
}  # fmt: skip


def outcome(read, path: Path) -> object:
    """What is read, or the error, which must be one line that begins with the file."""
    try:
        return read(path)
    except TaskError as error:
        assert str(error).startswith(str(path)) and "\n" not in str(error) and len(str(error)) < 2100, str(error)
        return error


@pytest.mark.parametrize("name", DOCUMENTS)
@fuzzed(60, 4000, seed=st.integers(0, 2**32), times=st.integers(1, 3))
def test_damaged_values(tmp_path_factory, name: str, seed: int, times: int) -> None:
    whole, read = DOCUMENTS[name]
    chance, path = random.Random(seed), tmp_path_factory.getbasetemp() / f"{name}.json"
    value = whole
    for _ in range(times):
        value = damaged(value, chance, ODD)
        if not value:
            break
    path.write_text(json.dumps(value))
    found = outcome(read, path)
    if name == "lvis" and not isinstance(found, TaskError):
        assert_boxes_are_what_the_schema_allows(found, value)


def assert_boxes_are_what_the_schema_allows(found, value) -> None:
    """Nothing that was accepted is missing, not finite, doubled or unknown."""
    assert len(found.box) == len(value["annotations"])
    assert np.isfinite(found.box).all() and np.isfinite(found.area).all()
    assert len(set(found.image_ids.tolist())) == len(value["images"])
    assert len(set(found.annotation_ids.tolist())) == len(found.box)
    assert (found.sizes >= 1).all() and all(found.names)
    for one, image, category in zip(value["annotations"], found.image, found.category, strict=True):
        assert found.image_ids[image] == one["image_id"] and found.category_ids[category] == one["category_id"]


@pytest.mark.parametrize("name", DOCUMENTS)
@fuzzed(40, 2000, at=st.integers(0, 2000), gone=st.integers(0, 6), noise=st.binary(max_size=4))
def test_damaged_bytes(tmp_path_factory, name: str, at: int, gone: int, noise: bytes) -> None:
    whole, read = DOCUMENTS[name]
    content = bytearray(json.dumps(whole).encode())
    at %= len(content)
    content[at : at + gone] = noise
    path = tmp_path_factory.getbasetemp() / f"{name}_bytes.json"
    path.write_bytes(bytes(content))
    outcome(read, path)


LINES = {
    "token": b"a.jpg#0\tA dog .\na.jpg#1\tA cat .\nb.jpg#0\tX\n", "comma": b'image,caption\na.jpg,"A, b"\nb.jpg,c\n',
    "bar": b"image_name| comment_number| comment\na.jpg| 0| A dog\na.jpg| 1| B\n",
    "split": b"filename,split,caption\na.jpg,train,x\nb.jpg,test,y\n",
}  # fmt: skip


@pytest.mark.parametrize("name", LINES)
@fuzzed(40, 2000, at=st.integers(0, 100), gone=st.integers(0, 5), noise=st.binary(max_size=3) | st.sampled_from(
    [b"\n", b"\t", b",", b'"', b"|", b"#", b"\r\n", b"\xef\xbb\xbf"]))  # fmt: skip
def test_damaged_caption_files(tmp_path_factory, name: str, at: int, gone: int, noise: bytes) -> None:
    content = bytearray(LINES[name])
    at %= len(content)
    content[at : at + gone] = noise
    path = tmp_path_factory.getbasetemp() / f"{name}.txt"
    path.write_bytes(bytes(content))
    found = outcome(read_caption_lines, path)
    if not isinstance(found, TaskError):
        listed, splits = found
        assert all(name and captions and all(c.strip() for c in captions) for name, captions in listed.items())
        assert set(splits) <= set(listed)


def encoded(seed: int) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (4, 5, 3), np.uint8)).save(sink, "PNG")
    return sink.getvalue()


NUMBERS = st.one_of(st.integers(-2, 5), st.none(), st.floats(), st.booleans())
COLUMNS = st.lists(NUMBERS, min_size=1, max_size=5) | st.lists(st.text(max_size=3), min_size=1, max_size=5)


@fuzzed(50, 2000, labels=COLUMNS, classes=st.sampled_from([None, ("a", "b", "c")]))
def test_labels_of_tables(tmp_path_factory, labels: list, classes) -> None:
    path = tmp_path_factory.getbasetemp() / "labels.parquet"
    try:
        pq.write_table(pa.table({"image": [encoded(0)] * len(labels), "label": labels}), path)
    except (pa.ArrowException, ValueError, TypeError):
        return  # no column can hold these together
    found = outcome(lambda p: read_class_table(open_parquet([p]), classes), path)
    if not isinstance(found, TaskError):
        assert len(found) == len(labels) and (found.labels >= 0).all() and (found.labels < len(found.classes)).all()
        kept = pq.read_table(path)["label"].to_pylist()
        for label, told in zip(found.labels.tolist(), kept, strict=True):
            assert found.classes[label] == told if isinstance(told, str) else label == told


def test_a_column_whose_name_is_not_utf8_is_named(tmp_path) -> None:
    path = tmp_path / "odd.parquet"
    pq.write_table(pa.table({"image": [encoded(0)], "zzzz": [0]}), path, store_schema=False)
    path.write_bytes(path.read_bytes().replace(b"zzzz", b"\x80zzz"))
    with pytest.raises(TaskError, match="odd.parquet: cannot be read as parquet: 'utf-8' codec can't decode byte 0x80"):
        open_parquet([path])


@pytest.mark.parametrize("kind", ["classes", "captions"])
@fuzzed(50, 2000, at=st.integers(0, 4000), gone=st.integers(0, 40), noise=st.binary(max_size=8), cut=st.booleans())
def test_damaged_parquet(tmp_path_factory, kind: str, at: int, gone: int, noise: bytes, cut: bool) -> None:
    folder = tmp_path_factory.getbasetemp()
    whole = folder / f"whole_{kind}.parquet"
    if not whole.exists():
        more = {"label": [0, 1, 0]} if kind == "classes" else {"captions": [["a", "b"], ["c"], ["d"]]}
        names = {"filename": ["a", "b", "c"]}
        pq.write_table(pa.table({"image": [encoded(i) for i in range(3)], **more, **names}), whole)
    content = bytearray(whole.read_bytes())
    at %= len(content)
    content[at:] = b"" if cut else bytes(noise) + bytes(content[at + gone :])
    path = folder / f"damaged_{kind}.parquet"
    path.write_bytes(bytes(content))

    def read(one: Path):
        split = (read_class_table if kind == "classes" else read_caption_table)(open_parquet([one]))
        return [split.pictures.read(i) for i in range(len(split))]

    outcome(read, path)
