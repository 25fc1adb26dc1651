"""Clips on disk, in AVSBench's unified layout, drawn by several processes."""

import functools
import os
from pathlib import Path

from data_pipelines.errors import DataError
from data_pipelines.facts import avsbench
from data_pipelines.making import writer
from data_pipelines.making.audible_stamps import media as media_files
from data_pipelines.making.audible_stamps import notes
from data_pipelines.making.audible_stamps.plan import MIN_CLIPS, plans
from data_pipelines.making.audible_stamps.scene import draw

DEFAULT_CLIPS = 1200
DEFAULT_SIZE = 128  # pixels


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
) -> Path:
    """Makes the data set in the folder `out`, whole or not at all.

    Args:
      out: folder to make; it may exist if it is empty.
      packages: where the packages were unpacked; None: they are installed.
      clips: how many clips, at least MIN_CLIPS. Clip i does not depend on this number.
      size: side of the frames in pixels.
      seed: not negative.
      held_out: whether some stamps are kept for the test split alone.
      workers: processes; None: one for each core. The files do not depend on it.
      progress: whether to show a bar.

    Returns:
      `out` as an absolute path.

    Raises:
      DataError: the packages are not there or cannot be read, `out` is in use or cannot be written,
        or a number is out of range.
    """
    check_numbers(clips, size, seed, workers)
    places = media_files.find(packages)
    with writer.whole_folder(out) as root:
        media = media_files.load(places, size)
        writer.write_clips(
            root,
            list(plans(seed, clips, media.stamps, held_out)),
            functools.partial(draw, seed, media=media, size=size),
            avsbench.CLASS_NAMES[1:],
            title="Audible Stamps",
            workers=workers or os.cpu_count() or 1,
            progress=progress,
        )
        notes.write(root, places, media, clips=clips, size=size, seed=seed, held_out=held_out)
    return Path(out).absolute()


def check_numbers(clips: int, size: int, seed: int, workers: int | None = None) -> None:
    """Raises DataError where a number is out of its range."""
    writer.check_numbers(clips, size, seed, least=MIN_CLIPS)
    if workers is not None and workers < 1:
        raise DataError(f"--workers is {workers}; give at least 1.")
