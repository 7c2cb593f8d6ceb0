"""Strict JSON, whole and streamed, and checked fields: every fault is one line that names file, place and field."""

import gzip
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from fuzz_tools import fuzzed
from hypothesis import strategies as st

from tasks.data import documents
from tasks.data.documents import read_json, stream_json
from tasks.data.errors import DataError, Missing, Wrong, as_one_line
from tasks.data.records import Records

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


def written(folder: Path, text: str | bytes, name: str = "a.json") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def gathered(path: Path) -> object:
    """What the stream gives, put together again."""
    found: dict = {}
    for key, first, values in stream_json(path):
        if first < 0:
            (found[key],) = values
        else:
            assert first == len(found.setdefault(key, []))
            found[key] += values
    return found.get("") if set(found) == {""} and path.read_text().lstrip().startswith("[") else found


def same(one: object, other: object) -> bool:
    return repr(one) == repr(other)  # NaN is not equal to itself


@fuzzed(60, 3000, value=st.lists(JSON) | st.dictionaries(st.text(max_size=4), JSON), block=st.integers(1, 9))
def test_the_stream_gives_what_json_gives(tmp_path_factory, value: object, block: int) -> None:
    path = written(tmp_path_factory.getbasetemp(), json.dumps(value, indent=block % 3 or None))
    before = documents.BLOCK, documents.CHUNK
    documents.BLOCK, documents.CHUNK = block, 2
    try:
        assert same(gathered(path), value)
    finally:
        documents.BLOCK, documents.CHUNK = before
    assert same(read_json(path), value)


@fuzzed(60, 3000, data=st.data(), block=st.integers(1, 9))
def test_the_stream_refuses_what_json_refuses(tmp_path_factory, data, block: int) -> None:
    whole = '[{"a": [1, -2.5e3, NaN], "b": "x\\u00e9y"}, [], {}, null, true, "z"]'
    text = data.draw(st.sampled_from([whole, f'{{"images": {whole}, "info": {{"year": 1}}, "annotations": []}}']))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text)))
        text = text[:at] + data.draw(st.sampled_from(['', ',', ']', '}', '[', '{', '"', ':', ' ', '\\', '1', 'n'])) + (
            text[at + data.draw(st.integers(0, 3)) :]
        )  # fmt: skip
    path = written(tmp_path_factory.getbasetemp(), text)
    before = documents.BLOCK
    documents.BLOCK = block
    try:
        expected = json.loads(text, object_pairs_hook=documents._unique)
    except (ValueError, documents._Twice):
        for reader in (gathered, read_json):
            with pytest.raises(Wrong, match=r"^\S+a\.json: (is not JSON|has the key)") as caught:
                reader(path)
            assert "\n" not in str(caught.value)
    else:
        assert same(read_json(path), expected)
        if isinstance(expected, list | dict):
            assert same(gathered(path), expected)
        else:
            with pytest.raises(Wrong, match="expected an object or a list"):
                gathered(path)
    finally:
        documents.BLOCK = before


@pytest.mark.parametrize("reader", [read_json, gathered], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe\x00", b'[1] [2]', b"[1, 2,]", b"[1,, 2]", b"[1 2]", b'{"a": 1, "a": 2}', b'[{"a": 1, "a": 2}]',
     b"[" * 100_000, b"[1" + b"0" * 5000 + b"]", b"[1]\0", b"<html></html>"],
)  # fmt: skip
def test_what_is_no_json_is_one_line(tmp_path, reader, content: bytes) -> None:
    with pytest.raises(Wrong) as caught:
        reader(written(tmp_path, content))
    assert str(caught.value).startswith(f"{tmp_path / 'a.json'}: ") and "\n" not in str(caught.value)


def test_forms_that_are_taken(tmp_path) -> None:
    assert read_json(written(tmp_path, b"\xef\xbb\xbf[1]")) == [1]
    (tmp_path / "b.json.gz").write_bytes(gzip.compress(b'{"a": [1, 2]}'))
    assert read_json(tmp_path / "b.json.gz") == gathered_gz(tmp_path / "b.json.gz") == {"a": [1, 2]}
    (tmp_path / "c.json.gz").write_bytes(gzip.compress(b'{"a": [1, 2]}')[:-9])
    for reader in (read_json, lambda path: list(stream_json(path))):
        with pytest.raises(Wrong, match=r"c\.json\.gz: cannot be read"):
            reader(tmp_path / "c.json.gz")
        with pytest.raises(Missing, match=r"capions\.json: no such file; nearest: captions\.json"):
            written(tmp_path, "[]", "captions.json"), reader(tmp_path / "capions.json")
        with pytest.raises(Wrong, match="cannot be read: Is a directory"):
            reader(tmp_path)


