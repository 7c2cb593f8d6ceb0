"""What two revisions of the suite take for the same commands, side by side."""
