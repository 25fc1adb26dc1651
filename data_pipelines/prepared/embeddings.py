"""Embeddings of every second's sound, kept beside a prepared data set.

An audio encoder that is never trained gives the same embedding for the same log-mel example each
time, so they are computed once:

    <prepared>/embeddings/<digest>/index.json     what the rows are, and of which data set
                                   <split>.npy    float32 [rows, E], clips in the order of the split
                                   silence.npy    float32 [E], of digital silence

The folder's name is the beginning of a digest of the encoder's weights, so that what different
weights gave is never mixed up. It gets that name when it is complete.
"""

import fcntl
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from data_pipelines.audio import silence_example
from data_pipelines.errors import DataError
from data_pipelines.prepared.source import ClipSource, open_source, splits

INDEX_NAME = "index.json"
SILENCE_NAME = "silence.npy"
DIGEST_LETTERS = 16  # of the digest in a folder's name
BATCH = 64  # examples that are encoded at once

# Log-mel examples float32 [n,96,64] -> embeddings float32 [n,E].
Encode = Callable[[np.ndarray], np.ndarray]


class Embeddings:
    """The embeddings of a source's clips, read from the disk as they are asked for; can be pickled.

    `embeddings[i]` is float32 [T,E], a row for each second of `source.clips[i]`.

    Attributes:
        silence: float32 [E], of digital silence.
    """

    def __init__(self, folder: str | os.PathLike[str], source: ClipSource):
        """Opens a folder for the clips of a source, which may be some of a split's.

        Args:
            folder: as returned by `write`.
            source: clips of the data set that the folder belongs to.

        Raises:
            DataError: nothing readable there, or it belongs to another data set.
        """
        folder = Path(folder)
        index = _read_index(folder)
        if index["fingerprint"] != source.fingerprint:
            raise DataError(
                f"the embeddings in {folder} belong to another data set than the one beside them: "
                "delete that folder, and they are computed anew"
            )
        offsets = index["offsets"].get(source.split, [])
        chosen = [offsets[position : position + 2] for position in source.positions]
        lengths = [clip.seconds for clip in source.clips]
        self._path = folder / f"{source.split}.npy"
        self._ranges = np.array([pair for pair in chosen if len(pair) == 2], np.int64)
        if [stop - start for start, stop in self._ranges] != lengths:
            raise _damaged(folder)
        self.silence = _load(folder / SILENCE_NAME, (index["width"],))
        self._shape = (offsets[-1], index["width"])
        self._rows = _load(self._path, self._shape)

    def __getstate__(self):
        return {**self.__dict__, "_rows": None}  # a worker process maps the file for itself

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._rows = _load(self._path, self._shape)

    def __len__(self) -> int:
        return len(self._ranges)

    def __getitem__(self, index: int) -> np.ndarray:
        start, stop = self._ranges[index]
        return np.array(self._rows[start:stop])


def folder_of(data_dir: str | os.PathLike[str], digest: str) -> Path:
    """Where the embeddings by an encoder's weights lie, or will lie.

    Args:
        data_dir: as given to `open_source`.
        digest: of the weights, hexadecimal.
    """
    return Path(data_dir) / "embeddings" / digest[:DIGEST_LETTERS]


def find(data_dir: str | os.PathLike[str], digest: str) -> Path | None:
    """The folder of `folder_of`, if it is complete and belongs to what is prepared there now.

    Raises:
        DataError: it is damaged.
    """
    folder = folder_of(data_dir, digest)
    if not folder.exists():
        return None
    index, there = _read_index(folder), splits(data_dir)
    # A data set that was mended and prepared again may have gained clips.
    same = {split: len(offsets) - 1 for split, offsets in index["offsets"].items()} == there
    same &= index["fingerprint"] == open_source(data_dir, next(iter(there))).fingerprint
    return folder if same else None


def count(data_dir: str | os.PathLike[str]) -> int:
    """How many clips `write` goes through."""
    return sum(splits(data_dir).values())


