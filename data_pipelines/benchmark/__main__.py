"""Command line: python -m data_pipelines.benchmark DIR

How many clips a second this pipeline reads, beside the way public repositories load theirs. All
ways read the same seconds and labels of the same clips, in turns.
"""

import argparse
import dataclasses
import itertools
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from data_pipelines.benchmark import measuring, public_loader
from data_pipelines.benchmark.measuring import IMAGE_SIZE, LABEL_SIZE, Seconds
from data_pipelines.errors import DataError, tidy_path
from data_pipelines.preparing import jobs
from data_pipelines.preparing.jobs import cores
from data_pipelines.preparing.read import ReadOptions
from data_pipelines.reading.raw import RawClip, RawTable
from data_pipelines.reading.recognise import read_table

PUBLIC = "the public way"


def compare(
    raw_dir: Path, *, clips: int, rounds: int, workers: Sequence[int], alone: bool = False
) -> str:
    """Measures all ways in turns.

    Args:
        raw_dir: a data folder in any layout.
        clips: how many are read, at most.
        rounds: how often each way is measured; what is told are medians.
        workers: numbers of worker processes, each on as many cores.
        alone: leave the public way out.

    Returns:
        A table for people.

    Raises:
        DataError: no data set there, none of its clips fit, or PyTorch is missing.
    """
    if not alone:
        # Asked for now: preparing, which comes first, can take minutes.
        public_loader.import_torch()
    raw_dir = tidy_path(raw_dir)
    table = read_table(raw_dir)
    chosen = choose(table, clips)
    frames = sum(len(public_loader.shown(clip)) for clip in chosen)
    passes: dict[tuple[str, int], list[Seconds]] = {}
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        ways = {}
        for name, size in (("as they came", None), (f"--size {IMAGE_SIZE}", IMAGE_SIZE)):
            data_dir = ways[f"this pipeline, frames {name}"] = Path(folder) / str(size)
            prepare_clips(table, chosen, data_dir, size)
        if not alone:
            ways[PUBLIC] = None
        turns = [*itertools.product(range(rounds), workers, ways)]
        for _, count, name in tqdm(turns, "measuring", unit="pass"):
            seconds = measuring.in_a_process(ways[name], chosen, count)
            passes.setdefault((name, count), []).append(seconds)
    head = (
        f"{raw_dir}: {table.layout}; {len(chosen)} clips, {frames} frames shown at "
        f"{IMAGE_SIZE} x {IMAGE_SIZE}, labels at {LABEL_SIZE} x {LABEL_SIZE}, binary; medians of "
        f"{rounds} round(s)"
    )
    speeds = {key: medians(measured) for key, measured in passes.items()}
    return f"{head}\n\n{speed_table(speeds, len(chosen), frames)}"


def choose(table: RawTable, count: int) -> tuple[RawClip, ...]:
    """Clips to measure with, spread evenly over the table.

    Of those whose frames are pictures and whose every second has a label, if there are any, so
    that all that can be read of a clip is read.

    Raises:
        DataError: no clip has pictures, sound and labels.
    """
    fit = [clip for clip in table.clips if clip.frames and clip.sounds and clip.labels]
    whole = [clip for clip in fit if len(clip.labels) == len(clip.frames)] or fit
    there = [clip for clip in whole if all(path.is_file() for path in clip.files)]
    if not there:
        raise DataError(
            "no clip of this folder has its frames as pictures, a sound and labels, which the "
            "public way needs to read: choose another folder"
        )
    count = min(count, len(there))
    return tuple(there[i * len(there) // count] for i in range(count))


def prepare_clips(
    table: RawTable, clips: Sequence[RawClip], data_dir: Path, size: int | None
) -> None:
    """Prepares some clips of a table, all of them to train on, frames `size` pixels (None: as they
    came). Raises DataError where one cannot be read."""
    to_train_on = tuple(dataclasses.replace(clip, split="train") for clip in clips)
    table = dataclasses.replace(table, clips=to_train_on, findings=())
    options = ReadOptions(size, table.stereo)
    job = jobs.Job(table.roots[0], table, options, workers=cores(), progress=False)
    jobs.store(job, data_dir)


def medians(measured: Sequence[Seconds]) -> Seconds:
    """Of several rounds."""
    return Seconds(
        statistics.median(seconds.passed for seconds in measured),
        statistics.median(seconds.processor for seconds in measured),
    )


def speed_table(speeds: dict[tuple[str, int], Seconds], clips: int, frames: int) -> str:
    """A line for each way and number of workers, with how often it is as fast as the public way."""
    lines = [
        f"{'':<34}{'workers':>8}{'clips/s':>9}{'frames/s':>10}{'public way x':>15}",
        f"{'':<34}{'= cores':>8}{'':>9}{'per core':>10}{'clips/s':>8}{'core':>7}",
    ]
    for (name, workers), seconds in sorted(speeds.items(), key=lambda item: item[0][1]):
        line = f"{name:<34}{workers:>8}{clips / seconds.passed:>9.1f}"
        line += f"{frames / seconds.processor:>10.1f}"
        if public := speeds.get((PUBLIC, workers)):
            line += f"{public.passed / seconds.passed:>8.1f}"
            line += f"{public.processor / seconds.processor:>7.1f}"
        lines.append(line)
    return "\n".join([*lines, "Per core: by processor time, in which other programs have no part."])


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: 0, 2 where the request cannot be met, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="python -m data_pipelines.benchmark",
        description="Measures how fast clips are read, beside the way public repositories do it.",
    )
    parser.add_argument("folder", metavar="DIR", type=Path, help="a data folder, as it came")
    parser.add_argument("--clips", type=int, default=64, metavar="N", help="read at most")
    parser.add_argument("--rounds", type=int, default=3, metavar="R", help="of which the median")
    parser.add_argument(
        "--workers",
        type=int,
        nargs="+",
        default=sorted({1, cores()}),
        metavar="W",
        help="worker processes, each on a core of its own (default: 1, and one for each core)",
    )
    parser.add_argument(
        "--alone",
        action="store_true",
        help="measure this pipeline only: the public way needs PyTorch, this one does not",
    )
    options = vars(parser.parse_args(arguments))
    try:
        check_numbers(options["clips"], options["rounds"], options["workers"])
        print(compare(options.pop("folder"), **options))
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped: nothing is kept; the same command measures again", file=sys.stderr)
        return 130
    return 0


def check_numbers(clips: int, rounds: int, workers: Sequence[int]) -> None:
    """Raises DataError where a number is out of its range."""
    for name, number in (("clips", clips), ("rounds", rounds)):
        if number < 1:
            raise DataError(f"--{name} is {number}: give at least 1")
    most = cores()
    for count in workers:
        if not 1 <= count <= most:
            raise DataError(
                f"--workers {count}: give 1 to {most}, as there are so many cores for them"
            )


if __name__ == "__main__":
    sys.exit(main())
