"""Queries of a training image: federated negatives, shared prompts, merged boxes, nothing of what is held out."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.contract import TaskError
from tasks.detection.labels.queries import NEGATIVES, add_negatives, build_queries, forbidden, merge_overlapping
from tasks.text.prompts import canonical, template_set

NAMES = [f"thing {i}" for i in range(120)]


def g(seed=0):
    return torch.Generator().manual_seed(seed)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 119), max_size=30), st.lists(st.integers(0, 119), max_size=70), st.integers(0, 99))
def test_negatives_are_unique_enough_and_never_positive(positives, listed, seed):
    listed = [c for c in listed if c not in positives]
    found = add_negatives(positives, listed, torch.ones(120), g(seed))
    unique = list(dict.fromkeys(listed))
    assert found[: len(unique)] == unique and len(set(found)) == len(found) and not set(found) & set(positives)
    assert len(found) <= max(NEGATIVES, len(unique))


def test_negatives_fill_to_fifty_by_how_often_labels_occur():
    seen = torch.ones(1000)
    seen[:500] = 20.0
    found = add_negatives([1], [2, 3], seen, g())
    assert len(found) == 50 and found[:2] == [2, 3]
    assert sum(c < 500 for c in found[2:]) > 40
    seen[500:] = 0
    assert max(add_negatives([1], [], seen, g())) < 500
    assert add_negatives([1], [7], torch.zeros(1000), g()) == [7]
    assert len(add_negatives([0], list(range(1, 81)), torch.ones(120), g())) == 80


def test_all_instances_of_a_category_share_their_prompt():
    boxes = torch.tensor([[i * 0.1, 0, i * 0.1 + 0.05, 0.1] for i in range(6)])
    templates = template_set("train")
    seen = set()
    for seed in range(20):
        asked = build_queries(boxes, [4, 9, 4, 4, 9, 7], [1, 2], NAMES, templates, g(seed))
        assert len(asked.texts) == 5
        assert [i.nonzero()[:, 0].tolist() for i in asked.labels] == [[0], [1], [0], [0], [1], [2]]
        assert all(canonical(t) == t for t in asked.texts)
        assert "thing 4" in asked.texts[0] and "thing 2" in asked.texts[4]
        seen.add(asked.texts[0])
    assert len(seen) > 10


def test_names_that_read_alike_are_one_query_with_both_instances():
    names = ["Remote_control", "remote control!", "cup"]
    boxes = torch.tensor([[0, 0, 0.1, 0.1], [0.5, 0.5, 0.9, 0.9]])
    asked = build_queries(boxes, [0, 1], [2], names, ("{}",), g())
    assert asked.texts == ("remote control", "cup") and asked.labels.tolist() == [[True, False]] * 2


def test_queries_beyond_the_limit_vanish_with_their_instances():
    boxes = torch.rand(4, 4)
    asked = build_queries(boxes, [3, 1, 5, 1], [0, 2], NAMES, ("{}",), g(), limit=2)
    assert asked.texts == ("thing 3", "thing 1") and torch.equal(asked.boxes, boxes[[0, 1, 3]])
    assert len(build_queries(torch.zeros(0, 4), [], list(range(120)), NAMES, ("{}",), g()).texts) == 99


def test_boxes_that_coincide_become_one_instance_of_two_labels():
    boxes = torch.tensor([[0.1, 0.1, 0.5, 0.5], [0.6, 0.6, 0.9, 0.9], [0.1, 0.1, 0.5, 0.49], [0.1, 0.1, 0.5, 0.4]])
    labels = torch.eye(4, dtype=torch.bool)
    chosen = set()
    for seed in range(12):
        kept, merged = merge_overlapping(boxes, labels, g(seed))
        assert merged.tolist() == [[True, False, True, False], [False, True, False, False], [False, False, False, True]]
        assert torch.equal(kept[1:], boxes[[1, 3]])
        chosen.add(round(float(kept[0, 3]), 2))
    assert chosen == {0.5, 0.49}


def test_merging_goes_on_until_nothing_overlaps():
    boxes = torch.tensor([[0.1, 0.1, 0.5, 0.5]]).repeat(5, 1)
    kept, merged = merge_overlapping(boxes, torch.eye(5, dtype=torch.bool), g())
    assert merged.tolist() == [[True] * 5] and torch.equal(kept, boxes[:1])
    assert merge_overlapping(boxes[:0], torch.zeros(0, 3, dtype=torch.bool), g())[0].shape == (0, 4)


def test_what_is_held_out_goes_with_its_aliases():
    categories = [
        {"name": "tux", "synonyms": ["tux", "tuxedo"], "frequency": "r"}, {"name": "Tuxedos", "frequency": "f"},
        {"name": "first-aid_kit", "frequency": "r"}, {"name": "first aid kit", "frequency": "c"},
        {"name": "cup", "synonyms": ["tux-cup"], "frequency": "c"}, {"name": "kit", "frequency": "f"},
    ]  # fmt: skip
    assert forbidden(categories) == {0, 1, 2, 3}


def test_a_name_without_letters_is_named():
    with pytest.raises(TaskError, match="'__' has no letter"):
        build_queries(torch.rand(1, 4), [0], [], ["__"], ("{}",), g())
