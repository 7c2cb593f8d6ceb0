"""Semantic segmentation on mmsegmentation's datasets, pipelines, heads and losses."""

from tasks.segmentation.adapter import Segmentation

__all__ = ["Segmentation"]
