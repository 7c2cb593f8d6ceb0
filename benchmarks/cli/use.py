"""Using what a run has trained: look for things, name classes, hand an index of images on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.cli.options import Trust

use = typer.Typer(help="Use what a run has trained.", no_args_is_help=True)

Run = Annotated[Path, typer.Argument(help="Folder of a run.")]
DataRoot = Annotated[Path, typer.Option(envvar="FLEXIVIT_DATA", help="Folder of the data sets.")]
Backbone = Annotated[str, typer.Option(help="Whose row; wildcards.")]
TrainGrid = Annotated[str, typer.Option(help="Training grid of the row; wildcards.")]


@use.command()
def detect(
    image: Annotated[Path, typer.Argument(help="A picture.")],
    text: Annotated[list[str] | None, typer.Option(help="What to look for; may be given several times.")] = None,
    like: Annotated[str, typer.Option(help="Instead: X,Y,W,H in pixels of an example in the picture.")] = "",
    run: Annotated[Path | None, typer.Option(help="Folder of a run with detection rows.")] = None,
    owlvit: Annotated[Path | None, typer.Option(help="Instead: OWL-ViT weights (.safetensors).")] = None,
    data_root: DataRoot = Path("data"),
    backbone: Backbone = "*",
    train_grid: TrainGrid = "*",
    grid: Annotated[int, typer.Option(min=1, help="Patches a side.")] = 15,
    threshold: Annotated[float, typer.Option(help="Score from 0 to 1; default 0.1, with --like 0.6.")] = -1.0,
    out: Annotated[Path | None, typer.Option(help="Write the picture with its boxes here.")] = None,
    trust: Trust = False,
) -> None:
    """Find things in a picture by text or by example; JSON on standard output.

    Example: run_all.py use detect photo.jpg --text 'a red mug' --text 'a dog' --run results/runs/mini_detection
    """
    from benchmarks.use.trained import detector_of, find_things

    if bool(text) == bool(like):
        raise ValueError("say what to look for: --text WORDS, or --like X,Y,W,H")
    finder = detector_of(run, owlvit, data_root, {"backbone": backbone, "train_grid": train_grid}, trust)
    found = find_things(finder, image, text or [], like, grid, threshold if threshold >= 0 else None, out)
    print(json.dumps([{"label": f.label, "score": round(f.score, 4), "box": list(f.box)} for f in found], indent=1))


@use.command()
def zeroshot(
    run: Run,
    data: Annotated[str, typer.Option(help="A classification set, such as imagewoof9.")],
    data_root: DataRoot = Path("data"),
    split: Annotated[str, typer.Option()] = "test",
    backbone: Backbone = "*",
    train_grid: TrainGrid = "*",
    grids: Annotated[str, typer.Option(help="Grids, separated by commas.")] = "4,8,15",
    prompts: Annotated[str, typer.Option(help="openai (80), simple (7) or plain (1).")] = "openai",
    trust: Trust = False,
) -> None:
    """Classify by the class names alone, with the towers of a retrieval run; JSON on standard output.

    Example: run_all.py use zeroshot results/runs/mini_retrieval --data imagewoof9 --backbone flexivit_nano
    """
    from benchmarks.use.trained import zero_shot

    sides = [int(g) for g in grids.split(",")]
    wanted = {"backbone": backbone, "train_grid": train_grid}
    print(json.dumps(zero_shot(run, data, data_root, split, wanted, sides, prompts, trust), indent=1))


@use.command(name="export-index")
def export_index(
    backbone: Annotated[str, typer.Argument(help="A backbone's name.")],
    out: Annotated[Path, typer.Argument(help="Folder for index.faiss and ids.json.")],
    data: Annotated[str, typer.Option(help="Labelled pictures: cars98, or a folder with a slash.")],
    data_root: DataRoot = Path("data"),
    split: Annotated[str, typer.Option()] = "test",
    grid: Annotated[int, typer.Option(min=1)] = 15,
    kind: Annotated[str, typer.Option(help="flat (exact), ivf or hnsw.")] = "flat",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Embed pictures at a grid and write a faiss index of them, readable by plain faiss.

    Example: run_all.py use export-index flexivit_nano gallery --data cars98 --grid 8 --data-root DATA
    """
    from benchmarks.use.trained import index_of_images

    count = index_of_images(backbone, out, data, data_root, split, grid, kind, device)
    print(f"{count} images of {data} at grid {grid} in {out}/index.faiss, their names in {out}/ids.json")


