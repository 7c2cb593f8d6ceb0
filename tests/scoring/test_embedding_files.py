"""`score retrieval`: cosine by default, and every fault of its three files named."""

import json

import numpy as np
import pytest
import torch
from front_door import call

from tasks.data.errors import DataError, Missing, Wrong
from tasks.retrieval.scoring import rank_embeddings, score_embeddings


def write(folder, image, text, pairs):
    np.save(folder / "image.npy", image)
    np.save(folder / "text.npy", text)
    (folder / "pairs.json").write_text(json.dumps(pairs))
    return folder / "image.npy", folder / "text.npy", folder / "pairs.json"


def ranks_of_full_sort(scores, pairs):
    """Brute force: rank of the best right item among all, wrong ones first among equals."""
    right = pairs[None] == torch.arange(len(scores))[:, None]

    def rank(row, good):
        order = sorted(range(len(row)), key=lambda j: (-row[j], bool(good[j])))
        return 1 + next(place for place, j in enumerate(order) if good[j])

    i2t = [rank(scores[i].tolist(), right[i]) for i in range(len(scores))]
    return i2t, [rank(scores[:, j].tolist(), right[:, j]) for j in range(scores.shape[1])]


@pytest.fixture
def made():
    rng = np.random.default_rng(1)
    image, text = rng.normal(size=(30, 8)).astype("float32"), rng.normal(size=(90, 8)).astype("float32")
    pairs = rng.permutation(np.arange(90) % 30)
    return image * rng.uniform(0.2, 9, (30, 1)).astype("float32"), text, pairs


@pytest.mark.parametrize("inner", [False, True])
def test_cosine_or_inner_product(tmp_path, made, inner):
    image, text, pairs = made
    files = write(tmp_path, image, text, pairs.tolist())
    a, b = (torch.from_numpy(x).double() for x in (image, text))
    scores = a @ b.T if inner else torch.nn.functional.cosine_similarity(a[:, None], b[None], dim=2)
    i2t, t2i = ranks_of_full_sort(scores, torch.from_numpy(pairs))
    ranks = rank_embeddings(*files, inner_product=inner)
    assert ranks.i2t.tolist() == i2t and ranks.t2i.tolist() == t2i
    found = score_embeddings(*files, inner_product=inner)
    assert found.protocol == ("inner-product" if inner else "cosine")
    assert found.metrics["t2i_R@5"] == np.mean(np.array(t2i) <= 5)
    assert found.metrics["chance_i2t_R@1"] == pytest.approx(3 / 90) and found.counts == {"images": 30, "captions": 90}
    assert list(found.as_json()) == ["task", "protocol", "metrics", "counts"]


def test_length_counts_for_inner_products_only(tmp_path, made):
    _, text, pairs = made
    image = text[np.argsort(pairs, kind="stable")[::3]] + 0.3
    plain = score_embeddings(*write(tmp_path, image, text, pairs.tolist()))
    by_product = score_embeddings(*write(tmp_path, image, text, pairs.tolist()), inner_product=True)
    longer = image * np.random.default_rng(3).uniform(0.1, 9, (30, 1))
    assert score_embeddings(*write(tmp_path, longer, text, pairs.tolist())).metrics == plain.metrics
    assert score_embeddings(*write(tmp_path, longer, text, pairs.tolist()), inner_product=True) != by_product
    far = longer * 1e200
    assert score_embeddings(*write(tmp_path, far, text.astype(float) * 1e-200, pairs.tolist())).metrics == plain.metrics
    with pytest.raises(Wrong, match="too large for inner products"):
        score_embeddings(*write(tmp_path, far, text, pairs.tolist()), inner_product=True)


def test_lists_objects_and_narrow_floats_agree(tmp_path, made):
    image, text, pairs = made
    first = score_embeddings(*write(tmp_path, image, text, pairs.tolist()))
    table = {str(i): int(p) for i, p in reversed(list(enumerate(pairs)))}
    assert score_embeddings(*write(tmp_path, image, text, table)) == first
    columns = np.asfortranarray(image.astype(">f4"))
    assert score_embeddings(*write(tmp_path, columns, text, pairs.tolist())) == first
    half = score_embeddings(*write(tmp_path, image.astype("float16"), text.astype("float16"), pairs.tolist()))
    exact = write(tmp_path, image.astype("float16").astype("float64"), text.astype("float16"), pairs.tolist())
    assert score_embeddings(*exact) == half


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        ({"0": 0}, "1 captions have no image, the first is caption 1"),
        ({"0": 0, "1": 1, "5": 1}, "name caption 5; there are captions 0 to 1"),
        ({"zero": 0, "1": 1}, "'zero' is not a caption index"),
        ({"00": 0, "1": 1}, "'00' is not a caption index"),
        ({"-0": 0, "1": 1}, "'-0' is not"), ({"٠": 0, "1": 1}, "is not a caption index"),
        ({"0": 0, "9" * 5000: 1}, "is not a caption index"), ({"0": 0, "1": None}, "caption 1: points to None"),
        ([0, "1"], "caption 1: points to '1'"), ([0, 1.0], "caption 1: points to 1.0"),
        ([True, False], "caption 0: points to True"), ([0, [1]], r"caption 1: points to \[1\]"), ([0, None], "None"),
        ([0, 2], "points to image 2; there are images 0 to 1"), ([0, -1], "points to image -1"),
        ([0, 2**70], "points to image 11805"), ([0], "1 pairs for 2 captions"), ([0, 1, 1], "3 pairs for 2"),
        ([1, 1], "1 images have no caption, the first is image 0"), ([], "0 pairs for 2"), ({}, "2 captions have no"),
        (7, "must be a list or an object, not 7"), (None, "not None"), ("0,1", "not '0,1'"),
    ],
    ids=str,
)  # fmt: skip
def test_bad_pairs_are_named(tmp_path, pairs, words):
    files = write(tmp_path, np.eye(2), np.eye(2), pairs)
    with pytest.raises(Wrong, match=words) as caught:
        score_embeddings(*files)
    assert str(files[2]) in str(caught.value) and "\n" not in str(caught.value)


