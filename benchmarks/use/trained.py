"""What the `use` verbs do: a detector that looks, two towers that name classes, an index, a backbone as a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from backbones import FlexiBackbone, build_backbone
from backbones.grids import parse_schedule
from backbones.weights.own import save_backbone
from benchmarks.engine.batches.evaluation import eval_batches
from benchmarks.engine.reopen import find_row, reopen
from benchmarks.engine.sweep import normalised_once
from benchmarks.store import Store
from tasks import build_task
from tasks.contract import TaskError
from tasks.contract.frozen import Frozen
from tasks.data.pictures import read_rgb
from tasks.detection.finder import Finder, Found, draw


def detector_of(
    run: Path | None, owlvit: Path | None, data_root: Path, wanted: Mapping[str, Any], trust: bool = False
) -> Finder:
    """A detector out of a run's rows, or with published OWL-ViT weights from a `.safetensors` of transformers.

    Raises: TaskError where neither or both are named, or nothing matches.
    """
    if (run is None) == (owlvit is None):
        raise TaskError("name the detector: --run FOLDER of a run with detection rows, or --owlvit FILE.safetensors")
    if owlvit is not None:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        from tasks.detection.model.owlvit import load_owlvit

        try:
            state = load_file(owlvit)
        except (OSError, SafetensorError) as error:
            raise TaskError(f"{owlvit} cannot be read: {error}") from error
        detector = load_owlvit(state).eval()
        return Finder(detector, detector.backbone.image_size[0])
    store = Store(run, trust)
    task, model = reopen(store, find_row(store, {"task": "detection", **wanted}), data_root)
    return Finder(model, task.side, task.options.pad, task.options.prompts)


def find_things(
    finder: Finder, image: Path, texts: Sequence[str], like: str, grid: int, threshold: float | None, out: Path | None
) -> list[Found]:
    """What is found, best first; drawn into `out` where that is given.

    Raises: TaskError for a picture that cannot be read or a box that is no four numbers.
    """
    pixels = torch.from_numpy(read_rgb(image, upright=True)).permute(2, 0, 1).contiguous()
    more = {} if threshold is None else {"threshold": threshold}
    if texts:
        found = finder.predict(pixels, texts, grid, **more)
    else:
        try:
            x, y, w, h = (float(v) for v in like.split(","))
        except ValueError:
            raise TaskError(f"--like {like!r} is not X,Y,W,H in pixels") from None
        found = finder.find_like(pixels, finder.embed_box(pixels, (x, y, w, h), grid), grid, **more)
    if out is not None:
        draw(pixels, found, out)
    return found


@torch.no_grad()
def zero_shot(
    run: Path,
    data: str,
    data_root: Path,
    split: str,
    wanted: Mapping[str, Any],
    grids: Sequence[int],
    prompts: str,
    trust: bool = False,
) -> dict[str, Any]:
    """Top-1 and top-5 of a classification set by its class names, at each grid, with the towers of a retrieval row.

    Raises: TaskError for missing data, names or rows.
    """
    from tasks.retrieval.zeroshot import class_embeddings, class_words, templates, zero_shot_metrics

    store = Store(run, trust)
    row = find_row(store, {"task": "retrieval", **wanted})
    task, model = reopen(store, row, data_root)
    side = task.options.image_size
    pictures = build_task("classification", data_root, {"data": data, "image_size": side})
    names = class_words(pictures.labelled("train").classes, data)
    table = class_embeddings(model.encode_text, task.tokenize, names, templates(prompts))
    seen: dict[int, list[torch.Tensor]] = {g: [] for g in grids}
    labels = []
    for batch in eval_batches(pictures, split, 64):
        images = model.backbone.normalise(batch.images)
        labels.append(torch.as_tensor(batch.targets))
        for g in grids:
            seen[g].append(model.encode_image(images, (g, g)))
    found = {g: zero_shot_metrics(torch.cat(seen[g]), table, torch.cat(labels))[0] for g in grids}
    return {
        "backbone": row["backbone"], "train_grid": row["train_grid"], "captions": row["options"].get("data"),
        "data": data, "split": split, "prompts": prompts, "images": len(torch.cat(labels)), "grids": found,
    }  # fmt: skip


@torch.no_grad()
def export_backbone(
    run: Path, out: Path, data_root: Path, wanted: Mapping[str, Any], half: bool = False, trust: bool = False
) -> str:
    """Write the backbone that a row's training left, with its classifier where it has one; the row's label.

    What was written is opened again and must give the same features, to 1e-5 (`half`: 1e-2).

    Raises: TaskError for a row or weights that are not there, or a backbone that such a file cannot hold.
    """
    store = Store(run, trust)
    row = find_row(store, wanted)
    encoder = getattr(reopen(store, row, data_root)[1], "backbone", None)
    encoder = encoder.module if isinstance(encoder, Frozen) else encoder
    if not isinstance(encoder, FlexiBackbone) or out.suffix != ".safetensors":
        what = f"{out} does not end in .safetensors" if out.suffix != ".safetensors" else f"{row['label']} has another"
        raise TaskError(f"a backbone of ours is written as a .safetensors file: {what}")
    notes = {k: row.get(k) for k in ("task", "protocol", "options", "recipe", "train_grid", "seed", "steps")}
    notes |= {"data": row.get("data_identity"), "revision": row.get("env", {}).get("revision")}
    if row["task"] == "upstream" and row["train_grid"] is not None:  # fine-tuning at one grid leaves it what it was
        encoder.flexible = parse_schedule(row["train_grid"]).kind != "fixed"
    images = torch.randint(0, 256, (2, 3, *encoder.image_size), dtype=torch.uint8)
    expected = encoder(images, encoder.native_grid).pooled
    out.parent.mkdir(parents=True, exist_ok=True)
    tried = out.with_name(f"{out.stem}.tried.safetensors")
    try:
        save_backbone(encoder, tried, half, training=notes)
        found = build_backbone(str(tried)).eval()(images, encoder.native_grid).pooled
        if (found - expected).norm() > (1e-2 if half else 1e-5) * expected.norm():
            raise ValueError("its features are others")
        tried.replace(out)
    except (ValueError, AttributeError) as error:
        raise TaskError(f"the backbone of {row['label']} is no ViT of big_vision's form: {error}") from error
    finally:
        tried.unlink(missing_ok=True)
    return row["label"]


def index_of_images(
    backbone: str, out: Path, data: str, data_root: Path, split: str, grid: int, kind: str, device: str
) -> int:
    """Embed a split at a grid, write `index.faiss` and `ids.json` (picture names); how many there are.

    Raises: TaskError for missing data or an index kind that does not exist.
    """
    from tasks.retrieval.search import export_index

    task = build_task("image_retrieval", data_root, {"data": data})
    model = task.model(build_backbone(backbone)).to(device)
    vectors = []
    for batch in eval_batches(task, split, 64):
        batch = normalised_once(model, batch.to(device))
        vectors.append(task.predict(model, batch, (grid, grid), None)["vector"].cpu())
    names = task.labelled(split).names
    export_index(out, torch.cat(vectors).numpy(), names, kind)
    return len(names)
