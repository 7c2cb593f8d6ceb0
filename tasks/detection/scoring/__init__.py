"""Average precision: LVIS' rules, readers of results, resampling."""
