"""Texts cut to the longest of a batch give what padded ones give; where they would not, they stay whole."""

import pytest
import torch
from torch import nn

from tasks.retrieval.lit import TEXT, LiT, text_tower, tokenizer, trimmed

CAPTIONS = ["a dog", "two children run along the beach after a red ball", "", "snow " * 90]
BOTH_WAYS = {"width": 32, "heads": 2, "layers": 1, "context_length": 16, "no_causal_mask": True, "pool_type": "last"}


class Pooled(nn.Module):
    """Stands for a backbone."""

    embed_dim = 8


@pytest.mark.parametrize("name", ["tiny", "nano", "RN50"])
@pytest.mark.parametrize("captions, width", [(CAPTIONS[:1], 4), (CAPTIONS[:3], 12), (CAPTIONS, 99)])
def test_causal_towers_give_the_same(name: str, captions: list[str], width: int, monkeypatch) -> None:
    if name == "RN50":  # a tower of open_clip's, shortened: its kind is what counts
        import open_clip

        config = open_clip.get_model_config(name)["text_cfg"]
        monkeypatch.setitem(TEXT, name, {**config, "width": 64, "heads": 2, "layers": 2})
    torch.manual_seed(0)
    model = LiT(Pooled(), name, 32)
    tokens = tokenizer(name)(captions)
    short = trimmed(name, tokens)
    assert short.shape == (len(captions), min(width, tokens.shape[1]))
    found = []
    for given in (tokens, short):
        model.zero_grad()
        out = model.encode_text(given)
        (out * torch.arange(32)).sum().backward()
        grads = [p.grad.flatten() for p in model.text.parameters() if p.grad is not None]
        found.append((out.detach(), torch.cat(grads)))
    torch.testing.assert_close(found[1][0], found[0][0], rtol=1e-6, atol=1e-6)
    assert (found[1][1] - found[0][1]).norm() < 1e-5 * found[0][1].norm()


def test_bert_masks_what_follows() -> None:
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    bert = BertModel(BertConfig(vocab_size=200, **sizes)).eval()
    tokens = torch.randint(100, 200, (3, 16))
    tokens[0, 5:], tokens[1, 7:], tokens[2, 3:] = 0, 0, 0
    short = trimmed("bert-base", tokens)
    assert short.shape == (3, 8)
    with torch.no_grad():
        one, other = (bert(t, attention_mask=t.ne(0).long()).last_hidden_state[:, 0] for t in (tokens, short))
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_a_tower_that_sees_its_padding_keeps_it(monkeypatch) -> None:
    monkeypatch.setitem(TEXT, "both", BOTH_WAYS)
    torch.manual_seed(0)
    tower, _ = text_tower("both", 32)
    tokens = tokenizer("both")(CAPTIONS[:2])
    assert trimmed("both", tokens) is tokens
    assert not torch.allclose(tower(tokens), tower(tokens[:, :13]), atol=1e-3)  # what cutting would do
    other = {"vocab_size": 9, "hf_tokenizer_name": "x", "context_length": 16}
    for kind in ({"embed_cls": True}, {"pool_type": "eos"}, {"pool_type": "first"}, other):
        monkeypatch.setitem(TEXT, "both", {**BOTH_WAYS, "no_causal_mask": False, "pool_type": "argmax", **kind})
        assert trimmed("both", tokens) is tokens
