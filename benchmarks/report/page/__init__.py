"""The page: one file without a server that holds the answer, and everything it rests on."""

from benchmarks.report.page.document import build_page
from benchmarks.report.page.provenance import commands, environments

__all__ = ["build_page", "commands", "environments"]
