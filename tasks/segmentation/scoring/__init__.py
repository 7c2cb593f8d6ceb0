"""Confusion counts, the meter, and scoring of predictions made elsewhere."""
