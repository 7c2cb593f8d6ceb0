"""Prompt ensembles and zero-shot metrics."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tasks import TaskError
from tasks.retrieval.zeroshot import class_embeddings, class_words, templates, zero_shot_metrics


def letters(texts):
    """int64 [B, 40]: one id a letter."""
    return torch.tensor([[ord(c) % 64 for c in t[:40].ljust(40)] for t in texts])


def encoder(seed=0):
    torch.manual_seed(seed)
    table = nn.Embedding(64, 12)
    return lambda tokens: (table(tokens) * torch.linspace(0, 1, 40)[:, None]).sum(1)


def test_class_is_the_normalised_mean_of_its_normalised_prompts():
    encode, names = encoder(), ["cat", "dog", "sea urchin"]
    prompts = templates("openai")
    assert len(prompts) == 80 and len({p("x") for p in prompts}) == 80
    found = class_embeddings(encode, letters, names, prompts)
    for i, name in enumerate(names):
        each = torch.stack([F.normalize(encode(letters([p(name)]))[0], dim=0) for p in prompts])
        torch.testing.assert_close(found[i], F.normalize(each.mean(0), dim=0))


def test_metrics_equal_topk_and_ties_are_wrong():
    generator = torch.Generator().manual_seed(0)
    image, classes = torch.randn(200, 8, generator=generator), torch.randn(30, 8, generator=generator)
    labels = torch.randint(30, (200,), generator=generator)
    metrics, ranks = zero_shot_metrics(image, classes, labels)
    top = (image @ classes.T).topk(5).indices == labels[:, None]
    assert metrics["top1"] == pytest.approx(float(top[:, 0].double().mean()))
    assert metrics["top5"] == pytest.approx(float(top.any(1).double().mean()))
    assert metrics["chance_top1"] == 1 / 30 and len(ranks) == 200
    assert zero_shot_metrics(torch.ones(4, 2), torch.ones(3, 2), torch.tensor([0, 1, 2, 0]))[0]["top1"] == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: templates("opanai"), "no prompt ensemble 'opanai'; nearest: openai"),
        (lambda: class_embeddings(encoder(), letters, [], templates("plain")), "at least one class"),
        (lambda: class_embeddings(encoder(), letters, ["a", "a"], templates("plain")), "'a' is given twice"),
        (lambda: class_embeddings(encoder(), letters, ["a", " "], templates("plain")), "class 1 has an empty name"),
        (lambda: zero_shot_metrics(torch.ones(1, 2), torch.ones(3, 4), torch.tensor([0])), "width 2"),
        (lambda: zero_shot_metrics(torch.ones(1, 2), torch.ones(3, 2), torch.tensor([3])), "image 0 has label 3"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(TaskError, match=message):
        call()


def test_classes_are_words_or_refused() -> None:
    """Prompts of ids and numbers would be scored as if they meant something."""
    assert class_words(["fire_truck", "wren"], "mine/") == ["fire truck", "wren"]
    for names, bad in ((["n01440764", "n01443537"], "n01440764"), (["0", "1"], "0"), (["wren", "17"], "17")):
        with pytest.raises(TaskError, match=f"data 'mine/': has class '{bad}', which is no word"):
            class_words(names, "mine/")
    thousand = class_words([f"n{i:08d}" for i in range(1000)], "imagenet")
    assert thousand[0] == "tench" and len(set(thousand)) == 1000
