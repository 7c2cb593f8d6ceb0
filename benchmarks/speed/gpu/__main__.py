"""Everything that a machine with a GPU is needed for, in steps within a stretch of time.

    python -m benchmarks.speed.gpu --out OUT --data DATA --seconds 1500

Steps: `tests` (pytest -m gpu), `throughput` (S, B, L beside timm), `detection` (clipping for each example), `sweep`
(ten grids in one pass), `engine` (ViT-B trained as `run` does), `nano` (search of a recipe, then the suite nano).
Each is a process of its own with a time limit and writes what it has at once to OUT: a run cut short still counts. What
a step needs and is not there is named, and the step passed over.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

from benchmarks.cli.errors import run_script
from benchmarks.speed.gpu.options import device

# seconds at most
STEPS = {"tests": 120.0, "throughput": 300.0, "detection": 90.0, "sweep": 60.0, "engine": 240.0, "nano": 600.0}
ON_PICTURES = ("engine", "nano")  # need the Tiny ImageNet pack
NEEDED = {
    "tests": ("torch", "timm", "pytest", "accelerate"),
    "throughput": ("torch", "timm"),
    "detection": ("torch", "timm", "accelerate", "pydantic", "open_clip"),
    "sweep": ("torch", "timm", "accelerate"),
    "engine": ("torch", "timm", "accelerate", "pyarrow", "pydantic", "PIL"),
    "nano": ("torch", "timm", "accelerate", "pyarrow", "pydantic", "PIL"),
}
GRACE = 10.0  # seconds between the request to end and the end
EVERY = 15.0  # seconds between two copies of what is there


def keep(work: Path, out: Path) -> None:
    """What the steps have written so far, as few files: weights as they are, the rest in one archive."""
    out.mkdir(parents=True, exist_ok=True)
    for weights in (work / "weights").glob("*.safetensors"):
        there = out / weights.name
        if ".tried" not in weights.name and (not there.exists() or there.stat().st_mtime < weights.stat().st_mtime):
            shutil.copy2(weights, there)
    partial = out / "gpu.part"
    with tarfile.open(partial, "w:gz", compresslevel=3) as archive:
        for path in sorted(work.rglob("*")):
            if path.is_file() and path.suffix in (".md", ".json", ".jsonl", ".log", ".xml") and path.stat().st_size:
                archive.add(path, path.relative_to(work).as_posix())
    partial.replace(out / "gpu.tar.gz")


def run(step: str, command: list[str], limit: float, work: Path, out: Path) -> str:
    """Run a step within `limit` seconds; what became of it. Its output goes on and into a log."""
    log, started = work / f"{step}.log", time.monotonic()
    with log.open("ab") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
        shown, kept, asked = 0, started, False
        while process.poll() is None:
            time.sleep(0.2)
            shown = _show(log, shown)
            now = time.monotonic()
            if now - kept > EVERY:
                keep(work, out)
                kept = now
            if now - started > limit and not asked:
                os.killpg(process.pid, signal.SIGTERM)
                asked = True
            if now - started > limit + GRACE:
                os.killpg(process.pid, signal.SIGKILL)
        _show(log, shown)
    took = f"{time.monotonic() - started:.0f} s"
    return f"cut short after {took}" if asked else f"exit status {process.returncode} after {took}"


def _show(log: Path, start: int) -> int:
    with log.open("rb") as file:
        file.seek(start)
        text = file.read()
    sys.stdout.write(text.decode(errors="replace"))
    sys.stdout.flush()
    return start + len(text)


def command_of(step: str, options: argparse.Namespace, work: Path, seconds: float) -> list[str]:
    """What a step runs."""
    if step == "tests":
        report = f"--junitxml={work / 'tests.xml'}"
        return [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", report, "tests/gpu"]
    more = [f"--{name}={value}" for name, value in (("device", options.device), ("seconds", f"{seconds:.1f}"))]
    if step in ON_PICTURES:
        more.append(f"--data={options.data}")
    if step == "nano":
        more += [f"--search={options.search}", f"--epochs={options.epochs}"]
        more += [f"--set={setting}" for setting in options.settings]
    elif options.small:
        more.append("--small")
    return [sys.executable, "-m", f"benchmarks.speed.gpu.{step}", f"--out={work}", *more]


def main() -> int:
    """The steps in order; exit status 1 where one failed or was cut short."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed.gpu", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of what comes out")
    parser.add_argument("--data", type=Path, help="data root with the Tiny ImageNet pack, for `nano`")
    parser.add_argument("--steps", default=",".join(STEPS), help="which, in this order")
    parser.add_argument("--seconds", type=float, default=1500, help="for all steps together")
    parser.add_argument("--limit", action="append", default=[], help="STEP=SECONDS; repeated")
    parser.add_argument("--search", type=float, default=120, help="seconds of the search in `nano`; 0: none")
    parser.add_argument("--epochs", type=int, default=0, help="of the trainings in `nano`; 0: as time allows")
    parser.add_argument("--set", action="append", default=[], dest="settings", help="KEY=VALUE of the suites of `nano`")
    parser.add_argument("--small", action="store_true", help="nano models in place of S, B, L: a trial without a GPU")
    parser.add_argument("--device", type=device, default="cuda", help="cuda or cpu")
    parser.add_argument("--work", type=Path, help="folder that lasts over several calls; default: OUT/work")
    options = parser.parse_args()
    limits = dict(STEPS) | {name: float(value) for name, _, value in (text.partition("=") for text in options.limit)}
    names = options.steps.split(",")
    if unknown := [n for n in [*names, *limits] if n not in STEPS]:
        parser.error(f"no step {unknown[0]!r}; there are: {', '.join(STEPS)}")
    work = options.work or options.out / "work"
    work.mkdir(parents=True, exist_ok=True)
    started, results = time.monotonic(), []
    for step in names:
        left = options.seconds - (time.monotonic() - started) - GRACE
        absent = [m for m in NEEDED[step] if importlib.util.find_spec(m) is None]
        if step in ON_PICTURES and (
            options.data is None or not any(options.data.glob("pretrain/tinyimagenet100_val*"))
        ):
            absent.append("the Tiny ImageNet pack under --data")
        if absent or left < 5:
            told = f"passed over: {', '.join(absent)} missing" if absent else "passed over: no time is left"
        else:
            seconds = min(limits[step], left)
            print(f"== {step}, {seconds:.0f} s at most", flush=True)
            told = run(step, command_of(step, options, work, seconds), seconds, work, options.out)
        results.append((step, told))
        print(f"== {step}: {told}", flush=True)
        lines = ["| step | what became of it |", "| --- | --- |", *(f"| {s} | {t} |" for s, t in results)]
        (work / "steps.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
        keep(work, options.out)
    return int(any(not told.startswith("exit status 0") for _, told in results))


if __name__ == "__main__":
    run_script(main)
