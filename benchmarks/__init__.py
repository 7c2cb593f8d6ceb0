"""Suites, the runner, its store, the report, and the studies around them."""
