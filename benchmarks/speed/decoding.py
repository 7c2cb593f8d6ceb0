"""Pictures a second of JPEG decoders, of the input side around them, and of the model that is fed, one thread each.

Run: `python -m benchmarks.speed.decoding [--data PACK.parquet] [--b]`, or with `--crops` or `--scaled` for the tables
that these name; prints tables in markdown.
"""

from __future__ import annotations

import argparse
import io
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image, features

from backbones import build_backbone
from backbones.grids import NANO_GRIDS, PAPER_GRIDS
from benchmarks.cli.errors import run_script
from benchmarks.engine.batches.evaluation import eval_batches
from benchmarks.engine.sweep import sweep
from benchmarks.speed.throughput import take_turns
from tasks import build_task
from tasks.classification.preprocess import evaluation_view, larger_side, training_view
from tasks.contract import Batch
from tasks.data.decoding import decode
from tasks.data.pictures import check_picture, read_picture, read_rgb
from tasks.data.readers.tables import Column, open_parquet

CPU = torch.device("cpu")
HEIGHT, WIDTH, QUALITY = 375, 500, 90
BATCH = 32
NANO_SIDE = 120
LARGE = ((1000, 750), (2000, 1500), (4000, 3000))  # width, height
Decoder = Callable[[bytes], np.ndarray]


