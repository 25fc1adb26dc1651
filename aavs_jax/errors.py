"""Mistakes that a user can make and mend."""

import argparse
import reprlib
from typing import Any, NoReturn

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 60


class UserError(Exception):
    """One clear sentence: what is wrong, where, what to do. `main` prints it and exits with 2."""


class Parser(argparse.ArgumentParser):
    """Flags whose mistakes are a UserError, as all others; `prog` is how the command is typed."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see {self.prog} --help")


def in_a_sentence(error: Exception) -> str:
    """What absl and ml_collections say in many lines of flags, some of them a traceback."""
    if error.args and isinstance(error.args[0], KeyError):
        error = error.args[0]  # ml_collections wraps it in an AttributeError
    if isinstance(error, KeyError):
        return f"the config has no key {str(error.args[0]).replace(chr(10), ': ')}"
    text = str(error).strip()
    last = text.splitlines()[-1].strip() if text else type(error).__name__
    if isinstance(error, OSError):
        return f"cannot read the config file: {last}"
    if "Traceback" in text:
        return last.partition(": ")[2]
    return " ".join(text.split())


def shown(value: Any) -> str:
    """A value out of somebody's file, for a message: short, whatever its length and depth."""
    return _SHORT.repr(value)
