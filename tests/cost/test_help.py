"""`python -m benchmarks.speed.X --help` prints help, whatever X is, and measures nothing."""

import importlib
import pkgutil
import sys

import pytest

import benchmarks.speed

FOUND = [m.name for m in pkgutil.walk_packages(benchmarks.speed.__path__, "benchmarks.speed.") if not m.ispkg]
LIBRARIES = {
    f"benchmarks.speed.{name}"
    for name in ("contenders", "throughput", "gpu.options", "gpu.trainings", "revision.trees")
}


@pytest.mark.parametrize("name", sorted(set(FOUND) - LIBRARIES))
def test_help_is_printed(name: str, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(name).main()
    told = capsys.readouterr().out
    assert ended.value.code == 0 and told.startswith("usage: ") and "-h, --help" in told


def test_all_others_are_libraries() -> None:
    assert set(FOUND) >= LIBRARIES
    assert not [name for name in LIBRARIES if hasattr(importlib.import_module(name), "main")]
