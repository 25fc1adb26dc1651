"""The ground: the folder of a run, its files, its log and its progress."""
