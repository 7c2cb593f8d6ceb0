"""What is measured and trained where there is a GPU: `python -m benchmarks.speed.gpu --help`."""
