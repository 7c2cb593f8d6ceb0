"""Semantic segmentation on mmsegmentation's datasets, pipelines, heads and losses."""

from tasks.segmentation.adapter import Segmentation
from tasks.segmentation.scoring import score_folder

__all__ = ["Segmentation", "score_folder"]
