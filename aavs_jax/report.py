"""What a run found, for people: the page `report/index.html` and the table on the terminal.

A *row* is one figure of `results.json`: a dict with stage, split, sound, prior, protocol, metric,
value, clips, frames. Sounds are "right", "other" (another clip's) and "silence"; priors "predicted"
and "true" masks, or "none". Metrics of one class are called `<metric>/<class>`.
"""

import base64
import io
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template

import numpy as np
from PIL import Image

from aavs_jax.learning_curves import learning_curves
from aavs_jax.logging_writer import replace_file
from aavs_jax.visualize import to_png_bytes

SOUND_NAMES = {"right": "right sound", "other": "another clip's sound", "silence": "silence"}
PRIOR_NAMES = {"predicted": "predicted masks", "true": "true masks", "none": "no prior"}
STAGE_QUESTIONS = {"localise": "where does it sound?", "understand": "what is it?"}
MAX_PICTURE = 256  # pixels of the longer side; larger pictures are shrunk into the page
SMALL_PICTURE = 128  # up to here a picture is kept exactly and enlarged without blurring


def write_report(
    path: str | os.PathLike,
    *,
    title: str,
    facts: Sequence[tuple[str, object]] = (),
    rows: Sequence[Mapping] = (),
    metrics: Sequence[Mapping] = (),
    examples: Sequence[Mapping] = (),
    legend: Sequence[tuple[str, Sequence[int]]] = (),
    notes: Sequence[str] = (),
) -> None:
    """Writes a page of figures, curves and pictures that needs no other file.

    Args:
      path: the file to write, such as `<workdir>/report/index.html`; replaced in one go.
      title: headline.
      facts: (label, value) of what was run; a label "command" is set in type for code.
      rows: figures, see the top of this file.
      metrics: the lines of `metrics.jsonl`, see `logging_writer.read_metrics`.
      examples: dicts of `title`, `note`, `rows` = [(label, [uint8 [H, W, 3] per second])] and,
        optionally, `sounds` = [what is heard in each second].
      legend: (class name, (r, g, b)) of the colours in the examples.
      notes: sentences under the headline figures.

    Raises:
      UserError: the file cannot be written.
    """
    template = Template(Path(__file__).with_name("report_template.html").read_text("utf-8"))
    page = template.substitute(
        title=escape(title),
        facts=_facts(facts),
        cards=_cards(rows),
        notes=_list(notes),
        results=_section("Results", _tables(rows)),
        curves=_section("Learning curves", learning_curves(metrics)),
        examples=_section("Examples", _examples(examples, legend)),
    )
    replace_file(path, page.encode())


def format_table(rows: Sequence[Mapping]) -> str:
    """The figures as plain text: a block per stage, split and protocol, a line per sound and prior.

    Metrics of single classes are left to the report.
    """
    blocks = []
    for (stage, split, protocol), table in _pivot(rows).items():
        names = [name for name in _columns(table) if "/" not in name]
        lines = [["stage", "split", "sound", "prior", *names, "clips", "frames", "protocol"]]
        for (sound, prior), cells in table.items():
            first = next(iter(cells.values()))
            figures = [_figure(cells[n]["value"] if n in cells else None, "-") for n in names]
            counts = [str(first.get(n, "")) for n in ("clips", "frames")]
            lines.append([stage, split, sound, prior, *figures, *counts, protocol])
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        rights = range(4, len(widths) - 1)
        blocks.append(
            "\n".join(
                "  ".join(
                    cell.rjust(width) if i in rights else cell.ljust(width)
                    for i, (cell, width) in enumerate(zip(line, widths, strict=True))
                ).rstrip()
                for line in lines
            )
        )
    return "\n\n".join(blocks) or "no figures yet"


# ---- figures


def _pivot(rows: Iterable[Mapping]) -> dict[tuple, dict[tuple, dict[str, Mapping]]]:
    """(stage, split, protocol) -> (sound, prior) -> metric -> row, in the order of the rows."""
    tables = {}
    for row in rows:
        table = tables.setdefault((row["stage"], row["split"], row["protocol"]), {})
        key = (row.get("sound") or "right", row.get("prior") or "none")
        table.setdefault(key, {})[row["metric"]] = row
    return tables


def _columns(table: Mapping[tuple, Mapping[str, Mapping]]) -> list[str]:
    return list(dict.fromkeys(name for cells in table.values() for name in cells))


def _figure(value: float | None, missing: str = "–") -> str:
    if value is None:
        return missing
    return f"{value:.3f}" if math.isfinite(value) else "NaN"


def _tables(rows: Sequence[Mapping]) -> str:
    return "".join(
        f'<div class="panel">{_table(*key, table)}{_class_table(table)}</div>'
        for key, table in _pivot(rows).items()
    )


def _table(stage: str, split: str, protocol: str, table: Mapping) -> str:
    names = [name for name in _columns(table) if "/" not in name]
    counts = {
        name: [next(iter(cells.values())).get(name) for cells in table.values()]
        for name in ("clips", "frames")
    }
    # A count that is the same everywhere is said once, over the table.
    common = [f"{c[0]:,} {n}" for n, c in counts.items() if len(set(c)) == 1 and c[0] is not None]
    varying = [name for name, count in counts.items() if len(set(count)) > 1]
    with_prior = any(prior != "none" for _, prior in table)
    remarks = [f"{split} split", f"protocol {protocol}", *common]
    if question := STAGE_QUESTIONS.get(stage):
        remarks.insert(0, question)
    header = f"<header><h3>{escape(stage.capitalize())}</h3>{_quiet(' · '.join(remarks))}</header>"
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
        return f'<td class="share" style="--v:{100 * value:.1f}%">{_figure(value)}</td>'
    return f"<td>{_figure(value)}</td>"


