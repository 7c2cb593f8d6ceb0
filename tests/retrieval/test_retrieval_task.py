"""Caption data in its three forms, locked-image tuning, cached against recomputed embeddings, the meter."""

import dataclasses
import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from accelerate import Accelerator
from PIL import Image
from torch import nn

from backbones.contract import Features
from backbones.grids import GridSchedule
from benchmarks.engine.training.embeddings import LockedFeatures
from benchmarks.engine.training.loop import finetune
from tasks import TaskError, View, build_task
from tasks.data.sets.captioned import captioned_set
from tasks.data.sets.holdout import held_out
from tasks.retrieval.ranks import compute_ranks

REAL = os.environ.get("FLEXIVIT_DATA")
COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220), "white": (250, 250, 250)}


def load_captions(root, name: str, split: str, captions_per_image: int = 5):
    return captioned_set(name, root).load(split, captions_per_image)


def card(root, name: str, **form: object) -> None:
    """A user's own set: one YAML file under the data root."""
    (root / "sets").mkdir(exist_ok=True)
    content = {"name": name, "title": "t", "licence": "l", "source": "http://example.org", "captions": form}
    (root / "sets" / f"{name}.yaml").write_text(yaml.safe_dump(content))


class TinyBackbone(nn.Module):
    """Mean colour of each patch, projected: the interface of a backbone, nothing more."""

    embed_dim = 24

    def __init__(self):
        super().__init__()
        self.proj = nn.Linear(3, self.embed_dim)
        self.calls = 0

    def forward(self, images, grid):
        self.calls += 1
        means = nn.functional.adaptive_avg_pool2d(images.float() / 127.5 - 1, tuple(grid))
        tokens = torch.tanh(self.proj(means.permute(0, 2, 3, 1)))
        return Features(tokens.mean((1, 2)), tokens, tokens.new_zeros(len(images), 0, self.embed_dim))


def picture(colour, seed):
    rng = np.random.default_rng(seed)
    pixels = np.array(COLOURS[colour]) + rng.integers(-25, 25, (20, 24, 3))
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype("uint8")).save(buffer, "PNG")
    return buffer.getvalue()


def scenes(folder, counts=(("train", 40), ("test", 8))):
    """A Karpathy JSON with pictures of one colour and two captions each."""
    (folder / "images").mkdir(parents=True)
    entries = []
    for split, count in counts:
        for i in range(count):
            colour = list(COLOURS)[i % 4]
            name = f"{split}_{i}.png"
            (folder / "images" / name).write_bytes(picture(colour, len(entries)))
            sentences = [{"raw": f"a {colour} square"}, {"raw": f"the picture {i} is {colour}"}]
            entries.append({"filename": name, "split": split, "sentences": sentences})
    (folder / "dataset.json").write_text(json.dumps({"dataset": "scenes", "images": entries}))
    return folder


def tiny_task(root, **options):
    settings = {"data": "dataset.json", "image_size": 24, "text": "tiny", "embed_dim": 16} | options
    return build_task("retrieval", root=root, options=settings)


def batch_of(task, split, indices, generator=None):
    dataset = task.dataset(split)
    samples = [(i, *(dataset.sample(i, generator) if generator else dataset[i])) for i in indices]
    return task.collate(samples)


def train(task, steps, cached, folder, seed=0, grid=(4, 4)):
    """The runner's own loop, with or without the table of the locked tower."""
    torch.manual_seed(seed)
    backbone = TinyBackbone()
    model = task.model(backbone)
    encode = task.locked_encoder(model)
    features = LockedFeatures(task, encode, folder, {"weights": seed}, batch=16) if cached else None
    recipe = dataclasses.replace(task.recipe, steps=steps, batch=16, lr=1e-2, warmup=0, weight_decay=0.01)
    training = finetune(
        task, model, recipe, GridSchedule("fixed", (grid,)), Accelerator(cpu=True), seed=1, features=features
    )
    return model, training.losses, backbone


