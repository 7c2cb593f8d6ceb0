"""Batches on their way to the device."""
