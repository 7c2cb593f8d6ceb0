"""From rows to answers: which rows stand together, what is known of each, and what follows."""
