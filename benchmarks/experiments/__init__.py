"""One-off measurements, each with its command."""
