"""Time of the segmentation counts against mmsegmentation's metric, on one image of 512x683 with 150 classes.

Run: `python -m benchmarks.speed.confusion [--device cpu] [--threads 1]`; prints a table in markdown.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import statistics

import torch
from torch import Tensor

from benchmarks.cli.errors import run_script
from benchmarks.speed.per_example import spread
from benchmarks.speed.throughput import take_turns

HEIGHT, WIDTH, CLASSES, IGNORE = 512, 683, 150, 255


def noise(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Prediction and label that are random in every pixel."""
    draw = torch.randint(0, CLASSES, (2, HEIGHT, WIDTH), generator=generator, dtype=torch.uint8)
    return draw[0], draw[1]


def regions(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Blocks of 32 pixels with ignored rows, and the same moved sideways: runs of equal pairs, as in pictures."""
    blocks = torch.randint(0, CLASSES, (16, 22), generator=generator, dtype=torch.uint8)
    label = blocks.repeat_interleave(32, 0).repeat_interleave(32, 1)[:HEIGHT, :WIDTH].contiguous()
    prediction = label.roll(9, 1)
    label[:5] = IGNORE
    return prediction, label


def measure(device: str, repeats: int) -> list[str]:
    """Rows of the table, all ways in alternation; asserts first that they count the same."""
    from tasks.segmentation import mmcv_lite

    mmcv_lite.install()
    from mmseg.evaluation import IoUMetric

    from tasks.segmentation.scoring.confusion import image_counts

    rows = []
    for maker in (noise, regions):
        prediction, label = (t.to(device) for t in maker(torch.Generator().manual_seed(0)))
        wide = prediction.long()  # what an argmax gives, and what mmseg's metric is fed
        theirs = IoUMetric.intersect_and_union(wide, label.to(wide), CLASSES, IGNORE)
        ours = image_counts(prediction, label, CLASSES, IGNORE).cpu()
        assert torch.equal(torch.stack((theirs[0], theirs[2], theirs[3])).long(), ours), maker.__name__
        calls = {
            "mmseg": lambda p=wide, t=label: IoUMetric.intersect_and_union(p, t.to(p), CLASSES, IGNORE),
            "uint8": lambda p=prediction, t=label: image_counts(p, t, CLASSES, IGNORE).cpu(),
            "int64": lambda p=wide, t=label: image_counts(p.to(torch.uint8), t, CLASSES, IGNORE).cpu(),
        }
        times = take_turns(calls, repeats, torch.device(device))
        slow = 1000 * statistics.median(times["mmseg"])
        for name in ("uint8", "int64"):
            fast = 1000 * statistics.median(times[name])
            over = spread([a / b for a, b in zip(times["mmseg"], times[name], strict=True)])
            rows.append(f"| {maker.__name__} | {name} | {slow:.2f} | {fast:.2f} | {over} |")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=50)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    import mmseg

    rows = measure(arguments.device, arguments.repeats)
    if arguments.device == "cpu":
        machine = f"{platform.machine()}, {arguments.threads} thread(s)"
    else:
        machine = torch.cuda.get_device_name()
    size = f"{WIDTH}x{HEIGHT}, {CLASSES} classes, medians of {arguments.repeats} turns, processor time"
    print(f"{size}; {machine}, torch {torch.__version__}, ", end="")
    print(f"mmseg {mmseg.__version__}, Python {platform.python_version()}, {datetime.date.today()}\n")
    print("| label maps | prediction | mmseg IoUMetric ms | here ms | ratio (quartiles) |\n|---|---|---:|---:|---:|")
    print("\n".join(rows))


if __name__ == "__main__":
    run_script(main)
