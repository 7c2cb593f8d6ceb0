"""Suites: YAML files that name backbones x tasks x training grids x views x seeds, read to a list of cells."""

from benchmarks.engine.suite.cells import Cell, Suite, cell_task, find_suite, list_suites, load_suite
from benchmarks.engine.suite.reading import SuiteError
from benchmarks.engine.suite.recipes import alone_only, changed, recipe_of
from benchmarks.engine.suite.sizes import size_notes

__all__ = [
    "Cell", "Suite", "SuiteError", "alone_only", "cell_task", "changed", "find_suite", "list_suites", "load_suite",
    "recipe_of", "size_notes",
]  # fmt: skip