def write(
    data_dir: str | os.PathLike[str],
    digest: str,
    encode: Encode,
    *,
    progress: Callable[[int], object] = lambda clips: None,
) -> Path:
    """Encodes the sound of every clip of a prepared data set, unless `find` finds it.

    Of processes that ask for the same at the same time one does it and the others wait. One that
    is killed leaves nothing that is taken for complete.

    Args:
        data_dir: as given to `open_source`.
        digest: of the encoder's weights, hexadecimal; names the folder.
        encode: called with BATCH examples at a time, or with fewer at the end of a split.
        progress: called with a number of clips when they are done.

    Returns:
        The folder.

    Raises:
        DataError: nothing prepared in `data_dir`.
        OSError: the disk is full or the folder cannot be written.
    """
    folder = folder_of(data_dir, digest)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.parent / "writing.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the system lifts the lock of one that was killed
        if find(data_dir, digest):  # written while this one waited
            return folder
        shutil.rmtree(folder, ignore_errors=True)  # of data that was prepared there before
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        try:
            _write_all(partial, data_dir, digest, encode, progress)
            os.replace(partial, folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return folder


def _write_all(folder: Path, data_dir, digest: str, encode: Encode, progress) -> None:
    silence = encode(silence_example()[None])[0]
    np.save(folder / SILENCE_NAME, silence)
    offsets = {}
    for split in splits(data_dir):
        source = open_source(data_dir, split)
        lengths = [clip.seconds for clip in source.clips]
        offsets[split] = [0, *itertools.accumulate(lengths)]
        # Not through a memory map: there a full disk is a bus error, which nobody can report.
        with open(folder / f"{split}.npy", "wb") as file:
            header = {
                "descr": np.lib.format.dtype_to_descr(np.dtype(np.float32)),
                "fortran_order": False,
                "shape": (offsets[split][-1], len(silence)),
            }
            np.lib.format.write_array_header_1_0(file, header)
            for examples in _batches(source, progress):
                file.write(np.ascontiguousarray(encode(examples), np.float32).data)
            file.flush()
            os.fsync(file.fileno())
    index = {
        "digest": digest,
        "fingerprint": source.fingerprint,
        "width": len(silence),
        "offsets": offsets,
    }
    (folder / INDEX_NAME).write_text(json.dumps(index))


def _batches(source: ClipSource, progress) -> Iterator[np.ndarray]:
    """The examples of all clips, one clip's after the other's, BATCH at a time, then the rest."""
    waiting: list[np.ndarray] = []
    for index, clip in enumerate(source.clips):
        examples = source[index]["audio"]
        if len(examples) != clip.seconds:
            raise DataError(
                f"clip {clip.name} has {len(examples)} log-mel examples for {clip.seconds} "
                "seconds: delete the prepared data set and prepare it again"
            )
        waiting.extend(examples)
        while len(waiting) >= BATCH:
            yield np.stack(waiting[:BATCH])
            del waiting[:BATCH]
        progress(1)
    if waiting:
        yield np.stack(waiting)


def _read_index(folder: Path) -> dict:
    try:
        index = json.loads((folder / INDEX_NAME).read_text())
        if not index.keys() >= {"fingerprint", "width", "offsets"}:
            raise ValueError("keys missing")
    except FileNotFoundError as fault:
        raise DataError(f"no embeddings in {folder}: compute them first") from fault
    except (OSError, ValueError, AttributeError) as fault:
        raise _damaged(folder) from fault
    return index


def _load(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """A file of float32, mapped into memory; it has to have this shape, and all its rows."""
    try:
        array = np.load(path, mmap_mode="r")
    except (OSError, ValueError) as fault:
        raise _damaged(path.parent) from fault
    if array.shape != shape or array.dtype != np.float32:
        raise _damaged(path.parent)
    return array


def _damaged(folder: Path) -> DataError:
    return DataError(
        f"the embeddings in {folder} are damaged or incomplete: delete that folder, and they are "
        "computed anew"
    )
