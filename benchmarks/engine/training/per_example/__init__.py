"""Gradients of each example, clipped one by one, out of one pass over many."""
