"""One file for each layout of a folder that is known."""
