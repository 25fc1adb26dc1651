"""Speed and memory of a way of loading, measured in a process of its own."""

import contextlib
import dataclasses
import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from data_pipelines.benchmark import public_loader
from data_pipelines.loader import open_source, train_loader

IMAGE_SIZE = 384  # pixels; both are the paper's
LABEL_SIZE = 224
EPOCHS = 3  # over which memory is looked at
LEAST = 2.0  # seconds of reading from a warm cache: a few clips are read in no time
SETTLING = 16  # clips for each worker, until what was read ahead is used up


@dataclasses.dataclass(frozen=True)
class Way:
    """A way of loading.

    Attributes:
        name: for people.
        files: all that it reads.
        data_dir: of prepared data; None: the public way.
        clips: what the public way reads.
    """

    name: str
    files: tuple[Path, ...]
    data_dir: Path | None = None
    clips: tuple[public_loader.Files, ...] = ()


@dataclasses.dataclass(frozen=True)
class Seconds:
    """What one pass over all clips takes.

    Attributes:
        cold: with an empty page cache; None: the system lets nobody empty it.
        warm: once more.
        processor: of all cores together, while it was warm: what others do on the same machine
            does not count.
    """

    cold: float | None
    warm: float
    processor: float


def in_a_process(function: Callable, *arguments: Any, **options: Any) -> Any:
    """Calls a function in a new process, which nothing measured before has touched."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments, **options).result()


def speed(way: Way, clips: int, workers: int) -> Seconds:
    """Reads all clips at least twice, with so many worker processes on as many cores.

    What starting takes is not counted: clips are read until the workers are under way and what
    they had read ahead is used up.

    Args:
        way: of loading.
        clips: how many there are.
        workers: how many processes load.
    """
    bind(workers)
    if way.data_dir is None:
        batches = public_loader.batches(
            way.clips, image_size=IMAGE_SIZE, label_size=LABEL_SIZE, num_workers=workers
        )
    else:
        batches = training_batches(way.data_dir, num_workers=workers)
    _read(batches, SETTLING * workers)
    cold = _read(batches, clips) if forget(way.files) else None
    before, warm, passes = processor_seconds(), 0.0, 0
    while warm < LEAST:
        warm += _read(batches, clips)
        passes += 1
    processor = warm * workers if before is None else processor_seconds() - before
    return Seconds(cold, warm / passes, processor / passes)


def memory(data_dir: Path, *, cache: bool, image_size: int = IMAGE_SIZE) -> list[float]:
    """Memory of this process, MB: before anything is read, and after each of three epochs."""
    source = open_source(data_dir, "train")
    batches = training_batches(data_dir, cache=cache, image_size=image_size)
    taken = [resident()]
    for _ in range(EPOCHS):
        _read(batches, len(source))
        taken.append(resident())
    return taken


def training_batches(
    data_dir: Path, *, num_workers: int = 0, cache: bool = False, image_size: int = IMAGE_SIZE
) -> Iterator[dict[str, Any]]:
    """The training pipeline, one clip in a batch, each with all of its seconds."""
    source = open_source(data_dir, "train")
    return train_loader(
        source,
        task="binary",
        image_size=image_size,
        label_size=LABEL_SIZE,
        batch_size=1,
        seconds=max(clip.seconds for clip in source.clips),
        sampling="clip",
        shuffle=False,
        bucket_by_length=True,
        num_workers=num_workers,
        cache=cache,
    )


def bind(count: int) -> None:
    """Binds this process, and those it will start, to so many cores, where the system can."""
    if can_bind():
        os.sched_setaffinity(0, cores()[:count])


def can_bind() -> bool:
    """Whether the system can bind a process to some cores."""
    return hasattr(os, "sched_setaffinity")


def cores() -> list[int]:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def forget(files: Iterable[Path]) -> bool:
    """Asks the system to drop files from its page cache; False if it cannot be asked."""
    if not hasattr(os, "posix_fadvise"):
        return False
    os.sync()  # what has not been written yet would stay
    for path in files:
        number = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(number, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(number)
    return True


def processor_seconds() -> float | None:
    """Processor time, so far, of this process and of those under it; None where it is not told."""
    if sys.platform != "linux":
        return None
    parents, ticks = {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            # The name, in brackets, may hold anything.
            fields = path.read_text().rpartition(")")[2].split()
            number = int(path.parent.name)
            parents[number], ticks[number] = int(fields[1]), int(fields[11]) + int(fields[12])
    mine = {os.getpid()}
    while more := {n for n, parent in parents.items() if parent in mine and n not in mine}:
        mine |= more
    return sum(ticks[number] for number in mine) / os.sysconf("SC_CLK_TCK")


def resident() -> float:
    """Memory of this process, MB: what it holds now, or at most so far where that is not told."""
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3


def _read(batches: Iterator[Any], count: int) -> float:
    """Seconds that so many batches take."""
    start = time.perf_counter()
    for _ in range(count):
        next(batches)
    return time.perf_counter() - start