def evaluate(task, model, grids, size=3):
    prepared, meter = task.prepare(model, "test"), task.meter("test")
    for start in range(0, len(task.dataset("test")), size):
        batch = batch_of(task, "test", range(start, min(start + size, len(task.dataset("test")))))
        for view in task.views(grids):
            meter.update(task.predict(model, batch, view.grid, prepared), batch, view, "test")
    meter.merge()
    return meter.rows()


@pytest.mark.parametrize("loss", ["sigmoid", "contrastive"])
def test_cached_embeddings_train_as_recomputed_ones(tmp_path, loss):
    task = tiny_task(scenes(tmp_path), loss=loss)
    direct, losses, backbone = train(task, 4, False, tmp_path)
    again, cached_losses, cached_backbone = train(task, 4, True, tmp_path)
    # another batch size of the locked tower may round the last bit differently
    assert cached_losses == pytest.approx(losses, rel=1e-5)
    batches = -(-len(task.dataset("train")) // 16)
    assert backbone.calls == 4 and cached_backbone.calls == batches
    for (name, a), b in zip(direct.state_dict().items(), again.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5, msg=name)
    assert train(task, 4, True, tmp_path)[2].calls == 0  # the table is read from disk


def test_tables_of_a_locked_tower(tmp_path):
    task = tiny_task(scenes(tmp_path))
    model, said = task.model(TinyBackbone()), []
    encode = task.locked_encoder(model)
    tables = LockedFeatures(task, encode, tmp_path / "t", {"weights": "w"}, batch=7, say=said.append)
    images = batch_of(task, "train", range(len(task.dataset("train")))).images
    torch.testing.assert_close(tables((4, 4)), model.backbone(images, (4, 4)).pooled)
    assert not torch.equal(tables((2, 2)), tables((4, 4))) and len(list((tmp_path / "t").iterdir())) == 2
    assert len(said) == 2 and "embedded at grid 4x4" in said[0]
    other = LockedFeatures(task, None, tmp_path / "t", {"weights": "other"})
    assert not other.path((4, 4)).exists()
    tables.path((4, 4)).write_bytes(b"half")
    with pytest.raises(TaskError, match="is broken, delete it"):
        LockedFeatures(task, None, tmp_path / "t", {"weights": "w"})((4, 4))
    torch.save(torch.zeros(3, 2), tables.path((4, 4)))
    with pytest.raises(TaskError, match="holds 3 embeddings for"):
        LockedFeatures(task, None, tmp_path / "t", {"weights": "w"})((4, 4))
    trained = tiny_task(tmp_path, locked=False)
    assert trained.locked_encoder(trained.model(TinyBackbone())) is None


def test_tuning_beats_the_start_and_the_locked_tower_stays(tmp_path):
    task = tiny_task(scenes(tmp_path))
    model, losses, backbone = train(task, 20, True, tmp_path)
    torch.manual_seed(0)
    before = TinyBackbone()
    assert torch.equal(backbone.proj.weight, before.proj.weight)
    assert not [n for n, _ in model.named_parameters() if n.startswith("backbone")]
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])
    start = evaluate(task, task.model(before), [4])[0][1]
    tuned = evaluate(task, model, [4])[0][1]
    assert tuned["t2i_mean_rank"] < start["t2i_mean_rank"]


def test_unlocked_tower_is_trained(tmp_path):
    task = tiny_task(scenes(tmp_path), locked=False)
    model, _, backbone = train(task, 2, False, tmp_path)
    torch.manual_seed(0)
    assert not torch.equal(backbone.proj.weight, TinyBackbone().proj.weight)
    assert "backbone.proj.weight" in model.state_dict()


