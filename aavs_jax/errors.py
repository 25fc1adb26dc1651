"""Mistakes that a user can make and mend."""


class UserError(Exception):
    """One clear sentence: what is wrong, where, what to do. `main` prints it and exits with 2."""
