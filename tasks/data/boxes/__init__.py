"""Boxes of LVIS and COCO: their labels as columns, ids, whose rules they are scored by, what is unusual."""
