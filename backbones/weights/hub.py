"""What the cache of the Hugging Face hub holds; the network is left alone."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def in_hub_cache(repository: str, files: Iterable[str]) -> Path | None:
    """Path of the first of the files that is in the cache; None where none is.

    Args:
        repository: `owner/name` of a model, or `owner/name@revision`.
        files: names within the repository, the preferred first.

    Example: `in_hub_cache("timm/vit_base_patch16_224.augreg_in21k", ("model.safetensors", "pytorch_model.bin"))`
    """
    from huggingface_hub import constants

    repository, _, revision = repository.partition("@")
    folder = constants.REPO_ID_SEPARATOR.join(("models", *repository.split("/")))
    if not Path(constants.HF_HUB_CACHE, folder).is_dir():  # the hub's client takes longer to load than a plan to make
        return None
    from huggingface_hub import try_to_load_from_cache

    paths = (try_to_load_from_cache(repository, file, revision=revision or None) for file in files)
    return next((Path(path) for path in paths if isinstance(path, str)), None)
