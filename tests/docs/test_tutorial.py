"""docs/tutorial.md from its pictures to its file, the commands as they stand there, in an empty folder."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")


@pytest.mark.slow  # fifteen trainings
def test_the_whole_way(tmp_path) -> None:
    for name in ("run_all.py", "docs", "benchmarks", "tasks", "backbones"):
        (tmp_path / name).symlink_to(ROOT / name)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    said = []
    for language, text in re.findall(r"^```(bash|yaml)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL):
        if language == "yaml":
            (tmp_path / "mine.yaml").write_text(text)
            continue
        for line in text.splitlines():
            program, *words = shlex.split(line, comments=True)
            if program != "python":  # the clone and its environment are there
                continue
            done = subprocess.run(
                [sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, text=True
            )
            assert done.returncode == 0, (line, done.stdout[-500:], done.stderr[-500:])
            said.append(done.stdout)
    assert (tmp_path / "results/runs/mine/report/page.html").is_file() and (tmp_path / "model.onnx").is_file()
    assert "12 to do" in said[2] and "12 run" in said[3], said
