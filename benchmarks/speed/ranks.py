"""Time and peak memory of ranks by counting against a dense argsort in both directions.

Run: `python -m benchmarks.speed.ranks [--images 5000] [--captions 25000] [--device cpu]`; prints a table in markdown.
Each way runs in its own process, so that its peak memory is its own; both must give the same ranks.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import platform
import resource
import subprocess
import sys
import time

import torch
from torch import Tensor

from benchmarks.cli.errors import run_script


def embeddings(images: int, captions: int, width: int, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Captions scattered around their images; the caption i belongs to image i modulo `images`."""
    generator = torch.Generator().manual_seed(0)
    pairs = torch.arange(captions) % images
    image = torch.nn.functional.normalize(torch.randn(images, width, generator=generator), dim=1)
    text = image[pairs] + 0.2 * torch.randn(captions, width, generator=generator)
    return image.to(device), torch.nn.functional.normalize(text, dim=1).to(device), pairs.to(device)


def by_argsort(image: Tensor, text: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
    """The usual way: all scores at once, sorted along both axes; ranks from 1 of images and captions."""
    scores = text @ image.T
    place = scores.argsort(dim=1, descending=True)
    t2i = (place == pairs[:, None]).nonzero()[:, 1] + 1
    del place
    place = scores.T.contiguous().argsort(dim=1, descending=True)
    own = pairs[place] == torch.arange(len(image), device=image.device)[:, None]
    return own.int().argmax(1) + 1, t2i


def by_counting(image: Tensor, text: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
    from tasks.retrieval.ranks import compute_ranks

    ranks = compute_ranks(image, text, pairs)
    return ranks.i2t, ranks.t2i


WAYS = {"dense argsort": by_argsort, "counting in tiles": by_counting}


def peak(device: str) -> float:
    """Highest memory of this process (of the device, where it is one) so far, in MiB."""
    if device != "cpu":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10  # Linux: KiB


def measure(way: str, args: argparse.Namespace) -> dict[str, object]:
    """Seconds (best of the repeats), MiB above the inputs, and a hash of the ranks."""
    image, text, pairs = embeddings(args.images, args.captions, args.width, args.device)
    WAYS[way](image[:50], text[:50], pairs[:50])  # imports and first-call costs
    before, seconds = peak(args.device), []
    for _ in range(args.repeats):
        start = time.perf_counter()
        i2t, t2i = (r.cpu() for r in WAYS[way](image, text, pairs))
        seconds.append(time.perf_counter() - start)
    digest = hashlib.sha256(i2t.numpy().tobytes() + t2i.numpy().tobytes()).hexdigest()
    recall = float((t2i == 1).double().mean())
    return {"seconds": min(seconds), "mib": peak(args.device) - before, "ranks": digest, "recall": recall}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--captions", type=int, default=25000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--counting-only", action="store_true", help="where all scores at once would not fit")
    parser.add_argument("--way", choices=list(WAYS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    if args.way:
        print(json.dumps(measure(args.way, args)))
        return
    ways = list(WAYS)[1:] if args.counting_only else list(WAYS)
    found = {}
    for way in ways:
        command = [sys.executable, "-m", "benchmarks.speed.ranks", *sys.argv[1:], "--way", way]
        found[way] = json.loads(
            subprocess.run(command, check=True, capture_output=True, encoding="utf-8", errors="replace").stdout
        )
    assert len({f["ranks"] for f in found.values()}) == 1, f"ranks differ: {found}"
    counting = found["counting in tiles"]
    where = torch.cuda.get_device_name() if args.device != "cpu" else cpu_name()
    print(f"Both directions, {args.images:,} images x {args.captions:,} captions, width {args.width}, float32;")
    print(f"{where}, {torch.get_num_threads()} threads, torch {torch.__version__}, Python {platform.python_version()},")
    print(f"{datetime.date.today()}; best of {args.repeats}; equal ranks (t2i R@1 {counting['recall']:.4f}).\n")
    print("| way | seconds | time / counting | peak memory above the inputs, MiB |\n| --- | --- | --- | --- |")
    for way, f in found.items():
        print(f"| {way} | {f['seconds']:.2f} | {f['seconds'] / counting['seconds']:.1f} | {f['mib']:.0f} |")


def cpu_name() -> str:
    """Model name of the processor, as Linux tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()


if __name__ == "__main__":
    run_script(main)
