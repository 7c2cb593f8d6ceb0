"""Category names to prompts: 81 templates in training, seven in evaluation, 80 in all of CLIP's."""

from __future__ import annotations

import difflib
import re

from tasks.contract import TaskError

SETS = ("train", "best", "clip", "plain")


def canonical(text: str) -> str:
    """Lower case, only a-z 0-9 - # and single spaces (OWL-ViT, `label_ops.py`); done before and after prompting.

    Example: `canonical("Remote_control (TV)")` is "remote control tv".
    """
    text = re.sub(r"[^a-z0-9\-# ]", " ", text.lower())
    return re.sub(r"-+", "-", re.sub(r" +", " ", text)).strip()


def check_set(name: str) -> None:
    """Raises: TaskError naming the nearest sets; open_clip, which takes seconds to import, stays closed."""
    if name not in SETS:
        near = difflib.get_close_matches(str(name), SETS, 3, 0.4) or SETS
        raise TaskError(f"no prompt set {name!r}; nearest: {', '.join(near)}")


def template_set(name: str = "best") -> tuple[str, ...]:
    """Templates with a `{}`: `train` (the bare name and CLIP's 80), `clip` (80), `best` (the seven of CLIP's authors,
    used in evaluation) or `plain` (the bare name).

    Raises: TaskError naming the nearest known sets.
    """
    check_set(name)
    from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES, SIMPLE_IMAGENET_TEMPLATES

    clip, best = (tuple(t("{}") for t in s) for s in (OPENAI_IMAGENET_TEMPLATES, SIMPLE_IMAGENET_TEMPLATES))
    return {"train": ("{}", *clip), "best": best, "clip": clip, "plain": ("{}",)}[name]


def prompted(name: str, templates: tuple[str, ...]) -> list[str]:
    """A category's prompts, canonical. A name that starts with `#` is used as it is, without template.

    Raises: TaskError for a name that has no letter or digit.
    """
    bare = canonical(name.removeprefix("#"))
    if not re.search(r"[a-z0-9]", bare):
        raise TaskError(f"category name {name!r} has no letter or digit")
    if name.startswith("#"):
        return [bare] * len(templates)
    return [canonical(template.replace("{}", bare)) for template in templates]
