"""A run: its options, its lines, what processes of a group owe each other, rows out of results."""
