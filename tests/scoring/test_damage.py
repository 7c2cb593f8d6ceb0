"""Thousands of damaged files: a score that its schema allows, or one line; never a traceback, never a silent guess.

The schema is written here once more, value by value and as slowly as it is plain.
"""

import contextlib
import copy
import io
import json
import math
import warnings

import label_fuzz
import numpy as np
import pytest
from fuzz_tools import fuzzed, places
from hypothesis import strategies as st
from PIL import Image

from tasks.classification.prediction_files import score_classification
from tasks.contract import TaskError
from tasks.detection.scoring.files import score_detections
from tasks.retrieval.scoring import score_embeddings
from tasks.segmentation.scoring.folders import score_segmentation

JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 12), st.integers(-(10**40), 10**40), st.text(max_size=5),
    st.floats(allow_nan=True, allow_infinity=True), st.sampled_from([[], {}, [1], {"id": 1}, "1", 1.0, 0.0, -0.0]),
    st.lists(st.floats(-50, 400), min_size=3, max_size=5), st.lists(st.integers(0, 90), max_size=4),
)  # fmt: skip


def outcome(score, *arguments, **more):
    """The score, whose numbers are finite, or None for one line that says what is wrong."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = score(*arguments, **more)
    except TaskError as error:
        text = str(error)
        assert text and "\n" not in text and text.isprintable() and len(text) < 2500, repr(text)
        return None
    assert list(found.as_json()) == ["task", "protocol", "metrics", "counts"]
    for name, value in found.metrics.items():
        assert value is None or (math.isfinite(value) and (value <= 1 or "rank" in name or "_high" in name)), (
            name,
            value,
        )
    assert all(type(v) is int and v >= 0 for v in found.counts.values()), found.counts
    return found


def whole(value, low=-(2**63) + 1):
    if type(value) is float:
        return value.is_integer() and abs(value) <= 2**53 and value >= low
    return type(value) is int and low <= value < 2**63


def finite(value):
    return (type(value) is int and abs(value) < 2**63) or (type(value) is float and math.isfinite(value))


def good_text(value):
    return type(value) is str and "\0" not in value and not any("\ud800" <= c <= "\udfff" for c in value)


def one_kind(values):
    """Ids of one field: all integers or all texts."""
    return all(map(whole, values)) or (len(values) and all(map(good_text, values)))


def good_box(value):
    return type(value) is list and len(value) == 4 and all(finite(v) and abs(v) < 1e150 for v in value)


def plain(value):
    return int(value) if type(value) is float else value


def allowed_labels(data):
    parts = [data.get(k) for k in ("images", "categories", "annotations")] if type(data) is dict else [None]
    if not all(type(p) is list and p and all(type(o) is dict for o in p) for p in parts):
        return False
    images, categories, boxes = parts
    lvis = ("neg_category_ids", "not_exhaustive_category_ids")
    federated = any(f in i for i in images for f in lvis) or any("frequency" in c for c in categories)
    ids = []
    for part in parts:
        if not all("id" in o for o in part) or not one_kind([o["id"] for o in part]):
            return False
        ids.append({plain(o["id"]) for o in part})
        if len(ids[-1]) < len(part):
            return False
    known = [next(iter(i)) for i in ids]
    return all([
        all(whole(i.get(k), 1) for i in images for k in ("width", "height")),
        all(good_text(c.get("name")) and c["name"].strip() for c in categories),
        not any("frequency" in c for c in categories)
        or all(type(c.get("frequency")) is str and c["frequency"] in "rcf" and c["frequency"] for c in categories),
        not federated or all(
            type(i.get(f)) is list
            and all(type(v) is type(known[1]) and v in ids[1] for v in i[f])
            for i in images for f in lvis
        ),
        one_kind([a.get("image_id") for a in boxes]) and all(plain(a["image_id"]) in ids[0] for a in boxes),
        one_kind([a.get("category_id") for a in boxes]) and all(plain(a["category_id"]) in ids[1] for a in boxes),
        all(good_box(a.get("bbox")) for a in boxes),
        all(finite(a.get("area", 0)) for a in boxes),
        all(type(a.get(f, 0)) in (int, bool) and a.get(f, 0) in (0, 1) for a in boxes for f in ("iscrowd", "ignore")),
    ])  # fmt: skip


def allowed_results(found, data):
    if type(found) is not list or not all(type(o) is dict for o in found):
        return False
    images, categories = ({plain(o["id"]) for o in data[k]} for k in ("images", "categories"))
    return not found or all([
        one_kind([o.get("image_id") for o in found]) and all(plain(o["image_id"]) in images for o in found),
        one_kind([o.get("category_id") for o in found]) and all(plain(o["category_id"]) in categories for o in found),
        all(good_box(o.get("bbox")) for o in found), all(finite(o.get("score")) for o in found),
    ])  # fmt: skip


def damaged(value, draw):
    """One to three places of a JSON value replaced, taken away or doubled."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(places(value)))
        if not path:
            return copy.deepcopy(draw(JUNK))
        around = value
        for key in path[:-1]:
            around = around[key]
        kind = draw(st.integers(0, 3))
        if kind == 0:
            del around[path[-1]]
        elif kind == 1 and isinstance(around, list):
            around.append(copy.deepcopy(around[path[-1]]))
        else:
            around[path[-1]] = copy.deepcopy(draw(JUNK))  # sampled lists are one object, later changes would stay
    return value


