"""Clips on disk, in AVSBench's unified layout."""

import functools
import os
from pathlib import Path

from data_pipelines.making import writer
from data_pipelines.making.audible_shapes.plan import MIN_CLIPS, plans
from data_pipelines.making.audible_shapes.scene import draw
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
        writer.write_clips(
            root,
            list(plans(seed, clips)),
            functools.partial(draw, seed, size=size),
            CLASS_NAMES,
            title="Audible Shapes",
            workers=1,
            progress=progress,
        )
    return Path(out).absolute()


def check_numbers(clips: int, size: int, seed: int) -> None:
    """Raises DataError where a number is out of its range."""
    writer.check_numbers(clips, size, seed, least=MIN_CLIPS)
