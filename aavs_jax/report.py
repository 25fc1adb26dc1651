"""What a run found, for people: the page `report/index.html`.

Rows of figures are those of `figure_tables`.
"""

import base64
import io
import math
import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template

import numpy as np
from PIL import Image

from aavs_jax.figure_tables import (
    PRIOR_NAMES,
    figure,
    html_tables,
    main_sound,
    pivot,
    quiet,
)
from aavs_jax.learning_curves import learning_curves
from aavs_jax.logging_writer import replace_file
from aavs_jax.visualize import to_png_bytes

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
      rows: figures, see `figure_tables`.
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
        results=_section("Results", html_tables(rows)),
        curves=_section("Learning curves", learning_curves(metrics)),
        examples=_section("Examples", _examples(examples, legend)),
    )
    replace_file(path, page.encode())


# ---- figures


def _cards(rows: Sequence[Mapping]) -> str:
    """The headline figures: how well it finds the sound, whether it listens, what it calls it."""
    cards = []
    for (stage, split, _), table in _headline_tables(rows).items():
        find, main = _finder(table), main_sound(table)
        words = "right sound" if main == "right" else "masks as given"
        stage = stage.capitalize()
        if (right := find("J", main)) is not None:
            other, silence = find("J", "other"), find("J", "silence")
            beside = {name: find(name, main) for name in ("F", "J&F")}
            more = [f"{n} {figure(value)}" for n, value in beside.items() if value is not None]
            cards.append(_card(f"{stage}: J, {words}", right, [f"{split} split", *more], {}))
            if other is not None:
                bars = {"right sound": right, "another clip's": other, "silence": silence}
                name = f"{stage}: J lost with another clip's sound"
                cards.append(_card(name, right - other, [], bars))
        priors = {prior: find("mIoU", main, prior) for prior in ("predicted", "none", "true")}
        priors = {prior: value for prior, value in priors.items() if value is not None}
        if priors:
            prior = next(iter(priors))
            foreground = find("mIoU_no_background", main, prior)
            more = [f"without background {figure(foreground)}"] if foreground is not None else []
            more += [f"with {PRIOR_NAMES[p]} {figure(v)}" for p, v in priors.items() if p != prior]
            name = f"{stage}: mIoU, {PRIOR_NAMES[prior]}"
            cards.append(_card(name, priors[prior], [f"{split} split", *more], {}))
    return f'<div class="cards">{"".join(cards)}</div>' if cards else ""


def _headline_tables(rows: Sequence[Mapping]) -> dict[tuple, dict]:
    """Of each stage the test split's table, or the first split's where there is no test split, by
    the first of the protocols."""
    tables = pivot(rows)
    chosen: dict[str, tuple] = {}
    for stage, split, protocol in tables:
        if stage not in chosen or (split == "test" != chosen[stage][1]):
            chosen[stage] = (stage, split, protocol)
    return {key: tables[key] for key in chosen.values()}


def _finder(table: Mapping):
    def find(metric: str, sound: str, prior: str | None = None) -> float | None:
        for (row_sound, row_prior), cells in table.items():
            if row_sound == sound and prior in (None, row_prior) and metric in cells:
                return cells[metric]["value"]
        return None

    return find


def _card(name: str, value: float, more: Sequence[str], bars: Mapping[str, float | None]) -> str:
    body = f'<div class="name">{escape(name)}</div><div class="value">{figure(value)}</div>'
    if bars:
        body += '<div class="bars">'
        for index, (label, length) in enumerate(bars.items()):
            if length is not None:
                width = 100 * min(max(length, 0), 1) if math.isfinite(length) else 0
                track = "track other" if index else "track"
                body += (
                    f'<span>{escape(label)}</span><span class="{track}">'
                    f'<i style="width:{width:.1f}%"></i></span><span>{figure(length)}</span>'
                )
        body += "</div>"
    if more:
        body += f'<div class="detail">{escape(" · ".join(more))}</div>'
    return f'<div class="panel card">{body}</div>'


# ---- the rest of the page


def _section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{content}</section>" if content else ""


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
    note = quiet(example["note"]) if example.get("note") else ""
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
