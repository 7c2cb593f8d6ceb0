"""What a person sees of a run: tables, plots, and one page that opens with the answer."""
