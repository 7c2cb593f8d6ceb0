"""Folder pairs and shards of the ADEChallengeData2016 layout: reading, augmentation, bad files."""

import json
import os
import tarfile

import numpy as np
import pytest
import torch
from data_tools import sized
from PIL import Image

from tasks import TaskError, build_task
from tasks.data.sets.holdout import held_out
from tasks.data.sets.masked import masked_set
from tasks.segmentation.pipelines import SegmentationData

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
    return of(masked_set("toy", root), split, crop)


def of(pairs, split, crop=CROP):
    return SegmentationData(pairs.load(split), crop, train=split == "train")


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
    assert (held_out(ids, 0.1) == held_out(ids[::-1], 0.1)[::-1]).all() and held_out(ids, 0.1).sum() == 10
    assert not held_out(["one"], 0.1).any() and held_out(ids, 0.1, 3).sum() == 3 and not held_out(ids, 0).any()
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
        (spoil_sizes, r"v1\.png: is 40x50 \(width x height\) but .*v1\.jpg is 49x41"),
        (spoil_value, r"v1\.png: label 7 is out of range; labels are 0\.\.4 or 255"),
        (spoil_depth, r"v1\.png: is a 16-bit image"),
        (spoil_image, r"v1\.jpg: cannot be decoded: not a picture"),
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
    with pytest.raises(TaskError, match=r"validation: has no label map of .*v1\.jpg"):
        data(root, "val")
    moved.rename(base / "annotations" / "validation" / "v1.png")
    (base / "images" / "validation" / "v2.jpg").unlink()
    with pytest.raises(TaskError, match=r"validation: has no picture for the label map .*v2\.png"):
        data(root, "val")


def test_what_is_not_there_is_named(root):
    with pytest.raises(TaskError, match="toy has no split 'test'; it has: train, minival, val"):
        data(root, "test")
    with pytest.raises(TaskError, match="absent: no such folder; 'absent' is no data set with masks .*; nearest: "):
        masked_set("absent", root).load("val")
    with pytest.raises(TaskError, match="ADEChallengeData2016: no such folder; get it from http"):
        masked_set("ade20k", root).load("val")
    (root / "segmentation" / "toy" / "meta.json").unlink()
    with pytest.raises(TaskError, match="toy: has no meta.json; it holds .*; or say num_classes"):
        masked_set("toy", root).load("val")
    assert masked_set("toy", root, count=5).meaning.names == ("0", "1", "2", "3", "4")


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


def test_shards_stay_packed_and_equal_the_folder(root, tmp_path):
    packed = tmp_path / "packed"
    packed.mkdir()
    base = root / "segmentation" / "toy"
    for part, split in (("training_00", "training"), ("validation_00", "validation")):
        with tarfile.open(packed / f"toy_{part}.tar", "w") as tar:
            for kind in ("images", "annotations"):
                tar.add(base / kind / split, f"toy/{kind}/{split}")
    (packed / "toy_meta.json").write_text((base / "meta.json").read_text())
    shards = masked_set("toy", packed)
    assert shards.splits == ("train", "minival", "val")
    assert shards.load("train").fingerprint == masked_set("toy", root).load("train").fingerprint
    for (image, target), (other, label) in zip(of(shards, "val"), data(root, "val"), strict=True):
        assert torch.equal(image, other) and torch.equal(target["label"], label["label"])
    (packed / "toy_training_00.tar").write_bytes(b"broken")
    with pytest.raises(TaskError, match=r"toy_training_00\.tar: cannot be read as a tar"):
        masked_set("toy", packed).load("val")


