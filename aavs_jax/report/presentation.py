"""What a finished run shows: figures, curves and some of its clips, as a page and as pictures."""

import io
import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from aavs_jax.inputs.batches import sounds_to_hear
from aavs_jax.report.page import write_report
from aavs_jax.report.score_tables import format_table
from aavs_jax.report.visualize import class_colours, mosaic, overlay, to_png_bytes
from aavs_jax.run.logging_writer import LoggingWriter, read_metrics, replace_file
from aavs_jax.run.progress import say
from aavs_jax.run.workdir import Workdir
from aavs_jax.scoring import metrics
from aavs_jax.scoring.one_pass import Showcase
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


def choose(source: ClipSource | None, count: int) -> list[str]:
    """Names of clips to show: of each subset in turn those with the most sounding objects.

    Without a source there are none.
    """
    if source is None:
        return []
    ranked: dict[str, list] = {}
    for clip in sorted(source.clips, key=lambda clip: -len(clip.objects)):
        ranked.setdefault(clip.subset, []).append(clip.name)
    turns = [
        name for rank in range(count) for names in ranked.values() for name in names[rank:][:1]
    ]
    return turns[:count]


def save(stage_folder: Path, sound: str, prior: str, showcase: Showcase) -> None:
    """Keeps the predictions and labels of the clips to be shown, for when the run is complete."""
    arrays = {f"prediction/{name}": array for name, array in showcase.predictions.items()}
    arrays |= {f"label/{name}": array for name, array in showcase.labels.items()}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    name = f"{sound}-{prior}.{jax.process_index()}.npz"
    replace_file(stage_folder / "examples" / name, buffer.getvalue())


def show(root: Path, rows: list[dict[str, Any]], more: Sequence[tuple[str, str]] = ()) -> None:
    """The table of figures on the terminal, and where the rest is."""
    say(f"\n{format_table(rows)}\n")
    for what, path in (("report", "report/index.html"), ("figures", "results.json"), *more):
        say(f"{what:<12} {root / path}")


def present(
    config: Mapping[str, Any],
    workdir: Workdir,
    rows: list[dict[str, Any]],
    sources: Mapping[str, ClipSource],
    *,
    facts: Sequence[tuple[str, object]] = (),
) -> None:
    """Writes report/index.html and a picture of every example, from the first process.

    Args:
      config: as in configs/base.py; of the stages in its schedule the examples are there.
      workdir: of the run.
      rows: its figures.
      sources: of the last stage, by split; those of "test" are shown, if there is one.
      facts: what else was run, (label, value).
    """
    if jax.process_index():
        return
    source = sources.get("test")
    class_names = next(iter(sources.values())).class_names
    colours = class_colours(len(class_names))
    shown = set()
    examples, sheets = [], {}
    for name in choose(source, config["eval"]["examples"]):
        try:
            title, pictures, classes = _example(config, workdir.root, source, name, colours)
        except KeyError:  # another process had this clip, and its disk is not ours
            logging.warning("The clip %s is not in the report: another host evaluated it.", name)
            continue
        shown |= classes
        note = f"on screen: {_names(source, source.clips[_index(source, name)].objects)}"
        examples.append({"title": title, "note": note, "rows": pictures})
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
        title=f"{record['config_name']}: {' then '.join(config['schedule'])}",
        facts=[
            ("command", record["command"]),
            *facts,
            (
                "data",
                config["data"]["folder"] or f"Audible Shapes, {config['data']['clips']} clips",
            ),
            ("labels", _label_sizes(config)),
            ("device", ", ".join(sorted(set(record["devices"]))) + f" x {len(record['devices'])}"),
            ("time", ", ".join(f"{what} {seconds:.0f} s" for what, seconds in times.items())),
            ("seed", config["seed"]),
            ("versions", ", ".join(f"{k} {v}" for k, v in record["versions"].items())),
        ],
        rows=rows,
        metrics=read_metrics(workdir.root / "metrics.jsonl"),
        examples=examples,
        legend=[(class_names[i], tuple(map(int, colours[i]))) for i in sorted(shown)],
        notes=_notes(rows, {config["stages"][name]["task"] for name in config["schedule"]}),
    )


def _label_sizes(config: Mapping[str, Any]) -> str:
    """'96 pixels', or of each stage where they differ."""
    sizes = {name: config["stages"][name]["data"]["label_size"] for name in config["schedule"]}
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
            if task in tasks and found & set(protocol.figures[task])
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


def _example(config, root: Path, source: ClipSource, name: str, colours: np.ndarray):
    """(title, [(row label, pictures by second)], class ids seen)."""
    index = _index(source, name)
    frames = [_thumbnail(frame) for frame in source[index]["frames"]]
    if source.clips[index].still:
        frames *= source.clips[index].seconds
    pictures = [("frames", frames)]
    truth, classes = None, set()
    predicted = []
    for stage_name in config["schedule"]:
        stage = config["stages"][stage_name]
        binary = stage["task"] == "binary"
        first = stage["prior"]["evaluate"][0]
        for prior in stage["prior"]["evaluate"]:
            for sound in sounds_to_hear(config, source):
                if not binary and (sound == "silence" or (sound == "other" and prior != first)):
                    continue  # the page is long enough
                arrays = _load(root / stage_name, sound, prior)
                masks, labels = arrays[f"prediction/{name}"], arrays[f"label/{name}"]
                if truth is None or not binary:
                    truth = _painted(frames, labels, binary, colours)
                if not binary:
                    classes |= set(np.unique(masks).tolist()) | set(np.unique(labels).tolist())
                label = f"{stage_name}, {SOUND_ROWS.get(sound, sound)}"
                label += f", {prior} prior" if prior != "none" else ""
                predicted.append((label, _painted(frames, masks, binary, colours)))
    return name, [*pictures, ("truth", truth), *predicted], classes - {0}


def _thumbnail(encoded: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(encoded)).convert("RGB")
    image.thumbnail((LARGEST, LARGEST))  # never enlarges
    return np.asarray(image)


def _load(stage_folder: Path, sound: str, prior: str) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    for path in sorted((stage_folder / "examples").glob(f"{sound}-{prior}.*.npz")):
        with np.load(path) as file:
            arrays |= dict(file)
    return arrays


def _painted(frames, labels: np.ndarray, binary: bool, colours: np.ndarray) -> list[np.ndarray]:
    maps = labels > 0 if binary else labels
    return [
        overlay(frame, label, None if binary else colours)
        for frame, label in zip(frames, maps, strict=False)
    ]


def _index(source: ClipSource, name: str) -> int:
    return next(i for i, clip in enumerate(source.clips) if clip.name == name)


def _names(source: ClipSource, ids: tuple[int, ...]) -> str:
    return ", ".join(source.class_names[i] for i in ids) or "nothing that sounds"