def test_meter_gives_ranks_of_all_captions_at_each_grid(tmp_path):
    task = tiny_task(scenes(tmp_path))
    torch.manual_seed(0)
    model = task.model(TinyBackbone())
    rows = evaluate(task, model, [2, (4, 6)])
    assert [r[0] for r in rows] == [View((2, 2)), View((4, 6))]
    text = task.prepare(model, "test")["text"]
    images = batch_of(task, "test", range(8)).images
    for view, metrics, values in rows:
        image = model.encode_image(images, view.grid).detach()
        expected = compute_ranks(image, text, torch.arange(8).repeat_interleave(2))
        assert metrics.items() >= expected.metrics().items()
        assert metrics["chance_t2i_R@1"] == 1 / 8
        assert values["t2i_rank"].flatten().tolist() == expected.t2i.tolist()
        assert values["ids"].tolist() == list(range(8))


def test_repeated_samples_count_once_in_any_order(tmp_path):
    task = tiny_task(scenes(tmp_path))
    torch.manual_seed(0)
    model = task.model(TinyBackbone())
    prepared, meter = task.prepare(model, "test"), task.meter("test")
    for indices in ([5, 1, 7], [0, 2], [7, 6, 3, 4, 1]):
        batch = batch_of(task, "test", indices)
        meter.update(task.predict(model, batch, (4, 4), prepared), batch, View((4, 4)), "test")
    assert meter.rows()[0][1] == evaluate(task, model, [4])[0][1]


def test_images_with_fewer_captions_are_padded_not_counted(tmp_path):
    folder = scenes(tmp_path)
    content = json.loads((folder / "dataset.json").read_text())
    test = [i for i in content["images"] if i["split"] == "test"]
    test[2]["sentences"].pop()
    (folder / "dataset.json").write_text(json.dumps(content))
    task = tiny_task(folder)
    torch.manual_seed(0)
    _, metrics, values = evaluate(task, task.model(TinyBackbone()), [4])[0]
    assert (values["t2i_rank"] == 0).nonzero().tolist() == [[2, 1]]
    assert int((values["t2i_rank"] > 0).sum()) == 15 and metrics["t2i_mean_rank"] >= 1


def test_empty_evaluation_is_an_error():
    with pytest.raises(TaskError, match="the split is empty"):
        tiny_task(Path("."), data="flickr8k").meter("test").rows()


def test_minival_is_held_out_of_train_where_there_is_no_val(tmp_path):
    folder = scenes(tmp_path)
    train_names = load_captions(folder, "dataset.json", "train").names
    minival = load_captions(folder, "dataset.json", "minival").names
    assert len(minival) == 4 and len(train_names) == 36 and not set(minival) & set(train_names)
    everything = sorted(train_names + minival)
    assert set(np.array(everything)[held_out(everything, 0.1)]) == set(minival)  # whatever the order of the file


def test_minival_is_val_where_there_is_one(tmp_path):
    folder = scenes(tmp_path, (("train", 12), ("val", 5), ("test", 4)))
    assert load_captions(folder, "dataset.json", "minival").names == [f"val_{i}.png" for i in range(5)]
    assert len(load_captions(folder, "dataset.json", "train")) == 12


