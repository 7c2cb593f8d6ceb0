"""Trainings of one backbone that cost the same: a schedule of grids instead of one grid."""
