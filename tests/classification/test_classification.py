"""Classification: official preprocessing, readers of every layout, the three protocols."""

import dataclasses
import io
import json
import os

import numpy as np
import pytest
import runner_tools  # noqa: F401  (makes the plug-in importable)
import torch
from accelerate import Accelerator
from data_tools import sized
from PIL import Image
from tiny_backbone import tiny

from backbones.grids import GridSchedule
from benchmarks.engine.randomness import generator
from benchmarks.engine.sweep import sweep
from benchmarks.engine.training.loop import finetune
from benchmarks.engine.training.optimizers import lr_factor
from tasks import build_task
from tasks.classification.models import LinearProbes
from tasks.classification.preprocess import (
    central_crop,
    evaluation_view,
    inception_box,
    larger_side,
    resize_area,
    resize_bilinear,
    resize_small,
    training_view,
)
from tasks.classification.scoring import accuracy, neighbour_votes
from tasks.contract import Batch, Recipe, TaskError, View
from tasks.contract.meters import mean_interval
from tasks.data.cards import known_cards
from tasks.data.decoding import decode
from tasks.data.errors import Missing
from tasks.data.sets.labelled import labelled_set


def load(root, name: str, split: str):
    return labelled_set(name, root).load(split)


@pytest.fixture(scope="module")
def official(golden):
    return np.load(golden / "train.npz")


def picture(official) -> torch.Tensor:
    return torch.from_numpy(official["pp/img"]).permute(2, 0, 1)


def off(found: torch.Tensor, official, name: str) -> tuple[int, float]:
    """Largest difference in levels, and the part of exact values."""
    expected = torch.from_numpy(official[name]).permute(2, 0, 1).int()
    assert found.shape == expected.shape
    difference = (found.int() - expected).abs()
    return int(difference.max()), float((difference == 0).float().mean())


def test_bilinear_is_the_official_one(official) -> None:
    assert off(resize_bilinear(picture(official), 64, 64), official, "pp/resize64") == (0, 1.0)
    most, exact = off(resize_bilinear(picture(official), 160, 160), official, "pp/resize160")
    assert most <= 1 and exact > 0.9999


@pytest.mark.parametrize("side", [64, 120])
def test_area_is_the_official_one(official, side: int) -> None:
    most, exact = off(resize_small(picture(official), side), official, f"pp/resize_small{side}")
    assert most <= 1 and exact >= 0.996, (most, exact)


def test_central_crop_is_the_official_one(official) -> None:
    most, exact = off(
        central_crop(resize_small(picture(official), 64), 56), official, "pp/resize_small64|central_crop56"
    )
    assert most <= 1 and exact >= 0.996


def test_schedule_and_mixup_are_the_official_ones(official) -> None:
    recipe = Recipe(steps=500, warmup=100)
    found = [lr_factor(recipe, int(s)) for s in official["sched/steps"]]
    np.testing.assert_allclose(found, official["sched/cos_500_100"], atol=1e-6)


def test_sides() -> None:
    assert [larger_side(s) for s in (240, 384, 120)] == [272, 432, 136]
    flat = torch.full((3, 37, 91), 77, dtype=torch.uint8)
    assert torch.equal(resize_area(flat, 20, 40).unique(), torch.tensor([77], dtype=torch.uint8))


