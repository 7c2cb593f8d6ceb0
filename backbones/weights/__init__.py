"""Weights from anywhere: downloads, big_vision's `.npz`, our own `.safetensors`, state dicts of timm and others."""
