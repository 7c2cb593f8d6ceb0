"""Heads against transformers' OWL-ViT and the official initial values; boxes and their way back."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from backbones.contract import Features
from tasks.contract import TaskError
from tasks.detection.boxes import box_bias, pad_square, to_pixels, to_unit, top_pairs
from tasks.detection.model.heads import ClassHead, DetectionHeads, TokenMerge, TokenMLP
from tasks.text.vectors import unit

WIDTH, EMBED = 24, 16


def features(h=3, w=5, batch=2, cls=True):
    torch.manual_seed(0)
    token = torch.randn(batch, WIDTH)
    return Features(token, torch.randn(batch, h, w, WIDTH), token[:, None], token if cls else None)


def randomised(module):
    torch.manual_seed(1)
    with torch.no_grad():
        for p in module.parameters():
            p.normal_(std=0.3)
    return module


def theirs():
    from transformers import OwlViTConfig
    from transformers.models.owlvit.modeling_owlvit import OwlViTBoxPredictionHead, OwlViTClassPredictionHead

    config = OwlViTConfig(vision_config={"hidden_size": WIDTH}, text_config={"hidden_size": EMBED})
    return OwlViTClassPredictionHead(config), OwlViTBoxPredictionHead(config)


def test_golden_box_bias():
    bias = box_bias(3, 3)
    assert torch.allclose(bias[0], torch.full((4,), -0.6930), atol=1e-4)
    assert torch.allclose(bias[-1], torch.tensor([9.2103, 9.2103, -0.6930, -0.6930]), atol=1e-4)


@pytest.mark.parametrize("h, w", [(3, 3), (3, 5), (7, 2), (1, 1), (30, 30)])
def test_box_bias_equals_transformers(h, w):
    from transformers import OwlViTForObjectDetection as Theirs

    assert torch.allclose(box_bias(h, w), Theirs.compute_box_bias(Theirs, h, w), atol=1e-6)


def test_untrained_boxes_are_one_patch_at_each_corner():
    heads = DetectionHeads(WIDTH, EMBED)
    found = heads(features(3, 5), None)
    assert found.logits is None
    assert torch.equal(found.boxes[0], box_bias(3, 5).sigmoid())
    assert torch.allclose(found.boxes[0, 6, :2], torch.tensor([2 / 5, 2 / 3]), atol=1e-3)
    assert torch.allclose(found.boxes[..., 2:], torch.tensor([1 / 5, 1 / 3]), atol=1e-3)


def test_class_head_equals_transformers():
    other, _ = theirs()
    randomised(other)
    own = ClassHead(WIDTH, EMBED)
    own.project.load_state_dict(other.dense0.state_dict())
    own.shift.load_state_dict(other.logit_shift.state_dict())
    own.scale.load_state_dict(other.logit_scale.state_dict())
    tokens, queries = torch.randn(2, 15, WIDTH), torch.randn(2, 4, EMBED)
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]])
    expected, embeddings = other(tokens, queries, mask)
    found, own_embeddings, _, _ = own(tokens, queries, mask)
    valid = mask[:, None].expand_as(found) > 0
    assert (found - expected)[valid].abs().max() < 1e-5
    assert (own_embeddings - embeddings).abs().max() < 1e-6
    assert (found[~valid] == -1e6).all()
    assert expected[valid].std() > 0.1


def test_box_head_equals_transformers_and_tanh_is_near():
    _, other = theirs()
    randomised(other)
    tokens = torch.randn(2, 15, WIDTH)
    expected = other(tokens)
    for gelu, limit in (("none", 1e-6), ("tanh", 1e-2)):
        own = TokenMLP(WIDTH, 4, gelu)
        for i in range(3):
            own.layers[i].load_state_dict(getattr(other, f"dense{i}").state_dict())
        gap = (own(tokens) - expected).abs().max()
        assert gap < limit
    assert gap > 0  # the two really differ


def test_initial_values():
    torch.manual_seed(0)
    head = ClassHead(768, 512)
    assert head.shift.bias.item() == pytest.approx(math.log(0.01 / 0.99)) == pytest.approx(-4.59512, abs=1e-5)
    assert head.project.weight.std().item() == pytest.approx(1e-6, rel=0.02)
    mlp = TokenMLP(768, 4)
    assert mlp.layers[0].weight.std().item() == pytest.approx(768**-0.5, rel=0.02)
    assert mlp.layers[2].weight.abs().max() == 0


def test_merges():
    seen = features()
    product = seen.map * seen.cls[:, None, None]
    merged = TokenMerge(WIDTH)(seen)
    by_hand = (product - product.mean(-1, keepdim=True)) / (product.var(-1, unbiased=False, keepdim=True) + 1e-6).sqrt()
    assert torch.allclose(merged, by_hand, atol=1e-5)
    small = Features(seen.pooled, seen.map * 0.01, seen.prefix, seen.cls * 0.1)
    assert (TokenMerge(WIDTH)(small) - TokenMerge(WIDTH, eps=1e-5)(small)).abs().max() > 0.1
    assert torch.equal(TokenMerge(WIDTH, "drop")(seen), seen.map)
    without = features(cls=False)
    assert torch.equal(TokenMerge(WIDTH, "none")(without), without.map)
    with pytest.raises(TaskError, match="needs a backbone with a class token"):
        TokenMerge(WIDTH)(without)
    with pytest.raises(TaskError, match="nearest: drop"):
        TokenMerge(WIDTH, "none")(seen)
    with pytest.raises(TaskError, match="nearest: mul-ln"):
        TokenMerge(WIDTH, "mul_ln")


def test_padding_queries_change_neither_others_nor_gradients():
    heads = randomised(DetectionHeads(WIDTH, EMBED))
    queries, padded = torch.randn(3, EMBED), torch.zeros(5, EMBED)
    padded[:3] = queries
    mask = torch.tensor([1, 1, 1, 0, 0])
    grads = []
    for q, m in ((queries, None), (padded, mask)):
        heads.zero_grad()
        logits = heads(features(), q, m).logits
        assert logits.isfinite().all()
        torch.nn.functional.softplus(logits).sum().backward()
        grads.append([p.grad.clone() for n, p in heads.named_parameters() if n.startswith("classes")])
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*grads, strict=True))
    assert grads[0][0].abs().max() > 0


def test_queries_permute_and_means_are_means_of_logits():
    heads = randomised(DetectionHeads(WIDTH, EMBED)).eval()
    prompts = torch.randn(7, 4, EMBED)
    each = torch.stack([heads(features(), p).logits for p in prompts]).mean(0)
    mean = heads(features(), unit(prompts).mean(0), normalised=True).logits
    assert (each - mean).abs().max() < 1e-5
    assert (heads(features(), unit(prompts).mean(0)).logits - mean).abs().max() > 1e-3
    order = torch.tensor([2, 0, 3, 1])
    assert torch.equal(heads(features(), prompts[0][order]).logits, heads(features(), prompts[0]).logits[..., order])


def test_objectness_gives_tokens_no_gradient():
    heads = randomised(DetectionHeads(WIDTH, EMBED, objectness=True))
    seen = features()
    seen.map.requires_grad_()
    objectness = heads(seen, None).objectness
    assert objectness.shape == (2, 15)
    objectness.sum().backward()
    assert seen.map.grad is None and heads.merge.norm.weight.grad is None
    assert heads.objectness.layers[0].weight.grad.abs().max() > 0


def test_no_parameter_knows_a_grid_and_bias_survives_inference_mode():
    heads = DetectionHeads(WIDTH, EMBED)
    before = {k: v.shape for k, v in heads.state_dict().items()}
    with torch.inference_mode():
        heads(features(4, 6), None)
    heads(features(4, 6), None).boxes.sum().backward()
    assert {k: v.shape for k, v in heads.state_dict().items()} == before
    with pytest.raises(TaskError, match="width 7"):
        heads(features(), torch.zeros(2, 7))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 2000), st.integers(1, 2000), st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_padding_and_back(width, height, at):
    x0, x1 = sorted(at[:2])
    y0, y1 = sorted(at[2:])
    box = torch.tensor([x0 * width, y0 * height, (x1 - x0) * width, (y1 - y0) * height], dtype=torch.float64)
    there = to_unit(box, height, width)
    assert (there >= 0).all() and (there <= 1 + 1e-9).all()
    assert (to_pixels(there, height, width) - box).abs().max() < 1e-3
    assert (to_pixels(there.float(), height, width) - box).abs().max() < 1e-3


@pytest.mark.parametrize("height, width", [(30, 60), (60, 30), (60, 60), (1, 200), (7, 60)])
def test_pad_keeps_shape_and_fills_bottom_right(height, width):
    image = torch.full((3, height, width), 200, dtype=torch.uint8)
    out, factor = pad_square(image, 60)
    assert out.shape == (3, 60, 60) and factor == 60 / max(height, width)
    h, w = max(1, round(height * factor)), max(1, round(width * factor))
    assert (out[:, :h, :w] == 200).all()
    assert (out[:, h:] == 128).all() and (out[:, :, w:] == 128).all()
    assert (pad_square(image, 60, value=0.0)[0][:, h:] == 0).all()


def test_boxes_are_cut_at_the_image_not_at_the_square():
    found = to_pixels(torch.tensor([[0.5, 0.5, 2.0, 2.0], [0.9, 0.9, 0.1, 0.1]]), 50, 100)
    assert found.tolist() == [[0, 0, 100, 50], pytest.approx([85, 50, 10, 0], abs=1e-4)]
    many = to_pixels(torch.full((2, 3, 4), 0.5), torch.tensor([[50], [100]]), torch.tensor([[100], [100]]))
    assert many[0, 0].tolist() == [25, 25, 50, 25] and many[1, 0].tolist() == [25, 25, 50, 50]


def test_top_pairs_take_several_labels_a_box():
    logits = torch.tensor([[[5.0, 4.0, -9.0], [3.0, -9.0, -9.0]]])
    boxes = torch.tensor([[[0.1] * 4, [0.2] * 4]])
    scores, categories, found = top_pairs(logits, boxes, 3)
    assert categories.tolist() == [[0, 1, 0]]
    assert torch.allclose(found[0, :, 0], torch.tensor([0.1, 0.1, 0.2]))
    assert torch.allclose(scores, torch.tensor([[5.0, 4.0, 3.0]]).sigmoid())
    assert top_pairs(logits, boxes)[0].shape == (1, 6)
