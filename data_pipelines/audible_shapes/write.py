"""Clips on disk, in AVSBench's unified layout."""

import csv
import json
import os
import shutil
import wave
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from data_pipelines.audible_shapes.plan import MIN_CLIPS, plans
from data_pipelines.audible_shapes.scene import Clip, draw
from data_pipelines.audible_shapes.shapes import CLASS_NAMES
from data_pipelines.avsbench import layout
from data_pipelines.errors import DataError

DEFAULT_CLIPS = 640
DEFAULT_SIZE = 96  # pixels
MIN_SIZE = 16
MAX_CLIPS = 100_000  # the ids have five digits


def make(
    out: str | os.PathLike,
    *,
    clips: int = DEFAULT_CLIPS,
    size: int = DEFAULT_SIZE,
    seed: int = 0,
    progress: bool = True,
) -> Path:
    """Makes the data set in the folder `out`, whole or not at all.

    Args:
      out: folder to make; it may exist if it is empty.
      clips: how many clips, at least MIN_CLIPS. Clip i does not depend on this number.
      size: side of the frames in pixels.
      seed: not negative; the same seed gives the same data on every machine.
      progress: whether to show a bar.

    Returns:
      `out` as an absolute path.

    Raises:
      DataError: `out` is in use or cannot be written, or a number is out of range.
    """
    check_numbers(clips, size, seed)
    out = Path(out).absolute()
    # Beside `out`, so that the last step is one rename. What a killed run left there is ours.
    partial = out.parent / f".{out.name}.partial"
    try:
        check_free(out)
        if partial.exists():
            shutil.rmtree(partial)
        partial.mkdir(parents=True)
        _write_all(partial, clips, size, seed, progress)
        os.replace(partial, out)
    except OSError as error:
        reason = error.strerror or error
        raise DataError(
            f"Cannot write the data set to {out}: {reason}; free some space or give --out another "
            "folder."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return out


def check_numbers(clips: int, size: int, seed: int) -> None:
    """Raises DataError where a number is out of its range."""
    if not MIN_CLIPS <= clips <= MAX_CLIPS:
        raise DataError(
            f"--clips is {clips}; give between {MIN_CLIPS} (every subset in every split) and "
            f"{MAX_CLIPS}."
        )
    if size < MIN_SIZE:
        raise DataError(f"--size is {size}; give at least {MIN_SIZE} pixels.")
    if seed < 0:
        raise DataError(f"--seed is {seed}; give a number that is not negative.")


def check_free(out: Path) -> None:
    """Raises DataError where `out` is a file or a folder with something in it."""
    if out.is_dir():
        if any(out.iterdir()):
            raise DataError(
                f"The folder {out} is not empty; name a new one with --out, or empty it first."
            )
    elif out.exists() or out.is_symlink():
        raise DataError(f"{out} is not a folder; name a new one with --out.")


def label2idx() -> dict[str, int]:
    """Content of label2idx.json: 1-based, background first."""
    return {name: i for i, name in enumerate((layout.BACKGROUND, *CLASS_NAMES), start=1)}


def _write_all(root, clips, size, seed, progress):
    todo = plans(seed, clips)
    rows = []
    bar = tqdm(todo, total=clips, desc="Audible Shapes", unit="clip", disable=not progress)
    for plan in bar:
        _write_clip(root, draw(seed, plan, size))
        rows.append(
            {
                "vid": plan.vid,
                "uid": plan.uid,
                "s_min": plan.start // 60,
                "s_sec": plan.start % 60,
                "a_obj": plan.a_obj,
                "split": plan.split,
                "label": plan.subset,
            }
        )
    with open(root / layout.METADATA_NAME, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, layout.METADATA_COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    text = json.dumps(label2idx(), indent=1) + "\n"
    (root / layout.LABEL2IDX_NAME).write_text(text, encoding="utf-8")


def _write_clip(root: Path, clip: Clip) -> None:
    plan = clip.plan
    where = (root, plan.subset, plan.uid)
    for path in (layout.frame_path, layout.rgb_label_path, layout.semantic_label_path):
        path(*where, 0).parent.mkdir(parents=True)
    colours = layout.palette(1 + len(CLASS_NAMES))
    for t in range(plan.seconds):
        frame = Image.fromarray(clip.frames[t])
        frame.save(layout.frame_path(*where, t), quality=95, subsampling=0)
    for t in range(layout.labelled_seconds(plan.subset, plan.split)):
        Image.fromarray(colours[clip.labels[t]]).save(layout.rgb_label_path(*where, t))
        Image.fromarray(clip.labels[t]).save(layout.semantic_label_path(*where, t))
    with wave.open(str(layout.audio_path(*where)), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(layout.SAMPLE_RATE)
        file.writeframes(np.asarray(clip.waveform, "<i2").tobytes())