def test_pairs_that_hold_a_caption_twice(tmp_path):
    files = write(tmp_path, np.eye(2), np.eye(2), [0, 1])
    for text in ('{"0": 0, "1": 1, "1": 0}', "[0, 1] [1, 0]", "[0, 1,]", "[0 1]", "[0, 1", "[0, NaN]"):
        files[2].write_text(text)
        with pytest.raises(Wrong, match="pairs.json"):
            score_embeddings(*files)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.ones(4), r"must be \[N, D\] embeddings, not \[4\]"), (np.float64(1), r"not \[\]"),
        (np.ones((2, 2, 2)), "must be"), (np.ones((0, 4)), "must be"), (np.ones((2, 0)), "must be"),
        (np.array([["a", "b"], ["c", "d"]]), "holds texts"), (np.ones((2, 2), bool), "holds booleans"),
        (np.ones((2, 2), complex), "values of type complex128"), (np.array([[1, None]], object), "holds objects"),
        (np.zeros(2, [("a", "f4")]), "must hold numbers"), (np.array([[1, 0], [0, np.nan]]), "row 1: 1 embeddings"),
        (np.array([[np.inf, 0], [0, 1]]), "row 0"), (np.array([[1.0, 0], [0, 0]]), "row 1: embedding is zero"),
        (np.ones((2, 3)), "embeddings have width"),
    ],
    ids=range(14),
)  # fmt: skip
@pytest.mark.parametrize("which", [0, 1])
def test_bad_embeddings_are_named(tmp_path, array, words, which):
    files = write(tmp_path, np.eye(2), np.eye(2), [0, 1])
    np.save(files[which], array, allow_pickle=True)
    with pytest.raises(Wrong, match=words) as caught:
        score_embeddings(*files)
    assert str(files[which]) in str(caught.value) and "\n" not in str(caught.value)


def test_files_that_are_no_arrays_are_named(tmp_path):
    files = write(tmp_path, np.eye(2), np.eye(2), [0, 1])
    good = files[0].read_bytes()
    np.savez(tmp_path / "both.npz", a=np.eye(2), b=np.eye(2))
    spoiled = {
        "empty": b"", "a torn header": good[:50], "torn": good[:-1], "two arrays": good + good, "text": b"1,2\n3,4\n",
        "another version": good[:6] + b"\x07" + good[7:], "too large a shape": good.replace(b"(2, 2)", b"(9e, 2)"),
        "a negative shape": good.replace(b"(2, 2)", b"(-2,-2"), "huge": good.replace(b"(2, 2), }   ", b"(9999, 9**9)}"),
        "npz": (tmp_path / "both.npz").read_bytes(),
    }  # fmt: skip
    for name, content in spoiled.items():
        files[0].write_bytes(content)
        with pytest.raises(Wrong, match="image.npy") as caught:
            score_embeddings(*files)
        assert "\n" not in str(caught.value), name
    files[0].unlink()
    with pytest.raises(Missing, match="image.npy: no such file; nearest"):
        score_embeddings(*files)
    with pytest.raises(DataError, match="text.npy"):
        score_embeddings(files[1], files[1], files[1])


def test_the_front_door(monkeypatch, capsys, tmp_path, made):
    files = write(tmp_path, *made[:2], made[2].tolist())
    options = ("--image-embeddings", "--text-embeddings", "--pairs")
    arguments = ["score", "retrieval", *(x for pair in zip(options, map(str, files), strict=True) for x in pair)]
    code, out, err = call(monkeypatch, capsys, *arguments, "--ranks", str(tmp_path / "ranks.npz"))
    assert code == 0 and err == "" and json.loads(out)["protocol"] == "cosine"
    with np.load(tmp_path / "ranks.npz") as kept:
        assert kept["i2t"].tolist() == rank_embeddings(*files).i2t.tolist() and len(kept["t2i"]) == 90
    code, out, _ = call(monkeypatch, capsys, *arguments, "--inner-product")
    assert code == 0 and json.loads(out)["protocol"] == "inner-product"
    code, out, err = call(monkeypatch, capsys, *arguments, "--ranks", str(tmp_path / "no" / "r.npz"))
    assert code == 2 and out == "" and err.count("\n") == 1
    files[2].write_text("[0]")
    code, out, err = call(monkeypatch, capsys, *arguments)
    assert code == 2 and out == "" and err.count("\n") == 1 and "pairs.json" in err
