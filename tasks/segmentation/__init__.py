"""Semantic segmentation on mmsegmentation's datasets, pipelines, heads and losses."""


from tasks.segmentation.scoring import score_folder

__all__ = ["score_folder"]
