"""What a run found, for people: the page `report/index.html`.

Rows of scores are those of `figure_tables`.
"""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from aavs_jax.report import score_tables
from aavs_jax.report.learning_curves import FRAME, learning_curves
from aavs_jax.report.score_tables import PRIOR_NAMES, main_sound, pivot, shown_as
from aavs_jax.run.files import replace_file
from data_pipelines.facts.avsbench import SAMPLE_RATE
from data_pipelines.pages import data_uri, render
from data_pipelines.pages.sounds import sound_uri

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
    """Writes a page of scores, curves and pictures that needs no other file.

    Args:
      path: the file to write, such as `<workdir>/report/index.html`; replaced in one go.
      title: headline.
      facts: (label, value) of what was run; a label "command" is set in type for code.
      rows: scores, see `figure_tables`.
      metrics: the lines of `metrics.jsonl`, see `logging_writer.read_metrics`.
      examples: dicts of `title`, `note`, `rows` = [(label, [uint8 [H, W, 3] per second])] and,
        optionally, `sounds` = [(label, float32 [S, channels], 16 kHz, full scale 1)].
      legend: (class name, (r, g, b)) of the colours in the examples.
      notes: sentences under the headline scores.

    Raises:
      UserError: the file cannot be written.
    """
    page = render(
        Path(__file__).with_name("report.html"),
        title=title,
        facts=facts,
        cards=_cards(rows),
        notes=notes,
        results=_by_split(rows),
        tables=score_tables,
        stages=learning_curves(metrics),
        frame=FRAME,
        examples=[example_of(example) for example in examples],
        legend=legend,
    )
    replace_file(path, page.encode())


def _cards(rows: Sequence[Mapping]) -> list[dict[str, Any]]:
    """The headline scores: how well it finds the sound, whether it listens, what it calls it."""
    cards = []
    for (stage, split, _), table in _headline_tables(rows).items():
        find, main = _finder(table), main_sound(table)
        words = "right sound" if main == "right" else "masks as given"
        stage = stage.capitalize()
        if (right := find("J", main)) is not None:
            other, silence = find("J", "other"), find("J", "silence")
            beside = {name: find(name, main) for name in ("F", "J&F")}
            more = [f"{n} {shown_as(value)}" for n, value in beside.items() if value is not None]
            cards.append(_card(f"{stage}: J, {words}", right, [f"{split} split", *more]))
            if other is not None:
                bars = {"right sound": right, "another clip's": other, "silence": silence}
                name = f"{stage}: J lost with another clip's sound"
                cards.append(_card(name, right - other, bars=bars))
        # In the order of their rows: the first selects checkpoints and is what users get.
        priors = {prior: find("mIoU", main, prior) for _, prior in table}
        priors = {prior: value for prior, value in priors.items() if value is not None}
        if priors:
            prior = next(iter(priors))
            foreground = find("mIoU_no_background", main, prior)
            more = [f"without background {shown_as(foreground)}"] if foreground is not None else []
            more += [
                f"with {PRIOR_NAMES[p]} {shown_as(v)}" for p, v in priors.items() if p != prior
            ]
            name = f"{stage}: mIoU, {PRIOR_NAMES[prior]}"
            cards.append(_card(name, priors[prior], [f"{split} split", *more]))
    return cards


def _by_split(rows: Sequence[Mapping]) -> dict[tuple[str, str], dict[str, Mapping]]:
    """(stage, split) -> protocol -> table."""
    results: dict[tuple[str, str], dict[str, Mapping]] = {}
    for (stage, split, protocol), table in pivot(rows).items():
        results.setdefault((stage, split), {})[protocol] = table
    return results


def _headline_tables(rows: Sequence[Mapping]) -> dict[tuple, dict]:
    """Of each stage the test split's table, or the first split's where there is no test split, by
    the first of the protocols. Stages that only write masks of training clips have none."""
    tables = pivot(rows)
    tested = {stage for stage, split, _ in tables if split == "test"}
    chosen: dict[str, tuple] = {}
    for stage, split, protocol in tables:
        if tested and stage not in tested:
            continue
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


def _card(
    name: str, value: float, details: Sequence[str] = (), bars: Mapping[str, float | None] = {}
) -> dict[str, Any]:
    """A card of the page; `bars` are (label, score, width in %)."""
    widths = [
        (
            label,
            shown_as(score),
            round(100 * min(max(score, 0), 1), 1) if math.isfinite(score) else 0,
        )
        for label, score in bars.items()
        if score is not None
    ]
    return {"name": name, "value": shown_as(value), "details": details, "bars": widths}


def example_of(example: Mapping) -> dict[str, Any]:
    """An example of `write_report` as templates have it: pictures and sounds as texts."""
    rows = [
        (label, [None if image is None else _picture(image) for image in images])
        for label, images in example["rows"]
    ]
    sounds = [(label, sound_uri(wave, SAMPLE_RATE)) for label, wave in example.get("sounds", ())]
    columns = max((len(pictures) for _, pictures in rows), default=0)
    given = {"note": "", **example}
    return {**given, "sounds": sounds, "rows": rows, "columns": columns}


def _picture(image: np.ndarray) -> dict[str, Any]:
    picture = Image.fromarray(image)
    small = max(picture.size) <= SMALL_PICTURE
    if small:
        uri = data_uri(picture, format="png", optimize=True)
    else:
        picture.thumbnail((MAX_PICTURE, MAX_PICTURE))
        uri = data_uri(picture, format="jpeg", quality=88)
    kind = "small" if small else ""
    return {"uri": uri, "width": picture.width, "height": picture.height, "kind": kind}
