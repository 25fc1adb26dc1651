"""The report of a data folder as one page of HTML that needs no other file."""

import base64
import dataclasses
import io
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from PIL import Image

from data_pipelines.layouts.raw import RawClip, RawTable
from data_pipelines.media import printable
from data_pipelines.media.labels import IGNORED, colours_to_ids
from data_pipelines.preparing.folder_report import KINDS, completeness, in_bytes
from data_pipelines.preparing.read import ReadOptions, read_clip

SAMPLES = 4  # clips of a subset
FRAMES = 10  # of a clip
TRIES = 3  # clips that are read for a sample, in case some were left out
SIDE = 128  # pixels of the longer side of a frame
TINT = 0.55  # share of the label's colour where there is a label
BARS = 8  # of loudness, per second
LISTED = 2000  # findings


@dataclasses.dataclass(frozen=True)
class Sample:
    """A clip to be shown.

    Attributes:
        title: its name, split and classes.
        subset: it belongs to.
        frames: uint8 [H,W,3], labels laid over them.
        loudness: float [T * BARS], 0 (silence) to 1.
    """

    title: str
    subset: str
    frames: tuple[np.ndarray, ...]
    loudness: np.ndarray


def samples(table: RawTable, options: ReadOptions) -> list[Sample]:
    """A few clips of each subset, spread over it."""
    found = []
    options = dataclasses.replace(options, size=None)  # in the shape of their labels
    for subset in dict.fromkeys(clip.subset for clip in table.clips):
        clips = [clip for clip in table.clips if clip.subset == subset]
        count = min(SAMPLES, len(clips))
        for place in range(count):
            start = place * len(clips) // count
            for clip in clips[start : min(start + TRIES, (place + 1) * len(clips) // count)]:
                example = read_clip(clip, options, len(table.class_names), table.roots).example
                if example is not None:
                    found.append(_sample(clip, example, table.class_names))
                    break
    return found


def page(report: dict[str, Any], samples: Sequence[Sample]) -> str:
    """The page.

    Args:
        report: by `folder_report.gather`.
        samples: by `samples`.
    """
    template = Template(Path(__file__).with_name("folder_page.html").read_text("utf-8"))
    clips = report["clips"]
    return template.substitute(
        folder=_text(report["folder"]),
        layout=_text(report["layout"]),
        facts=_facts(report),
        verdict=_text(
            f"{clips['usable']} of {clips['found']} clips usable"
            + (f", {clips['repaired']} of them repaired" if clips["repaired"] else "")
        ),
        state=("well", "", "bad", "some")[report["exit_code"]],
        subsets=_subsets(report),
        classes=_classes(report),
        findings=_findings(report),
        duplicates=_duplicates(report),
        samples=_samples(samples),
    )


def _text(value: Any) -> str:
    return escape(printable(value))


def _sample(clip: RawClip, example: dict[str, Any], class_names: Sequence[str]) -> Sample:
    labelled = np.flatnonzero(example["labelled"]).tolist()
    labels = dict(zip(labelled, example["labels"], strict=True))
    stored = len(example["frames"])
    shown = sorted(labels)[:FRAMES] or range(stored)[:FRAMES]
    frames = tuple(_frame(example["frames"][t % stored], labels.get(t)) for t in shown)
    names = ", ".join(class_names[i] for i in example["objects"]) or "no class"
    # Log-mel values run from log(0.01), which is silence, to about 4.
    loudness = example["audio"].mean(axis=2).reshape(len(example["audio"]) * BARS, -1).mean(axis=1)
    loudness = np.clip((loudness - np.log(0.01)) / 5, 0, 1)
    return Sample(f"{clip.name} ({clip.split}): {names}", clip.subset, frames, loudness)


def _frame(encoded: bytes, label: bytes | None) -> np.ndarray:
    """A small frame, with its label laid over it."""
    image = Image.open(io.BytesIO(encoded)).convert("RGB")
    image.thumbnail((SIDE, SIDE))
    frame = np.asarray(image, np.float32)
    if label is not None:
        colours = Image.open(io.BytesIO(label)).convert("RGB").resize(image.size, Image.NEAREST)
        colours = np.array(colours)
        colours[colours_to_ids(colours) == IGNORED] = 0
        colours = colours.astype(np.float32)
        mask = colours.any(axis=2)
        tint = TINT * mask[..., None]
        frame = frame * (1 - tint) + colours * tint
        frame[mask & ~_inner(mask)] = 255  # an outline, as colours may be alike
    return frame.round().astype(np.uint8)


def _inner(mask: np.ndarray) -> np.ndarray:
    """Pixels of a mask, bool [H,W], all of whose neighbours are in it."""
    wide = np.pad(mask, 1, mode="edge")
    return wide[:-2, 1:-1] & wide[2:, 1:-1] & wide[1:-1, :-2] & wide[1:-1, 2:]


def _facts(report: dict[str, Any]) -> str:
    size = report["options"]["size"]
    facts = {
        "frames": "stored as they came" if size is None else f"resized to {size} x {size}",
        "sound": "left and right kept" if report["options"]["stereo"] else "mono",
        "empty masks": f"{report['empty_masks']:,} of {report['label_maps']:,} label maps",
        "without sound": f"{report['silent_seconds']:,} of {report['seconds']:,} seconds",
        "repaired": f"{report['repaired_seconds']:,} seconds",
    }
    if report["ignored_pixels"]:
        facts["ignored"] = f"{report['ignored_share']:.1%} of the pixels of the label maps"
    if report["written"]:
        files = report["written"]["files"]
        facts["written"] = f"{in_bytes(report['written']['bytes'])} in {files} files"
    return "".join(f"<dt>{_text(k)}</dt><dd>{_text(v)}</dd>" for k, v in facts.items())


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]], numbers: Sequence[int]) -> str:
    def line(cells, tag):
        kinds = [' class="number"' if i in numbers else "" for i in range(len(head))]
        return "".join(f"<{tag}{k}>{_text(c)}</{tag}>" for k, c in zip(kinds, cells, strict=True))

    body = "".join(f"<tr>{line(row, 'td')}</tr>" for row in rows)
    return (
        f'<div class="scroll"><table><thead><tr>{line(head, "th")}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _section(title: str, content: str) -> str:
    return f"<section><h2>{_text(title)}</h2>{content}</section>" if content else ""


def _subsets(report: dict[str, Any]) -> str:
    head = ("subset", "split", "clips", "frames", "labelled", "left out", "published", "")
    rows = []
    for row in report["subsets"]:
        counts = [f"{row[key]:,}" for key in ("clips", "frames", "labelled", "left_out")]
        published = "" if row["published"] is None else f"{row['published']:,}"
        rows.append([row["subset"], row["split"], *counts, published, completeness(row)])
    if not any(row["published"] for row in report["subsets"]):
        head, rows = head[:6], [row[:6] for row in rows]
    return _section("Clips", _table(head, rows, (2, 3, 4, 5, 6)))


def _classes(report: dict[str, Any]) -> str:
    rows = [
        (c["id"], c["name"], f"{c['clips']:,}", f"{c['pixels']:,}", f"{c['share']:.3%}")
        for c in report["classes"]
    ]
    return _section(
        "Classes", _table(("id", "class", "clips", "pixels", "share"), rows, (0, 2, 3, 4))
    )


def _findings(report: dict[str, Any]) -> str:
    parts = []
    for kind in KINDS:
        mine = [f for f in report["findings"] if f["kind"] == kind]
        if not mine:
            continue
        counts = ", ".join(f"{code} {number}" for code, number in report["counts"][kind].items())
        rows = [(f["clip"], f["code"], f["message"]) for f in mine[:LISTED]]
        more = f" (the first {LISTED:,} below)" if len(mine) > LISTED else ""
        parts.append(
            f"<details{' open' if len(mine) <= 20 else ''}><summary>{_text(kind)}: "
            f"{_text(counts)}{more}</summary>{_table(('clip', 'what', 'why'), rows, ())}</details>"
        )
    return _section("Findings", "".join(parts))


def _duplicates(report: dict[str, Any]) -> str:
    rows = [
        (d["what"], d["times"], ", ".join(d["clips"][:20]) + (", ..." if d["clips"][20:] else ""))
        for d in report["duplicates"][:LISTED]
    ]
    table = _table(("the same", "times", "in the clips"), rows, (1,)) if rows else ""
    return _section("In more than one split", table)


def _samples(samples: Sequence[Sample]) -> str:
    cards = []
    for sample in samples:
        frames = "".join(f'<img alt="" src="{_data_uri(frame)}">' for frame in sample.frames)
        cards.append(
            f'<figure><figcaption>{_text(sample.title)}</figcaption><div class="frames">{frames}'
            f"</div>{_strip(sample.loudness)}</figure>"
        )
    return _section("Samples", f'<div class="cards">{"".join(cards)}</div>' if cards else "")


def _strip(loudness: np.ndarray) -> str:
    """Loudness over time as bars."""
    bars = "".join(
        f'<rect x="{i}" y="{1 - level:.3f}" width=".8" height="{level:.3f}"/>'
        for i, level in enumerate(loudness.tolist())
    )
    return (
        f'<svg class="sound" viewBox="0 0 {len(loudness)} 1" preserveAspectRatio="none" '
        f'role="img" aria-label="loudness over time">{bars}</svg>'
    )


def _data_uri(frame: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
