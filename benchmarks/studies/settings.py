"""Settings of a study: its module's dataclass, with demo, mini and paper values in `scales/STUDY.yaml`."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import importlib
import json
import platform
import subprocess
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import timm
import torch
import yaml

FOLDER = Path(__file__).parent / "scales"
STUDIES = ("pi_resize", "representations")


def _known(name: str, known: Sequence[str], what: str) -> str:
    if name not in known:
        near = difflib.get_close_matches(name, known, 3, 0.4) or sorted(known)
        raise ValueError(f"no {what} {name!r}; nearest: {', '.join(near)}")
    return name


def read_settings(study: str, scale: str = "mini", changes: Sequence[str] = ()) -> Any:
    """Settings of a study, an instance of its module's `Settings`.

    Args:
        study: one of `STUDIES`. scale: `demo`, `mini` or `paper`. changes: `key=value`, values as YAML.

    Raises: ValueError naming the nearest study, scale or key.

    Example: `read_settings("pi_resize", "mini", ["backbone=vit_nano_g8"]).backbone`
    """
    module = importlib.import_module(f"benchmarks.studies.{_known(study, STUDIES, 'study')}")
    scales = yaml.safe_load((FOLDER / f"{study}.yaml").read_text(encoding="utf-8"))
    values = dict(scales[_known(scale, list(scales), f"scale of {study}")])
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals:
            raise ValueError(f"--set {change!r}: write KEY=VALUE")
        values[key] = yaml.safe_load(value)
    fields = {f.name: f for f in dataclasses.fields(module.Settings)}
    for key, value in values.items():
        expected = type(getattr(module.Settings(), _known(key, list(fields), f"setting of {study}")))
        if not isinstance(value, (int, float) if expected is float else expected):
            raise ValueError(f"setting {key} of {study} is {value!r}, expected {expected.__name__}")
    return module.Settings(**values)


def run_study(
    study: str, scale: str, data: Path, out: Path, device: str, changes: Sequence[str] = ()
) -> dict[str, Any]:
    """Run a study into `out`: `result.json`, `table.md` and plots. Returns the result."""
    settings = read_settings(study, scale, changes)
    out.mkdir(parents=True, exist_ok=True)
    made = provenance(device)  # before: the code may change while a long run goes on
    result = importlib.import_module(f"benchmarks.studies.{study}").run(settings, data, out, device)
    record = {"study": study, "settings": dataclasses.asdict(settings), **result, "made": made}
    (out / "result.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return record


def provenance(device: str) -> dict[str, str]:
    """Code revision, machine, versions and date of a measurement."""
    here = Path(__file__).parent
    found = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=here, capture_output=True, encoding="utf-8", errors="replace"
    )
    return {
        "revision": found.stdout.strip() or "unknown",
        "device": torch.cuda.get_device_name() if torch.device(device).type == "cuda" else f"{platform.machine()} CPU",
        "torch": torch.__version__,
        "timm": timm.__version__,
        "date": str(date.today()),
    }


def study_main(study: str, arguments: Sequence[str] | None = None) -> None:
    """Command line of one study."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.studies.{study}")
    parser.add_argument("--scale", default="mini", help="demo, mini or paper")
    parser.add_argument("--data", type=Path, required=True, help="Tiny ImageNet: parquet pack or tiny-imagenet-200")
    parser.add_argument("--out", type=Path, default=Path("results/runs/studies") / study)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--backbone", help="short for --set backbone=NAME")
    parser.add_argument("--set", action="append", default=[], dest="changes", metavar="KEY=VALUE")
    options = parser.parse_args(arguments)
    changes = [*options.changes, *([f"backbone={options.backbone}"] if options.backbone else [])]
    run_study(study, options.scale, options.data, options.out, options.device, changes)
    print((options.out / "table.md").read_text(encoding="utf-8"))
