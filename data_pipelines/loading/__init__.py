"""From a prepared clip to the arrays of a batch."""
