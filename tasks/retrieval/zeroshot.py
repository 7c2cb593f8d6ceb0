"""Zero-shot classification from the two towers: a class is the mean of its prompts' embeddings."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from tasks.contract import TaskError
from tasks.data.errors import Wrong

WNID = re.compile(r"n\d{8}")
# CLIP's list calls two pairs of ImageNet's classes alike; these are WordNet's first names of one of each
REPEATED = {744: "projectile", 836: "sunglass"}
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


def class_words(classes: Sequence[str], data: str) -> list[str]:
    """Names of classes as words; those of ImageNet-1k's thousand WordNet ids are open_clip's.

    Raises: Wrong for ids and numbers: a text tower knows nothing of `n01440764` or `17`.

    Example: `class_words(["fire_truck"], "mine/") == ["fire truck"]`
    """
    names = [str(name) for name in classes]
    if all(WNID.fullmatch(name) for name in names):
        from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES

        if len(names) == len(IMAGENET_CLASSNAMES) and names == sorted(names):
            return [REPEATED.get(i, name) for i, name in enumerate(IMAGENET_CLASSNAMES)]
    if unspoken := next((name for name in names if WNID.fullmatch(name) or name.isdecimal()), None):
        advice = "rename the class folders, or give the table's labels names"
        raise Wrong(f"has class {unspoken!r}, which is no word", place=f"data {data!r}", advice=advice)
    return [name.replace("_", " ") for name in names]


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
