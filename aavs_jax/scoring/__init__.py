"""One pass over a split, by a network or by files, and its scores."""
