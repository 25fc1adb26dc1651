"""Many parameters in few words."""

import re
from collections.abc import Mapping

FEW = 3  # parameters are named one by one


def in_words(
    paths: Mapping[str, str], parts: Mapping[str, tuple[str, int | None]] | None = None
) -> str:
    """Many parameters in few words: '96 arrays of the backbone adapters (as the phase asks)'.

    Args:
      paths: path -> reason, '' if it needs none.
      parts: see `Method.parts`.
    """
    names = {**(parts or {}), ".*": ("the network", None)}
    patterns = list(names)
    groups: dict[tuple[int, str], list[str]] = {}
    for path, reason in paths.items():
        place = next(i for i, pattern in enumerate(patterns) if re.fullmatch(pattern, path))
        groups.setdefault((place, reason), []).append(path)
    words = []
    for (place, reason), members in sorted(groups.items()):
        name, whole = names[patterns[place]]
        if len(members) == whole:
            what = name
        elif len(members) <= FEW:
            what = ", ".join(sorted(members))
        else:
            what = f"{len(members)} arrays of {name}"
        words.append(f"{what} ({reason})" if reason else what)
    return ", ".join(words)
