"""The same clips side by side: what each system said of them, a column each."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aavs_jax.compare.outcomes import Outcome
from aavs_jax.compare.systems import System
from aavs_jax.report.presentation import painted, thumbnail
from aavs_jax.report.visualize import class_colours
from aavs_jax.scoring import showcase
from data_pipelines.loading.partners import has_other_sounds, lenders
from data_pipelines.prepared.source import ClipSource, heard, open_source, splits

COUNT = 6  # clips, at most
SECONDS = 3  # of each clip
SMALL = 128  # pixels of a picture, at most


def side_by_side(
    outcomes: Sequence[Outcome], systems: Sequence[System], data_dir: Path
) -> list[dict[str, Any]]:
    """Clips of the test split with the masks of each system's first complete run.

    Args:
      outcomes: of complete runs.
      systems: in the order of the columns.
      data_dir: the prepared data set.

    Returns:
      For each clip `title`, `note`, `heads` of the columns, `rows` (label, pictures uint8
      [H,W,3] or None), `sounds` (label, waveform) and `legend` (class, (r, g, b)).
    """
    first = {}
    for outcome in outcomes:
        first.setdefault(outcome.run.system.name, outcome)
    shown = [first[system.name] for system in systems if system.name in first]
    if not shown or not splits(data_dir).get("test"):
        return []
    source = open_source(data_dir, "test")
    masks = {sound: [_masks(outcome, sound) for outcome in shown] for sound in ("right", "other")}
    count = min(COUNT, *(outcome.run.values["eval"]["examples"] for outcome in shown))
    heads = ["frame", "truth", *(outcome.run.system.name for outcome in shown)]
    return [
        {"heads": heads, **_example(source, name, masks)}
        for name in showcase.choose(source, count)
        if any(f"label/{name}" in arrays for _, arrays in masks["right"])
    ]


def _masks(outcome: Outcome, sound: str) -> tuple[bool, Mapping[str, np.ndarray]]:
    """Whether a run's last stage is binary, and what it has kept of the clips to be shown."""
    for task in ("semantic", "binary"):
        if found := outcome.stage(task):
            stage, prior = found
            return task == "binary", showcase.load(outcome.run.folder / stage, sound, prior)
    return True, {}


def _example(source: ClipSource, name: str, masks: Mapping[str, list]) -> dict[str, Any]:
    index = next(i for i, clip in enumerate(source.clips) if clip.name == name)
    clip, stored = source.clips[index], source[index]
    frames = [thumbnail(frame, SMALL) for frame in stored["frames"]]
    frames *= clip.seconds if clip.still else 1
    colours = class_colours(len(source.class_names))
    # Of classes where any system tells them, else of where it sounds.
    binary, truth = min(
        ((binary, arrays[f"label/{name}"]) for binary, arrays in masks["right"] if arrays),
        key=lambda pair: pair[0],
    )
    seconds = np.linspace(0, len(frames) - 1, min(SECONDS, len(frames))).round().astype(int)

    def row(sound: str, second: int) -> list[np.ndarray | None]:
        pictures = [frames[second], _picture(frames, truth, second, binary, colours)]
        for own, arrays in masks[sound]:
            found = arrays.get(f"prediction/{name}")
            pictures.append(_picture(frames, found, second, own, colours))
        return pictures

    told = [a[f"prediction/{name}"] for own, a in masks["right"] if not own and a]
    ids = set() if binary else {int(i) for m in (truth, *told) for i in np.unique(m)} - {0}
    rows = [(f"second {second + 1}", row("right", second)) for second in seconds]
    if any(arrays for _, arrays in masks["other"]):
        middle = seconds[len(seconds) // 2]
        rows.append((f"second {middle + 1}, another clip's sound", row("other", middle)))
    classes = ", ".join(source.class_names[i] for i in clip.objects) or "nothing that sounds"
    return {
        "title": name,
        "note": f"on screen: {classes}",
        "rows": rows,
        "sounds": _sounds(source, index),
        "legend": [(source.class_names[i], tuple(map(int, colours[i]))) for i in sorted(ids)],
    }


def _picture(
    frames: Sequence[np.ndarray],
    labels: np.ndarray | None,
    second: int,
    binary: bool,
    colours: np.ndarray,
) -> np.ndarray | None:
    if labels is None or second >= len(labels):
        return None
    return painted(frames[second : second + 1], labels[second : second + 1], binary, colours)[0]


def _sounds(source: ClipSource, index: int) -> list[tuple[str, np.ndarray]]:
    clip = source.clips[index]
    sounds = [("its own sound", heard(clip, source[index]["waveform"], 1))]
    if has_other_sounds(source.clips):
        other = lenders(source.clips, "other")[index]
        lender = source.clips[other]
        sounds.append(
            (f"another clip's: {lender.name}", heard(lender, source[other]["waveform"], 1))
        )
    return sounds
