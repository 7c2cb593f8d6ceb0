"""The revision of a build is written into it; everything else about the package is in pyproject.toml."""

import runpy
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

ROOT = Path(__file__).parent
HOME = runpy.run_path(str(ROOT / "benchmarks" / "store" / "environment.py"))


def write(target: Path) -> None:
    """Where there is no revision (an unpacked archive without git), none is claimed."""
    if found := HOME["revision"]():
        target.mkdir(parents=True, exist_ok=True)
        (target / HOME["FILE"]).write_text(found + "\n", encoding="utf-8")


class Build(build_py):
    def run(self) -> None:
        if not self.editable_mode:
            shutil.rmtree(self.build_lib, ignore_errors=True)  # what an earlier build left is not of this one
        super().run()
        if not self.editable_mode:  # the clone is asked each time then
            write(Path(self.build_lib, "benchmarks", "store"))


class Archive(sdist):
    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        super().make_release_tree(base_dir, files)
        write(Path(base_dir, "benchmarks", "store"))


setup(cmdclass={"build_py": Build, "sdist": Archive})
