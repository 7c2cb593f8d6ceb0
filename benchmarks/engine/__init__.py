"""From a suite to rows: identity, plan, runner, training, sweep."""
