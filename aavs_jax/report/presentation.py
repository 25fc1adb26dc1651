"""What a finished run shows: scores, curves and some of its clips, as a page and as pictures."""

import io
import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from aavs_jax.inputs.batches import sounds_to_hear
from aavs_jax.inputs.sounds import heard_with
from aavs_jax.plan.stage import Stage
from aavs_jax.report.page import write_report
from aavs_jax.report.score_tables import format_table
from aavs_jax.report.visualize import class_colours, mosaic, overlay, to_png_bytes
from aavs_jax.run.files import replace_file
from aavs_jax.run.logging_writer import LoggingWriter, read_metrics
from aavs_jax.run.progress import say
from aavs_jax.run.workdir import Workdir
from aavs_jax.scoring import metrics, showcase
from data_pipelines.prepared.source import ClipSource

SOUND_ROWS = {
    "right": "its own sound",
    "other": "another's sound",
    "silence": "silence",
    "given": "masks as given",
}
LARGEST = 256  # pixels, of a shown frame's longer side
LISTENING = (
    "Each network is scored with the clip's own sound, and with the sound of a clip whose classes "
    "are all different and with silence where these are listed; the target stays the same. A "
    "network that only looks has equal scores."
)
PRIOR = "Prior: stage one's predicted masks (made with the right sound), or the true ones."
MASKS = "The masks were written elsewhere: what was heard when they were made is not known."


def show(root: Path, rows: list[dict[str, Any]], more: Sequence[tuple[str, str]] = ()) -> None:
    """The table of scores on the terminal, and where the rest is."""
    say(f"\n{format_table(rows)}\n")
    for what, path in (("report", "report/index.html"), ("scores", "results.json"), *more):
        say(f"{what:<12} {root / path}")


def present(
    stages: Sequence[Stage],
    workdir: Workdir,
    rows: list[dict[str, Any]],
    *,
    facts: Sequence[tuple[str, object]] = (),
) -> None:
    """Writes report/index.html and a picture of every example, from the first process.

    Args:
      stages: on their data; their examples are there. Clips of the last one's test split are
        shown, if there is one.
      workdir: of the run.
      rows: its scores.
      facts: what else was run, (label, value).
    """
    if jax.process_index():
        return
    config, sources = stages[-1].config, stages[-1].sources
    source = sources.get("test")
    class_names = next(iter(sources.values())).class_names
    colours = class_colours(len(class_names))
    shown = set()
    examples, sheets = [], {}
    for name in showcase.choose(source, config["eval"]["examples"]):
        try:
            title, pictures, classes = _example(stages, source, name, colours)
        except KeyError:  # another process had this clip, and its disk is not ours
            logging.warning("The clip %s is not in the report: another host evaluated it.", name)
            continue
        shown |= classes
        note = f"on screen: {_names(source, source.clips[_index(source, name)].objects)}"
        sounds = _sounds(stages, name)
        examples.append({"title": title, "note": note, "rows": pictures, "sounds": sounds})
        sheet = mosaic([images for _, images in pictures], [label for label, _ in pictures])
        picture = workdir.root / "report" / f"{name.replace('/', '-')}.png"
        replace_file(picture, to_png_bytes(sheet))
        sheets[name] = sheet
    with LoggingWriter(workdir.root) as writer:
        for name, sheet in sheets.items():
            writer.write_image(name, 0, sheet)
    record, times = workdir.record, workdir.times()
    write_report(
        workdir.root / "report" / "index.html",
        title=f"{record['config_name']}: {' then '.join(stage.name for stage in stages)}",
        facts=[
            ("command", record["command"]),
            *facts,
            (
                "data",
                config["data"]["folder"] or f"Audible Shapes, {config['data']['clips']} clips",
            ),
            ("labels", _label_sizes(stages)),
            ("device", ", ".join(sorted(set(record["devices"]))) + f" x {len(record['devices'])}"),
            ("time", ", ".join(f"{what} {seconds:.0f} s" for what, seconds in times.items())),
            ("seed", config["seed"]),
            ("versions", ", ".join(f"{k} {v}" for k, v in record["versions"].items())),
        ],
        rows=rows,
        metrics=read_metrics(workdir.root / "metrics.jsonl"),
        examples=examples,
        legend=[(class_names[i], tuple(map(int, colours[i]))) for i in sorted(shown)],
        notes=_notes(rows, {stage.task.name for stage in stages}),
    )


