"""The text tower's share of a training step of retrieval, captions trimmed to the longest of the batch or padded.

    python -m benchmarks.speed.training.texts --data-root DATA --data flickr8k

Prints a markdown row: forward and backward of the text tower, batches in alternation, processor time.
"""

from __future__ import annotations

import argparse
import statistics

import torch
from torch import Tensor, nn

from benchmarks.cli.errors import run_script
from benchmarks.speed.per_example import spread
from benchmarks.speed.throughput import take_turns
from tasks import build_task
from tasks.retrieval.lit import LiT, trimmed

HEAD = ("captions", "text tower", "batch", "padded to", "trimmed to", "padded, ms", "trimmed, ms", "ratio (quartiles)")


class Still(nn.Module):
    """Stands for the locked image tower, which has no part in this."""

    embed_dim = 8


def measure(root: str, data: str, batch: int, turns: int) -> str:
    """A row of the table; what the embeddings differ by is at its end."""
    task = build_task("retrieval", root=root, options={"data": data})
    text = task.options.text
    torch.manual_seed(0)
    model = LiT(Still(), text, 128)
    tokens = task.tokenize([own[0] for own in task.captions("train").captions[:batch]])
    short = trimmed(text, tokens)
    gap = float((model.encode_text(tokens) - model.encode_text(short)).detach().abs().max())

    def step(given: Tensor) -> None:
        model.encode_text(given).square().sum().backward()
        model.zero_grad()

    times = take_turns({"padded": lambda: step(tokens), "trimmed": lambda: step(short)}, turns, torch.device("cpu"))
    ratio = spread([a / b for a, b in zip(times["padded"], times["trimmed"], strict=True)])
    each = [f"{statistics.median(times[way]) * 1e3:.0f}" for way in times]
    cells = [data, text, len(tokens), tokens.shape[1], short.shape[1], *each, ratio, f"{gap:.0e}"]
    return "| " + " | ".join(map(str, cells)) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", default=".", help="folder of the data; scenes are drawn into it")
    parser.add_argument("--data", default="scenes", help="captions: scenes, flickr8k, or any set of retrieval")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--turns", type=int, default=9)
    args = parser.parse_args()
    torch.set_num_threads(1)
    names = (*HEAD, "embeddings differ by")
    print("| " + " | ".join(names) + " |\n|" + " --- |" * len(names))
    print(measure(args.data_root, args.data, args.batch, args.turns))


if __name__ == "__main__":
    run_script(main)
