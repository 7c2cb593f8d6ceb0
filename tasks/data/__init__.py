"""Data sets as they lie on disk: readers, pictures, drawn scenes."""
