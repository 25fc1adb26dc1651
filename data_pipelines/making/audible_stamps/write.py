"""Clips on disk, in AVSBench's unified layout, drawn by several processes."""

import colorsys
import functools
import os
from pathlib import Path

from data_pipelines.facts import avsbench
from data_pipelines.making import contact_sheet, writer
from data_pipelines.making.audible_stamps import media as media_files
from data_pipelines.making.audible_stamps import notes
from data_pipelines.making.audible_stamps.plan import MIN_CLIPS, plans
from data_pipelines.making.audible_stamps.scene import draw

DEFAULT_CLIPS = 1200
DEFAULT_SIZE = 128  # pixels
TITLE = "Audible Stamps"


def make(
    out: str | os.PathLike,
    *,
    packages: str | os.PathLike | None = None,
    clips: int = DEFAULT_CLIPS,
    size: int = DEFAULT_SIZE,
    seed: int = 0,
    held_out: bool = False,
    workers: int | None = None,
    progress: bool = True,
    show: str | os.PathLike | None = None,
) -> Path:
    """Makes the data set in the folder `out`, whole or not at all.

    Args:
      out: folder to make; it may exist if it is empty.
      packages: where the packages were unpacked; None: they are installed.
      clips: how many clips, at least MIN_CLIPS. Clip i does not depend on this number.
      size: side of the frames in pixels.
      seed: not negative.
      held_out: whether some stamps are kept for the test split alone.
      workers: processes, see `writer.write_clips`. The files do not depend on it.
      progress: whether to show a bar.
      show: a PNG into which a contact sheet of some clips is drawn afterwards.

    Returns:
      `out` as an absolute path.

    Raises:
      DataError: the packages are not there or cannot be read, `out` is in use or cannot be written,
        a number is out of range, or the contact sheet cannot be written.
    """
    writer.check_numbers(clips, size, seed, workers, least=MIN_CLIPS)
    places = media_files.find(packages)
    with writer.whole_folder(out) as root:
        media = media_files.load(places, size)
        planned = list(plans(seed, clips, media.stamps, held_out))
        draw_one = functools.partial(draw, seed, media=media, size=size)
        writer.write_clips(
            root,
            planned,
            draw_one,
            avsbench.CLASS_NAMES[1:],
            title=TITLE,
            workers=workers,
            progress=progress,
        )
        notes.write(root, places, media, clips=clips, size=size, seed=seed, held_out=held_out)
    if show:
        contact_sheet.save(show, TITLE, planned, draw_one, _colours)
    return Path(out).absolute()


def _colours(class_id: int) -> tuple[contact_sheet.Colour, contact_sheet.Colour]:
    """Of a class on the contact sheet, full and pale."""
    hue = class_id * 0.618034 % 1  # the golden section keeps neighbours far apart
    both = (colorsys.hsv_to_rgb(hue, 0.75, 0.85), colorsys.hsv_to_rgb(hue, 0.25, 0.97))
    return tuple(tuple(round(255 * c) for c in rgb) for rgb in both)
