"""How fast clips are read, beside the way public repositories read them."""
