"""Command line: python -m data_pipelines.prepare RAW --out DIR

Says what a data folder is and what is wrong with it, and packs it into array_record files.
"""

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_pipelines.errors import DataError, lies_in, reason, remedy, tidy_path
from data_pipelines.media import printable
from data_pipelines.prepared.avs_clips.avs_clips_dataset_builder import (
    Builder,
    check_form,
    is_complete,
)
from data_pipelines.preparing import folder_page, jobs, report_text
from data_pipelines.preparing.jobs import ClipFault, Job
from data_pipelines.preparing.read import ReadOptions
from data_pipelines.reading.layouts.single_plus import single_plus as make_single_plus
from data_pipelines.reading.raw import RawTable
from data_pipelines.reading.recognise import read_table

__all__ = ["Builder", "ClipFault", "check_form", "is_complete", "main", "prepare"]

SIZES = (1, 8192)  # of stored frames, pixels


def prepare(
    raw_dir: str | os.PathLike[str],
    data_dir: str | os.PathLike[str],
    *,
    progress: bool = True,
    strict: bool = True,
    size: int | None = None,
    subsets: Sequence[str] | None = None,
    single_plus: bool = False,
    sounds: str | os.PathLike[str] | None = None,
    stereo: bool | None = None,
    follow_links: bool = False,
    workers: int | None = None,
) -> Path:
    """Makes array_record files of a data folder in any layout that is known, once.

    Called again with the same folder it returns at once, and after a kill it resumes where it was.
    Whether it stops or is killed, what was written is never taken for a data set. Two processes may
    call it at the same time; one waits for the other. The files do not depend on `workers`.

    Args:
        raw_dir: the folder; what is absent of a published set is left out, and said so.
        data_dir: where to write; must not be inside `raw_dir`. The files lie in
            `<data_dir>/avs_clips/<version>`, the report in `<data_dir>/report.json`.
        progress: whether to show progress bars, and what was noticed about the folder as a whole.
        strict: whether the first clip that cannot be used ends it; otherwise such clips are left
            out.
        size: frames are resized to size x size pixels; None: they are stored as they come.
        subsets: those wanted; None: all there are.
        single_plus: make AVSBench-Single+ of AVSBench's v1s clips.
        sounds: VGGSound's recordings, for VPO.
        stereo: whether to keep left and right; None: where the layout says that they mean
            something.
        follow_links: whether links may lead out of `raw_dir`.
        workers: processes that read; None: one for each core.

    Returns:
        The path of the prepared data set.

    Raises:
        DataError: a fault in `raw_dir`; with `strict`, a clip that cannot be used (ClipFault); no
            usable clip; `data_dir` cannot be written (the disk is full, say), or holds a data set
            made from other files.
    """
    job = job_of(
        raw_dir,
        data_dir,
        progress=progress,
        strict=strict,
        size=size,
        subsets=subsets,
        single_plus=single_plus,
        sounds=sounds,
        stereo=stereo,
        follow_links=follow_links,
        workers=workers,
    )
    out = Path(data_dir)
    if progress and not is_complete(Builder(data_dir=out)):
        for finding in job.table.findings:
            if finding.kind == "noticed" and "/" not in finding.clip:
                print(printable(finding.message), file=sys.stderr)
    report = jobs.store(job, out) or jobs.stored_report(job, out)
    if report is not None and strict:
        _check_strictly(report)
    return Path(Builder(data_dir=out).data_path)


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
    """What is asked for, checked; the arguments are those of `prepare`.

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
    table = read_table(raw_dir, sounds=sounds, follow_links=follow_links)
    if single_plus:
        table = make_single_plus(table)
    if subsets:
        table = _only(table, tuple(subsets), raw_dir)
    return Job(
        folder=raw_dir,
        table=table,
        options=ReadOptions(size, table.stereo if stereo is None else stereo, follow_links),
        strict=strict,
        workers=workers or jobs.cores(),
        progress=progress,
    )


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


def _check_strictly(report: dict[str, Any]) -> None:
    for finding in report["findings"]:
        if finding["kind"] == "left out":
            raise ClipFault(finding["message"])


# ---- the command


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: 0, 3 if clips were left out, 2 if nothing could be prepared."""
    options = _parser().parse_args(arguments)
    for name in ("raw", "out", "json", "html", "sounds"):
        given = getattr(options, name)
        if given and given != "-":
            setattr(options, name, os.fspath(tidy_path(given)))
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # names in any alphabet, on any terminal
    try:
        return _run(options)
    except jobs.NothingUsable as fault:
        try:
            _show(fault.report, options, None)
        except DataError as another:
            print(f"error: {printable(another)}", file=sys.stderr)
        print(f"error: {printable(fault)}", file=sys.stderr)
    except DataError as fault:
        print(f"error: {printable(fault)}", file=sys.stderr)
    except KeyboardInterrupt:
        print("stopped: the same command resumes where it was", file=sys.stderr)
        return 130
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m data_pipelines.prepare",
        description="Recognises a data folder (docs/data.md draws the layouts), says what is wrong "
        "with it, and prepares it for training. Exit code: 0 all well, 3 some clips left out, 2 "
        "nothing usable or a fault.",
    )
    parser.add_argument("raw", metavar="RAW", help="the data folder")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--out", metavar="DIR", help="folder for the prepared data")
    where.add_argument(
        "--dry-run", action="store_true", help="read and report everything, write nothing"
    )
    parser.add_argument("--strict", action="store_true", help="stop at the first unusable clip")
    parser.add_argument("--json", metavar="FILE", help="write the whole report, - for stdout")
    parser.add_argument("--html", metavar="FILE", help="write it as a page with sample frames")
    parser.add_argument("--size", type=int, metavar="PX", help="resize frames to PX x PX")
    parser.add_argument("--subsets", nargs="+", metavar="NAME", help="only these, as v1s v1m")
    parser.add_argument(
        "--single-plus", action="store_true", help="make AVSBench-Single+ of AVSBench's v1s clips"
    )
    parser.add_argument("--sounds", metavar="DIR", help="VGGSound's recordings, for VPO")
    parser.add_argument(
        "--stereo",
        action=argparse.BooleanOptionalAction,
        help="keep left and right (default: where the layout says that they mean something)",
    )
    parser.add_argument("--follow-links", action="store_true", help="let links lead out of RAW")
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: all cores)")
    return parser


