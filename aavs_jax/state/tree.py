"""Parameters by path, and regular expressions on these paths.

Parameters travel as flat dicts, path -> array, as in 'backbone/stages/0/blocks/1/attention/query'.
What trains, what decays and what starts afresh are all lists of regular expressions, each of which
has to match a whole path.
"""

import hashlib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from aavs_jax.errors import UserError

Value = TypeVar("Value")


def matching(paths: Iterable[str], patterns: Sequence[str], purpose: str) -> set[str]:
    """The paths that at least one pattern matches as a whole.

    Args:
      paths: all there are.
      patterns: regular expressions; none at all match nothing, which is fine.
      purpose: what the patterns are for, such as "localise/a trains"; named in errors.

    Raises:
      UserError: a pattern matches no path, or is no regular expression.
    """
    paths = list(paths)
    found = set()
    for pattern in patterns:
        try:
            expression = re.compile(pattern)
        except re.error as error:
            raise UserError(
                f"the pattern {pattern!r} of {purpose!r} is no regular expression ({error}): "
                "correct it in the config"
            ) from None
        hits = {path for path in paths if expression.fullmatch(path)}
        if not hits:
            raise UserError(
                f"the pattern {pattern!r} of {purpose!r} matches none of the network's "
                f"{len(paths)} parameters (such as {paths[0]!r}): correct it in the config"
            )
        found |= hits
    return found


def partition(
    values: Mapping[str, Value], patterns: Sequence[str], purpose: str
) -> tuple[dict[str, Value], dict[str, Value]]:
    """Splits a flat dict into what the patterns match and the rest; errors as in `matching`."""
    chosen = matching(values, patterns, purpose)
    return (
        {path: value for path, value in values.items() if path in chosen},
        {path: value for path, value in values.items() if path not in chosen},
    )


def count(values: Mapping[str, object]) -> int:
    """How many numbers the arrays of a flat dict hold."""
    return sum(math.prod(value.shape) for value in values.values())


def below(values: Mapping[str, Value], prefix: str) -> dict[str, Value]:
    """What lies below a prefix such as 'backbone/', by path within it."""
    return {
        path.removeprefix(prefix): value
        for path, value in values.items()
        if path.startswith(prefix)
    }


def digest(parameters: Mapping[str, np.ndarray]) -> str:
    """SHA-256, hexadecimal, of all paths, shapes and values; their order does not matter."""
    total = hashlib.sha256()
    for path in sorted(parameters):
        array = np.ascontiguousarray(parameters[path])
        total.update(f"{path} {array.dtype.str} {array.shape}\n".encode())
        total.update(array.tobytes())
    return total.hexdigest()


def table(trainable: Mapping[str, object], frozen: Mapping[str, object]) -> str:
    """A line per top-level part: how many parameters train and how many are frozen."""
    parts = sorted({path.split("/")[0] for path in [*trainable, *frozen]})
    lines = [f"{'part':<16}{'trainable':>14}{'frozen':>14}"]
    for part in [*parts, "total"]:
        sizes = [
            count({p: v for p, v in values.items() if part in (p.split("/")[0], "total")})
            for values in (trainable, frozen)
        ]
        lines.append(f"{part:<16}{sizes[0]:>14,}{sizes[1]:>14,}")
    return "\n".join(lines)
