"""The work behind `prepare`: a table of clips becomes a data set and a report, or nothing.

<out>/.work-<fingerprint>/<number>.npz   the clips, while they are read
<out>/avs_clips/<version>/               the data set; has this name when it is complete
<out>/report.json                        what was found
<out>/avs_clips.lock                     held by the process that works here
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data_pipelines.errors import DataError, reason, remedy, tidy_path
from data_pipelines.facts.avsbench import SPLITS
from data_pipelines.prepared.avs_clips.avs_clips_dataset_builder import (
    Builder,
    build,
    clear,
    is_complete,
)
from data_pipelines.preparing.clip_files import Record, Task, example
from data_pipelines.preparing.folder_report import gather
from data_pipelines.preparing.read import ReadOptions
from data_pipelines.preparing.workers import read_clips
from data_pipelines.reading.raw import RawClip, RawTable

FEW = 64  # clips that are read by this process alone: others take a second to start
REPORT_NAME = "report.json"


class ClipFault(DataError):
    """A clip that cannot be used, where every one is wanted."""


class NothingUsable(DataError):
    """Every clip of a folder was left out.

    Attributes:
        report: says why.
    """

    def __init__(self, message: str, report: dict[str, Any]):
        super().__init__(message)
        self.report = report


@dataclasses.dataclass(frozen=True)
class Job:
    """What is to be prepared, and how."""

    folder: Path  # where it came from, for messages
    table: RawTable  # its clips
    options: ReadOptions = ReadOptions()  # how they are stored
    strict: bool = True  # whether the first clip at fault ends it
    workers: int = 1  # processes that read
    progress: bool = True  # whether to show progress bars

    @property
    def fingerprint(self) -> str:
        """Changes with the table and with what is stored of its clips."""
        chosen = sorted({clip.subset for clip in self.table.clips})
        form = str(Builder.VERSION)  # what a run of another version left cannot be resumed
        told = [form, self.table.fingerprint, chosen, *dataclasses.astuple(self.options)]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def store(job: Job, out: Path) -> dict[str, Any] | None:
    """Makes the data set of a job in `out`, unless it is there.

    Whether it stops or is killed, what was written is never taken for a data set. After a kill the
    same call resumes where it was. Two processes may call it at the same time; one waits for the
    other.

    Args:
        job: what to prepare.
        out: where; `Builder(data_dir=out)` opens it afterwards.

    Returns:
        The report, if this call has made the data set.

    Raises:
        DataError: a clip at fault, if the job is strict (ClipFault); no usable clip
            (NothingUsable); `out` cannot be written, or holds a data set of other files.
    """
    work = out / f".work-{job.fingerprint[:16]}"
    report = None
    with _faults_of_writing(job.folder, out):
        builder = Builder(data_dir=out)
        # With the work of a killed run beside it, a complete data set still lacks its report.
        if not is_complete(builder) or work.exists():
            out.mkdir(parents=True, exist_ok=True)
            with _only_one(out / f"{builder.name}.lock"):
                builder = Builder(data_dir=out)
                if not is_complete(builder) or work.exists():  # nobody did it while this one waited
                    report = _store(job, builder, out, work)
    if builder.info.metadata["fingerprint"] != job.fingerprint:
        raise DataError(
            f"{builder.data_path} was prepared from other files than {job.folder} now holds, or "
            "with other options: delete it, or choose another folder for prepared data"
        )
    return report


def count(job: Job) -> dict[str, Any]:
    """The report of a job of which nothing is written.

    Raises:
        DataError: a clip at fault, if the job is strict; no usable clip (NothingUsable).
    """
    report = _report(job, list(_read(job, None)), None)
    if not report["clips"]["usable"]:
        raise _nothing_usable(job, report)
    return report


def stored_report(job: Job, out: Path) -> dict[str, Any] | None:
    """The report that was written when the data set in `out` was made, if it is there."""
    try:
        report = json.loads((out / REPORT_NAME).read_text(encoding="utf-8"))
        return report if report["fingerprint"] == job.fingerprint else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def json_text(report: dict[str, Any]) -> str:
    return json.dumps(report, indent=1) + "\n"


def _store(job: Job, builder: Builder, out: Path, work: Path) -> dict[str, Any]:
    for leftover in out.glob(".work-*"):
        if leftover != work:  # of a run with other options, which nobody can go on with now
            shutil.rmtree(leftover)
    clear(builder)
    work.mkdir(exist_ok=True)
    try:
        records = list(_read(job, work))
        if all(record.left_out for record in records):
            raise _nothing_usable(job, _report(job, records, None))
    except DataError:
        shutil.rmtree(work)
        raise
    if not is_complete(builder):
        _build(builder, job, records, work)
    sizes = [p.stat().st_size for p in Path(builder.data_path).rglob("*") if p.is_file()]
    report = _report(job, records, {"files": len(sizes), "bytes": sum(sizes)})
    partial = out / f".{REPORT_NAME}.partial"
    partial.write_text(json_text(report), encoding="utf-8")
    partial.replace(out / REPORT_NAME)
    shutil.rmtree(work)
    return report


def _read(job: Job, work: Path | None) -> Iterator[Record]:
    """A record of each clip, in the order of the table."""
    if job.strict:
        for finding in job.table.findings:
            if finding.kind == "left out":
                raise ClipFault(finding.message)
    table, total = job.table, len(job.table.clips)
    tasks = [
        Task(clip, job.options, len(table.class_names), table.roots, work and _file(work, number))
        for number, clip in enumerate(table.clips)
    ]
    workers = 1 if total < FEW else job.workers
    with tqdm(total=total, desc="reading", unit="clip", disable=not job.progress) as bar:
        for record in read_clips(tasks, workers):
            bar.update()
            if job.strict and record.left_out:
                raise ClipFault(next(f.message for f in record.findings if f.kind == "left out"))
            yield record


def _file(work: Path, number: int) -> Path:
    """Where a clip is kept."""
    return work / f"{number:06}.npz"


def _build(builder: Builder, job: Job, records: Sequence[Record], work: Path) -> None:
    kept = list(zip(job.table.clips, records, strict=True))
    clips = {
        split: rows
        for split in SPLITS
        if (rows := [_row(c, r) for c, r in kept if c.split == split and not r.left_out])
    }
    metadata = {
        "class_names": list(job.table.class_names),
        "layout": job.table.layout,
        "binary_only": list(job.table.binary_only),
        "stereo": job.options.stereo,
        "size": job.options.size,
        "fingerprint": job.fingerprint,
        "sounds": _digest(records, "sound_digest"),
        "pictures": _digest(records, "frame_digests", "label_digests"),
        "clips": clips,
    }
    examples = {split: _examples(job, records, work, split) for split in clips}
    build(builder, metadata, examples, progress=job.progress)


def _digest(records: Sequence[Record], *facts: str) -> str:
    """Changes with what is heard, or seen, which tables and names do not tell."""
    told = [[record.facts[fact] for fact in facts] for record in records if not record.left_out]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def _row(clip: RawClip, record: Record) -> list[Any]:
    labelled = [second for second, _ in clip.labels]
    facts = record.facts
    return [
        *(clip.subset, clip.uid, facts["objects"], clip.seconds, labelled),
        *(facts["stored_frames"], facts["classes"], facts["ignored_pixels"], facts["mono_is_sum"]),
    ]


def _examples(job: Job, records: Sequence[Record], work: Path, split: str) -> Iterator[Any]:
    """Of one split, in the order of the table."""
    for number, (clip, record) in enumerate(zip(job.table.clips, records, strict=True)):
        if clip.split == split and not record.left_out:
            yield example(_file(work, number), clip, record)


def _report(job: Job, records: Sequence[Record], written) -> dict[str, Any]:
    options = {"stereo": job.options.stereo, "size": job.options.size}
    return gather(
        job.folder,
        job.table,
        records,
        fingerprint=job.fingerprint,
        options=options,
        written=written,
    )


def _nothing_usable(job: Job, report: dict[str, Any]) -> NothingUsable:
    first = next(f["message"] for f in report["findings"] if f["kind"] == "left out")
    count = report["clips"]["left_out"]
    return NothingUsable(
        f"nothing usable in {job.folder}: all its {count} clips were left out, the first because: "
        f"{first}",
        report,
    )


@contextlib.contextmanager
def _only_one(path: Path) -> Iterator[None]:
    """Waits until no other process is inside; the system lifts the lock of one that was killed."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _faults_of_writing(folder: Path, out: Path) -> Iterator[None]:
    """What the system refuses is one sentence."""
    try:
        yield
    except (OSError, RuntimeError) as fault:
        # So array_record's writer reports a full disk and the like.
        said = re.search(r"write\(\) failed: ([^;]+)", str(fault))
        if isinstance(fault, OSError):
            place = f" ({tidy_path(os.fsdecode(fault.filename))})" if fault.filename else ""
            what = f"{reason(fault)}{place}"
        elif said:
            what = said[1]
        else:
            raise
        raise DataError(
            f"cannot prepare {folder} in {out}: {what}: {remedy(fault)}, or choose another folder "
            "for prepared data"
        ) from fault
