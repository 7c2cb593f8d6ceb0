"""The step `nano`: a search of the recipe, then the trainings of the suite nano, in one process with one data set."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.cli.errors import run_script
from benchmarks.engine.running.options import RunOptions
from benchmarks.speed.gpu.options import step_parser
from benchmarks.speed.gpu.trainings import Clock, chosen_settings, search, train

READING = 5.0  # seconds of a step's limit that are left for its end


def main() -> None:
    parser = step_parser("nano", __doc__, 840, small=False)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--search", type=float, default=120)
    parser.add_argument("--epochs", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], dest="settings")
    options = parser.parse_args()
    started, whole = time.monotonic(), Clock(options.seconds - READING)

    def say(text: str) -> None:
        print(f"[{time.monotonic() - started:6.1f}] {text}", flush=True)

    run = RunOptions(device=options.device, every_seconds=30.0, batch=500, resident_gib=4.0)
    best = {}
    if options.search:
        best = search(options.out, options.data, Clock(options.search), run, options.settings, say)
    settings = [*chosen_settings(best), *options.settings]
    train(options.out, options.data, whole, run, settings, options.epochs, say)


if __name__ == "__main__":
    run_script(main)
