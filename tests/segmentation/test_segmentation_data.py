"""Folder pairs and shards of the ADEChallengeData2016 layout: reading, augmentation, bad files."""

import json
import os
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from tasks import TaskError
from tasks.segmentation.pipelines import SegmentationData, held_out
from tasks.segmentation.sets import find_set

CLASSES, CROP = 5, 32


def write_pair(root, folder, name, size=(40, 50), seed=0, label=None):
    """A picture whose colour tells the class of each pixel, so that augmentation of the pair can be checked."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, CLASSES, (size[0] // 8 + 1, size[1] // 8 + 1))
    values = blocks.repeat(8, 0).repeat(8, 1)[: size[0], : size[1]]
    for part in ("images", "annotations"):
        (root / part / folder).mkdir(parents=True, exist_ok=True)
    picture = (values * 50)[..., None].repeat(3, 2).astype(np.uint8)
    Image.fromarray(picture).save(root / "images" / folder / f"{name}.jpg")
    label = values.astype(np.uint8) if label is None else label
    Image.fromarray(label).save(root / "annotations" / folder / f"{name}.png")


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("FLEXIVIT_CACHE", str(tmp_path / "cache"))
    base = tmp_path / "segmentation" / "toy"
    for i in range(10):
        write_pair(base, "training", f"t{i}", seed=i)
    for i in range(3):
        write_pair(base, "validation", f"v{i}", size=(40 + i, 50 - i), seed=20 + i)
    meta = {"class_names": list("abcde"), "ignore_label": 255, "reduce_zero_label": False}
    (base / "meta.json").write_text(json.dumps(meta))
    return tmp_path


def data(root, split, crop=CROP):
    return SegmentationData(find_set("toy", root), split, crop)


def test_evaluation_pictures_keep_their_size_and_colours(root):
    val = data(root, "val")
    assert len(val) == 3 and val.classes == tuple("abcde") and [val.name(i) for i in range(3)] == ["v0", "v1", "v2"]
    for i in range(3):
        image, target = val[i]
        assert image.shape == (3, 40 + i, 50 - i) and image.dtype == torch.uint8
        assert target["label"].shape == image.shape[1:] and target["size"].tolist() == list(image.shape[1:])
        stored = np.array(Image.open(root / "segmentation" / "toy" / "images" / "validation" / f"v{i}.jpg"))
        assert np.abs(image.permute(1, 2, 0).numpy().astype(int) - stored).max() <= 2


def test_colours_are_rgb(root):
    folder = root / "segmentation" / "toy" / "images" / "validation"
    Image.fromarray(np.full((40, 50, 3), (250, 10, 90), np.uint8)).save(folder / "v0.jpg", quality=95)
    image, _ = data(root, "val")[0]
    assert (image.float().mean((1, 2)) - torch.tensor([250.0, 10.0, 90.0])).abs().max() < 4


def test_minival_is_held_out_of_train(root):
    train, minival = data(root, "train"), data(root, "minival")
    names = {train.name(i) for i in range(len(train))}, {minival.name(i) for i in range(len(minival))}
    assert names[0] | names[1] == {f"t{i}" for i in range(10)} and not names[0] & names[1] and len(names[1]) == 1
    ids = [f"x{i}" for i in range(100)]
    assert held_out(ids) == held_out(ids[::-1]) and len(held_out(ids)) == 10 and held_out(["one"]) == set()
    # minival pictures are evaluated whole, not augmented
    assert minival[0][0].shape == (3, 40, 50)


def test_crops_follow_the_generator_only(root):
    train = data(root, "train")
    first = train.sample(0, torch.Generator().manual_seed(3))
    np.random.seed(1)
    before = np.random.get_state()[1].copy()
    again = data(root, "train").sample(0, torch.Generator().manual_seed(3))
    assert (np.random.get_state()[1] == before).all()
    assert torch.equal(first[0], again[0]) and torch.equal(first[1]["label"], again[1]["label"])
    others = [train.sample(0, torch.Generator().manual_seed(s))[0] for s in range(4, 8)]
    assert any(not torch.equal(first[0], other) for other in others)
    assert torch.equal(train[2][0], train[2][0])


def test_image_and_label_of_a_crop_move_together(root, monkeypatch):
    train = data(root, "train")
    # without the colour change, the colour of a pixel still tells its class after resizing, crop and flip
    train.pipeline.transforms = [t for t in train.pipeline.transforms if type(t).__name__ != "PhotoMetricDistortion"]
    for i in range(len(train)):
        image, target = train.sample(i, torch.Generator().manual_seed(i))
        label = target["label"]
        assert image.shape == (3, CROP, CROP) and label.shape == (CROP, CROP)
        known = label != 255
        agree = ((image[0].float() / 50).round().long() == label.long())[known].float().mean()
        assert agree > 0.75, agree


def test_a_picture_smaller_than_the_crop_is_filled_up(root):
    train = data(root, "train", crop=64)
    seen = 0
    for seed in range(12):
        image, target = train.sample(0, torch.Generator().manual_seed(seed))
        height, width = target["size"].tolist()
        assert image.shape == (3, 64, 64) and 1 <= height <= 64 and 1 <= width <= 64
        outside = torch.ones(64, 64, dtype=torch.bool)
        outside[:height, :width] = False
        assert (target["label"][outside] == 255).all() and (image[:, outside] == 0).all()
        seen += bool(outside.any())
    assert seen > 0


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (200, 3)])
def test_tiny_and_narrow_pictures(root, size):
    write_pair(root / "segmentation" / "toy", "validation", "v0", size=size)
    write_pair(root / "segmentation" / "toy", "training", "t0", size=size)
    assert data(root, "val")[0][0].shape == (3, *size)
    train, minival = data(root, "train"), data(root, "minival")
    index = next(i for i in range(len(train)) if train.name(i) == "t0") if minival.name(0) != "t0" else None
    assert index is not None
    for seed in range(5):
        assert train.sample(index, torch.Generator().manual_seed(seed))[0].shape == (3, CROP, CROP)


def spoil_sizes(base):
    Image.fromarray(np.zeros((50, 40), np.uint8)).save(base / "annotations" / "validation" / "v1.png")


def spoil_value(base):
    Image.fromarray(np.full((41, 49), 7, np.uint8)).save(base / "annotations" / "validation" / "v1.png")


def spoil_depth(base):
    Image.fromarray(np.zeros((41, 49), np.uint16)).save(base / "annotations" / "validation" / "v1.png")


def spoil_image(base):
    (base / "images" / "validation" / "v1.jpg").write_bytes(b"nothing")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_sizes, r"v1\.png is 40x50 \(width x height\) but .*v1\.jpg is 49x41"),
        (spoil_value, r"label 7 in .*v1\.png is out of range; labels are 0\.\.4 or 255"),
        (spoil_depth, r"v1\.png is a 16-bit image"),
        (spoil_image, r"v1\.jpg cannot be decoded: not a picture"),
    ],
)
def test_bad_files_are_named_when_read(root, spoil, message):
    spoil(root / "segmentation" / "toy")
    val = data(root, "val")
    val[0], val[2]
    with pytest.raises(TaskError, match=message):
        val[1]


def test_missing_halves_of_a_pair(root):
    base = root / "segmentation" / "toy"
    moved = (base / "annotations" / "validation" / "v1.png").rename(root / "kept.png")
    with pytest.raises(TaskError, match=r"no label map .*v1\.png for an image"):
        data(root, "val")
    moved.rename(base / "annotations" / "validation" / "v1.png")
    (base / "images" / "validation" / "v2.jpg").unlink()
    with pytest.raises(TaskError, match=r"no image in .* for the label map .*v2\.png"):
        data(root, "val")


def test_what_is_not_there_is_named(root):
    with pytest.raises(TaskError, match="toy has no split 'test' in .*; it has: train, minival, val"):
        data(root, "test")
    with pytest.raises(TaskError, match="no absent/ and no absent_"):
        find_set("absent", root)
    with pytest.raises(TaskError, match="no ADEChallengeData2016 in .*to be had at http"):
        find_set("ade20k", root)
    (root / "segmentation" / "toy" / "meta.json").unlink()
    with pytest.raises(TaskError, match="has no meta.json: say num_classes"):
        find_set("toy", root)
    assert find_set("toy", root, num_classes=5).spec.classes == ("0", "1", "2", "3", "4")


def test_palette_masks_and_ignore_label(root):
    base = root / "segmentation" / "toy"
    values = np.zeros((40, 50), np.uint8)
    values[0, 0], values[1, 1] = 4, 11
    mask = Image.fromarray(values, mode="P")
    mask.putpalette([v for i in range(256) for v in (255 - i, i, 7)])
    mask.save(base / "annotations" / "validation" / "v0.png")
    meta = {"class_names": list("abcde"), "ignore_label": 11, "reduce_zero_label": False}
    (base / "meta.json").write_text(json.dumps(meta))
    label = data(root, "val")[0][1]["label"]
    assert label[0, 0] == 4 and label[1, 1] == 255 and label.sum() == 4 + 255


def test_shards_are_unpacked_once_and_equal_the_folder(root, tmp_path):
    packed = tmp_path / "packed"
    packed.mkdir()
    base = root / "segmentation" / "toy"
    for part, split in (("training_00", "training"), ("validation_00", "validation")):
        with tarfile.open(packed / f"toy_{part}.tar", "w") as tar:
            for kind in ("images", "annotations"):
                tar.add(base / kind / split, f"toy/{kind}/{split}")
    (packed / "toy_meta.json").write_text((base / "meta.json").read_text())
    found = find_set("toy", packed)
    assert found.root != base and found.splits() == ["train", "minival", "val"]
    assert found.fingerprint() == find_set("toy", root).fingerprint()
    assert find_set("toy", packed).root == found.root
    (packed / "toy_training_00.tar").write_bytes(b"broken")
    with pytest.raises(TaskError, match=r"toy_training_00\.tar cannot be unpacked"):
        find_set("toy", packed)


def test_known_layouts(root):
    ade = root / "ADEChallengeData2016"
    write_pair(ade, "validation", "ADE_val_1", label=np.full((40, 50), 150, np.uint8))
    val = SegmentationData(find_set("ade20k", root), "val", CROP)
    assert len(val.classes) == 150 and (val[0][1]["label"] == 149).all()
    write_pair(ade, "validation", "ADE_val_1", label=np.zeros((40, 50), np.uint8))
    assert (val[0][1]["label"] == 255).all()
    city = root / "cityscapes"
    for part, suffix in (("leftImg8bit", "leftImg8bit"), ("gtFine", "gtFine_labelTrainIds")):
        (city / part / "val" / "bonn").mkdir(parents=True)
        shape = (8, 8, 3) if part == "leftImg8bit" else (8, 8)
        Image.fromarray(np.full(shape, 18, np.uint8)).save(city / part / "val" / "bonn" / f"bonn_1_{suffix}.png")
    val = SegmentationData(find_set("cityscapes", root), "val", CROP)
    assert len(val) == 1 and val.name(0) == "bonn/bonn_1" and val[0][1]["label"].max() == 18
    voc = root / "VOCdevkit" / "VOC2012"
    write_pair(voc, "x", "2007_1"), write_pair(voc, "x", "2007_2")
    (voc / "images" / "x").rename(voc / "JPEGImages"), (voc / "annotations" / "x").rename(voc / "SegmentationClass")
    (voc / "ImageSets" / "Segmentation").mkdir(parents=True)
    (voc / "ImageSets" / "Segmentation" / "val.txt").write_text("2007_2\n")
    val = SegmentationData(find_set("voc2012", root), "val", CROP)
    assert len(val) == 1 and val.name(0) == "2007_2" and len(val.classes) == 21


def test_real_ade20k_pairs():
    base = os.environ.get("FLEXIVIT_DATA", "nowhere")
    if not os.path.isdir(os.path.join(base, "segmentation")):
        pytest.skip("needs the mini data (FLEXIVIT_DATA)")
    val = SegmentationData(find_set("ade20k_format_sample", base), "val", 240)
    assert len(val) == 3 and len(val.classes) == 150
    for i in range(3):
        image, target = val[i]
        assert image.shape[1:] == target["label"].shape and (target["label"] != 255).float().mean() > 0.5
