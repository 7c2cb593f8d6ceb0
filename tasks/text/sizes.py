"""Sizes of text towers, and which of them a run of locked-image tuning has trained. Loads without torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.protocols import protocol

# text towers small enough for a CPU, with the names and sizes that locked-image tuning gives them
SMALL: dict[str, dict[str, int]] = {
    "tiny": {"width": 32, "heads": 2, "layers": 1, "embed_dim": 32},
    "nano": {"width": 128, "heads": 4, "layers": 4, "embed_dim": 128},
    "small": {"width": 384, "heads": 6, "layers": 12, "embed_dim": 384},
    "small-512": {"width": 384, "heads": 6, "layers": 12, "embed_dim": 512},  # of retrieval's preset `ours`
}
TOKENS = {"tiny": 16, "nano": 32, "small": 64}  # of a caption at most, in locked-image tuning
BERT = "bert-base"  # of retrieval alone: queries of detection are causal and short
FULL_SIZE = ("coco", "flickr30k")  # sets that have the recipe `ours` unless another is named; others have `nano`


def usual_preset(data: str) -> str:
    """Retrieval's recipe for a set where none is named.  Example: `usual_preset("coco") == "ours"`"""
    return "ours" if data in FULL_SIZE else "nano"


def text_macs(name: str) -> int:
    """Multiply-adds of a tower of `SMALL` for one caption of the greatest length; 0 for others, whose size is not known
    without loading their libraries.

    Of each layer, with T tokens of width D: 12 T D^2 for its matrices, 2 T^2 D for attention.

    Example: `text_macs("nano")` is 26_214_400
    """
    if name not in TOKENS:
        return 0
    tokens, width, layers = TOKENS[name], SMALL[name]["width"], SMALL[name]["layers"]
    return layers * (12 * tokens * width**2 + 2 * tokens**2 * width)


def trained_tower(options: Mapping[str, Any]) -> tuple[str, int]:
    """Name of the text tower of a retrieval run, and width of its common space; 0 where the image tower decides it.

    Args: options: those of the run's rows, which say what a suite has set.

    Raises: KeyError for a preset that there is not.

    Example: `trained_tower({"data": "coco"}) == ("small", 512)`
    """
    preset = options.get("preset") or usual_preset(options.get("data", ""))
    settings = protocol("retrieval").recipe(preset).settings
    return options.get("text") or settings["text"], options.get("embed_dim") or settings["embed_dim"]


def names_in_detection(name: str, width: int) -> list[str]:
    """What detection calls a tower that retrieval has trained; several where the width is not known, none for BERT.

    Example: `names_in_detection("small", 512) == ["small-512"]`
    """
    if name not in SMALL:
        return [] if name == BERT else [name]
    alike = [n for n, sizes in SMALL.items() if n.partition("-")[0] == name]
    return [n for n in alike if width in (0, SMALL[n]["embed_dim"])]
