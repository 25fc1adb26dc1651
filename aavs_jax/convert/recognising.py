"""Whose names these are, and how that format itself would spell them."""

import re
from collections.abc import Iterable, Sequence

from aavs_jax.convert import strangers
from aavs_jax.convert.formats import FORMATS
from aavs_jax.errors import UserError
from aavs_jax.methods.parts.key_tables import Format


def recognise(names: Iterable[str]) -> Format:
    """The format whose names these are.

    Args:
      names: of all tensors in the file, at least one.

    Raises:
      UserError: none; says what it is instead, if that is known.
    """
    names = list(names)
    found = strangers.stranger(names, strangers.WITH_KNOWN_PARTS)
    if not found:
        for format in FORMATS.values():
            if prefix_of(format, names) is not None:
                return format
        found = strangers.stranger(names, strangers.OTHERS)
    advice = "give one of " + ", ".join(format.title for format in FORMATS.values())
    if found:
        raise UserError(f"this is {found}, which no network here takes: {advice}")
    some = ", ".join(sorted(names)[:3])
    raise UserError(
        f"the names of the {len(names)} tensors (such as {some}) are of no known format: {advice}"
    )


def normal_names(format: Format, names: Iterable[str]) -> dict[str, str]:
    """Name in the file -> its normal form: without a wrapper's prefix, in the table's spelling.

    Raises:
      UserError: two names have the same normal form.
    """
    names = list(names)
    prefix = prefix_of(format, names) or ""
    normal: dict[str, str] = {}
    seen: dict[str, str] = {}
    for name in names:
        spelt = name.removeprefix(prefix)
        for expression, replacement in format.spellings:
            spelt = re.sub(expression, replacement, spelt)
        if spelt in seen:
            raise UserError(
                f"{seen[spelt]} and {name} are two names of the same tensor, {spelt}: take one of "
                "them out of the file"
            )
        seen[spelt] = name
        normal[name] = spelt
    return normal


def prefix_of(format: Format, names: Sequence[str]) -> str | None:
    """What stands in front of the names of this format, not of all of them; None if it is another.

    It is a wrapper's, or that of a network which has this one as a part: a classifier calls its
    Swin 'swin.'.
    """
    first = re.compile(rf"((?:.*?\.)?)(?:{format.signature[0]})")
    prefixes = {match[1] for name in names if (match := first.match(name))}
    for prefix in sorted(prefixes, key=len):
        inner = [name[len(prefix) :] for name in names if name.startswith(prefix)]
        if all(any(re.match(s, name) for name in inner) for s in format.signature):
            return prefix
    return None