def _run(options: argparse.Namespace) -> int:
    for option, path in (("--json", options.json), ("--html", options.html)):
        if path is not None and (option, path) != ("--json", "-"):
            _check_report(Path(options.raw), path, option, options.out)
    others = ("raw", "out", "dry_run", "json", "html")
    asked = {name: value for name, value in vars(options).items() if name not in others}
    job = job_of(options.raw, options.out, progress=True, **asked)
    if options.out is None:
        report = jobs.count(job)
    else:
        out = Path(options.out)
        report = jobs.store(job, out)
        if report is None:
            print(f"{out} already holds the data set made from these files", file=sys.stderr)
            report = jobs.stored_report(job, out) or jobs.count(job)
        if options.strict:
            _check_strictly(report)
    _show(report, options, job)
    return report["exit_code"]


def _check_report(raw_dir: Path, path: str, option: str, out: str | None) -> None:
    """That a report can be written is asked before hours of work, not after them."""
    file = Path(path)
    if not path or file.is_dir():
        raise DataError(f"cannot write the report: {option} {path!r} is no file: name one")
    check_apart(raw_dir, file, "a report")
    if out and os.path.realpath(file.parent) == os.path.realpath(out):
        return  # which is made on the way
    if not file.parent.is_dir():
        raise DataError(f"cannot write the report: no folder {file.parent} for {option}: make it")
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        raise DataError(
            f"cannot write the report: {option} {path} may not be written: make it and its folder "
            "writable, or name another file"
        )


def _show(report: dict[str, Any], options: argparse.Namespace, job: Job | None) -> None:
    """Prints the report, and writes it where that was asked for; without a job, no samples."""
    if options.json == "-":
        print(jobs.json_text(report), end="")
    else:
        stored = None if options.dry_run else f"{options.out}/{jobs.REPORT_NAME}"
        details = options.json or stored or "--json"
        print(report_text.text(report, details))
    try:
        if options.json and options.json != "-":
            Path(options.json).write_text(jobs.json_text(report), encoding="utf-8")
        if options.html:
            samples = folder_page.samples(job.table, job.options) if job else []
            Path(options.html).write_text(folder_page.page(report, samples), encoding="utf-8")
    except OSError as fault:
        place = f" ({fault.filename})" if fault.filename else ""
        raise DataError(
            f"cannot write the report: {reason(fault)}{place}: {remedy(fault)}, or name another "
            "file"
        ) from fault


if __name__ == "__main__":
    sys.exit(main())
