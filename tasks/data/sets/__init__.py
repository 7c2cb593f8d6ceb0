"""Data sets by name: known ones, cards and folders of the user's own; one module for each kind of labels."""