def torn(content, draw):
    """Bytes changed, taken away, put in, doubled or cut off."""
    content = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        at, length = draw(st.integers(0, max(0, len(content) - 1))), draw(st.integers(1, 40))
        kind = draw(st.integers(0, 4))
        if kind == 0:
            content[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
        elif kind == 1:
            del content[at : at + length]
        elif kind == 2:
            content[at:at] = draw(
                st.sampled_from([b",", b"[", b"]", b"}", b"{", b'"', b"0", b"-", b"e9", b"\\", b"NaN"])
            )
        elif kind == 3:
            content[at:at] = content[at : at + length]
        elif draw(st.integers(0, 3)) == 0:
            del content[at:]
    return bytes(content)


@pytest.fixture(scope="module", params=["lvis", "coco"])
def made(request):
    data = label_fuzz.labels(21, request.param == "lvis")
    data["annotations"] = data["annotations"][:4]
    return data, label_fuzz.detections(21, data)[:5]


@fuzzed(60, 2000, draw=st.data())
def test_labels_with_wrong_values(made, draw):
    data = damaged(made[0], draw.draw)
    found = outcome(score_detections, [], data) if isinstance(data, dict) else None
    assert (found is not None) == allowed_labels(data), data


@fuzzed(60, 2000, draw=st.data())
def test_results_with_wrong_values(made, draw):
    found = damaged(made[1], draw.draw)
    if isinstance(found, list):
        assert (outcome(score_detections, found, made[0]) is not None) == allowed_results(found, made[0]), found


def read(path):
    """What Python's own reader takes, None for what it does not; names that occur twice are none."""

    def once(pairs):
        if len(dict(pairs)) < len(pairs):
            raise ValueError
        return dict(pairs)

    with contextlib.suppress(ValueError, RecursionError):
        return json.loads(path.read_bytes().decode(), object_pairs_hook=once)


@fuzzed(60, 2000, draw=st.data())
def test_torn_labels_and_results(made, tmp_path_factory, draw):
    folder = tmp_path_factory.mktemp("torn")
    files = [folder / "results.json", folder / "labels.json"]
    for path, value in zip(files, reversed(made), strict=True):
        path.write_text(json.dumps(value))
    which = draw.draw(st.integers(0, 1))
    files[which].write_bytes(torn(files[which].read_bytes(), draw.draw))
    found = outcome(score_detections, *files)
    results, labels = map(read, files)
    assert (found is not None) == (allowed_labels(labels) and allowed_results(results, labels))


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("vectors")
    np.save(folder / "image.npy", rng.normal(size=(3, 4)).astype("float32"))
    np.save(folder / "text.npy", rng.normal(size=(5, 4)))
    (folder / "pairs.json").write_text('{"0": 0, "1": 1, "2": 2, "3": 0, "4": 1}')
    return folder


def allowed_pairs(value):
    if type(value) is dict:
        value = [value[str(i)] for i in range(5)] if set(value) == set("01234") else None
    kinds = type(value) is list and len(value) == 5 and all(type(v) is int and 0 <= v < 3 for v in value)
    return kinds and set(value) == {0, 1, 2}


@fuzzed(60, 2000, draw=st.data())
def test_torn_embeddings_and_pairs(vectors, draw):
    names = ["image.npy", "text.npy", "pairs.json"]
    which = draw.draw(st.sampled_from(names))
    spoiled = vectors / f"torn_{which}"
    spoiled.write_bytes(torn((vectors / which).read_bytes(), draw.draw))
    files = [spoiled if name == which else vectors / name for name in names]
    for inner_product in (False, True):
        found = outcome(score_embeddings, *files, inner_product=inner_product)
        if which == "pairs.json":
            assert (found is not None) == allowed_pairs(read(spoiled))
        elif found is not None:
            assert np.load(spoiled).shape == np.load(vectors / which).shape


@fuzzed(60, 2000, draw=st.data())
def test_torn_records(tmp_path_factory, draw):
    folder, sink = tmp_path_factory.mktemp("records"), io.BytesIO()
    rng = np.random.default_rng(0)
    arrays = {"ranked": np.stack([rng.permutation(6)[:5] for _ in range(4)]), "label": rng.integers(0, 6, 4)}
    (np.savez_compressed if draw.draw(st.booleans()) else np.savez)(sink, ids=np.arange(4), **arrays)
    (folder / "a.npz").write_bytes(torn(sink.getvalue(), draw.draw))
    found = outcome(score_classification, folder / "a.npz")
    if found is not None:  # zip files have sums over their members
        with np.load(folder / "a.npz") as file:
            assert all(np.array_equal(file[name], values) for name, values in arrays.items())


@fuzzed(30, 1000, draw=st.data())  # each writes two pictures
def test_torn_masks(tmp_path_factory, draw):
    folder = tmp_path_factory.mktemp("masks")
    values = np.random.default_rng(0).integers(0, 4, (9, 7)).astype(np.uint8)
    for name in ("predictions", "annotations"):
        (folder / name).mkdir()
        Image.fromarray(values).save(folder / name / "a.png")
    path = folder / draw.draw(st.sampled_from(["predictions", "annotations"])) / "a.png"
    path.write_bytes(torn(path.read_bytes(), draw.draw))
    found = outcome(score_segmentation, folder / "predictions", folder / "annotations", 4)
    assert found is None or found.metrics["aAcc"] == 1  # pixels of PNG are never others without an error