def drawn(count: int, width: int = WIDTH, height: int = HEIGHT) -> list[bytes]:
    """JPEG files of 500x375 px: colours that change smoothly at three scales, under noise."""
    rng, files = np.random.default_rng(0), []
    for _ in range(count):
        pixels = rng.normal(0, 6, (height, width, 3))
        for scale in (4, 16, 64):
            small = Image.fromarray(rng.integers(0, 256, (height // scale + 2, width // scale + 2, 3), np.uint8))
            pixels += np.asarray(small.resize((width, height), Image.Resampling.BICUBIC), float) * scale / 84
        files.append(as_jpeg(Image.fromarray(pixels.clip(0, 255).astype(np.uint8))))
    return files


def packed(path: Path, count: int) -> list[bytes]:
    """Pictures of a parquet pack as JPEG files of their own size, whatever the pack holds."""
    column = Column(open_parquet([path]), "image")
    return [as_jpeg(Image.fromarray(read_rgb(column.read(i)))) for i in range(min(count, len(column)))]


def as_jpeg(image: Image.Image) -> bytes:
    sink = io.BytesIO()
    image.save(sink, "JPEG", quality=QUALITY)
    return sink.getvalue()


def bare_pillow(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        return np.array(image.convert("RGB"))


def checked_pillow(content: bytes) -> np.ndarray:
    """What `read_rgb` does where simplejpeg is not installed."""
    return np.array(read_picture(content))


def reduced_pillow(content: bytes, side: int) -> np.ndarray:
    """Decoded at the smallest of 1/1, 1/2, 1/4, 1/8 that leaves the shorter side `side` px."""
    with Image.open(io.BytesIO(content)) as image:
        image.draft("RGB", (side, side))
        return np.array(image.convert("RGB"))


def of_torchvision(content: bytes) -> np.ndarray:
    from torchvision.io import ImageReadMode, decode_jpeg

    encoded = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    return decode_jpeg(encoded, mode=ImageReadMode.RGB).permute(1, 2, 0).numpy()


def decoders() -> dict[str, Decoder]:
    """By name, all giving uint8 [h, w, 3]; simplejpeg where it is installed."""
    found: dict[str, Decoder] = {
        "`read_rgb`": read_rgb, "Pillow, our checks": checked_pillow, "Pillow, bare": bare_pillow,
        f"Pillow, `draft` to {larger_side(NANO_SIDE)} px": partial(reduced_pillow, side=larger_side(NANO_SIDE)),
        "torchvision, bare": of_torchvision,
    }  # fmt: skip
    try:
        import simplejpeg
    except ImportError:
        print("simplejpeg is not installed: left out, and `read_rgb` is Pillow")
    else:
        found["simplejpeg, bare"] = partial(simplejpeg.decode_jpeg, colorspace="RGB")
        found["simplejpeg, quick and inexact"] = partial(
            simplejpeg.decode_jpeg, colorspace="RGB", fastdct=True, fastupsample=True
        )  # fmt: skip
    return found


def difference(decoder: Decoder, files: Sequence[bytes]) -> tuple[int, float]:
    """Largest and mean |difference| from Pillow in units of a byte; where sizes differ, of what nano would see."""
    largest, total = 0, []
    for content in files:
        pair = [torch.from_numpy(d(content)).permute(2, 0, 1) for d in (decoder, bare_pillow)]
        if pair[0].shape != pair[1].shape:
            pair = [evaluation_view(p, NANO_SIDE, "big_vision") for p in pair]
        apart = (pair[0].int() - pair[1].int()).abs()
        largest, total = max(largest, int(apart.max())), [*total, float(apart.float().mean())]
    return largest, statistics.mean(total)


def mosaics(column: Column, tiles: int, count: int) -> list[bytes]:
    """JPEG files of `tiles` x `tiles` pictures side by side: large pictures of real content."""
    side = check_picture(column.read(0))[0]
    found = []
    for first in range(0, count * tiles * tiles, tiles * tiles):
        whole = Image.new("RGB", (side * tiles, side * tiles))
        for i in range(tiles * tiles):
            one = Image.fromarray(read_rgb(column.read((first + i) % len(column))))
            whole.paste(one.resize((side, side)), (i % tiles * side, i // tiles * side))
        found.append(as_jpeg(whole))
    return found


def crops(packs: Sequence[Path], count: int, turns: int) -> str:
    """Decode and crop, from JPEG bytes to uint8 [3, 120, 120], ours over torchvision's decoder and transforms.

    Evaluation: the shorter side to 136 px, then the middle 120. Training: a random part of 8 to 100 % of the area,
    resized with antialiasing. Rows are packs, and mosaics of the last one's pictures.
    """
    from torchvision.io import ImageReadMode, decode_jpeg
    from torchvision.transforms import v2

    def theirs(transform: Callable[[torch.Tensor], torch.Tensor], content: bytes) -> torch.Tensor:
        return transform(decode_jpeg(torch.frombuffer(bytearray(content), dtype=torch.uint8), ImageReadMode.RGB))

    looked = v2.Compose([v2.Resize(larger_side(NANO_SIDE), antialias=True), v2.CenterCrop(NANO_SIDE)])
    trained = v2.Compose([v2.RandomResizedCrop(NANO_SIDE, antialias=True), v2.RandomHorizontalFlip()])
    generator = torch.Generator().manual_seed(0)
    ways: dict[str, Callable[[bytes], object]] = {
        "evaluation, torchvision": partial(theirs, looked),
        "evaluation, ours": lambda c: evaluation_view(decode(c), NANO_SIDE, "torchvision"),
        "evaluation, ours by big_vision": lambda c: evaluation_view(decode(c), NANO_SIDE, "big_vision"),
        "training, torchvision": partial(theirs, trained),
        "training, ours": lambda c: training_view(decode(c), NANO_SIDE, "torchvision", "inception", generator),
        "training, ours by big_vision": lambda c: training_view(decode(c), NANO_SIDE, "big_vision", "inception",
                                                                generator),
    }  # fmt: skip
    last = Column(open_parquet([packs[-1]]), "image")
    groups = {path.stem: packed(path, count) for path in packs}
    groups |= {f"mosaics of {n}x{n}": mosaics(last, n, max(4, count // n**2)) for n in (2, 4, 8)}
    rows = []
    for name, files in groups.items():
        sizes = np.array([check_picture(content) for content in files])
        pixels = f"{sizes[:, 0].min()}-{sizes[:, 0].max()} x {sizes[:, 1].min()}-{sizes[:, 1].max()}"
        times = take_turns({way: each(work, files) for way, work in ways.items()}, turns, CPU)
        told = [name, pixels, str(len(files))]
        for what in ("evaluation", "training"):
            base = times[f"{what}, torchvision"]
            told.append(f"{1e3 * statistics.median(base) / len(files):.2f}")
            for way in (f"{what}, ours", f"{what}, ours by big_vision"):
                told.append(f"{statistics.median(b / a for a, b in zip(times[way], base, strict=True)):.2f}")
        rows.append(told)
    head = ["pictures", "px", "files", "evaluation, torchvision: ms", "ours", "ours, big_vision's numerics",
            "training, torchvision: ms", "ours", "ours, big_vision's numerics"]  # fmt: skip
    return table(head, rows)


def scaled(sizes: Sequence[tuple[int, int]], count: int, turns: int) -> str:
    """The option `decode: scaled` beside the exact decode, on large drawn pictures: decoding alone, and what a data set
    gives of a file, uint8 [3, side, side], for evaluation and for training. Differences are of the evaluation view.
    """
    rows, generator = [], torch.Generator().manual_seed(0)
    for width, height in sizes:
        files = drawn(count, width, height)
        for side in (NANO_SIDE, 240):
            calls: dict[str, Callable[[], None]] = {}
            for way, reduced in (("full", 0), ("scaled", larger_side(side))):
                read = partial(decode, reduced=reduced)
                looked = partial(_viewed, read, partial(evaluation_view, side=side, style="big_vision"))
                trained = partial(
                    _viewed, read, partial(training_view, side=side, style="big_vision", crop="inception",
                                           generator=generator),
                )  # fmt: skip
                calls |= {f"{way} decode": each(read, files), f"{way} look": each(looked, files)}
                calls[f"{way} train"] = each(trained, files)
            times = take_turns(calls, turns, CPU)
            told = [f"{width}x{height}", f"{statistics.mean(map(len, files)) / 1024:.0f}", str(side)]
            told.append("x".join(map(str, reversed(decode(files[0], reduced=larger_side(side)).shape[1:]))))
            for what in ("decode", "look", "train"):
                pairs = zip(times[f"full {what}"], times[f"scaled {what}"], strict=True)
                told.append(f"{1e3 * statistics.median(times[f'full {what}']) / len(files):.1f}")
                told.append(f"{statistics.median(a / b for a, b in pairs):.2f}")
            apart = [
                (evaluation_view(decode(f), side, "big_vision").int()
                 - evaluation_view(decode(f, reduced=larger_side(side)), side, "big_vision").int()).abs() for f in files
            ]  # fmt: skip
            told += [
                str(max(int(a.max()) for a in apart)),
                f"{statistics.mean(float(a.float().mean()) for a in apart):.2f}",
            ]
            rows.append(told)
    head = ["px", "KiB", "side", "decoded at", "decode, full: ms", "full / scaled", "evaluation, full: ms",
            "full / scaled", "training, full: ms", "full / scaled", "largest difference", "mean"]  # fmt: skip
    return table(head, rows)


def _viewed(
    read: Callable[[bytes], torch.Tensor], view: Callable[[torch.Tensor], torch.Tensor], content: bytes
) -> None:
    view(read(content))


def each(work: Callable[[object], object], inputs: Sequence[object]) -> Callable[[], None]:
    def all_of_them() -> None:
        for one in inputs:
            work(one)

    return all_of_them


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"| --- |{' ---: |' * (len(head) - 1)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows), ""])


def compare_decoders(files: Sequence[bytes], turns: int) -> str:
    """A row for each decoder, one for the checks alone; ratios are medians of the turns' ratios."""
    found = decoders()
    calls = {name: each(decoder, files) for name, decoder in found.items()}
    times = take_turns({**calls, "our checks alone": each(check_picture, files)}, turns, CPU)
    ours, rows = times["`read_rgb`"], []
    for name, taken in times.items():
        rate = len(files) / statistics.median(taken)
        ratio = statistics.median(a / b for a, b in zip(ours, taken, strict=True))
        if name in found:
            largest, mean = difference(found[name], files)
            rows.append([name, f"{rate:.0f}", f"{ratio:.2f}", str(largest), f"{mean:.3f}"])
        else:
            rows.append([f"{name}: {1 / ratio:.1%} of `read_rgb`", f"{rate:.0f}", "", "", ""])
    return table(["decoder", "pictures/s", "speed over `read_rgb`", "largest difference", "mean"], rows)


def steps_of_the_way(files: Sequence[bytes], turns: int) -> str:
    """Milliseconds of each step from a file to a model's input, and of the model under all grids of its sweep."""
    pixels = [decode(content) for content in files]
    calls = {"`read_rgb`": each(read_rgb, files), "`read_rgb`, channels first": each(decode, files)}
    for side in (NANO_SIDE, 240):
        for style in ("big_vision", "torchvision"):
            view = partial(evaluation_view, side=side, style=style)
            calls[f"evaluation view, {side} px, {style}"] = each(view, pixels)
    times = take_turns(calls, turns, CPU)
    rows = [[name, f"{1e3 * statistics.median(taken) / len(files):.2f}"] for name, taken in times.items()]
    return table(["step", "ms a picture"], rows)


def model_seconds(name: str, grids: Sequence[int], batch: int, turns: int) -> float:
    """Seconds a picture that a sweep of `grids` computes: normalised once, then every grid."""
    encoder = build_backbone(name, pretrained=False).eval()
    images = torch.randint(0, 256, (batch, 3, *encoder.image_size), dtype=torch.uint8)

    @torch.no_grad()
    def look() -> None:
        seen = encoder.normalise(images)
        for grid in grids:
            encoder(seen, grid)

    return statistics.median(take_turns({name: look}, turns, CPU)[name]) / batch


def loading(files: Sequence[bytes], turns: int) -> str:
    """Wall-clock pictures a second out of a DataLoader, alone and with a nano model looking at all its grids."""
    counts = (0, 1, 2)
    with tempfile.TemporaryDirectory() as folder:
        for split in ("train", "test"):
            (Path(folder) / "set" / split / "a").mkdir(parents=True)
            for i, content in enumerate(files):
                (Path(folder) / "set" / split / "a" / f"{i:05d}.jpg").write_bytes(content)
        task = build_task("classification", folder, {"data": "set/", "image_size": NANO_SIDE})
        model = task.model(build_backbone("flexivit_nano", pretrained=False))
        times: dict[tuple[str, int], list[float]] = {(what, n): [] for what in ("load", "sweep") for n in counts}
        for _ in range(turns):
            for workers in counts:
                begin = time.perf_counter()
                seen = sum(len(found) for found in eval_batches(task, "test", BATCH, workers) if type(found) is Batch)
                times["load", workers].append((time.perf_counter() - begin) / seen)
                begin = time.perf_counter()
                result = sweep(task, model, task.views(NANO_GRIDS), "test", batch=BATCH, workers=workers)
                times["sweep", workers].append((time.perf_counter() - begin) / result.images)
    rows = [
        [str(n), *(f"{1 / statistics.median(times[what, n]):.0f}" for what in ("load", "sweep"))] for n in counts
    ]  # fmt: skip
    return table(["workers", "DataLoader alone, pictures/s", "nano under all its grids, pictures/s"], rows)


def machine() -> Mapping[str, object]:
    """What the numbers hold for."""
    import PIL
    import torchvision

    return {
        "cpus": len(os.sched_getaffinity(0)), "machine": platform.machine(), "torch": torch.__version__,
        "torchvision": torchvision.__version__, "Pillow": PIL.__version__,
        "Pillow's libjpeg-turbo": features.version("libjpeg_turbo"), "threads": torch.get_num_threads(),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.decoding", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="a parquet pack with a column `image`, compared as well")
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--b", action="store_true", help="time a B model too: a picture under all grids, some minutes")
    parser.add_argument("--crops", type=Path, nargs="+", help="instead: decode and crop of these parquet packs")
    parser.add_argument("--scaled", action="store_true", help="instead: scaled decoding of large drawn pictures")
    options = parser.parse_args()
    torch.set_num_threads(1)  # processor time then leaves out what other programs take
    print(", ".join(f"{k} {v}" for k, v in machine().items()))
    if options.crops:
        print(f"\n{crops(options.crops, options.images, options.turns)}")
        return
    if options.scaled:
        print(f"\n{options.images} drawn pictures a size\n\n{scaled(LARGE, options.images, options.turns)}")
        return
    files = drawn(options.images)
    size = statistics.mean(map(len, files)) / 1024
    print(f"\n{len(files)} drawn pictures of {WIDTH}x{HEIGHT} px, {size:.0f} KiB on average\n")
    print(compare_decoders(files, options.turns))
    if options.data:
        real = packed(options.data, 4 * options.images)
        pixels = statistics.mean(np.prod(check_picture(content)) for content in real)
        print(f"{len(real)} pictures of {options.data.name} as JPEG, {pixels:.0f} px on average\n")
        print(compare_decoders(real, options.turns))
    print(steps_of_the_way(files, options.turns))
    nano = model_seconds("flexivit_nano", NANO_GRIDS, BATCH, options.turns)
    print(f"flexivit_nano, all {len(NANO_GRIDS)} grids, batch {BATCH}: {1e3 * nano:.1f} ms a picture")
    if options.b:
        one = model_seconds("flexivit_b_i21k_300ep", PAPER_GRIDS, 1, 2)
        print(f"flexivit_b_i21k_300ep, all {len(PAPER_GRIDS)} grids, one picture: {one:.1f} s")
    print(f"\n{loading(files * 4, max(3, options.turns // 5))}")


if __name__ == "__main__":
    run_script(main)
