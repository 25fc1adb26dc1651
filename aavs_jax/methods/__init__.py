"""What learns: a folder for each method, and what several of them are made of."""