def _cards(rows: Sequence[Mapping]) -> str:
    """The headline figures: how well it finds the sound, whether it listens, what it calls it."""
    cards = []
    for (stage, split, _), table in _headline_tables(rows).items():
        find = _finder(table)
        stage = stage.capitalize()
        if (right := find("J", "right")) is not None:
            other, silence = find("J", "other"), find("J", "silence")
            beside = {name: find(name, "right") for name in ("F", "J&F")}
            more = [f"{n} {_figure(value)}" for n, value in beside.items() if value is not None]
            cards.append(_card(f"{stage}: J, right sound", right, [f"{split} split", *more], {}))
            if other is not None:
                bars = {"right sound": right, "another clip's": other, "silence": silence}
                name = f"{stage}: J lost with another clip's sound"
                cards.append(_card(name, right - other, [], bars))
        priors = {prior: find("mIoU", "right", prior) for prior in ("predicted", "none", "true")}
        priors = {prior: value for prior, value in priors.items() if value is not None}
        if priors:
            prior = next(iter(priors))
            foreground = find("mIoU_no_background", "right", prior)
            more = [f"without background {_figure(foreground)}"] if foreground is not None else []
            more += [f"with {PRIOR_NAMES[p]} {_figure(v)}" for p, v in priors.items() if p != prior]
            name = f"{stage}: mIoU, {PRIOR_NAMES[prior]}"
            cards.append(_card(name, priors[prior], [f"{split} split", *more], {}))
    return f'<div class="cards">{"".join(cards)}</div>' if cards else ""


def _headline_tables(rows: Sequence[Mapping]) -> dict[tuple, dict]:
    """Of each stage the test split's tables, or the first split's where there is no test split."""
    tables = _pivot(rows)
    chosen = {}
    for stage, split, _ in tables:
        if stage not in chosen or split == "test":
            chosen[stage] = split
    return {key: table for key, table in tables.items() if chosen[key[0]] == key[1]}


def _finder(table: Mapping):
    def find(metric: str, sound: str, prior: str | None = None) -> float | None:
        for (row_sound, row_prior), cells in table.items():
            if row_sound == sound and prior in (None, row_prior) and metric in cells:
                return cells[metric]["value"]
        return None

    return find


def _card(name: str, value: float, more: Sequence[str], bars: Mapping[str, float | None]) -> str:
    body = f'<div class="name">{escape(name)}</div><div class="value">{_figure(value)}</div>'
    if bars:
        body += '<div class="bars">'
        for index, (label, length) in enumerate(bars.items()):
            if length is not None:
                width = 100 * min(max(length, 0), 1) if math.isfinite(length) else 0
                track = "track other" if index else "track"
                body += (
                    f'<span>{escape(label)}</span><span class="{track}">'
                    f'<i style="width:{width:.1f}%"></i></span><span>{_figure(length)}</span>'
                )
        body += "</div>"
    if more:
        body += f'<div class="detail">{escape(" · ".join(more))}</div>'
    return f'<div class="panel card">{body}</div>'


# ---- the rest of the page


def _section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{content}</section>" if content else ""


def _quiet(text: str) -> str:
    return f'<span class="quiet">{escape(text)}</span>'


def _facts(facts: Sequence[tuple[str, object]]) -> str:
    items = ""
    for label, value in facts:
        text = escape(str(value))
        text = f"<code>{text}</code>" if label.lower() == "command" else text
        items += f"<dt>{escape(label)}</dt><dd>{text}</dd>"
    return f'<dl class="facts">{items}</dl>' if items else ""


def _list(notes: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f'<ul class="notes">{items}</ul>' if items else ""


def _examples(examples: Sequence[Mapping], legend: Sequence[tuple[str, Sequence[int]]]) -> str:
    if not examples:
        return ""
    keys = "".join(
        f'<li><span class="chip" style="background:rgb({int(r)},{int(g)},{int(b)})"></span>'
        f"{escape(name)}</li>"
        for name, (r, g, b) in legend
    )
    key = f'<ul class="legend key">{keys}</ul>' if keys else ""
    return key + "".join(_example(example) for example in examples)


def _example(example: Mapping) -> str:
    sounds = example.get("sounds") or []
    columns = max([len(sounds)] + [len(images) for _, images in example["rows"]])
    grid = '<span class="label">second</span>'
    grid += "".join(f'<span class="head">{i + 1}</span>' for i in range(columns))
    if sounds:
        grid += '<span class="label">heard</span>'
        grid += "".join(f'<span class="head sound">{escape(text)}</span>' for text in sounds)
    for label, images in example["rows"]:
        grid += f'<span class="label">{escape(label)}</span>'
        grid += "".join(_image(image, f"{label}, second {i + 1}") for i, image in enumerate(images))
    note = _quiet(example["note"]) if example.get("note") else ""
    return (
        f'<article class="panel example"><header><h3>{escape(example["title"])}</h3>{note}</header>'
        f'<div class="scroll"><div class="seconds" style="--columns:{columns}">{grid}</div></div>'
        "</article>"
    )


def _image(image: np.ndarray, description: str) -> str:
    height, width = image.shape[:2]
    small = max(height, width) <= SMALL_PICTURE
    if small:
        kind, content = "png", to_png_bytes(image)
    else:
        picture = Image.fromarray(image)
        picture.thumbnail((MAX_PICTURE, MAX_PICTURE))
        width, height = picture.size
        buffer = io.BytesIO()
        picture.save(buffer, "jpeg", quality=88)
        kind, content = "jpeg", buffer.getvalue()
    data = base64.b64encode(content).decode()
    size = "small" if small else "photo"
    return (
        f'<img src="data:image/{kind};base64,{data}" width="{width}" height="{height}" '
        f'class="{size}" alt="{escape(description)}">'
    )
