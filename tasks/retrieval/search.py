"""Nearest neighbours by inner product with faiss, and indices written for use elsewhere."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tasks.contract import TaskError

KINDS = ("flat", "ivf", "hnsw")  # flat is exact; the others trade recall for speed


def check_vectors(vectors: np.ndarray, name: str = "vectors") -> np.ndarray:
    """float32 [N, D], contiguous. Raises: TaskError for other shapes, empty sets, NaN or infinite values."""
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    if vectors.ndim != 2 or not vectors.size:
        raise TaskError(f"{name} must be [N, D] and not empty, not {list(vectors.shape)}")
    bad = np.flatnonzero(~np.isfinite(vectors).all(1))
    if len(bad):
        raise TaskError(f"{len(bad)} {name} have NaN or infinite values, the first is row {bad[0]}")
    return vectors


def build_index(vectors: np.ndarray, kind: str = "flat", gpu: bool = True) -> Any:
    """A faiss index over `vectors` [N, D] by inner product; normalise them first where cosine is meant.

    Args:
        kind: `flat` (exact), `ivf` (about 4 sqrt(N) cells, an eighth of them searched) or `hnsw` (32 links).
        gpu: use a GPU where faiss was built for one and there is one; hnsw has no GPU form.

    Raises: TaskError naming the nearest known kinds.

    Example: `build_index(np.eye(4)).search(np.eye(4, dtype="float32"), 1)[1][:, 0]` is 0, 1, 2, 3.
    """
    import faiss

    if kind not in KINDS:
        near = difflib.get_close_matches(kind, KINDS, 3, 0.4) or KINDS
        raise TaskError(f"no index {kind!r}; nearest: {', '.join(near)}")
    vectors = check_vectors(vectors)
    count, width = vectors.shape
    if kind == "hnsw":
        index = faiss.IndexHNSWFlat(width, 32, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction, index.hnsw.efSearch = 200, 128
    elif kind == "ivf":
        # k-means wants some 39 vectors a cell, else faiss warns and cells are noise
        cells = max(1, min(int(4 * count**0.5), count // 39))
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, cells, faiss.METRIC_INNER_PRODUCT)
        index.nprobe = max(1, cells // 8)
    else:
        index = faiss.IndexFlatIP(width)
    # the CPU build has no StandardGpuResources; the GPU build without a GPU would return an empty index
    if gpu and kind != "hnsw" and hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0:
        index = faiss.index_cpu_to_all_gpus(index)
    if not index.is_trained:
        index.train(vectors)
    index.add(vectors)
    return index


def nearest(
    queries: np.ndarray, gallery: np.ndarray, count: int, kind: str = "flat", exclude: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The `count` best gallery items of each query, best first.

    Args: exclude: int [Q], for each query the gallery row that is itself (-1: none), left out of its list.
    Returns: scores float32 [Q, count] and gallery rows int64 [Q, count]; -1 where an approximate index found fewer.
    Raises: TaskError for different widths or more neighbours than there are.
    """
    queries, gallery = check_vectors(queries, "queries"), check_vectors(gallery, "gallery vectors")
    if queries.shape[1] != gallery.shape[1]:
        raise TaskError(f"queries have width {queries.shape[1]}, the gallery {gallery.shape[1]}")
    more = exclude is not None
    if count < 1 or count + more > len(gallery):
        raise TaskError(f"{count} neighbours asked of a gallery of {len(gallery) - more}")
    scores, rows = build_index(gallery, kind).search(queries, count + more)
    if not more:
        return scores, rows
    # a query may miss from its own list (twins, approximate index): then the last of the list goes
    drop = np.where((rows == exclude[:, None]).any(1), (rows == exclude[:, None]).argmax(1), count)
    keep = np.arange(count + 1)[None] != drop[:, None]
    return scores[keep].reshape(-1, count), rows[keep].reshape(-1, count)


def export_index(folder: str | Path, vectors: np.ndarray, ids: Sequence[str | int], kind: str = "flat") -> Path:
    """Write `index.faiss` and `ids.json` (row -> your id), readable by plain faiss anywhere.

    Raises: TaskError where ids and vectors differ in number or ids repeat.

    Example: `export_index("gallery", embeddings, file_names)`, then `faiss.read_index("gallery/index.faiss")`.
    """
    import faiss

    vectors = check_vectors(vectors)
    if len(ids) != len(vectors):
        raise TaskError(f"{len(ids)} ids for {len(vectors)} vectors")
    if len(set(ids)) != len(ids):
        repeated = next(i for i in ids if list(ids).count(i) > 1)
        raise TaskError(f"id {repeated!r} is given twice")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    faiss.write_index(build_index(vectors, kind, gpu=False), str(folder / "index.faiss"))
    content = {"kind": kind, "metric": "inner product", "width": vectors.shape[1], "ids": list(ids)}
    (folder / "ids.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def load_index(folder: str | Path) -> tuple[Any, list[str | int]]:
    """What `export_index` wrote: the faiss index and the id of each row.

    Raises: TaskError where a file is missing or both do not belong together.
    """
    import faiss

    folder = Path(folder)
    for name in ("index.faiss", "ids.json"):
        if not (folder / name).is_file():
            raise TaskError(f"no {name} in {folder}")
    index, ids = (
        faiss.read_index(str(folder / "index.faiss")),
        json.loads((folder / "ids.json").read_text(encoding="utf-8"))["ids"],
    )
    if index.ntotal != len(ids):
        raise TaskError(f"{folder}: {index.ntotal} vectors but {len(ids)} ids")
    return index, ids
