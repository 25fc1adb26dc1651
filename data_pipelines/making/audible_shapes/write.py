"""Clips on disk, in AVSBench's unified layout."""

import functools
import os
from pathlib import Path

import numpy as np

from data_pipelines.making import contact_sheet, writer
from data_pipelines.making.audible_shapes.plan import MIN_CLIPS, plans
from data_pipelines.making.audible_shapes.scene import draw
from data_pipelines.making.audible_shapes.shapes import CLASS_NAMES, SHAPES, hsv_to_rgb

DEFAULT_CLIPS = 640
DEFAULT_SIZE = 96  # pixels
TITLE = "Audible Shapes"


def make(
    out: str | os.PathLike,
    *,
    clips: int = DEFAULT_CLIPS,
    size: int = DEFAULT_SIZE,
    seed: int = 0,
    workers: int | None = None,
    progress: bool = True,
    show: str | os.PathLike | None = None,
) -> Path:
    """Makes the data set in the folder `out`, whole or not at all.

    Args:
      out: folder to make; it may exist if it is empty.
      clips: how many clips, at least MIN_CLIPS. Clip i does not depend on this number.
      size: side of the frames in pixels.
      seed: not negative; the same seed gives the same data on every machine.
      workers: processes, see `writer.write_clips`. The files do not depend on it.
      progress: whether to show a bar.
      show: a PNG into which a contact sheet of some clips is drawn afterwards.

    Returns:
      `out` as an absolute path.

    Raises:
      DataError: `out` is in use or cannot be written, a number is out of range, or the contact
        sheet cannot be written.
    """
    writer.check_numbers(clips, size, seed, workers, least=MIN_CLIPS)
    planned = list(plans(seed, clips))
    draw_one = functools.partial(draw, seed, size=size)
    with writer.whole_folder(out) as root:
        writer.write_clips(
            root, planned, draw_one, CLASS_NAMES, title=TITLE, workers=workers, progress=progress
        )
    if show:
        names = [(name, colours(i)[0]) for i, name in enumerate(CLASS_NAMES, start=1)]
        contact_sheet.save(show, TITLE, planned, draw_one, colours, names)
    return Path(out).absolute()


def colours(class_id: int) -> tuple[contact_sheet.Colour, contact_sheet.Colour]:
    """Of a class on the contact sheet, full and pale."""
    hue = SHAPES[class_id - 1].hue
    both = (hsv_to_rgb(hue, 0.85, 0.92), hsv_to_rgb(hue, 0.25, 0.97))
    return tuple(tuple(int(c) for c in np.round(255 * rgb)) for rgb in both)