def _label_sizes(stages: Sequence[Stage]) -> str:
    """'96 pixels', or of each stage where they differ."""
    sizes = {stage.name: stage.keys["data"]["label_size"] for stage in stages}
    if len(set(sizes.values())) == 1:
        return f"{next(iter(sizes.values()))} pixels"
    return ", ".join(f"{name} {size} pixels" for name, size in sizes.items())


def _notes(rows: Sequence[Mapping[str, Any]], tasks: Collection[str]) -> list[str]:
    """What a reader of the page would ask first; `tasks` are those of the stages."""
    notes = []
    for name in dict.fromkeys(row["protocol"] for row in rows):
        protocol = metrics.PROTOCOLS[name]
        found = {row["metric"] for row in rows if row["protocol"] == name}
        averages = [
            f"{words} ({task} stages)"
            for task, words in protocol.averages.items()
            if task in tasks and found & set(protocol.scores[task])
        ]
        notes.append(f"Protocol {name} ({protocol.title}): means over {', over '.join(averages)}.")
    notes.append(
        "Protocols give one and the same prediction different scores under the same names: "
        "docs/protocols.md says what each of them does."
    )
    sounds = {row["sound"] for row in rows}
    notes += [LISTENING] if len(sounds) > 1 else []
    notes += [MASKS] if "given" in sounds else []
    notes += [PRIOR] if any(row["prior"] != "none" for row in rows) else []
    return notes


def _example(stages: Sequence[Stage], source: ClipSource, name: str, colours: np.ndarray):
    """(title, [(row label, pictures by second)], class ids seen)."""
    index = _index(source, name)
    frames = [thumbnail(frame, LARGEST) for frame in source[index]["frames"]]
    if source.clips[index].still:
        frames *= source.clips[index].seconds
    pictures = [("frames", frames)]
    truth, classes = None, set()
    predicted = []
    for stage in stages:
        binary = stage.task.name == "binary"
        priors = stage.keys["prior"]["evaluate"]
        for prior in priors:
            for sound in sounds_to_hear(stage):
                if not binary and (sound == "silence" or (sound == "other" and prior != priors[0])):
                    continue  # the page is long enough
                arrays = showcase.load(stage.folder, sound, prior)
                masks, labels = arrays[f"prediction/{name}"], arrays[f"label/{name}"]
                if truth is None or not binary:
                    truth = painted(frames, labels, binary, colours)
                if not binary:
                    classes |= set(np.unique(masks).tolist()) | set(np.unique(labels).tolist())
                label = f"{stage.name}, {SOUND_ROWS.get(sound, sound)}"
                label += f", {prior} prior" if prior != "none" else ""
                predicted.append((label, painted(frames, masks, binary, colours)))
    return name, [*pictures, ("truth", truth), *predicted], classes - {0}


def _sounds(stages: Sequence[Stage], name: str) -> list[tuple[str, np.ndarray]]:
    """(label, waveform) of a clip's own sound, and of the others that it was scored with.

    Each stage has found its partner among its own clips, so that two of them may differ.
    """
    _, own = heard_with(stages[-1], name, "right")
    others = dict(
        heard_with(stage, name, "other") for stage in stages if "other" in sounds_to_hear(stage)
    )
    sounds = [(f"another clip's: {lender}", waveform) for lender, waveform in others.items()]
    return [(SOUND_ROWS["right"], own), *sounds]


def thumbnail(encoded: bytes, largest: int) -> np.ndarray:
    """A picture out of its file, uint8 [H,W,3], with no side above `largest` pixels."""
    image = Image.open(io.BytesIO(encoded)).convert("RGB")
    image.thumbnail((largest, largest))  # never enlarges
    return np.asarray(image)


def painted(
    frames: Sequence[np.ndarray], labels: np.ndarray, binary: bool, colours: np.ndarray
) -> list[np.ndarray]:
    """Frames uint8 [H,W,3] with labels [T,G,G] over them, of a binary task in one colour."""
    maps = labels > 0 if binary else labels
    return [
        overlay(frame, label, None if binary else colours)
        for frame, label in zip(frames, maps, strict=False)
    ]


def _index(source: ClipSource, name: str) -> int:
    return next(i for i, clip in enumerate(source.clips) if clip.name == name)


def _names(source: ClipSource, ids: tuple[int, ...]) -> str:
    return ", ".join(source.class_names[i] for i in ids) or "nothing that sounds"