def test_known_layouts(root, monkeypatch):
    for name in ("ade20k", "cityscapes", "voc2012"):
        sized(monkeypatch, name, "masks", counts=True)
    ade = root / "ADEChallengeData2016"
    write_pair(ade, "validation", "ADE_val_1", label=np.full((40, 50), 150, np.uint8))
    val = of(masked_set("ade20k", root), "val")
    assert len(val.classes) == 150 and (val[0][1]["label"] == 149).all()
    write_pair(ade, "validation", "ADE_val_1", label=np.zeros((40, 50), np.uint8))
    assert (val[0][1]["label"] == 255).all()
    city = root / "cityscapes"
    ids = np.array([[33, 7, 0, 34]], np.uint8)  # as downloaded: bicycle, road, and two that do not count
    files = {
        "leftImg8bit": {"leftImg8bit": np.zeros((1, 4, 3), np.uint8)},
        "gtFine": {"gtFine_labelIds": ids, "gtFine_instanceIds": ids, "gtFine_color": np.zeros((1, 4, 4), np.uint8)},
    }
    for part, own in files.items():
        (city / part / "val" / "bonn").mkdir(parents=True)
        for suffix, pixels in own.items():
            Image.fromarray(pixels).save(city / part / "val" / "bonn" / f"bonn_1_{suffix}.png")
    (city / "gtFine" / "val" / "bonn" / "bonn_1_gtFine_polygons.json").write_text("{}")
    val = of(masked_set("cityscapes", root), "val")
    assert len(val) == 1 and val.name(0) == "bonn/bonn_1" and val[0][1]["label"].tolist() == [[18, 0, 255, 255]]
    trained = np.array([[18, 0, 255, 255]], np.uint8)
    Image.fromarray(trained).save(city / "gtFine" / "val" / "bonn" / "bonn_1_gtFine_labelTrainIds.png")
    again = of(masked_set("cityscapes", root), "val")
    assert again.pairs.masks.names == ["bonn/bonn_1_gtFine_labelTrainIds.png"]
    assert again[0][1]["label"].tolist() == trained.tolist()
    voc = root / "VOCdevkit" / "VOC2012"
    write_pair(voc, "x", "2007_1"), write_pair(voc, "x", "2007_2")
    (voc / "images" / "x").rename(voc / "JPEGImages"), (voc / "annotations" / "x").rename(voc / "SegmentationClass")
    (voc / "ImageSets" / "Segmentation").mkdir(parents=True)
    (voc / "ImageSets" / "Segmentation" / "val.txt").write_text("2007_2\n")
    val = of(masked_set("voc2012", root), "val")
    assert len(val) == 1 and val.name(0) == "2007_2" and len(val.classes) == 21


def test_real_ade20k_pairs():
    base = os.environ.get("FLEXIVIT_DATA", "nowhere")
    if not os.path.isdir(os.path.join(base, "segmentation")):
        pytest.skip("needs the mini data (FLEXIVIT_DATA)")
    val = of(masked_set("ade20k_format_sample", base), "val", 240)
    assert len(val) == 3 and len(val.classes) == 150
    for i in range(3):
        image, target = val[i]
        assert image.shape[1:] == target["label"].shape and (target["label"] != 255).float().mean() > 0.5


@pytest.mark.parametrize("layout", ["ade20k", "cityscapes", "voc2012"])
def test_pairs_are_those_of_mmsegmentation(root, monkeypatch, layout):
    """mmsegmentation's own dataset classes over the same folders name the same files."""
    from mmseg.datasets import transforms  # noqa: F401
    from mmseg.registry import DATASETS

    sized(monkeypatch, layout, "masks", counts=True)
    form = masked_set(layout, root).form
    split, base = form.splits["val"], root / form.files
    rng, keys = np.random.default_rng(0), ["b/x_1", "a/y_2", "a/y_10"] if layout == "cityscapes" else ["x_1", "y_2"]
    ends = {"cityscapes": ("_leftImg8bit.png", "_gtFine_labelTrainIds.png")}.get(layout, (".jpg", ".png"))
    for key in keys:
        for folder, end in zip((split.path, split.masks), ends, strict=True):
            (base / folder / key).parent.mkdir(parents=True, exist_ok=True)
            shape = (6, 7, 3) if folder == split.path else (6, 7)
            Image.fromarray(rng.integers(0, 5, shape, np.uint8)).save(base / folder / f"{key}{end}")
    places = {"img_path": str(base / split.path), "seg_map_path": str(base / split.masks)}
    config = {"type": form.mmseg, "data_prefix": places, "pipeline": []}
    if split.list:
        (base / split.list).parent.mkdir(parents=True)
        (base / split.list).write_text("\n".join(keys))
        config["ann_file"] = str(base / split.list)
    theirs = DATASETS.build(config)
    names = tuple(name.strip() for name in theirs.metainfo["classes"])  # one of ADE20k's ends in a space
    assert names == form.classes and theirs.reduce_zero_label == form.reduce_zero_label
    pairs = masked_set(layout, root).load("val")
    ours = {(pairs.pictures.where(i), pairs.masks.where(i)) for i in range(len(pairs))}
    assert ours == {(i["img_path"], i["seg_map_path"]) for i in (theirs.get_data_info(k) for k in range(len(theirs)))}


@pytest.mark.parametrize("suffix", [".png", ".jpeg", ".JPG", ".tif", ".webp", ".bmp"])
def test_any_suffix_of_pictures_is_taken(root, suffix):
    folder = root / "segmentation" / "toy" / "images" / "validation"
    for path in list(folder.iterdir()):
        Image.open(path).save(folder / f"{path.stem}{suffix}")
        path.unlink()
    (folder / ".DS_Store").write_bytes(b"x"), (folder / "notes.txt").write_text("x")
    val = data(root, "val")
    assert len(val) == 3 and val[0][0].shape == (3, 40, 50)
    assert val.pairs.notes == (f"{folder}: 1 file passed over: 1 .txt",)
    (folder / "v0.gif").write_bytes(b"x")
    with pytest.raises(TaskError, match=r"has both v0\.\w+ and v0\.\w+"):
        data(root, "val")


