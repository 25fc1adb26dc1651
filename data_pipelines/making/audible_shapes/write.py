"""Clips on disk, in AVSBench's unified layout."""

import os
from pathlib import Path

from tqdm import tqdm

from data_pipelines.making import writer
from data_pipelines.making.audible_shapes.plan import MIN_CLIPS, plans
from data_pipelines.making.audible_shapes.scene import Clip, draw
from data_pipelines.making.audible_shapes.shapes import CLASS_NAMES

DEFAULT_CLIPS = 640
DEFAULT_SIZE = 96  # pixels


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
    with writer.whole_folder(out) as root:
        done = []
        bar = tqdm(
            plans(seed, clips),
            total=clips,
            desc="Audible Shapes",
            unit="clip",
            disable=not progress,
        )
        for plan in bar:
            _write_clip(root, draw(seed, plan, size))
            done.append(plan)
        writer.write_tables(root, CLASS_NAMES, done)
    return Path(out).absolute()


def check_numbers(clips: int, size: int, seed: int) -> None:
    """Raises DataError where a number is out of its range."""
    writer.check_numbers(clips, size, seed, least=MIN_CLIPS)


def _write_clip(root: Path, clip: Clip) -> None:
    writer.write_clip(
        root, clip.plan, clip.frames, clip.labels, clip.waveform, 1 + len(CLASS_NAMES)
    )
