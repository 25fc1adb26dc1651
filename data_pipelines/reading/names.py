"""Which names of a user's folder may become names of ours, and which paths leave it."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from data_pipelines.errors import DataError, lies_in

LONGEST_NAME = 255  # bytes: what file systems take
SHOWN = 80  # characters of a strange name that a message repeats


def fault_of_name(name: str) -> str | None:
    """Why a name cannot be that of a clip, or None.

    It becomes part of paths that are read and, for masks, written; so it is the name of one folder
    and nothing else.

    Returns:
        Words that follow "<name> ".
    """
    if not name:
        return "is empty"
    if name in (".", "..") or "/" in name or "\\" in name:
        return "is a path, not the name of a folder"
    if any(ord(character) < 32 or ord(character) == 127 for character in name):
        return "holds control characters"
    try:
        encoded = name.encode("utf-8")
    except UnicodeEncodeError:  # as Python gives names that are not UTF-8
        return "is not valid UTF-8"
    if len(encoded) > LONGEST_NAME:
        return f"is longer than {LONGEST_NAME} bytes"
    return None


def shown(text: str) -> str:
    """Text for a message: quoted, printable and short whatever it holds."""
    return ascii(text[:SHOWN]) + ("..." if len(text) > SHOWN else "")


def leads_outside(path: str | os.PathLike[str], roots: Iterable[Path]) -> bool:
    """Whether a path, all links followed, lies in none of the roots, which may be links."""
    return not any(lies_in(path, root) for root in roots)


def outside_message(path: str | os.PathLike[str]) -> str:
    return (
        f"{os.fspath(path)} is a link that leads out of the data folder: copy what it points to, "
        "or allow it with --follow-links"
    )


def check_inside(path: Path, roots: Iterable[Path], follow_links: bool) -> None:
    """Raises DataError where a link leads a table out of the data folder, unless it may."""
    if not follow_links and leads_outside(path, roots):
        raise DataError(outside_message(path))


def natural_key(name: str) -> tuple:
    """Sorts 2.jpg before 10.jpg."""
    parts = re.split(r"([0-9]+)", name)
    return tuple(int(part) if place % 2 else part for place, part in enumerate(parts)), name
