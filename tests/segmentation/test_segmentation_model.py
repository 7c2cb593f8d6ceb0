"""Heads against mmseg's, and sliding windows against a plain loop."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from backbones.contract import Features
from tasks import TaskError
from tasks.segmentation import mmcv_lite
from tasks.segmentation.heads import HEADS, Segmenter
from tasks.segmentation.windows import predict_labels, slide, starts

mmcv_lite.install()


class TinyEncoder(nn.Module):
    """Averages the pixels of each cell and projects them: the interface of a backbone in a few lines."""

    def __init__(self, width=16):
        super().__init__()
        self.embed_dim = width
        self.project = nn.Linear(3, width)

    def normalise(self, images):
        return images if images.is_floating_point() else (images.float() - 127.5) / 127.5

    def forward(self, images, grid):
        cells = F.adaptive_avg_pool2d(self.normalise(images), grid).permute(0, 2, 3, 1)
        tokens = self.project(cells).sin()
        return Features(pooled=tokens.mean((1, 2)), map=tokens, prefix=tokens.flatten(1, 2)[:, :0])


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def test_linear_is_mmseg_fcn_head_with_one_convolution():
    from mmseg.models import FCNHead

    model = Segmenter(TinyEncoder(), "linear", 7)
    reference = FCNHead(
        in_channels=16, channels=16, num_classes=7, num_convs=0, concat_input=False, kernel_size=1, norm_cfg=None,
        dropout_ratio=0.0, align_corners=False,
    )  # fmt: skip
    assert [n for n, _ in model.head.named_parameters()] == ["conv_seg.weight", "conv_seg.bias"]
    with torch.no_grad():
        model.head.conv_seg.weight.copy_(torch.randn(7, 16, 1, 1))
        model.head.conv_seg.bias.copy_(torch.randn(7))
    reference.load_state_dict(model.head.state_dict())
    images = torch.randn(2, 3, 24, 24)
    features = model.backbone(images, (6, 8)).map
    torch.testing.assert_close(model(images, (6, 8)), reference((features.permute(0, 3, 1, 2),)))
    plain = features @ model.head.conv_seg.weight[:, :, 0, 0].T + model.head.conv_seg.bias
    torch.testing.assert_close(model(images, (6, 8)), plain.permute(0, 3, 1, 2))


@pytest.mark.parametrize("head", list(HEADS))
def test_one_head_runs_and_learns_at_every_grid(head):
    model = Segmenter(TinyEncoder(32), head, 5)
    names = {n: p.shape for n, p in model.named_parameters()}
    labels = torch.randint(0, 5, (1, 48, 48))
    labels[:, :7] = 255
    for grid in ((2, 2), (5, 3), (12, 12)):
        logits = model(torch.randn(1, 3, 48, 48), grid)
        factor = 4 if head == "upernet" else 1
        assert logits.shape == (1, 5, factor * grid[0], factor * grid[1])
        loss = model.loss(logits, labels)["loss_ce"]
        want = F.cross_entropy(
            F.interpolate(logits, size=(48, 48), mode="bilinear", align_corners=False), labels, ignore_index=255
        )
        torch.testing.assert_close(loss, want)
        model.zero_grad()
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert names == {n: p.shape for n, p in model.named_parameters()}


def test_unknown_head_names_the_nearest():
    with pytest.raises(TaskError, match="no head 'linaer'; nearest: linear"):
        Segmenter(TinyEncoder(), "linaer", 5)


def test_loss_of_ignored_pixels_only_is_zero():
    model = Segmenter(TinyEncoder(), "linear", 5)
    loss = model.loss(model(torch.randn(1, 3, 8, 8), (4, 4)), torch.full((1, 8, 8), 255))["loss_ce"]
    assert loss.item() == 0


def plain_slide(logits_of, image, window, stride):
    """mmseg's loop, one window at a time, on an image padded up to the window."""
    height, width = image.shape[1:]
    image = F.pad(image, (0, max(0, window - width), 0, max(0, window - height)))
    rows, columns = image.shape[1:]
    total, hits = 0, torch.zeros(rows, columns)
    for i in range(max(rows - window + stride - 1, 0) // stride + 1):
        for j in range(max(columns - window + stride - 1, 0) // stride + 1):
            bottom, right = min(i * stride + window, rows), min(j * stride + window, columns)
            top, left = bottom - window, right - window
            logits = logits_of(image[None, :, top:bottom, left:right])
            logits = F.interpolate(logits, size=(window, window), mode="bilinear", align_corners=False)[0]
            total = total + F.pad(logits, (left, columns - right, top, rows - bottom))
            hits[top:bottom, left:right] += 1
    assert hits.min() > 0
    return (total / hits)[:, :height, :width]


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_windows_equal_a_plain_loop(data):
    window = data.draw(st.sampled_from([8, 12]))
    stride = data.draw(st.integers(1, window))
    sizes = data.draw(st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=3))
    chunk = data.draw(st.sampled_from([None, 1, 3, 100]))
    model = Segmenter(TinyEncoder(), "linear", 4)
    generator = torch.Generator().manual_seed(7)
    images = [torch.randn(3, *size, generator=generator) for size in sizes]
    with torch.no_grad():
        chunks = (lambda x: x.split(chunk)) if chunk else None
        got = list(slide(lambda x: model(x, (4, 2)), images, window, stride, chunks))
        want = [plain_slide(lambda x: model(x, (4, 2)), image, window, stride) for image in images]
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def test_windows_equal_mmseg_slide_inference():
    from mmengine.config import ConfigDict
    from mmseg.models import EncoderDecoder

    model = Segmenter(TinyEncoder(), "linear", 4).eval()

    class Loop:
        test_cfg = ConfigDict(stride=(10, 10), crop_size=(16, 16))
        out_channels = 4

        def encode_decode(self, x, metas):
            return F.interpolate(model(x, (4, 4)), size=x.shape[2:], mode="bilinear", align_corners=False)

    image = torch.randn(3, 37, 50)
    with torch.no_grad():
        want = EncoderDecoder.slide_inference(Loop(), image[None], [{}])[0]
        (got,) = slide(lambda x: model(x, (4, 4)), [image], 16, 10)
    torch.testing.assert_close(got, want)


@given(st.integers(1, 400), st.integers(1, 60), st.integers(1, 60))
def test_starts_cover_every_pixel(side, window, stride):
    stride = min(stride, window)
    begins = starts(side, window, stride)
    covered = set()
    for begin in begins:
        covered |= set(range(begin, min(begin + window, side)))
        assert begin >= 0 and (begin + window <= side or side < window)
    assert covered == set(range(side)) and len(set(begins)) == len(begins)


def test_flip_and_scales_average_probabilities():
    torch.manual_seed(0)
    image, colours = torch.randn(3, 16, 16), torch.randn(4, 3)

    def sure(x):  # as sure as it takes for the mean of probabilities and that of logits to choose differently
        return 5 * torch.einsum("kc,bchw->bkhw", colours, F.avg_pool2d(x, 2))

    want, of_logits = 0, 0
    with torch.no_grad():
        for size in (16, 32):
            look = image[None]
            if size != 16:
                look = F.interpolate(look, size=(size, size), mode="bilinear", antialias=True)
            for mirrored in (False, True):
                logits = plain_slide(sure, (look.flip(-1) if mirrored else look)[0], 16, 16)
                logits = logits.flip(-1) if mirrored else logits
                logits = F.interpolate(logits[None], size=(16, 16), mode="bilinear")[0]
                want, of_logits = want + logits.softmax(0), of_logits + logits
        (got,) = predict_labels(sure, [image], 16, 16, scales=(1.0, 2.0), flip=True)
    assert torch.equal(got, want.argmax(0).to(torch.uint8))
    assert not torch.equal(got, of_logits.argmax(0).to(torch.uint8))


def test_short_side_and_label_size():
    seen = []

    def logits_of(x):
        seen.append(x.shape)
        return x[:, :1].mean((2, 3), keepdim=True).repeat(1, 3, 1, 1)

    (label,) = predict_labels(logits_of, [torch.randn(3, 20, 40)], 16, 16, sizes=[(21, 43)], short_side=16)
    assert label.shape == (21, 43) and seen == [(2, 3, 16, 16)]


def test_one_pixel_image():
    model = Segmenter(TinyEncoder(), "linear", 4)
    with torch.no_grad():
        (label,) = predict_labels(lambda x: model(x, (2, 2)), [torch.randn(3, 1, 1)], 16, 8)
    assert label.shape == (1, 1)


def test_upernet_reads_maps_of_four_depths():
    from backbones import build_backbone

    encoder, seen = build_backbone("flexivit_nano").eval(), {}
    model = Segmenter(encoder, "upernet", 5).eval()
    model.neck.register_forward_pre_hook(lambda _, inputs: seen.update(maps=inputs[0]))
    images = torch.randn(1, 3, 48, 48)
    with torch.no_grad():
        model(images, (6, 6))
        features = encoder(images, 6, taps=(0, 2, 3))
    for single, wanted in zip(seen["maps"], (*features.taps.values(), features.map), strict=True):
        torch.testing.assert_close(single, wanted.permute(0, 3, 1, 2))
    assert Segmenter(TinyEncoder(), "upernet", 5).taps == ()


def test_upernet_has_a_version_of_its_own(tmp_path):
    """Its numbers moved when it began to read four depths; those of the other heads did not."""
    from tasks import build_task

    heads = ("linear", "segmenter", "upernet")
    cards = [build_task("segmentation", tmp_path, {"data": "scenes", "head": head}).card.protocol for head in heads]
    assert cards == ["v2", "v2", "v3"]
