"""Tables of figures: as plain text for the terminal, and as HTML for the report.

A *row* is one figure of `results.json`: a dict with stage, split, sound, prior, protocol, metric,
value, clips, frames. Sounds are "right", "other" (another clip's) and "silence"; priors "predicted"
and "true" masks, or "none". Metrics of one class are called `<metric>/<class>`.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape

SOUND_NAMES = {
    "right": "right sound",
    "other": "another clip's sound",
    "silence": "silence",
    "given": "masks as given",
}
PRIOR_NAMES = {"predicted": "predicted masks", "true": "true masks", "none": "no prior"}
WIDTH = 100  # characters of a line on the terminal
KEYS = 2  # columns that say what a line is of: sound and prior
STAGE_QUESTIONS = {"localise": "where does it sound?", "understand": "what is it?"}


def format_table(rows: Sequence[Mapping]) -> str:
    """The scores as plain text: a block per stage, split and protocol, a line per sound and prior.

    Metrics of single classes are left to the report. No line is longer than WIDTH: the metrics that
    do not fit follow below, with sound and prior again.
    """
    blocks = []
    for (stage, split, protocol), table in pivot(rows).items():
        names = _means(table)
        counts = _counts(table)
        common = [f"{c[0]} {name}" for name, c in counts.items() if len(set(c)) == 1]
        varying = [name for name, c in counts.items() if len(set(c)) > 1]
        head = f"stage {stage}, split {split}, protocol {protocol}"
        lines = [["sound", "prior", *names, *varying]]
        for index, ((sound, prior), cells) in enumerate(table.items()):
            figures = [figure(cells[n]["value"] if n in cells else None, "-") for n in names]
            lines.append([sound, prior, *figures, *(str(counts[n][index]) for n in varying)])
        blocks.append("\n".join([": ".join(filter(None, (head, ", ".join(common)))), *_fit(lines)]))
    return "\n\n".join(blocks) or "no figures yet"


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


def _counts(table: Mapping[tuple, Mapping[str, Mapping]]) -> dict[str, list]:
    """How many clips and frames each line of a table is of, where that is known of all."""
    counts = {
        name: [next(iter(cells.values())).get(name) for cells in table.values()]
        for name in ("clips", "frames")
    }
    return {name: count for name, count in counts.items() if None not in count}


def pivot(rows: Iterable[Mapping]) -> dict[tuple, dict[tuple, dict[str, Mapping]]]:
    """(stage, split, protocol) -> (sound, prior) -> metric -> row, in the order of the rows."""
    tables = {}
    for row in rows:
        table = tables.setdefault((row["stage"], row["split"], row["protocol"]), {})
        key = (row.get("sound") or "right", row.get("prior") or "none")
        table.setdefault(key, {})[row["metric"]] = row
    return tables


def _columns(table: Mapping[tuple, Mapping[str, Mapping]]) -> list[str]:
    return list(dict.fromkeys(name for cells in table.values() for name in cells))


def _means(table: Mapping[tuple, Mapping[str, Mapping]]) -> list[str]:
    return [name for name in _columns(table) if "/" not in name]


def figure(value: float | None, missing: str = "–") -> str:
    """Three digits; `missing` for None."""
    if value is None:
        return missing
    return f"{value:.3f}" if math.isfinite(value) else "NaN"


def html_tables(rows: Sequence[Mapping]) -> str:
    """A panel for each stage and split; of several protocols first their figures side by side."""
    tables = pivot(rows)
    panels: dict[tuple[str, str], dict[str, Mapping]] = {}
    for (stage, split, protocol), table in tables.items():
        panels.setdefault((stage, split), {})[protocol] = table
    html = ""
    for (stage, split), by_protocol in panels.items():
        parts = [
            _table(stage, split, protocol, table) + _class_table(table)
            for protocol, table in by_protocol.items()
        ]
        if len(parts) > 1:
            parts = [_comparison(stage, split, by_protocol)] + [
                f"<details><summary>By {escape(protocol)}: every sound and prior</summary>{part}"
                "</details>"
                for protocol, part in zip(by_protocol, parts, strict=True)
            ]
        html += f'<div class="panel">{"".join(parts)}</div>'
    return html


def main_sound(table: Mapping[tuple, Mapping]) -> str:
    """The sound whose figures come first: the right one, if it is among them."""
    sounds = [sound for sound, _ in table]
    return "right" if "right" in sounds else sounds[0]


def _comparison(stage: str, split: str, by_protocol: Mapping[str, Mapping]) -> str:
    """What each protocol makes of the same predictions, those with the main sound."""
    names = list(dict.fromkeys(name for table in by_protocol.values() for name in _means(table)))
    first = next(iter(by_protocol.values()))
    main = main_sound(first)
    with_prior = any(prior != "none" for _, prior in first)
    heads = '<th class="text">Protocol</th>' + '<th class="text">Prior</th>' * with_prior
    heads += "".join(_head(name) for name in names)
    body = ""
    for protocol, table in by_protocol.items():
        for (sound, prior), cells in table.items():
            if sound == main:
                body += f'<tr><th class="text" scope="row">{escape(protocol)}</th>'
                if with_prior:
                    body += f'<th class="text">{escape(PRIOR_NAMES.get(prior, prior))}</th>'
                body += "".join(_cell(cells.get(name)) for name in names) + "</tr>"
    remarks = [f"{split} split", SOUND_NAMES.get(main, main), "the same predictions"]
    if question := STAGE_QUESTIONS.get(stage):
        remarks.insert(0, question)
    return (
        f"<header><h3>{escape(stage.capitalize())}, by every protocol</h3>"
        f"{quiet(' · '.join(remarks))}</header>"
        f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>'
        "</div>"
    )


def _table(stage: str, split: str, protocol: str, table: Mapping) -> str:
    names = _means(table)
    counts = _counts(table)
    # A count that is the same everywhere is said once, over the table.
    common = [f"{c[0]:,} {n}" for n, c in counts.items() if len(set(c)) == 1]
    varying = [name for name, count in counts.items() if len(set(count)) > 1]
    with_prior = any(prior != "none" for _, prior in table)
    remarks = [f"{split} split", f"protocol {protocol}", *common]
    if question := STAGE_QUESTIONS.get(stage):
        remarks.insert(0, question)
    header = f"<header><h3>{escape(stage.capitalize())}</h3>{quiet(' · '.join(remarks))}</header>"
    heads = '<th class="text">Sound</th>' + '<th class="text">Prior</th>' * with_prior
    heads += "".join(_head(name) for name in names + varying)
    body = []
    for index, ((sound, prior), cells) in enumerate(table.items()):
        line = f'<th class="text" scope="row">{escape(SOUND_NAMES.get(sound, sound))}</th>'
        if with_prior:
            line += f'<th class="text">{escape(PRIOR_NAMES.get(prior, prior))}</th>'
        line += "".join(_cell(cells.get(name)) for name in names)
        line += "".join(f"<td>{counts[name][index]}</td>" for name in varying)
        start = '<tr class="main">' if sound == "right" else "<tr>"
        body.append(f"{start}{line}</tr>")
    return (
        f'{header}<div class="scroll"><table><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _class_table(table: Mapping) -> str:
    """The figures of single classes, folded away: a line each, a column per sound and prior."""
    names = [name for name in _columns(table) if "/" in name]
    if not names:
        return ""
    keys = [key for key, cells in table.items() if any(name in cells for name in names)]
    heads = '<th class="text">Metric / class</th>'
    for sound, prior in keys:
        words = [SOUND_NAMES.get(sound, sound)]
        words += [PRIOR_NAMES.get(prior, prior)] if prior != "none" else []
        heads += _head(", ".join(words))
    body = "".join(
        f'<tr><th class="text" scope="row">{escape(name.replace("/", " / ", 1))}</th>'
        + "".join(_cell(table[key].get(name)) for key in keys)
        + "</tr>"
        for name in names
    )
    return (
        '<details><summary>Class by class</summary><div class="scroll"><table><thead><tr>'
        f"{heads}</tr></thead><tbody>{body}</tbody></table></div></details>"
    )


def _head(name: str) -> str:
    return f'<th class="figure">{escape(name.replace("_", " "))}</th>'


def _cell(row: Mapping | None) -> str:
    value = None if row is None else row["value"]
    if value is not None and 0 <= value <= 1:
        return f'<td class="share" style="--v:{100 * value:.1f}%">{figure(value)}</td>'
    return f"<td>{figure(value)}</td>"


def quiet(text: str) -> str:
    """HTML of a remark."""
    return f'<span class="quiet">{escape(text)}</span>'