def test_tar_folder_and_parquet_give_the_same_pictures(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = scenes(tmp_path)
    plain = load_captions(folder, "dataset.json", "test")
    with tarfile.open(folder / "packed_0.tar", "w") as archive:
        archive.add(folder / "images", arcname="images")
    table = {"filename": plain.names, "image": [plain.read(i) for i in range(8)], "captions": plain.captions}
    pq.write_table(pa.table(table), folder / "set_test_00.parquet")
    card(folder, "tars", layout="karpathy", files="dataset.json", splits={"test": 8}, images="packed_*.tar")
    card(folder, "packed", layout="parquet", files="set_{split}_*.parquet", splits={"test": 8})
    for name in ("tars", "packed"):
        other = load_captions(folder, name, "test")
        assert other.captions == plain.captions
        assert [other.read(i) for i in range(8)] == [plain.read(i) for i in range(8)]


def coco(folder, images, annotations):
    (folder / "pictures").mkdir()
    for image in images:
        (folder / "pictures" / image["file_name"]).write_bytes(picture("red", image["id"]))
    (folder / "captions_val.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    splits = {"test": {"pictures": len(images), "download": "val"}}
    card(folder, "small_coco", layout="coco", files="captions_{split}.json", splits=splits, images="pictures")
    return folder


def test_coco_captions_json(tmp_path):
    images = [{"id": 7, "file_name": "a.png"}, {"id": 3, "file_name": "b.png"}]
    notes = [{"id": i, "image_id": (3, 7)[i % 2], "caption": f"caption {i}"} for i in range(12)]
    found = load_captions(coco(tmp_path, images, notes), "small_coco", "test")
    assert found.names == ["a.png", "b.png"]
    assert found.captions[0] == [f"caption {i}" for i in (1, 3, 5, 7, 9)]  # the first five of six
    assert len(load_captions(tmp_path, "small_coco", "test", captions_per_image=0).captions[0]) == 6


@pytest.mark.parametrize(
    ("notes", "message"),
    [
        ([{"id": 5, "image_id": 9, "caption": "x"}], r"caption 0: image_id 9 is the id of no image"),
        ([{"id": 5, "image_id": 7, "caption": "x"}], "captions_val.json: image 'b.png' has no caption"),
    ],
)
def test_captions_and_images_must_meet(tmp_path, notes, message):
    images = [{"id": 7, "file_name": "a.png"}, {"id": 3, "file_name": "b.png"}]
    with pytest.raises(TaskError, match=message):
        load_captions(coco(tmp_path, images, notes), "small_coco", "test")


def test_what_is_wrong_with_the_data_is_named(tmp_path):
    folder = scenes(tmp_path)
    with pytest.raises(TaskError, match="has no split 'dev'; it has: test, train"):
        load_captions(folder, "dataset.json", "dev")
    with pytest.raises(TaskError, match="data 'flickr8': is no data set with captions .*; nearest: flickr8k"):
        tiny_task(folder, data="flickr8")
    card(folder, "wrong", layout="karpathy", files="dataset.json", splits={"test": 9}, images="images")
    with pytest.raises(TaskError, match="has 8 images, it must have 9; get it from http://example.org"):
        load_captions(folder, "wrong", "test")
    (folder / "images" / "test_3.png").unlink()
    with pytest.raises(TaskError, match="1 of 8 pictures that dataset.json names are missing, the first is test_3.png"):
        load_captions(folder, "dataset.json", "test")
    (folder / "images" / "test_3.png").write_bytes(b"no picture")
    with pytest.raises(TaskError, match="test_3.png: cannot be decoded"):
        tiny_task(folder).dataset("test")[3]
    assert "no retrieval/flickr8k_train" in str(tiny_task(folder, data="flickr8k").missing()[0])


def test_wrong_options_are_named(tmp_path):
    folder = scenes(tmp_path)
    with pytest.raises(TaskError, match="no loss 'triplet'; there are: sigmoid, contrastive"):
        tiny_task(folder, loss="triplet").model(TinyBackbone())
    with pytest.raises(TaskError, match="no text tower 'nanno'; nearest: nano"):
        tiny_task(folder, text="nanno").model(TinyBackbone())
    with pytest.raises(TaskError, match="has no pretrained weights"):
        tiny_task(folder, text_pretrained="openai").model(TinyBackbone())


@pytest.mark.skipif(not REAL, reason="FLEXIVIT_DATA is not set")
@pytest.mark.parametrize("name", ["flickr8k", "coco_val2017_subset"])
def test_real_sets_have_their_sizes(name):
    task = build_task("retrieval", root=REAL, options={"data": name})
    assert task.missing() == []
    sizes = {"flickr8k": (4000, 500, 1000), "coco_val2017_subset": (1820, 202, 800)}[name]
    assert tuple(len(task.captions(s)) for s in ("train", "minival", "test")) == sizes
    assert all(len(c) == 5 for c in task.captions("test").captions)
    image, target = task.dataset("test")[5]
    assert image.shape == (3, 120, 120) and image.dtype == torch.uint8 and image.float().std() > 5 and target == 5
    assert len(set(task.captions("train").names) & set(task.captions("test").names)) == 0
