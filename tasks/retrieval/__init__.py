"""Image-text and image-to-image retrieval: locked-image tuning, ranks by counting, faiss search."""

from typing import Any

__all__ = ["ImageRetrieval", "Retrieval", "score_embeddings"]

_HOME = {
    "ImageRetrieval": "tasks.retrieval.images.adapter",
    "Retrieval": "tasks.retrieval.adapter",
    "score_embeddings": "tasks.retrieval.scoring",
}


def __getattr__(name: str) -> Any:
    # `from tasks.retrieval.ranks import ...` should not read pictures' and towers' modules
    if name in _HOME:
        import importlib

        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'tasks.retrieval' has no attribute {name!r}")
