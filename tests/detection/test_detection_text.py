"""Prompts, the text tower on 16 tokens, and published weights against transformers."""

import pytest
import torch

from tasks.contract import TaskError
from tasks.detection.model.owlvit import load_owlvit
from tasks.text.prompts import canonical, prompted, template_set
from tasks.text.towers import build_text_tower, category_queries, crop_context, encode_texts, tokenize

END = 49407


def tiny_tower(context: int = 77):
    from open_clip.transformer import TextTransformer

    torch.manual_seed(0)
    return TextTransformer(context_length=context, width=32, heads=2, layers=2, output_dim=16).eval()


def test_canonical_names():
    assert canonical("Remote_control (TV)") == "remote control tv"
    assert canonical("  T--Shirt...") == "t-shirt"
    assert canonical("été 2") == "t 2"


def test_template_sets_have_the_published_lengths():
    assert [len(template_set(n)) for n in ("train", "best", "clip", "plain")] == [81, 7, 80, 1]
    assert template_set("train")[0] == "{}" and set(template_set("best")) <= set(template_set("clip"))
    texts = prompted("Coffee_maker", template_set("best"))
    assert "itap of a coffee maker" in texts and len(set(texts)) == 7
    assert prompted("#Exact words", template_set("best")) == ["exact words"] * 7
    with pytest.raises(TaskError, match="nearest: best"):
        template_set("bets")
    with pytest.raises(TaskError, match="no letter"):
        prompted("...", template_set("best"))


def test_long_texts_keep_their_end_and_empty_ones_are_padding():
    tokens = tokenize(["a mug", "very " * 40 + "long", ""])
    assert tokens.shape == (3, 16)
    assert tokens[1, -1] == END and (tokens[:2] == END).sum(1).tolist() == [1, 1]
    assert tokens[2].abs().max() == 0 and tokenize([]).shape == (0, 16)
    assert tiny_tower(16)(tokens).isfinite().all()


def test_cut_context_changes_no_bit():
    texts = ["a photo of a red mug", "dog", "the plushie zebra on a table"]
    whole = tiny_tower()
    expected = whole(tokenize(texts, 77))
    cut = crop_context(whole)
    assert torch.equal(cut(tokenize(texts)), expected)
    assert cut.positional_embedding.shape[0] == 16 and expected.std() > 0.01
    with pytest.raises(TaskError, match="longer than the tower's 16"):
        crop_context(cut, 77)


def test_named_tower_and_unknown_names():
    tower = build_text_tower("RN50-quickgelu")
    assert tower.output_dim == 1024 and tower.context_length == 16
    with pytest.raises(TaskError, match="ViT-B-16"):
        build_text_tower("ViT-B16-quickgelu")


def test_queries_are_means_of_unit_embeddings():
    tower = crop_context(tiny_tower())
    queries = category_queries(tower, ["cat", "red mug", "cat"])
    assert torch.equal(queries[0], queries[2]) and not torch.allclose(queries[0], queries[1])
    by_hand = torch.nn.functional.normalize(tower(tokenize(prompted("red mug", template_set("best")))), dim=-1).mean(0)
    assert torch.allclose(queries[1], by_hand, atol=1e-5)
    assert queries[0].norm() < 1
    assert torch.allclose(encode_texts(tower, ["b", "a", "b"])[2], encode_texts(tower, ["b"])[0], atol=1e-6)
    with pytest.raises(TaskError, match="no categories"):
        category_queries(tower, [])


def other_model(kind: str):
    import transformers

    config = getattr(transformers, f"{kind}Config")(
        text_config={"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2},
        vision_config={"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
                       "image_size": 64, "patch_size": 16},
        projection_dim=32,
    )  # fmt: skip
    torch.manual_seed(0)
    model = getattr(transformers, f"{kind}ForObjectDetection")(config).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            # every part must matter: norms and biases start as ones and zeros
            p.add_(torch.randn_like(p) * (0.02 if "embedding" in name else 0.1))
    return model


@pytest.mark.parametrize("kind", ["OwlViT", "Owlv2"])
def test_published_layout_gives_the_logits_and_boxes_of_transformers(kind):
    other = other_model(kind)
    detector = load_owlvit(other.state_dict(), vision_heads=4, text_heads=2)
    tokens = tokenize(["a red mug", "dog", "", "a plushie zebra", "two", ""])
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = other(input_ids=tokens, pixel_values=images, attention_mask=(tokens != 0).long())
        queries, mask = detector.text(tokens).view(2, 3, -1), (tokens[:, 0] > 0).view(2, 3)
        found = detector(images, 4, queries, mask)
    valid = mask[:, None].expand_as(found.logits)
    scale = expected.logits[valid].abs().max()
    assert (found.logits - expected.logits)[valid].abs().max() < 1e-5 * scale
    assert (found.boxes - expected.pred_boxes).abs().max() < 1e-5
    assert expected.logits[valid].std() > 0.1 and expected.pred_boxes.std() > 0.05
    if kind == "Owlv2":
        assert (found.objectness - expected.objectness_logits).abs().max() < 1e-4
    with torch.no_grad():
        assert detector(images, 8, queries, mask).boxes.shape == (2, 64, 4)  # and it runs at grids it never had
        official = load_owlvit(other.state_dict(), 4, 2, official=True)(images, 4, queries, mask)
    assert 0 < (official.boxes - found.boxes).abs().max() < 0.01


def test_foreign_states_are_named():
    state = other_model("OwlViT").state_dict()
    with pytest.raises(TaskError, match="parts too many.*extra"):
        load_owlvit({**state, "extra": torch.zeros(1)}, 4, 2)
    state.pop("class_head.dense0.bias")
    with pytest.raises(TaskError, match="no 'class_head.dense0.bias'"):
        load_owlvit(state, 4, 2)
    with pytest.raises(TaskError, match="not an OWL-ViT state"):
        load_owlvit({"head.weight": torch.zeros(1)})
