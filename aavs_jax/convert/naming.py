"""Templates of names and paths, and the plan they make: which tensor becomes which parameters.

A template has `{stage}` for a number, `{stage+1}` or `{layer*2}` for a number counted otherwise,
and `*` for any rest; everything else stands for itself.
"""

import dataclasses
import functools
import re
from collections.abc import Iterable, Mapping

from aavs_jax.methods.parts.key_tables import MODULES, Format, Row

_PLACE = re.compile(r"\{(?P<name>\w+)(?:(?P<sign>[+*])(?P<number>\d+))?\}|(?P<rest>\*)")


@dataclasses.dataclass(frozen=True)
class Step:
    """One tensor of theirs and the parameters it holds, stacked if there are several.

    `how` is of `key_tables.TENSORS`.
    """

    theirs: str
    ours: tuple[str, ...]
    how: str


@functools.cache
def pattern(template: str) -> re.Pattern:
    """The expression that a template's names match as a whole; its groups are the numbers, as they
    stand in the name (`numbers` undoes sums and products).
    """
    parts, end = [], 0
    for place in _PLACE.finditer(template):
        parts.append(re.escape(template[end : place.start()]))
        parts.append("(?P<rest>.+)" if place["rest"] else rf"(?P<{place['name']}>[0-9]{{1,6}})")
        end = place.end()
    return re.compile("".join([*parts, re.escape(template[end:])]))


def numbers(template: str, match: re.Match) -> dict[str, str] | None:
    """The numbers that made a name which the template's `pattern` matched; None if none can have
    (a sum below its summand)."""
    values = match.groupdict()
    for place in _PLACE.finditer(template):
        if place["sign"]:
            by, number = int(place["number"]), int(values[place["name"]])
            if number < by if place["sign"] == "+" else number % by:
                return None
            values[place["name"]] = str(number - by if place["sign"] == "+" else number // by)
    return values


def fill(template: str, values: Mapping[str, str]) -> str:
    """The name that a template makes of the groups of a match, 'rest' for what `*` stood for."""

    def put(place: re.Match) -> str:
        if not place["sign"]:
            return values[place["name"] or "rest"]
        number, by = int(values[place["name"]]), int(place["number"])
        return str(number + by if place["sign"] == "+" else number * by)

    return _PLACE.sub(put, template)


def tensor_rows(rows: Iterable[Row]) -> list[Step]:
    """The rows with modules written out as their tensors; names and paths are still templates."""
    steps = []
    for row in rows:
        ours = (row.ours,) if isinstance(row.ours, str) else row.ours
        if row.how in MODULES:
            for leaf, (our_leaf, how) in MODULES[row.how].items():
                paths = tuple(f"{path}/{our_leaf}" for path in ours)
                steps.append(Step(f"{row.theirs}.{leaf}", paths, how))
        else:
            steps.append(Step(row.theirs, ours, row.how))
    return steps


def plan(format: Format, paths: Iterable[str]) -> list[Step]:
    """A step for each tensor that these parameters make in this format.

    Parameters without a place in the format are in no step, and so are those of a stack of which
    not all are there.

    Args:
      format: its rows are read from our side, so that what is not among the paths is not planned.
      paths: of our parameters.
    """
    paths = list(paths)
    there = set(paths)
    steps = []
    for row in tensor_rows(format.rows):
        for match in filter(None, map(pattern(row.ours[0]).fullmatch, paths)):
            values = match.groupdict()
            for name, make in format.derived.items():
                if f"{{{name}}}" in row.theirs:
                    values[name] = str(make({k: int(v) for k, v in values.items()}, paths))
            ours = tuple(fill(path, values) for path in row.ours)
            if there.issuperset(ours):
                steps.append(Step(fill(row.theirs, values), ours, row.how))
    return steps


def inverse_plan(format: Format, names: Iterable[str]) -> list[Step]:
    """A step for each name that this format knows, without knowing the network.

    Numbers that only our paths give (`Format.derived`) cannot be undone: rows with such are left
    out.

    Args:
      format: its rows are read from their side.
      names: in normal form.
    """
    names = list(names)
    steps = []
    for row in tensor_rows(format.rows):
        if any(f"{{{name}}}" in row.theirs for name in format.derived):
            continue
        for match in filter(None, map(pattern(row.theirs).fullmatch, names)):
            if (values := numbers(row.theirs, match)) is not None:
                ours = tuple(fill(path, values) for path in row.ours)
                steps.append(Step(match[0], ours, row.how))
    return steps
