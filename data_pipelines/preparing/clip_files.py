"""Clips that were read, each kept in a file until the data set is written.

A file is a NumPy archive without pickles. It holds the example, if the clip could be read, and
`record`, JSON: what was found and counted.
"""

import dataclasses
import hashlib
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.preparing.read import ReadOptions, ReadResult, read_clip
from data_pipelines.reading.raw import Finding, RawClip

_ARRAYS = ("labelled", "waveform")
_PICTURES = ("frames", "labels")
# What a damaged archive raises.
_DAMAGED = (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile)


@dataclasses.dataclass(frozen=True)
class Task:
    """A clip to be read."""

    clip: RawClip
    options: ReadOptions  # how it is stored
    class_count: int  # K, background counted
    roots: tuple[Path, ...]  # folders within which its files must lie
    path: Path | None = None  # where it is kept; None: it is only counted


@dataclasses.dataclass(frozen=True)
class Record:
    """What became of one clip."""

    findings: tuple[Finding, ...]  # what was not as it should be
    # As `ReadResult` has them, after a round trip through JSON (class ids are strings), and
    # `stored_frames`; empty if and only if the clip was left out.
    facts: dict[str, Any]

    @property
    def left_out(self) -> bool:
        return not self.facts


def read(task: Task) -> Record:
    """Reads a clip, or takes up what was kept of it if its files are still the same.

    Raises:
        OSError: what is kept cannot be written.
    """
    if task.path is None:
        return _read(task)[0]
    stamp = _stamp(task.clip)
    record = _kept(task.path, stamp)
    if record is None:
        record, example = _read(task)
        _write(task.path, stamp, record, example)
    return record


def example(path: Path, clip: RawClip, record: Record) -> dict[str, Any]:
    """What was kept of a clip that was not left out, as the builder stores it."""
    with np.load(path, allow_pickle=False) as archive:
        found = {name: archive[name] for name in _ARRAYS}
        for name in _PICTURES:
            data, ends = archive[name].tobytes(), archive[f"{name}.ends"].tolist()
            found[name] = [data[a:b] for a, b in zip([0, *ends], ends, strict=False)]
    return {"uid": clip.uid, "subset": clip.subset, "objects": record.facts["objects"], **found}


def left_out(clip: RawClip, code: str, message: str) -> Record:
    """The record of a clip of which nothing is known but why it is left out."""
    return Record((Finding("left out", clip.name, code, f"{message}: clip {clip.name}"),), {})


def _read(task: Task) -> tuple[Record, dict[str, Any] | None]:
    try:
        result: ReadResult = read_clip(task.clip, task.options, task.class_count, task.roots)
    except Exception as fault:  # one clip must not end the work on thousands
        what = f"{type(fault).__name__}: {fault}".splitlines()[0]
        return left_out(task.clip, "unexpected fault", what), None
    facts = dict(result.facts)
    if result.example is not None:
        facts["stored_frames"] = len(result.example["frames"])
    # As it is read back from a file, so that it makes no difference whether there was one.
    return Record(result.findings, json.loads(json.dumps(facts))), result.example


def _stamp(clip: RawClip) -> str:
    """Changes when one of the clip's files does."""
    digest = hashlib.sha256()
    for path in clip.files:
        try:
            found = os.stat(path)
            told = (found.st_size, found.st_mtime_ns)
        except (OSError, ValueError):
            told = None
        digest.update(repr(told).encode())
    return digest.hexdigest()


def _kept(path: Path, stamp: str) -> Record | None:
    try:
        with np.load(path, allow_pickle=False) as archive:
            kept = json.loads(archive["record"].tobytes())
        if kept["stamp"] != stamp:
            return None
        return Record(tuple(Finding(*finding) for finding in kept["findings"]), kept["facts"])
    except _DAMAGED:
        return None


def _write(path: Path, stamp: str, record: Record, example: dict[str, Any] | None) -> None:
    findings = [dataclasses.astuple(finding) for finding in record.findings]
    told = {"stamp": stamp, "findings": findings, "facts": record.facts}
    arrays = {"record": _bytes(json.dumps(told).encode())}
    if example is not None:
        arrays |= {name: example[name] for name in _ARRAYS}
        for name in _PICTURES:
            arrays[name] = _bytes(b"".join(example[name]))
            lengths = [len(picture) for picture in example[name]]
            arrays[f"{name}.ends"] = np.cumsum(lengths, dtype=np.int64)
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("wb") as file:
        np.savez(file, **arrays)
    partial.replace(path)


def _bytes(data: bytes) -> np.ndarray:
    return np.frombuffer(data, np.uint8)
