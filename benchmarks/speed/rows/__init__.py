"""How long many rows take: the store, plans, verdicts."""
