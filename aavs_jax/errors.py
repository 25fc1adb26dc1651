"""Mistakes that a user can make and mend."""

import reprlib
from typing import Any

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 60


class UserError(Exception):
    """One clear sentence: what is wrong, where, what to do. `main` prints it and exits with 2."""


def shown(value: Any) -> str:
    """A value out of somebody's file, for a message: short, whatever its length and depth."""
    return _SHORT.repr(value)
