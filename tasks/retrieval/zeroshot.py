"""Zero-shot classification from the two towers: a class is the mean of its prompts' embeddings."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from tasks.contract import TaskError

ENSEMBLES = ("plain", "simple", "openai")
CHUNK = 256  # prompts a forward pass


def templates(name: str = "openai") -> list[Callable[[str], str]]:
    """Prompts of an ensemble: `openai` (the 80 of CLIP's paper), `simple` (seven of them) or `plain` (one).

    Raises: TaskError naming the nearest known ensembles.

    Example: `templates("plain")[0]("beagle")` is "a photo of a beagle.".
    """
    from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES, SIMPLE_IMAGENET_TEMPLATES

    table = {
        "openai": OPENAI_IMAGENET_TEMPLATES,
        "simple": SIMPLE_IMAGENET_TEMPLATES,
        "plain": (lambda c: f"a photo of a {c}.",),
    }
    if name not in table:
        near = difflib.get_close_matches(name, table, 3, 0.4) or ENSEMBLES
        raise TaskError(f"no prompt ensemble {name!r}; nearest: {', '.join(near)}")
    return list(table[name])


@torch.no_grad()
def class_embeddings(
    encode_text: Callable[[Tensor], Tensor],
    tokenize: Callable[[list[str]], Tensor],
    classes: Sequence[str],
    prompts: Sequence[Callable[[str], str]],
    device: torch.device | str = "cpu",
) -> Tensor:
    """One vector a class: prompts embedded, normalised, averaged, normalised again (Radford et al. 2021).

    Args: encode_text: int64 [B, context] -> [B, D]. tokenize: texts -> int64 [B, context].
    Returns: [C, D] of length 1.
    Raises: TaskError for no classes, repeated or empty class names, no prompts.

    Example: `class_embeddings(model.encode_text, tokenizer("nano"), ["cat", "dog"], templates("openai"))`
    """
    if not classes or not prompts:
        raise TaskError("zero-shot classification needs at least one class and one prompt")
    seen: set[str] = set()
    for name in classes:
        if not name.strip():
            raise TaskError(f"class {list(classes).index(name)} has an empty name")
        if name in seen:
            raise TaskError(f"class name {name!r} is given twice; their prompts could not be told apart")
        seen.add(name)
    texts = [prompt(name) for name in classes for prompt in prompts]
    parts = [
        F.normalize(encode_text(tokenize(texts[i : i + CHUNK]).to(device)), dim=-1) for i in range(0, len(texts), CHUNK)
    ]
    mean = torch.cat(parts).unflatten(0, (len(classes), len(prompts))).mean(1)
    return F.normalize(mean, dim=-1)


def zero_shot_metrics(image: Tensor, classes: Tensor, labels: Tensor) -> tuple[dict[str, float], Tensor]:
    """Top-1 and top-5 of image embeddings [N, D] against class embeddings [C, D]; labels int64 [N].

    A tie with a wrong class counts as wrong, as in `ranks`.

    Returns: `top1`, `top5`, `chance_top1` as fractions, and the rank of the right class of each image, from 1.
    Raises: TaskError for different widths or a label without class.
    """
    if image.shape[1] != classes.shape[1]:
        raise TaskError(f"image embeddings have width {image.shape[1]}, class embeddings {classes.shape[1]}")
    wrong = ((labels < 0) | (labels >= len(classes))).nonzero()
    if len(wrong):
        first = int(wrong[0])
        raise TaskError(f"image {first} has label {int(labels[first])}; there are classes 0 to {len(classes) - 1}")
    scores = image @ classes.T
    own = labels[:, None]
    # the right class itself is always among those that score at least as much: it makes the rank count from 1
    ranks = (scores >= scores.gather(1, own)).sum(1)
    top = {f"top{k}": float((ranks <= k).double().mean()) for k in (1, 5)}
    return top | {"chance_top1": 1 / len(classes)}, ranks
