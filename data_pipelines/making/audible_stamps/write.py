"""Clips on disk, in AVSBench's unified layout, drawn by several processes."""

import contextlib
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from tqdm import tqdm

from data_pipelines.errors import DataError
from data_pipelines.facts import avsbench
from data_pipelines.making import writer
from data_pipelines.making.audible_stamps import media as media_files
from data_pipelines.making.audible_stamps import notes
from data_pipelines.making.audible_stamps.media import Media
from data_pipelines.making.audible_stamps.plan import MIN_CLIPS, Plan, plans
from data_pipelines.making.audible_stamps.scene import draw
from data_pipelines.preparing.workers import starting_processes

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
        todo = list(plans(seed, clips, media.stamps, held_out))
        bar = tqdm(total=clips, desc="Audible Stamps", unit="clip", disable=not progress)
        steps = _written(todo, (root, seed, media, size), workers or os.cpu_count() or 1)
        # Closed at once, so that no worker writes any more when the folder is taken away.
        with bar, contextlib.closing(steps):
            for _ in steps:
                bar.update()
        writer.write_tables(root, avsbench.CLASS_NAMES[1:], todo)
        notes.write(root, places, media, clips=clips, size=size, seed=seed, held_out=held_out)
    return Path(out).absolute()


def check_numbers(clips: int, size: int, seed: int, workers: int | None = None) -> None:
    """Raises DataError where a number is out of its range."""
    writer.check_numbers(clips, size, seed, least=MIN_CLIPS)
    if workers is not None and workers < 1:
        raise DataError(f"--workers is {workers}; give at least 1.")


def _written(todo: list[Plan], arguments: tuple, workers: int) -> Iterator[None]:
    """Draws and writes the clips, in this process or in several; yields after each."""
    if workers == 1:
        for plan in todo:
            yield _write(*arguments, plan)
        return
    # Spawned, not forked: whoever calls `make` may have threads.
    pool = ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), _start_worker, arguments
    )
    try:
        with starting_processes():
            written = pool.map(_write_in_worker, todo, chunksize=4)
        yield from written
    except BrokenProcessPool as fault:
        raise DataError(
            "a process that draws clips was ended from outside, perhaps for want of memory; give "
            "fewer --workers."
        ) from fault
    finally:
        pool.shutdown(cancel_futures=True)


_worker_arguments: tuple = ()


def _start_worker(*arguments):
    global _worker_arguments
    _worker_arguments = arguments


def _write_in_worker(plan: Plan) -> None:
    _write(*_worker_arguments, plan)


def _write(root: Path, seed: int, media: Media, size: int, plan: Plan) -> None:
    clip = draw(seed, plan, media, size)
    writer.write_clip(
        root, plan, clip.frames, clip.labels, clip.waveform, len(avsbench.CLASS_NAMES)
    )
