"""Chunks of clips, read by one process and kept in a file until the data set is written.

A chunk's file is a NumPy archive without pickles. It holds the examples of the clips that could be
read, and for all of them `records`, JSON: what was found and counted.
"""

import dataclasses
import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from data_pipelines.preparing.read import ReadOptions, ReadResult, read_clip
from data_pipelines.reading.raw import Finding, RawClip

CLIPS = 32  # of one chunk
_ARRAYS = ("labelled", "waveform")
_PICTURES = ("frames", "labels")
# What a damaged archive raises.
_DAMAGED = (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile)


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Clips that are read together.

    Attributes:
        clips: of the table, in its order.
        options: how they are stored.
        class_count: K, background counted.
        roots: folders within which their files must lie.
        path: where the file is kept; None: nothing is kept, only counted.
        deadly: (position, why) of clips that no process survives.
    """

    clips: tuple[RawClip, ...]
    options: ReadOptions
    class_count: int
    roots: tuple[Path, ...]
    path: Path | None = None
    deadly: tuple[tuple[int, str], ...] = ()


@dataclasses.dataclass(frozen=True)
class Record:
    """What became of one clip.

    Attributes:
        findings: what was not as it should be.
        facts: as `ReadResult` has them, after a round trip through JSON (class ids are strings),
            and `stored_frames`; empty if and only if the clip was left out.
    """

    findings: tuple[Finding, ...]
    facts: dict[str, Any]

    @property
    def left_out(self) -> bool:
        return not self.facts


def read_chunk(chunk: Chunk, tell: Callable[[int], None] = lambda position: None) -> list[Record]:
    """Reads a chunk, or takes up what was kept of it if its clips' files are still the same.

    Args:
        chunk: what to read.
        tell: is called with the position of each clip before it is read.

    Returns:
        A record of each clip.

    Raises:
        OSError: the file cannot be written.
    """
    # More threads would only hinder each other, and may sum in another order.
    with threadpool_limits(1, user_api="blas"):
        if chunk.path is None:
            return [record for record, _ in _read(chunk, tell)]
        stamp = _stamp(chunk)
        kept = _kept(chunk.path, stamp)
        return _write(chunk, stamp, tell) if kept is None else kept


def examples(path: Path, records: list[Record], clips: tuple[RawClip, ...]) -> Iterator[Any]:
    """The examples in a chunk's file as the builder stores them; None for clips left out."""
    with np.load(path, allow_pickle=False) as archive:
        for position, (clip, record) in enumerate(zip(clips, records, strict=True)):
            if record.left_out:
                yield None
                continue
            example = {name: archive[f"{position}.{name}"] for name in _ARRAYS}
            for name in _PICTURES:
                data = archive[f"{position}.{name}"].tobytes()
                ends = archive[f"{position}.{name}.ends"].tolist()
                example[name] = [data[a:b] for a, b in zip([0, *ends], ends, strict=False)]
            objects = record.facts["objects"]
            yield {"uid": clip.uid, "subset": clip.subset, "objects": objects, **example}


def _read(chunk: Chunk, tell: Callable[[int], None]) -> Iterator[tuple[Record, Any]]:
    """Record and example (or None) of each clip."""
    deadly = dict(chunk.deadly)
    for position, clip in enumerate(chunk.clips):
        tell(position)
        if position in deadly:
            result = _left_out(clip, "process died", f"{deadly[position]}: clip {clip.name}")
        else:
            try:
                result = read_clip(clip, chunk.options, chunk.class_count, chunk.roots)
            except Exception as fault:  # one clip must not end the work on thousands
                what = f"{type(fault).__name__}: {fault}".splitlines()[0]
                result = _left_out(clip, "unexpected fault", f"{what}: clip {clip.name}")
        facts = dict(result.facts)
        if result.example is not None:
            facts["stored_frames"] = len(result.example["frames"])
        # As it is read back from a file, so that it makes no difference whether there was one.
        yield Record(result.findings, json.loads(json.dumps(facts))), result.example


def _left_out(clip: RawClip, code: str, message: str) -> ReadResult:
    return ReadResult(None, (Finding("left out", clip.name, code, message),), {})


def _stamp(chunk: Chunk) -> str:
    """Changes when one of the clips' files does."""
    digest = hashlib.sha256()
    for clip in chunk.clips:
        for path in clip.files:
            try:
                found = os.stat(path)
                told = (found.st_size, found.st_mtime_ns)
            except (OSError, ValueError):
                told = None
            digest.update(repr(told).encode())
    return digest.hexdigest()


def _kept(path: Path, stamp: str) -> list[Record] | None:
    try:
        with np.load(path, allow_pickle=False) as archive:
            kept = json.loads(archive["records"].tobytes())
        if kept["stamp"] != stamp:
            return None
        return [
            Record(tuple(Finding(*finding) for finding in findings), facts)
            for findings, facts in kept["records"]
        ]
    except _DAMAGED:
        return None


def _write(chunk: Chunk, stamp: str, tell: Callable[[int], None]) -> list[Record]:
    """Reads the clips and keeps them, one at a time, so that memory holds no more than one."""
    partial = chunk.path.with_name(f"{chunk.path.name}.partial")
    records = []
    with partial.open("wb") as file:
        with zipfile.ZipFile(file, "w") as archive:
            for position, (record, example) in enumerate(_read(chunk, tell)):
                records.append(record)
                if example is not None:
                    _add_example(archive, position, example)
            told = [[list(map(dataclasses.astuple, r.findings)), r.facts] for r in records]
            _add(archive, "records", _bytes(json.dumps({"stamp": stamp, "records": told}).encode()))
        file.flush()
        os.fsync(file.fileno())  # the name below must not outlive the content
    partial.replace(chunk.path)
    return records


def _add_example(archive: zipfile.ZipFile, position: int, example: dict[str, Any]) -> None:
    for name in _ARRAYS:
        _add(archive, f"{position}.{name}", example[name])
    for name in _PICTURES:
        _add(archive, f"{position}.{name}", _bytes(b"".join(example[name])))
        ends = np.cumsum([len(picture) for picture in example[name]], dtype=np.int64)
        _add(archive, f"{position}.{name}.ends", ends)


def _add(archive: zipfile.ZipFile, name: str, array: np.ndarray) -> None:
    with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
        np.lib.format.write_array(file, array, allow_pickle=False)


def _bytes(data: bytes) -> np.ndarray:
    return np.frombuffer(data, np.uint8)
