"""Made clips on disk, in AVSBench's unified layout: whole or not at all."""

import contextlib
import csv
import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import soundfile
from PIL import Image
from tqdm import tqdm

from data_pipelines.errors import DataError, reason, remedy, tidy_path
from data_pipelines.facts import avsbench
from data_pipelines.making.compositions import Clip, Composition
from data_pipelines.preparing.workers import starting_processes

MAX_CLIPS = 100_000  # the ids have five digits
MIN_SIZE = 16
MAX_SIZE = 1024  # a clip's frames are drawn in memory, all at once
JPEG_QUALITY = 95
CLIPS_PER_PROCESS = 50  # at least: starting one takes as long as drawing these


def check_numbers(clips: int, size: int, seed: int, workers: int | None, *, least: int) -> None:
    """Raises DataError where a number of the command is out of its range.

    So many clips as `least` are needed for every subset to have every split.
    """
    if workers is not None and workers < 1:
        raise DataError(f"--workers is {workers}; give at least 1.")
    if not least <= clips <= MAX_CLIPS:
        raise DataError(
            f"--clips is {clips}; give between {least} (every subset in every split) and "
            f"{MAX_CLIPS}."
        )
    if not MIN_SIZE <= size <= MAX_SIZE:
        raise DataError(f"--size is {size}; give between {MIN_SIZE} and {MAX_SIZE} pixels.")
    if seed < 0:
        raise DataError(f"--seed is {seed}; give a number that is not negative.")


@contextlib.contextmanager
def whole_folder(out: str | os.PathLike) -> Iterator[Path]:
    """A folder to write into that becomes `out` at the end, or vanishes if the body raises.

    Args:
      out: folder to make; it may exist if it is empty.

    Yields:
      An empty folder beside `out`, so that the last step is one rename. What a killed run left
      there is removed first.

    Raises:
      DataError: `out` is in use, or the body met an OSError (no space, no permission).
    """
    out = tidy_path(Path(out).absolute())
    partial = out.parent / f".{out.name}.partial"
    try:
        if out.is_dir():
            if any(out.iterdir()):
                raise DataError(
                    f"the folder {out} is not empty; name a new one with --out, or empty it first."
                )
        elif out.exists() or out.is_symlink():
            raise DataError(f"{out} is not a folder; name a new one with --out.")
        if partial.exists():
            shutil.rmtree(partial)
        partial.mkdir(parents=True)
        yield partial
        os.replace(partial, out)
    except OSError as error:
        raise DataError(
            f"cannot write the data set to {out}: {reason(error)}; {remedy(error)}, or give --out "
            "another folder"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_clips(
    root: Path,
    plans: Sequence[Composition],
    draw: Callable[[Composition], Clip],
    class_names: Sequence[str],
    *,
    title: str,
    workers: int | None,
    progress: bool,
) -> None:
    """Draws and writes clips, in this process or in several, and the tables.

    Args:
      root: the data folder.
      plans: of all clips, in the order of the table.
      draw: one of them; can be pickled.
      class_names: by class id, without the background.
      title: of the bar.
      workers: processes; None: one for each core, as far as so many clips are worth it. The files
        do not depend on it.
      progress: whether to show a bar.

    Raises:
      DataError: a process was ended from outside.
    """
    if workers is None:
        workers = max(1, min(os.cpu_count() or 1, len(plans) // CLIPS_PER_PROCESS))
    bar = tqdm(total=len(plans), desc=title, unit="clip", disable=not progress)
    steps = _written(plans, (root, draw, 1 + len(class_names)), workers)
    # Closed at once, so that no worker writes any more when the folder is taken away.
    with bar, contextlib.closing(steps):
        for _ in steps:
            bar.update()
    _write_tables(root, class_names, plans)


def _written(plans, arguments: tuple, workers: int) -> Iterator[None]:
    """Draws and writes the clips; yields after each."""
    if workers == 1:
        root, draw, num_classes = arguments
        yield from (write_clip(root, draw(plan), num_classes) for plan in plans)
        return
    # Spawned, not forked: whoever calls may have threads.
    pool = ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), _start_worker, arguments
    )
    try:
        with starting_processes():
            written = pool.map(_write_in_worker, plans, chunksize=4)
        yield from written
    except BrokenProcessPool as fault:
        raise DataError(
            "a process that draws clips was ended from outside, perhaps for want of memory; close "
            "other programs, or make the data set with fewer --workers."
        ) from fault
    finally:
        pool.shutdown(cancel_futures=True)


_worker_arguments: tuple = ()


def _start_worker(*arguments):
    global _worker_arguments
    _worker_arguments = arguments


def _write_in_worker(plan: Composition) -> None:
    root, draw, num_classes = _worker_arguments
    write_clip(root, draw(plan), num_classes)


def _write_tables(root: Path, class_names: Sequence[str], plans: Sequence[Composition]) -> None:
    """Writes label2idx.json and metadata.csv."""
    rows = (
        {
            "vid": plan.vid,
            "uid": plan.uid,
            "s_min": plan.start // 60,
            "s_sec": plan.start % 60,
            "a_obj": plan.a_obj,
            "split": plan.split,
            "label": plan.subset,
        }
        for plan in plans
    )
    write_table(root / avsbench.METADATA_NAME, avsbench.METADATA_COLUMNS, rows)
    indices = {name: i for i, name in enumerate((avsbench.BACKGROUND, *class_names), start=1)}
    text = json.dumps(indices, indent=1) + "\n"
    (root / avsbench.LABEL2IDX_NAME).write_text(text, encoding="utf-8")


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """A CSV file with a header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_clip(root: Path, clip: Clip, num_classes: int) -> None:
    """Writes the files of one clip, of its labels only those of the labelled seconds, into the data
    folder `root`, where it must not be yet."""
    plan = clip.plan
    where = (root, plan.subset, plan.uid)
    for path in (avsbench.frame_path, avsbench.rgb_label_path, avsbench.semantic_label_path):
        path(*where, 0).parent.mkdir(parents=True)
    colours = avsbench.palette(num_classes)
    for t in range(plan.seconds):
        frame = Image.fromarray(clip.frames[t])
        frame.save(avsbench.frame_path(*where, t), quality=JPEG_QUALITY, subsampling=0)
    for t in range(avsbench.labelled_seconds(plan.subset, plan.split)):
        Image.fromarray(colours[clip.labels[t]]).save(avsbench.rgb_label_path(*where, t))
        Image.fromarray(clip.labels[t]).save(avsbench.semantic_label_path(*where, t))
    soundfile.write(avsbench.audio_path(*where), clip.waveform, avsbench.SAMPLE_RATE, "PCM_16")