@use.command(name="export-backbone")
def export_backbone(
    run: Run,
    out: Annotated[Path, typer.Argument(help="File to write, NAME.safetensors.")],
    task: Annotated[str, typer.Option(help="Task of the row; wildcards.")] = "upstream",
    data: Annotated[str, typer.Option(help="Data of the row; wildcards.")] = "*",
    data_root: DataRoot = Path("data"),
    backbone: Backbone = "*",
    train_grid: TrainGrid = "*",
    half: Annotated[bool, typer.Option("--half", help="16-bit floats, half the size.")] = False,
    trust: Trust = False,
) -> None:
    """Write the backbone that a run trained as a file, whose path is then a backbone's name; the newest row that fits.

    Example: run_all.py use export-backbone results/runs/mini_upstream mine.safetensors
    """
    from benchmarks.use.trained import export_backbone as write

    wanted = {"task": task, "data": data, "backbone": backbone, "train_grid": train_grid}
    label = write(run, out, data_root, wanted, half, trust)
    print(f"{out}: {label}\ntry: run_all.py run mini/classification --set 'backbones=[{out}]'")


@use.command(name="export-model")
def export_model(
    run: Run,
    out: Annotated[Path, typer.Argument(help="File to write: NAME.onnx, NAME.pt2, or a folder for timm.")],
    grid: Annotated[str, typer.Option(help="Grid of the row: 12 or 8x12; wildcards.")] = "*",
    form: Annotated[str, typer.Option("--format", help="onnx, torch (torch.export) or timm.")] = "onnx",
    task: Annotated[str, typer.Option(help="Task of the row; wildcards.")] = "*",
    data: Annotated[str, typer.Option(help="Data of the row; wildcards.")] = "*",
    where: Annotated[
        list[str] | None, typer.Option(help="More of the row: KEY=VALUE, such as protocol='linear*', seed=1.")
    ] = None,
    data_root: DataRoot = Path("data"),
    backbone: Backbone = "*",
    train_grid: TrainGrid = "*",
    normalised: Annotated[bool, typer.Option("--normalised", help="It takes normalised floats, not bytes.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Score the file on the row's split.")] = False,
    trust: Trust = False,
) -> None:
    """Write the trained model of a row, fixed at its grid, as a file that runs without this package.

    Kernel, positions, normalisation and classifier are in it, any batch size runs, and the file names its grid, image
    size, normalisation and classes. With --check exit status 1 where the row does not hold for the file.

    Example: run_all.py use export-model results/runs/demo model.onnx --backbone flexivit_nano --grid 12 --check
    """
    from backbones.deploy.formats import FORMATS
    from benchmarks.use.export import check_row, export_row

    if form not in FORMATS:
        raise ValueError(f"no format {form!r}; there are: {', '.join(FORMATS)}")
    wanted = {"task": task, "data": data, "backbone": backbone, "train_grid": train_grid, "eval_grid": grid}
    for text in where or []:
        key, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"--where {text!r} is not KEY=VALUE")
        wanted[key] = value
    row, own, model, path = export_row(run, out, data_root, wanted, form, normalised, trust)
    print(f"{path}: {row.label} at grid {row.eval_grid}")
    if not check:
        return
    result = check_row(row, own, model, path)
    verdict = "holds for the file" if result["holds"] else "does NOT hold for the file"
    print(
        f"{result['metric']} on {result['split']} ({result['images']} images): {result['file']:.5f}, the row says "
        f"{result['row']:.5f}: it {verdict}"
    )
    raise typer.Exit(0 if result["holds"] else 1)
