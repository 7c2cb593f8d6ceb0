"""Published classifiers as they are, few-shot in closed form, lists of classes, refusals of upstream."""

from pathlib import Path

import numpy as np
import pytest
import torch

from backbones import build_backbone
from tasks import build_task
from tasks.classification.models import PublishedHead
from tasks.classification.preprocess import evaluation_view, resize_bilinear
from tasks.classification.scoring import few_per_class, least_squares
from tasks.contract import Batch, TaskError, View
from tasks.data.errors import Wrong
from tasks.data.readers.class_lists import reordered


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Drawn scenes, drawn once."""
    folder = tmp_path_factory.mktemp("scenes")
    build_task("classification", folder, {"data": "scenes"}).labelled("test")
    return folder


@pytest.mark.parametrize(("pictures", "width"), [(12, 5), (6, 9)])
def test_few_shot_is_ridge_regression_on_whitened_features(pictures: int, width: int) -> None:
    generator = np.random.default_rng(0)
    known, asked = generator.normal(2, 3, (pictures, width)), generator.normal(2, 3, (40, width))
    labels = np.array([0, 0, 0, 0, 1, 2] * 2)[:pictures]  # of unequal size, so that the bias matters
    mean, deviation = known.mean(0), known.std(0) + 1e-5
    wide = [np.hstack([(x - mean) / deviation, np.full((len(x), 1), 100.0)]) for x in (known, asked)]
    stacked = np.vstack([wide[0], 32.0 * np.eye(width + 1)])  # the penalty 2 ** 10 as rows of an ordinary fit
    targets = np.vstack([2.0 * np.eye(3)[labels] - 1, np.zeros((width + 1, 3))])
    expected = (wide[1] @ np.linalg.lstsq(stacked, targets, rcond=None)[0]).argmax(1)
    found = least_squares(*(torch.from_numpy(x) for x in (known, labels, asked)), 3)
    assert found[:, 0].tolist() == expected.tolist() and found.shape == (40, 3)


def test_fewer_shots_are_a_part_of_more_and_seeds_differ() -> None:
    labels = np.arange(60) % 4
    five, ten = (few_per_class(labels, 4, shots, seed=1) for shots in (5, 10))
    assert [np.bincount(labels[x]).tolist() for x in (five, ten)] == [[5] * 4, [10] * 4]
    assert set(five) < set(ten) and set(five) != set(few_per_class(labels, 4, 5, seed=2))


def test_few_shot_trains_nothing_and_reads_a_few_of_train(root) -> None:
    task = build_task("classification", root, {"data": "scenes", "protocol": "fewshot", "shots": 5})
    train = task.labelled("train")
    assert task.recipe.steps == 0 and np.bincount(train.labels).tolist() == [5] * task.classes
    assert task.parts("test") == ("train", "test") and task.dataset("test").squeeze
    batch = Batch(torch.arange(2), torch.zeros(2, 3, 120, 120, dtype=torch.uint8), torch.tensor([0, 1]))
    model = task.model(build_backbone("flexivit_nano", pretrained=False))
    vector = task.predict(model, batch, (4, 4), None)["vector"]
    assert vector.norm(dim=1)[0].item() != pytest.approx(1.0)  # as they are, not of length 1


def test_neighbours_are_sought_in_the_whole_of_train(root) -> None:
    whole, held = (build_task("classification", root, {"data": "scenes", "protocol": p}) for p in ("knn", "linear"))
    assert len(whole.labelled("train")) == len(held.labelled("train")) + len(held.labelled("minival"))


def test_a_published_head_is_evaluated_as_it_is(root) -> None:
    task = build_task("classification", root, {"data": "scenes", "protocol": "head"})
    assert task.recipe.steps == 0 and task.missing() == []
    backbone = build_backbone("flexivit_nano", pretrained=False, num_classes=task.classes)
    torch.nn.init.normal_(backbone.trunk.head.weight)
    images = torch.randint(0, 255, (2, 3, 120, 120), dtype=torch.uint8)
    model = task.model(backbone)
    with torch.no_grad():
        own = backbone.head(backbone(images, 4).pooled)
    assert torch.equal(model(images, 4), own)
    with pytest.raises(TaskError, match="100 classes and the data have"):
        task.model(build_backbone("flexivit_nano", pretrained=False, num_classes=100))
    places = torch.arange(task.classes).flip(0)
    assert torch.equal(PublishedHead(backbone, task.classes, places)(images, 4), own.flip(1))


def test_places_of_a_label_map_are_checked(root, tmp_path) -> None:
    path = tmp_path / "map.txt"
    task = build_task("classification", root, {"data": "scenes", "protocol": "head", "label_map": str(path)})
    assert "map.txt" in str(task.missing()[0])
    path.write_text("[3, 1, x]")
    with pytest.raises(Wrong, match=r"map.txt: entry 3: must be a place from 0, not 'x'"):
        task.model(build_backbone("flexivit_nano", pretrained=False))
    path.write_text("3 1 2")
    with pytest.raises(TaskError, match="3 places up to 3"):
        task.model(build_backbone("flexivit_nano", pretrained=False, num_classes=100))


def test_both_label_spaces_of_partial_sets_are_named(root, monkeypatch) -> None:
    task = build_task("classification", root, {"data": "scenes"})
    mask = torch.tensor([True, False])
    monkeypatch.setattr(type(task), "allowed", lambda self, split: mask)
    assert task.prepare(None, "test") is mask
    assert task.at(View((4, 4), options={"label_space": "all"})).prepare(None, "test") is None


def test_squeezing_resizes_both_sides() -> None:
    picture = torch.randint(0, 255, (3, 90, 200), dtype=torch.uint8)
    squeezed = evaluation_view(picture, 120, "big_vision", squeeze=True)
    assert torch.equal(squeezed, resize_bilinear(picture, 136, 136)[:, 8:128, 8:128])
    assert not torch.equal(squeezed, evaluation_view(picture, 120, "big_vision"))


def test_labels_follow_an_explicit_list_of_classes(root, tmp_path) -> None:
    found = build_task("classification", root, {"data": "scenes"}).labelled("test")
    path = tmp_path / "classes.txt"
    names = ["nothing", *reversed(found.classes)]
    path.write_text("\n".join(n.replace(" ", "_") for n in names))
    if any(" " in name for name in found.classes):
        pytest.skip("names with spaces")
    moved = reordered(found, path)
    assert [moved.classes[i] for i in moved.labels] == [found.classes[i] for i in found.labels]
    path.write_text("\n".join(names[:-1]))
    with pytest.raises(Wrong, match="lacks 1 of the"):
        reordered(found, path)
    path.write_text("\n".join([*names, names[1]]))
    with pytest.raises(Wrong, match="twice"):
        reordered(found, path)


def test_upstream_refuses_no_steps_and_a_trained_student(root) -> None:
    options = {"preset": "nano_distill", "data": "scenes", "metric": "agreement"}
    task = build_task("upstream", root, options)
    assert task.missing() == []
    task.recipe = task.recipe.replaced({"steps": 0, "warmup": 0})
    assert "protocol: head" in str(task.missing()[0])
    with pytest.raises(TaskError, match="comes with trained weights"):
        task.model(build_backbone("flexivit_nano"))


def test_a_student_starts_at_random_weights_where_asked(root) -> None:
    options = {"preset": "nano_distill", "data": "scenes", "metric": "agreement"}
    student = build_backbone("flexivit_nano_scratch", patch=8)
    before = student.trunk.blocks[0].attn.qkv.weight.detach().clone()
    build_task("upstream", root, {**options, "init": "random"}).model(student)
    assert torch.equal(student.trunk.blocks[0].attn.qkv.weight, before)
    build_task("upstream", root, options).model(student)
    assert not torch.equal(student.trunk.blocks[0].attn.qkv.weight, before)


def test_an_ensemble_averages_the_probabilities_of_its_grids(root) -> None:
    task = build_task("classification", root, {"data": "scenes", "protocol": "head"})
    told = {4: torch.tensor([[4.0, 0.0, 1.0]]), 8: torch.tensor([[0.0, 3.0, 2.9]]), 10: torch.tensor([[0.0, 3.0, 2.9]])}
    batch = Batch(torch.arange(1), torch.zeros(1, 3, 120, 120, dtype=torch.uint8), torch.tensor([0]))

    def ranked(view: View) -> list[int]:
        return task.at(view).predict(lambda images, grid: told[grid[0]], batch, (4, 4), None)["ranked"][0].tolist()

    assert ranked(View((4, 4)))[0] == 0 and ranked(View((4, 4), options={"ensemble": [8, 10]}))[0] == 1
    expected = torch.stack([x.softmax(-1) for x in told.values()]).mean(0)[0].argsort(descending=True).tolist()
    assert ranked(View((4, 4), options={"ensemble": [8, 10]})) == expected
    with pytest.raises(TaskError, match="grid 7 does not divide 120 px"):
        build_task("classification", root, {"data": "scenes", "ensemble": [7]})
    with pytest.raises(TaskError, match="no probabilities"):
        build_task("classification", root, {"data": "scenes", "protocol": "knn", "ensemble": [8]})
