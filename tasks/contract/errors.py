"""The error that a user can mend."""

from __future__ import annotations


class TaskError(ValueError):
    """Something a user can mend: a wrong name, a missing file, a value out of range. One line."""
