"""Time of the segmentation counts against mmsegmentation's metric, on one image of 512x683 with 150 classes.

Run: `python -m benchmarks.speed.confusion [--device cpu] [--threads 1]`; prints a table in markdown.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

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


def milliseconds(work: Callable[[], object], device: str, repeats: int) -> float:
    """Median time of `work`, after three runs to warm up."""
    times = []
    for i in range(repeats + 3):
        start = time.perf_counter()
        work()
        if device != "cpu":
            torch.cuda.synchronize()
        if i >= 3:
            times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


def measure(device: str, repeats: int) -> list[str]:
    """Rows of the table; asserts first that both count the same."""
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
        slow = milliseconds(
            lambda p=wide, t=label: IoUMetric.intersect_and_union(p, t.to(p), CLASSES, IGNORE), device, repeats
        )
        fast = milliseconds(lambda p=prediction, t=label: image_counts(p, t, CLASSES, IGNORE).cpu(), device, repeats)
        from_wide = milliseconds(
            lambda p=wide, t=label: image_counts(p.to(torch.uint8), t, CLASSES, IGNORE).cpu(), device, repeats
        )
        for name, ours_ms in (("uint8", fast), ("int64", from_wide)):
            rows.append(f"| {maker.__name__} | {name} | {slow:.2f} | {ours_ms:.2f} | {slow / ours_ms:.1f}x |")
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
    size = f"{WIDTH}x{HEIGHT}, {CLASSES} classes, median of {arguments.repeats}"
    print(f"{size}; {machine}, torch {torch.__version__}, ", end="")
    print(f"mmseg {mmseg.__version__}, Python {platform.python_version()}, {datetime.date.today()}\n")
    print("| label maps | prediction | mmseg IoUMetric ms | here ms | ratio |\n|---|---|---:|---:|---:|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
