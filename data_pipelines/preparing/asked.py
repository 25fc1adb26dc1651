"""From what a user asks for to a job."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from data_pipelines.errors import DataError, lies_in
from data_pipelines.preparing.jobs import Job
from data_pipelines.preparing.read import ReadOptions
from data_pipelines.reading.layouts.single_plus import single_plus as make_single_plus
from data_pipelines.reading.raw import RawTable
from data_pipelines.reading.recognise import read_table

SIZES = (1, 8192)  # of stored frames, pixels


def job_of(
    raw_dir: str | os.PathLike[str],
    data_dir: str | os.PathLike[str] | None,
    *,
    progress: bool,
    strict: bool = True,
    size: int | None = None,
    subsets: Sequence[str] | None = None,
    single_plus: bool = False,
    sounds: str | os.PathLike[str] | None = None,
    stereo: bool | None = None,
    follow_links: bool = False,
    workers: int | None = None,
) -> Job:
    """What is asked for, checked; the arguments are those of `data_pipelines.prepare.prepare`.

    Raises:
        DataError: an argument that cannot be, or a fault in `raw_dir`.
    """
    raw_dir = Path(raw_dir)
    if size is not None and not SIZES[0] <= size <= SIZES[1]:
        raise DataError(f"size is {size}: give between {SIZES[0]} and {SIZES[1]} pixels")
    if workers is not None and workers < 1:
        raise DataError(f"workers is {workers}: give at least 1")
    if data_dir is not None:
        if not os.fspath(data_dir):
            raise DataError("the folder for the prepared data has an empty name: give another")
        check_apart(raw_dir, Path(data_dir), "prepared data")
    table = read_table(
        raw_dir, sounds=None if sounds is None else Path(sounds), follow_links=follow_links
    )
    if single_plus:
        table = make_single_plus(table)
    if subsets:
        table = _only(table, tuple(subsets), raw_dir)
    return Job(
        folder=raw_dir,
        table=table,
        options=ReadOptions(size, table.stereo if stereo is None else stereo, follow_links),
        strict=strict,
        workers=workers or cores(),
        progress=progress,
    )


def cores() -> int:
    """How many this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def check_apart(raw_dir: Path, path: Path, what: str) -> None:
    """Raises DataError where a path lies inside a user's data, into which nothing is written."""
    if lies_in(path, raw_dir):
        raise DataError(
            f"{what} cannot be written to {path}, which is inside the data folder {raw_dir}: "
            "choose a folder elsewhere"
        )


def _only(table: RawTable, subsets: tuple[str, ...], raw_dir: Path) -> RawTable:
    present = list(dict.fromkeys(clip.subset for clip in table.clips))
    for subset in subsets:
        if subset not in present:
            raise DataError(f"no clips of {subset} in {raw_dir}: it has {', '.join(present)}")
    return dataclasses.replace(
        table,
        clips=tuple(clip for clip in table.clips if clip.subset in subsets),
        binary_only=tuple(subset for subset in table.binary_only if subset in subsets),
        expected={key: count for key, count in table.expected.items() if key[0] in subsets},
        findings=tuple(f for f in table.findings if f.clip.split("/")[0] in ("", *subsets)),
    )