@pytest.mark.parametrize("turn", [3, 6, 8])
def test_masks_belong_to_stored_pixels_whatever_exif_says(root, turn):
    folder = root / "segmentation" / "toy" / "images" / "validation"
    before = data(root, "val")[0][0]
    exif = Image.Exif()
    exif[0x0112] = turn
    with Image.open(folder / "v0.jpg") as image:
        image.save(folder / "v0.jpg", exif=exif, quality="keep")
    assert torch.equal(data(root, "val")[0][0], before)
    Image.open(folder / "v0.jpg").transpose(Image.Transpose.ROTATE_90).save(folder / "v0.jpg")
    with pytest.raises(TaskError, match=r"must have one size; pixels are read as stored, EXIF's orientation"):
        data(root, "val")[0]


def test_masks_of_other_values_and_colours_are_mapped_by_meta_json(root):
    base = root / "segmentation" / "toy"
    values, colours = np.zeros((40, 50), np.uint8), np.zeros((40, 50, 3), np.uint8)
    values[:9], colours[:9], colours[20:] = 255, (128, 0, 64), (1, 1, 1)
    Image.fromarray(values).save(base / "annotations" / "validation" / "v0.png")
    meta = {"class_names": ["no", "yes"], "values": {"0": "no", "255": "yes"}}
    (base / "meta.json").write_text(json.dumps(meta))
    label = data(root, "val")[0][1]["label"]
    assert (label[:9] == 1).all() and (label[9:] == 0).all()
    with pytest.raises(TaskError, match=r"v1\.png: label \d is out of range; labels are one of 0, 255, or 254 "):
        data(root, "val")[1]
    Image.fromarray(colours).save(base / "annotations" / "validation" / "v0.png")
    with pytest.raises(TaskError, match="mode RGB image; .*; colours are mapped to classes by `palette` in meta.json"):
        data(root, "val")[0]
    palette = {"no": [0, 0, 0], "yes": [128, 0, 64], "ignored": [1, 1, 1]}
    (base / "meta.json").write_text(json.dumps({"class_names": ["no", "yes"], "palette": palette}))
    label = data(root, "val")[0][1]["label"]
    assert (label[:9] == 1).all() and (label[9:20] == 0).all() and (label[20:] == 255).all()
    colours[0, 0] = 9, 9, 9
    Image.fromarray(colours).save(base / "annotations" / "validation" / "v0.png")
    with pytest.raises(TaskError, match=r"v0\.png: colour \(9, 9, 9\) is not in the palette"):
        data(root, "val")[0]


@pytest.mark.parametrize("change, said", [
    ({"class_names": "a"}, "class_names must be a list of names"),
    ({"class_names": ["a", "a"]}, "class_names has a name twice"),
    ({"ignore_label": 300}, "ignore_label must be a whole number from 0 to 255, not 300"),
    ({"reduce_zero_label": 1}, "reduce_zero_label must be true or false"),
    ({"values": {"x": "a"}}, "values 'x' is no value of an 8-bit mask"),
    ({"values": {"0": "aa"}}, "values 'aa' is not among class_names; nearest: a; null is ignored"),
    ({"palette": {"a": [1, 2]}}, r"palette.a must be \[r, g, b\] of 0 to 255, not \[1, 2\]"),
    ({"palette": [[0, 0, 0]]}, "palette must be 5 colours, one a class"),
])  # fmt: skip
def test_what_is_wrong_in_meta_json_is_named(root, change, said):
    path = root / "segmentation" / "toy" / "meta.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(TaskError, match=f"meta.json: {said}"):
        data(root, "val")


def test_other_folders_and_suffixes_of_masks(root):
    base, other = root / "segmentation" / "toy", root / "own"
    for split, called in (("training", "train"), ("validation", "valid")):
        (other / called / "images").mkdir(parents=True), (other / called / "masks").mkdir()
        for path in (base / "images" / split).iterdir():
            path.rename(other / called / "images" / path.name)
        for path in (base / "annotations" / split).iterdir():
            path.rename(other / called / "masks" / f"{path.stem}_mask.png")
    (base / "meta.json").rename(other / "meta.json")
    with pytest.raises(TaskError, match=r"nearest: v0_mask\.png; the option mask_suffix: _mask pairs them"):
        masked_set("own", root).load("val")
    assert of(masked_set("own", root, mask_suffix="_mask"), "val")[2][0].shape == (3, 42, 48)
    task = build_task("segmentation", root, {"data": "own", "mask_suffix": "_mask", "crop": CROP})
    assert task.missing() == [] and len(task.dataset("train")) == 9
