"""Faults in a user's data."""


class DataError(Exception):
    """One clear sentence: what is wrong, in which file, and what to do.

    The commands print it and exit with 2.
    """
