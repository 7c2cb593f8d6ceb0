"""Adapters and backbones prove the contract before a long run."""

from benchmarks.engine.conformance.backbones import check_backbone
from benchmarks.engine.conformance.tasks import check_task

__all__ = ["check_backbone", "check_task"]
