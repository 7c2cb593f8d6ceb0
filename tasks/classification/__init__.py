"""Classification: pictures with labels, three protocols, official preprocessing."""

from tasks.classification.task import Classification

__all__ = ["Classification"]
