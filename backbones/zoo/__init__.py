"""The shelves of the registry; importing this package fills it."""

from backbones.zoo import big_vision, nano, scratch

__all__ = ["big_vision", "nano", "scratch"]
