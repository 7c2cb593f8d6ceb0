"""Drawn scenes for the demo: coloured shapes with their masks, boxes and captions, in the real sets' forms on disk."""

from tasks.data.scenes.draw import COLOURS, SHAPES, Scene, Thing, draw_scene, draw_swarm
from tasks.data.scenes.folders import SCENES, scenes_folder, undrawable

__all__ = ["COLOURS", "SCENES", "SHAPES", "Scene", "Thing", "draw_scene", "draw_swarm", "scenes_folder", "undrawable"]
