"""How fast a way of loading is, measured in a process of its own."""

import dataclasses
import multiprocessing
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import psutil

from data_pipelines.benchmark import public_loader
from data_pipelines.loader import open_source, train_loader
from data_pipelines.reading.raw import RawClip

IMAGE_SIZE = 384  # pixels; both are the paper's
LABEL_SIZE = 224
LEAST = 2.0  # seconds of reading: a few clips are read in no time
SETTLING = 16  # clips for each worker, until what was read ahead is used up


@dataclasses.dataclass(frozen=True)
class Seconds:
    """What one pass over all clips takes, their files in the system's memory."""

    passed: float  # on the clock
    processor: float  # of all cores together; what others do on the same machine does not count


def in_a_process(data_dir: Path | None, clips: tuple[RawClip, ...], workers: int) -> Seconds:
    """`speed` in a new process, which nothing measured before has touched."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(speed, data_dir, clips, workers).result()


def speed(data_dir: Path | None, clips: tuple[RawClip, ...], workers: int) -> Seconds:
    """Reads all clips at least once, with so many worker processes on as many cores.

    What starting takes is not counted: clips are read until the workers are under way and what
    they had read ahead is used up.

    Args:
        data_dir: where they lie prepared; None: they are read the public way.
        clips: those to read.
        workers: how many processes load.
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:workers])
    if data_dir is None:
        batches = public_loader.batches(
            clips, image_size=IMAGE_SIZE, label_size=LABEL_SIZE, num_workers=workers
        )
    else:
        batches = training_batches(data_dir, num_workers=workers)
    _read(batches, SETTLING * workers)
    before, passed, passes = _processor_seconds(), 0.0, 0
    while passed < LEAST:
        passed += _read(batches, len(clips))
        passes += 1
    return Seconds(passed / passes, (_processor_seconds() - before) / passes)


def training_batches(data_dir: Path, *, num_workers: int = 0) -> Iterator[dict[str, Any]]:
    """The training pipeline, one clip in a batch, each with all of its seconds."""
    source = open_source(data_dir, "train")
    return train_loader(
        source,
        task="binary",
        image_size=IMAGE_SIZE,
        label_size=LABEL_SIZE,
        batch_size=1,
        seconds=max(clip.seconds for clip in source.clips),
        sampling="clip",
        shuffle=False,
        bucket_by_length=True,
        num_workers=num_workers,
    )


def _processor_seconds() -> float:
    """Processor time, so far, of this process and of those under it."""
    this = psutil.Process()
    times = [process.cpu_times() for process in (this, *this.children(recursive=True))]
    return sum(each.user + each.system for each in times)


def _read(batches: Iterator[Any], count: int) -> float:
    """Seconds that so many batches take."""
    start = time.perf_counter()
    for _ in range(count):
        next(batches)
    return time.perf_counter() - start