def gathered_gz(path: Path) -> dict:
    return {key: values for key, _, values in stream_json(path)}


def test_polygons_are_dropped_as_they_are_read(tmp_path) -> None:
    path = written(tmp_path, json.dumps([{"id": i, "segmentation": [[0.0] * 50]} for i in range(5)]))
    ((key, first, values),) = stream_json(path, keep=lambda one: {"id": one["id"]})
    assert (key, first, values) == ("", 0, [{"id": i} for i in range(5)])


@fuzzed(60, 3000, value=JSON)
def test_columns_hold_what_is_allowed_or_name_it(value: object) -> None:
    """Whatever stands in a field: a column of the promised type, or one line with file, place and field."""

    def records() -> Records:
        return Records([{"id": 7, "field": 1}, {"id": 8, "field": value}], "a.json", "annotation")

    whole = type(value) is int or (type(value) is float and value.is_integer() and abs(value) <= 2**53)
    number = type(value) is int or (type(value) is float and np.isfinite(value))
    small = type(value) is not int or abs(value) < 2**63
    cases = (
        (lambda r: r.integers("field"), whole and small, np.int64),
        (lambda r: r.ids("field"), whole and small, np.int64),
        (lambda r: r.numbers("field"), number and small, np.float64),
        (lambda r: r.flags("field"), type(value) in (bool, int) and value in (0, 1), np.bool_),
    )
    for read, allowed, kind in cases:
        if allowed:
            found = read(records())
            assert found.dtype == kind and found[1] == value
        else:
            with pytest.raises(Wrong, match=r"^a\.json: annotation 1 \(id 8\): field must be ") as caught:
                read(records())
            assert (
                "\n" not in str(caught.value) and caught.value.field == "field" and caught.value.path == Path("a.json")
            )


@pytest.mark.parametrize(
    "field, value, said",
    [("bbox", [1, 2, 3], "four finite numbers, not [1, 2, 3]"), ("bbox", [], "four finite numbers, not []"),
     ("bbox", [1, 2, 3, float("nan")], "four finite numbers, not [1, 2, 3, nan]"),
     ("bbox", [1, 2, 3, True], "four finite numbers, not [1, 2, 3, True]"), ("area", None, "a finite number, not None"),
     ("area", float("nan"), "a finite number, not NaN"), ("area", -1, "a finite number of 0 or more, not -1"),
     ("image_id", 1.7, "an integer below 2**63, not 1.7"), ("image_id", "1", "an integer below 2**63, not '1'"),
     ("image_id", True, "an integer below 2**63, not True"), ("image_id", 2**63, "not 9223372036854775808"),
     ("name", "", "a text that is not empty, not ''"), ("name", "\ud800", "not '\\ud800'"), ("name", 3, "a text")],
)  # fmt: skip
def test_bad_fields_are_named(field: str, value: object, said: str) -> None:
    good = {"bbox": [0, 0, 1, 1], "area": 1, "image_id": 1, "name": "a"}
    records = Records([good, {**good, field: value}], "a.json", "annotation", first=100)
    reads = {"bbox": records.boxes, "area": lambda f: records.numbers(f, minimum=0), "image_id": records.ids,
             "name": records.texts}  # fmt: skip
    said = said if field != "area" or value == -1 else said.replace("number,", "number of 0 or more,")
    with pytest.raises(Wrong) as caught:
        reads[field](field)
    assert str(caught.value).startswith("a.json: annotation 101: ") and said in str(caught.value)


def test_absent_fields_doubles_and_wrong_lists_are_named() -> None:
    with pytest.raises(Wrong, match="annotation 1: has no 'a'; it has: b"):
        Records([{"a": 1}, {"b": 1}], None, "annotation").integers("a")
    assert Records([{"a": 1}, {"b": 1}], None, "annotation").integers("a", default=5).tolist() == [1, 5]
    records = Records([{"id": "x"}, {"id": "y"}, {"id": "x"}], "a.json", "image")
    with pytest.raises(Wrong, match=r"a\.json: image 2 \(id 'x'\): id 'x' occurs twice"):
        records.unique("id", records.ids("id"))
    with pytest.raises(Wrong, match="a.json: images must be a list, not 3"):
        Records(3, "a.json", "image")
    with pytest.raises(Wrong, match="a.json: image 1: must be an object, not 7"):
        Records([{}, 7], "a.json", "image")


def test_errors_keep_their_parts_between_processes() -> None:
    error = Missing("12 of 2,000 pictures are missing", path="data/x", place="val", advice="get it from http://x")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is Missing and isinstance(again, DataError) and str(again) == str(error)
    assert (again.path, again.place, again.advice) == (error.path, "val", "get it from http://x")
    assert as_one_line("a\n\tb\x1b[31m") == "a b\\x1b[31m"
