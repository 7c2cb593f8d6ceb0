"""Looking by text and by example: places in pixels, embeddings kept, faults named."""

import numpy as np
import pytest
import torch
from torch import nn

from backbones.contract import Features
from tasks.contract import TaskError
from tasks.detection.boxes import overlaps
from tasks.detection.finder import Finder, Found, draw
from tasks.detection.model.detector import Detector
from tasks.detection.model.heads import ClassHead


class Colours(nn.Module):
    """Tokens are the mean colours of patches: then embeddings are colours too."""

    embed_dim = 3

    def forward(self, images, grid):
        tokens = nn.functional.adaptive_avg_pool2d(images.float() / 255 - 0.5, grid).permute(0, 2, 3, 1)
        return Features(tokens.mean((1, 2)), tokens, tokens[:, 0, :0])


@pytest.fixture
def finder():
    from open_clip.transformer import TextTransformer

    torch.manual_seed(0)
    detector = Detector(
        Colours(), TextTransformer(context_length=16, width=32, heads=2, layers=1, output_dim=3), merge="none"
    )
    head: ClassHead = detector.heads.classes
    with torch.no_grad():
        head.project.weight.copy_(torch.eye(3))
        head.shift.weight.zero_()
        head.shift.bias.fill_(-0.9)
        head.scale.weight.zero_()
        head.scale.bias.fill_(40)
    return Finder(detector.eval(), side=64)


def picture():
    """Grey, 64 wide and 32 high; red at columns 16-31 of rows 0-15, blue at columns 48-63 of rows 16-31."""
    image = torch.full((3, 32, 64), 128, dtype=torch.uint8)
    image[:, 0:16, 16:32] = torch.tensor([255, 0, 0], dtype=torch.uint8)[:, None, None]
    image[:, 16:32, 48:64] = torch.tensor([0, 0, 255], dtype=torch.uint8)[:, None, None]
    return image


@pytest.mark.parametrize("colour, box", [("red", (24, 8, 16, 16)), ("blue", (56, 24, 8, 8))])
def test_an_example_finds_its_like_in_pixels(finder, colour, box):
    """Untrained boxes sit at the bottom right corner of their token, cut at the image's edge."""
    image = picture()
    query = finder.embed_box(image, box, 4)
    found = finder.find_like(image, query, 4)
    assert len(found) == 1 and found[0].box == pytest.approx(box, abs=0.05)
    assert found[0].score > 0.9
    other = torch.tensor([1.0, -1, -1] if colour == "red" else [-1.0, -1, 1])
    assert torch.nn.functional.cosine_similarity(query, other, dim=0) > 0.99


def test_several_examples_are_averaged(finder):
    image = picture()
    red = finder.embed_box(image, (24, 8, 16, 16), 4)
    once = finder.find_like(image, red, 4)
    assert finder.find_like(image, torch.stack([red, red]), 4) == once
    mixed = torch.stack([red, finder.embed_box(image, (56, 24, 8, 8), 4)])
    assert finder.find_like(image, mixed, 4) != once


def test_texts_are_encoded_once_and_scores_fall(finder):
    calls = []
    finder.detector.text.transformer.register_forward_hook(lambda *_: calls.append(1))
    found = finder.predict(picture(), ["red", "blue sky"], 4, threshold=0.0)
    assert len(found) == 16 and [f.score for f in found] == sorted((f.score for f in found), reverse=True)
    finder.predict(picture(), ["blue sky", "red"], 8)
    assert len(calls) == 1
    finder.predict(picture(), ["red", "dog"], 8)
    assert len(calls) == 2
    assert all(f.score >= 0.5 for f in finder.predict(picture(), ["red"], 4, threshold=0.5))
    assert len(finder.predict(picture(), ["red"], 4, threshold=0.0, limit=5)) == 5


@pytest.mark.parametrize("tall", [False, True])
def test_boxes_in_the_padding_are_none(finder, tall):
    image = picture().transpose(1, 2) if tall else picture()
    found = finder.predict(image, ["red"], 4, threshold=0.0)
    assert len(found) == 8  # of 16 tokens half see nothing but padding
    height, width = image.shape[1:]
    for x, y, w, h in (f.box for f in found):
        assert w > 0 and h > 0 and x >= 0 and x + w <= width and y >= 0 and y + h <= height
    # they leave room for others: the limit is of boxes that are there
    assert len(finder.predict(image, ["red"], 4, threshold=0.0, limit=8)) == 8
    assert len(finder.find_like(image, torch.ones(3), 4, threshold=0.0, overlap=1.0)) == 8


def test_no_overlap_falls_back_to_the_nearest(finder):
    with torch.no_grad():
        finder.detector.heads.box.layers[-1].bias.copy_(torch.tensor([20.0, 20.0, -12.0, -12.0]))
    seen = finder._look(picture(), 4, None)
    wanted = torch.tensor([0.0, 0.0, 0.1, 0.1])
    from tasks.detection.boxes import corners

    assert overlaps(wanted, corners(seen.boxes[0]))[0].max() == 0
    assert finder.embed_box(picture(), (0, 0, 6, 6), 4).isfinite().all()


def test_overlaps():
    iou, general = overlaps(torch.tensor([0.0, 0, 2, 2]), torch.tensor([[0.0, 0, 2, 2], [1, 0, 3, 2], [4, 0, 6, 2]]))
    assert iou.tolist() == pytest.approx([1, 1 / 3, 0], abs=1e-5)
    assert general.tolist() == pytest.approx([1, 1 / 3, -1 / 3], abs=1e-5)


def test_a_drawing_changes_pixels_at_the_box(tmp_path):
    image = picture()
    drawn = np.asarray(draw(image, [Found("mug", 0.5, (10, 8, 40, 20))], tmp_path / "a.png"))
    before = image.permute(1, 2, 0).numpy()
    assert drawn.shape == before.shape and (tmp_path / "a.png").is_file()
    assert (drawn[28, 20] != before[28, 20]).any() and (drawn[2, 2] == before[2, 2]).all()


def test_faults_are_named(finder):
    for texts in ([], "red"):
        with pytest.raises(TaskError, match="list of at least one text"):
            finder.predict(picture(), texts, 4)
    with pytest.raises(TaskError, match="outside the image"):
        finder.embed_box(picture(), (80, 0, 5, 5), 4)
    with pytest.raises(TaskError, match="is empty"):
        finder.embed_box(picture(), (8, 0, 0, 5), 4)
    with pytest.raises(TaskError, match="uint8"):
        finder.predict(picture().float(), ["red"], 4)
