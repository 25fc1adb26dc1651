"""Tables of scores: as plain text for the terminal, and what the report's tables are made of.

A *row* is one score of `results.json`: a dict with stage, split, sound, prior, protocol, metric,
value, clips, frames. Sounds are "right", "other" (another clip's) and "silence"; priors "predicted"
and "true" masks, or "none". Metrics of one class are called `<metric>/<class>`.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

SOUND_NAMES = {
    "right": "right sound",
    "other": "another clip's sound",
    "silence": "silence",
    "given": "masks as given",
}
PRIOR_NAMES = {
    "both": "predicted masks and no knowledge, averaged",
    "predicted": "predicted masks",
    "unknown": "no knowledge",
    "true": "true masks",
    "none": "no prior",
}
WIDTH = 100  # characters of a line on the terminal
KEYS = 2  # columns that say what a line is of: sound and prior
STAGE_QUESTIONS = {"localise": "where does it sound?", "understand": "what is it?"}

# (sound, prior) -> metric -> row
Table = Mapping[tuple[str, str], Mapping[str, Mapping]]
# Of the report: what a line is of, its prior, and the rows by the names of their columns.
Line = tuple[str, str, Mapping[str, Mapping]]


def format_table(rows: Sequence[Mapping]) -> str:
    """The scores as plain text: a block per stage, split and protocol, a line per sound and prior.

    Metrics of single classes are left to the report. No line is longer than WIDTH: the metrics that
    do not fit follow below, with sound and prior again.
    """
    blocks = []
    for (stage, split, protocol), table in pivot(rows).items():
        names = columns(by_sound(table))
        common, varying = counts(table)
        head = f"stage {stage}, split {split}, protocol {protocol}"
        lines = [["sound", "prior", *names, *varying]]
        for (sound, prior), cells in table.items():
            scores = [shown_as(cells[n]["value"] if n in cells else None, "-") for n in names]
            lines.append([sound, prior, *scores, *(str(count(cells, n)) for n in varying)])
        remark = ", ".join(f"{number} {name}" for name, number in common.items())
        blocks.append("\n".join([": ".join(filter(None, (head, remark))), *_fit(lines)]))
    return "\n\n".join(blocks) or "no scores yet"


def _fit(lines: Sequence[Sequence[str]]) -> list[str]:
    """Lines of cells as text; where they are longer than WIDTH, in groups of columns.

    Args:
      lines: the first has the heads. The first KEYS columns are words and stand in every group; the
        others are numbers.
    """
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    groups: list[list[int]] = [[]]
    for column in range(KEYS, len(widths)):
        whole = [*range(KEYS), *groups[-1], column]
        if groups[-1] and sum(widths[i] + 2 for i in whole) - 2 > WIDTH:
            groups.append([])
        groups[-1].append(column)
    text = []
    for group in groups:
        for line in lines:
            words = [line[i].ljust(widths[i]) for i in range(KEYS)]
            text.append("  ".join([*words, *(line[i].rjust(widths[i]) for i in group)]).rstrip())
    return text


def pivot(rows: Iterable[Mapping]) -> dict[tuple, dict[tuple, dict[str, Mapping]]]:
    """(stage, split, protocol) -> (sound, prior) -> metric -> row, in the order of the rows."""
    tables = {}
    for row in rows:
        table = tables.setdefault((row["stage"], row["split"], row["protocol"]), {})
        key = (row.get("sound") or "right", row.get("prior") or "none")
        table.setdefault(key, {})[row["metric"]] = row
    return tables


def counts(table: Table) -> tuple[dict[str, int], list[str]]:
    """How many clips and frames a table is of, where that is known of all its lines.

    Returns:
      What is the same in every line, such as {"clips": 140}, and the names of what is not.
    """
    common, varying = {}, []
    for name in ("clips", "frames"):
        found = {count(cells, name) for cells in table.values()}
        if None in found:
            continue
        if len(found) > 1:
            varying.append(name)
        else:
            common[name] = found.pop()
    return common, varying


def count(cells: Mapping[str, Mapping], name: str) -> int | None:
    """The clips or frames of a line."""
    return next(iter(cells.values())).get(name)


def main_sound(table: Table) -> str:
    """The sound whose scores come first: the right one, if it is among them."""
    sounds = [sound for sound, _ in table]
    return "right" if "right" in sounds else sounds[0]


def by_protocol(tables: Mapping[str, Table]) -> list[Line]:
    """What each protocol makes of the same predictions, those with the main sound."""
    main = main_sound(next(iter(tables.values())))
    return [
        (protocol, prior, cells)
        for protocol, table in tables.items()
        for (sound, prior), cells in table.items()
        if sound == main
    ]


def by_sound(table: Table) -> list[Line]:
    """A line for each sound and prior."""
    return [
        (SOUND_NAMES.get(sound, sound), prior, cells) for (sound, prior), cells in table.items()
    ]


def by_class(table: Table) -> list[Line]:
    """The scores of single classes: a line each, a column per sound and prior."""
    lines: dict[str, dict[str, Mapping]] = {}
    for (sound, prior), cells in table.items():
        words = [SOUND_NAMES.get(sound, sound)]
        words += [PRIOR_NAMES.get(prior, prior)] if prior != "none" else []
        for name in cells:
            if "/" in name:
                lines.setdefault(name, {})[", ".join(words)] = cells[name]
    return [(name.replace("/", " / ", 1), "none", cells) for name, cells in lines.items()]


def columns(lines: Iterable[Line]) -> list[str]:
    """The names of the columns, but for metrics of single classes."""
    names = dict.fromkeys(name for _, _, cells in lines for name in cells)
    return [name for name in names if "/" not in name]


def shown_as(value: float | None, missing: str = "–") -> str:
    """Three digits; `missing` for None."""
    if value is None:
        return missing
    return f"{value:.3f}" if math.isfinite(value) else "NaN"
