"""Upstream training: the three official FlexiViT recipes, supervised or by distillation, as a task like any other."""

from tasks.upstream.adapter import Upstream

__all__ = ["Upstream"]
