"""Classification: pictures with labels, three protocols, official preprocessing."""

from tasks.classification.adapter import Classification

__all__ = ["Classification"]
