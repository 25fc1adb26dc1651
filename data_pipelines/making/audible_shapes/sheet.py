"""A contact sheet: some clips with their frames, what sounds in each second, and a spectrogram."""

import functools
import os

import numpy as np

from data_pipelines.making import contact_sheet
from data_pipelines.making.audible_shapes.plan import plans
from data_pipelines.making.audible_shapes.scene import draw
from data_pipelines.making.audible_shapes.shapes import CLASS_NAMES, SHAPES, hsv_to_rgb
from data_pipelines.making.audible_shapes.write import check_numbers


def save(path: str | os.PathLike, *, clips: int, size: int, seed: int) -> None:
    """Draws a dozen clips of the data set (clips, size, seed) into the PNG `path`.

    Raises:
      DataError: the picture cannot be written, or a number is out of range.
    """
    check_numbers(clips, size, seed)
    contact_sheet.save(
        path,
        "Audible Shapes",
        list(plans(seed, clips)),
        functools.partial(draw, seed, size=size),
        colours,
        [(name, colours(class_id)[0]) for class_id, name in enumerate(CLASS_NAMES, start=1)],
    )


def colours(class_id: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Full and pale."""
    hue = SHAPES[class_id - 1].hue
    both = (hsv_to_rgb(hue, 0.85, 0.92), hsv_to_rgb(hue, 0.25, 0.97))
    return tuple(tuple(int(c) for c in np.round(255 * rgb)) for rgb in both)