@pytest.mark.parametrize("old, new", [((97, 131), (64, 86)), ((60, 45), (100, 75)), ((80, 120), (40, 60))])
def test_area_is_the_mean_over_each_box(old, new) -> None:
    """By brute force in float64: every cell cut into as many parts as make both sizes whole."""
    image = torch.randint(0, 256, (3, *old), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    rows, columns = (np.lcm(a, b) // a for a, b in zip(old, new, strict=True))
    fine = image.numpy().repeat(rows, 1).astype(np.float32)
    means = fine.reshape(3, new[0], -1, old[1]).mean(2, dtype=np.float64)
    means = means.repeat(columns, 2).reshape(3, new[0], new[1], -1).mean(3)
    # float32 sums may fall on the other side of a whole number
    assert (resize_area(image, *new).numpy() != np.floor(means + 1e-4)).mean() < 1e-4


def test_training_views_depend_on_their_generator_alone() -> None:
    image = torch.randint(0, 255, (3, 60, 90), dtype=torch.uint8)
    for style in ("big_vision", "torchvision"):
        assert evaluation_view(image, 24, style).shape == (3, 24, 24)
        for crop in ("inception", "resmall", "resize"):
            views = [training_view(image, 24, style, crop, generator("sample", 0, 0, i)) for i in (1, 1, 2)]
            assert views[0].shape == (3, 24, 24) and views[0].dtype == torch.uint8
            assert torch.equal(views[0], views[1]) and not torch.equal(views[0], views[2])
    with pytest.raises(TaskError, match="big_vision, torchvision"):
        build_task("classification", options={"data": "cars98", "preprocess": "bigvision"})
    with pytest.raises(TaskError, match="inception, resmall, resize"):
        build_task("classification", options={"data": "cars98", "crop": "center"})


def test_inception_boxes_keep_area_and_aspect() -> None:
    for i in range(200):
        top, left, h, w = inception_box(300, 400, generator("sample", 0, 0, i))
        assert 0 <= top <= 300 - h and 0 <= left <= 400 - w
        assert 0.045 < h * w / 120_000 <= 1 and 0.72 < w / h < 1.38


# --- readers: the same eight pictures of two classes in every layout


def encoded(label: int, i: int, kind: str = "PNG") -> bytes:
    pixels = np.random.default_rng(i).integers(0, 60, (30, 36, 3), np.uint8)
    pixels[..., label] += 150
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind)
    return out.getvalue()


@pytest.fixture
def folder(tmp_path):
    for split, count in (("train", 20), ("test", 8)):
        for label, name in enumerate(("ant", "bee")):
            place = tmp_path / "mine" / split / name
            place.mkdir(parents=True)
            for i in range(count // 2):
                (place / f"{i}.png").write_bytes(encoded(label, i + 100 * label + 1000 * count))
    return tmp_path


def test_folders(folder) -> None:
    test = load(folder, "mine/", "test")
    assert len(test) == 8 and test.classes == ("ant", "bee") and test.labels.tolist() == [0] * 4 + [1] * 4
    assert decode(test.read(7), test.names[7]).shape == (3, 30, 36)
    train, held = load(folder, "mine/", "train"), load(folder, "mine/", "minival")
    assert len(train) == 18 and len(held) == 2 and not set(train.names) & set(held.names)
    (folder / "mine/test/cat").mkdir()
    with pytest.raises(TaskError, match="'cat'"):
        load(folder, "mine/", "test")
    with pytest.raises(TaskError, match="has no split 'val'; it has: test, train"):
        load(folder, "mine/", "val")


def test_parquet_and_saved_folders(tmp_path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    images, labels = [encoded(i % 2, i) for i in range(8)], [i % 2 for i in range(8)]
    (tmp_path / "pack").mkdir()
    pq.write_table(pa.table({"image": images[:4], "label": labels[:4]}), tmp_path / "pack/train-0.parquet")
    pq.write_table(pa.table({"image": images[4:], "label": labels[4:]}), tmp_path / "pack/train-1.parquet")
    pack = load(tmp_path, "pack/", "train")
    assert len(pack) == 7 and {0, 1} == set(pack.labels.tolist())

    saved = tmp_path / "saved" / "train"
    saved.mkdir(parents=True)
    table = pa.table({"image": [{"bytes": i, "path": None} for i in images], "label": labels})
    with (
        pa.OSFile(str(saved / "data-00000-of-00001.arrow"), "wb") as file,
        pa.ipc.new_stream(file, table.schema) as out,
    ):
        out.write_table(table)
    (saved / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
    info = {"features": {"label": {"names": ["ant", "bee"], "_type": "ClassLabel"}}}
    (saved / "dataset_info.json").write_text(json.dumps(info))
    found = load(tmp_path, "hf:saved", "train")
    assert found.classes == ("ant", "bee") and len(found) == 7
    assert torch.equal(decode(found.read(0)), decode(images[int(found.names[0])]))
    (saved / "state.json").unlink()
    with pytest.raises(TaskError, match=r"no state.json"):
        load(tmp_path, "hf:saved", "train")


def test_pictures_that_cannot_be_decoded_are_named() -> None:
    with pytest.raises(TaskError, match="cat.jpg"):
        decode(b"nonsense", "cat.jpg")


def test_imagenet_and_the_sets_that_share_its_classes(tmp_path, monkeypatch) -> None:
    sized(monkeypatch, "imagenet", "classes")
    wnids = [f"n{i:08d}" for i in range(12)]

    def put(place: str, name: str, label: int) -> None:
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        (tmp_path / place / name).write_bytes(encoded(label % 3, label, "JPEG"))

    for label, wnid in enumerate(wnids):
        put(f"imagenet/train/{wnid}", f"{wnid}_1.JPEG", label)
        put(f"imagenet/val/{wnid}", f"ILSVRC2012_val_{label + 1:08d}.JPEG", label)
        put(f"imagenetv2-matched-frequency-format-val/{label}", "a.jpeg", label)
    for label in (2, 5):
        put(f"imagenet-a/{wnids[label]}", "a.jpg", label)
    task = build_task("classification", tmp_path, {"data": "imagenet"})
    assert task.missing(("val", "v2", "a")) == [] and len(task.missing(("real", "r", "sketch"))) == 3
    assert all(m.advice.startswith("get it from http") for m in task.missing(("real", "r", "sketch")))
    # sorted as text, folders 10 and 11 would come before 2
    assert sorted(load(tmp_path, "imagenet", "v2").labels.tolist()) == list(range(12))
    v2 = load(tmp_path, "imagenet", "v2")
    assert dict(zip(v2.names, v2.labels.tolist(), strict=True))["10/a.jpeg"] == 10
    assert load(tmp_path, "imagenet", "a").allowed == (2, 5)
    mask = task.prepare(None, "a")
    assert mask.nonzero().flatten().tolist() == [2, 5] and task.prepare(None, "val") is None
    (tmp_path / "imagenet" / "real.json").write_text(json.dumps([[0, 3], [], *([i] for i in range(2, 12))]))
    real = load(tmp_path, "imagenet", "real")
    assert real.labels[0].tolist() == [0, 3] and real.labels[1].tolist() == [-1, -1]
    ranked = torch.tensor([[3, 9], [1, 1], *([i + 1, i] for i in range(2, 12))])
    assert accuracy({"ranked": ranked, "label": torch.from_numpy(real.labels)}) == {"top1": 1 / 11, "top5": 1.0}


def test_drawn_scenes_are_a_folder_like_any_other(tmp_path) -> None:
    task = build_task("classification", tmp_path, {"data": "scenes"})
    assert task.missing() == [] and not list(tmp_path.iterdir())  # a plan draws nothing
    assert (len(load(tmp_path, "scenes", "train")), len(load(tmp_path, "scenes", "test"))) == (432, 240)
    assert task.classes == 6 and task.dataset("test")[0][0].shape == (3, 120, 120)


def test_names_of_data_and_options(tmp_path) -> None:
    for options, words in (
        ({"data": "car98"}, "cars98"), ({"protocol": "lineal"}, "finetune, linear, knn"), ({"crop": "x"}, "inception"),
        ({"dat": 1}, "nearest: data"), ({"neighbours": 0}, "neighbours"),
    ):  # fmt: skip
        with pytest.raises(TaskError, match=words):
            build_task("classification", tmp_path, options)
    for name in [n for n, card in known_cards().items() if card.classes and not card.drawn]:
        missing = build_task("classification", tmp_path, {"data": name}).missing()
        assert missing and all(type(m) is Missing and "http" in m.advice for m in missing), name


# --- protocols


def options(**more: object) -> dict:
    return {"data": "mine/", "image_size": 24, **more}


def test_fine_tuning_learns_what_can_be_learnt(folder) -> None:
    torch.manual_seed(0)
    task = build_task("classification", folder, options())
    model = task.model(tiny())
    assert not model.head.weight.any()  # starts at zero, as the official transfer does
    recipe = Recipe(steps=40, batch=8, lr=0.02, optimizer="adamw")
    finetune(task, model, recipe, GridSchedule("fixed", ((4, 4),)), Accelerator(cpu=True))
    (_, metrics, samples), (_, coarse, _) = sweep(task, model, task.views([4, 2]), "test").rows
    assert metrics["top1"] == 1.0 and metrics["top5"] == 1.0 and set(coarse) == {"top1", "top5", "chance_top1"}
    scored = accuracy({k: torch.as_tensor(v) for k, v in samples.items()})
    assert scored | {"chance_top1": 1 / task.classes} == metrics


def test_mixup_mixes_pictures_and_labels_alike(folder) -> None:
    task = build_task("classification", folder, options())
    task.recipe = dataclasses.replace(task.recipe, mixup=0.5)
    model = task.model(tiny())
    images = torch.stack([torch.full((3, 24, 24), v, dtype=torch.uint8) for v in (0, 255)])
    mixed = task.augment(model, Batch(torch.arange(2), images, torch.tensor([0, 1])), torch.Generator().manual_seed(3))
    part = mixed.targets[0, 0].item()
    assert 0.5 <= part < 1 and mixed.targets.sum(1).tolist() == pytest.approx([1, 1])
    assert mixed.images[0, 0, 0, 0].item() == pytest.approx(part * -1 + (1 - part) * 1)
    assert torch.isfinite(task.loss(model, mixed, (4, 4))["loss"])


def test_probes_side_by_side_are_probes_one_by_one(folder) -> None:
    task = build_task("classification", folder, options(protocol="linear"))
    four = GridSchedule("fixed", ((4, 4),))

    def train(rates: list[float]) -> LinearProbes:
        torch.manual_seed(0)
        model = LinearProbes(tiny(), 2, rates)
        groups = {f"heads.{i}": r for i, r in enumerate(rates)}
        finetune(
            task, model, Recipe(steps=5, batch=8, lr=1.0, lr_groups=groups, clip=None), four, Accelerator(cpu=True)
        )
        return model

    together = train([0.01, 0.3])
    for i, rate in enumerate((0.01, 0.3)):
        torch.testing.assert_close(together.heads[i].weight, train([rate]).heads[0].weight)
    assert not torch.equal(together.heads[0].weight, together.heads[1].weight)
    views = [View((4, 4), "pi", (("probe", i),)) for i in (0, 1)]
    rows = sweep(task, together, views, "test").rows
    assert len(rows) == 2 and len(task.choices()) == 6
    assert not any("backbone" in name for name in together.state_dict())


@pytest.mark.parametrize("cut", [{"accumulate": 2}, {"accumulate": 4}, {"batch": 8}])
def test_the_statistics_of_probes_are_those_of_the_training_pictures(folder, cut) -> None:
    """Batch statistics would make the loss depend on how a batch is cut; running ones on the order of batches."""
    task = build_task("classification", folder, options(protocol="linear"))
    schedule = GridSchedule("random", ((4, 4), (2, 2)))

    def train(**changes: int) -> tuple[LinearProbes, list[float]]:
        torch.manual_seed(0)
        model = task.model(tiny())
        recipe = dataclasses.replace(task.recipe, steps=3, **{"batch": 8, **changes})
        done = finetune(task, model, recipe, schedule, Accelerator(cpu=True))
        return model, done.losses

    (one, losses), (other, again) = train(), train(**cut)
    assert again == pytest.approx(losses, rel=1e-5)
    assert torch.equal(one.norm.mean, other.norm.mean) and torch.equal(one.norm.variance, other.norm.variance)
    data, train_set = task.dataset("train"), []
    for i in range(len(data)):  # all of a set this small is one batch, at the first grid
        image, _ = data.sample(i, generator("sample", 0, 0, i))
        train_set.append(one.features(image[None], (4, 4))[0])
    features = torch.stack(train_set)
    torch.testing.assert_close(one.norm.mean, features.mean(0), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(one.norm.variance, features.var(0, unbiased=False), atol=1e-6, rtol=1e-4)


def test_the_probe_is_chosen_on_minival(folder) -> None:
    from runner_tools import run_toy

    tasks = [{"task": "classification", "options": options(protocol="linear"), "recipe": {"steps": 8, "batch": 8}}]
    summary, rows = run_toy(folder, tasks=tasks, eval=[2, 4])
    assert summary.status == 0, summary.lines()
    choice = json.loads(next((folder / "out" / "checkpoints").glob("*.choice.json")).read_text())
    best = max(range(6), key=lambda i: choice["scores"][i])
    assert [r["view_options"] for r in rows] == [{"probe": best}] * 2 and rows[0]["protocol"] == "linear-v2"


def test_votes_are_those_of_brute_force() -> None:
    rng = torch.Generator().manual_seed(0)
    gallery, queries = (torch.nn.functional.normalize(torch.randn(n, 8, generator=rng), dim=1) for n in (50, 20))
    labels = torch.randint(0, 7, (50,), generator=rng)
    found = neighbour_votes(gallery, labels, queries, 7, 10, 0.07)
    near, at = (queries @ gallery.T).topk(10, dim=1)
    votes = torch.zeros(20, 7).scatter_add_(1, labels[at], (near / 0.07).exp())
    assert torch.equal(found[:, 0], votes.argmax(1)) and found.shape == (20, 5)
    with pytest.raises(TaskError, match="51 neighbours of 50"):
        neighbour_votes(gallery, labels, queries, 7, 51, 0.07)


def test_nearest_neighbours_train_nothing(folder) -> None:
    task = build_task("classification", folder, options(protocol="knn", neighbours=3))
    assert task.recipe.steps == 0 and task.parts("test") == ("train", "test")
    rows = sweep(task, task.model(tiny()), task.views([2, 4]), "test").rows
    assert len(rows) == 2 and set(rows[0][2]) == {"ids", "ranked", "label"} and len(rows[0][2]["ids"]) == 8


def test_an_interval_covers_the_mean() -> None:
    values = np.random.default_rng(0).random(400) < 0.3
    low, high = mean_interval(values)
    error = np.sqrt(0.21 / 400)
    assert low < values.mean() < high and high - low == pytest.approx(2 * 1.966 * error, rel=0.1)


@pytest.mark.skipif(not os.environ.get("FLEXIVIT_DATA"), reason="FLEXIVIT_DATA is not set")
@pytest.mark.parametrize("name", ["cars98", "imagewoof9"])
def test_real_packs(name: str) -> None:
    from pathlib import Path

    task = build_task("classification", os.environ["FLEXIVIT_DATA"], {"data": name})
    if task.missing():
        pytest.skip(task.missing()[0])
    image, label = task.dataset("test")[0]
    assert image.shape == (3, 120, 120) and 0 <= label < task.classes
    root = Path(os.environ["FLEXIVIT_DATA"])
    train, held = load(root, name, "train"), load(root, name, "minival")
    assert len(train) + len(held) == {"cars98": 2857, "imagewoof9": 1350}[name]
    assert set(train.labels) == set(range(task.classes)) and not set(train.names) & set(held.names)
