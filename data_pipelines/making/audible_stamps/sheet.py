"""A contact sheet: some clips with their frames, what sounds in each second, and a spectrogram."""

import colorsys
import functools
import os

from data_pipelines.making import contact_sheet
from data_pipelines.making.audible_stamps import media as media_files
from data_pipelines.making.audible_stamps.plan import plans
from data_pipelines.making.audible_stamps.scene import draw
from data_pipelines.making.audible_stamps.write import check_numbers


def save(
    path: str | os.PathLike,
    *,
    packages: str | os.PathLike | None,
    clips: int,
    size: int,
    seed: int,
    held_out: bool,
) -> None:
    """Draws a dozen clips of the data set that `make` makes of the same arguments.

    Args:
      path: of the PNG.
      packages: where the packages were unpacked; None: they are installed.
      clips: how many clips there are.
      size: side of the frames in pixels.
      seed: of all chance.
      held_out: whether some stamps are kept for the test split.

    Raises:
      DataError: the picture cannot be written, the packages cannot be read, or a number is out of
        range.
    """
    check_numbers(clips, size, seed)
    media = media_files.load(media_files.find(packages), size)
    contact_sheet.save(
        path,
        "Audible Stamps",
        list(plans(seed, clips, media.stamps, held_out)),
        functools.partial(draw, seed, media=media, size=size),
        _colours,
    )


def _colours(class_id: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Full and pale."""
    hue = class_id * 0.618034 % 1  # the golden section keeps neighbours far apart
    both = (colorsys.hsv_to_rgb(hue, 0.75, 0.85), colorsys.hsv_to_rgb(hue, 0.25, 0.97))
    return tuple(tuple(round(255 * c) for c in rgb) for rgb in both)
