"""How long the page of many backbones takes to make, and what a browser makes of it.

    python -m benchmarks.experiments.page_size

Draws rows of one task: so many backbones, half of them flexible, at ten grids, with per-sample values of 1,000
pictures. Prints a markdown table; seconds are of this process's own processor time, milliseconds of the clock of a
chromium, if one is installed.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import shutil
import subprocess
import tempfile
import threading
import time
from datetime import date
from pathlib import Path

import numpy as np

from benchmarks.cli.errors import run_script
from benchmarks.report.build import read_report
from benchmarks.report.page import build_page
from benchmarks.report.page.curves import library
from benchmarks.store import Store

GRIDS = (5, 6, 8, 10, 12, 15, 16, 20, 24, 30)
PICTURES = 1_000
SECONDS = 120  # that a browser may take
PROBE = """<script>(async () => {
  const frame = () => new Promise(done => requestAnimationFrame(() => setTimeout(done)));
  const timed = async act => {
    const begin = performance.now();
    act(); await frame();
    return performance.now() - begin;
  };
  await new Promise(done => setTimeout(done, 500));
  const found = {start: performance.timing.domContentLoadedEventEnd - performance.timing.responseEnd};
  document.querySelector("#curves").scrollIntoView();
  await new Promise(done => setTimeout(done, 1500));
  const limit = document.querySelector("#limit");
  found.budget = await timed(() => { limit.value = 400; limit.dispatchEvent(new Event("input")); });
  found.all = await timed(() => document.querySelector("#legend button").click());
  found.sort = await timed(() => document.querySelector("table.values th:nth-child(4) button").click());
  console.log("probe" + JSON.stringify(found));
})()</script></body>"""


def drawn(store: Store, backbones: int, seeds: int) -> None:
    """Rows of `backbones` models at all grids, as a run would leave them."""
    rng, ids, rows = np.random.default_rng(0), np.arange(PICTURES), []
    hard = rng.random(PICTURES)
    for number in range(backbones):
        flexible, skill = number % 2 == 0, 0.5 + 0.3 * rng.random()
        for grid in GRIDS:
            for seed in range(seeds):
                level = skill + 0.05 * np.log(grid / 15) - (0 if flexible else 0.1 * abs(np.log(grid / 15)))
                right = 0.7 * hard + 0.3 * rng.random(PICTURES) < level + 0.01 * rng.standard_normal()
                key = f"{number}-{grid}-{seed}"
                values = {"ids": ids, "label": np.zeros(PICTURES, np.int64), "ranked": np.where(right, 0, 1)[:, None]}
                rows.append({
                    "row_key": key, "status": "ok", "suite": "drawn", "task": "classification", "protocol": "drawn",
                    "options": {"data": "scenes"}, "backbone": f"{'flexible' if flexible else 'fixed'}_{number}",
                    "flexible": flexible, "train_grid": 15, "eval_grid": grid, "seed": seed, "split": "test",
                    "metric": "top1", "higher_is_better": True, "metrics": {"top1": float(np.mean(right))},
                    "cost": {"macs": int((1 + number / 9) * 4e8 * grid**2)}, "samples": store.save_samples(key, values),
                    "training": {"losses": np.geomspace(3, 0.5, 40).tolist(), "loss_every": 10},
                })  # fmt: skip
    store.append(rows)


def measured(backbones: int, seeds: int) -> dict[str, float]:
    """Seconds of processor time to read and judge, and to write the page; its size; a browser's milliseconds."""
    library()  # its seconds are the same for any page
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "run")
        drawn(store, backbones, seeds)
        begin = time.process_time()
        report = read_report([Store(store.folder)])
        read = time.process_time()
        text = build_page(report.stores, report.answers, report.notes)
        found = {"read": read - begin, "page": time.process_time() - read, "MB": len(text.encode()) / 1e6}
        page = Path(folder) / "page.html"
        page.write_text(PROBE.join(text.rsplit("</body>", 1)), encoding="utf-8")
        return found | browsed(page)


def browsed(page: Path) -> dict[str, float]:
    """Milliseconds of starting, of a move of the budget, of all curves switched on, of sorting; {} without chromium."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if not browser:
        return {}
    # a port for a debugger keeps it open after the page is loaded
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--remote-debugging-port=0"]
    with (
        tempfile.TemporaryDirectory() as own,
        subprocess.Popen(
            [browser, *flags, f"--user-data-dir={own}", f"file://{page}"],
            stderr=subprocess.PIPE,
            encoding="utf-8",
        ) as running,
    ):
        stop = threading.Timer(SECONDS, running.kill)
        stop.start()
        try:
            lines = (re.search(r'"probe(\{.*?\})"', line) for line in running.stderr or ())
            found = next((m for m in lines if m), None)
        finally:
            stop.cancel()
            running.terminate()
            running.wait()
    return json.loads(found.group(1).replace("\\", "")) if found else {}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.experiments.page_size", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--backbones", default="5,20,50")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    print(f"`python -m benchmarks.experiments.page_size`, {date.today()}, {platform.machine()} {platform.system()},")
    print(f"{len(GRIDS)} grids, {options.seeds} seeds, {PICTURES:,} pictures.\n")
    print("| backbones | rows | read and judged, s | page, s | MB | start, ms | budget, ms | all on, ms | sort, ms |")
    print("|" + " ---: |" * 9)
    for count in map(int, options.backbones.split(",")):
        row = measured(count, options.seeds)
        told = [f"{row[k]:.0f}" if k in row else "-" for k in ("start", "budget", "all", "sort")]
        numbers = [f"{row['read']:.1f}", f"{row['page']:.1f}", f"{row['MB']:.2f}", *told]
        print(f"| {count} | {count * len(GRIDS) * options.seeds:,} | {' | '.join(numbers)} |", flush=True)


if __name__ == "__main__":
    run_script(main)
