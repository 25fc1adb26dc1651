"""Embeddings of every second's sound, kept beside a prepared data set.

An audio encoder that is never trained gives the same embedding for the same sound each time, so
they are computed once:

    <prepared>/embeddings/<digest>/index.json     what the rows are, and of which data set
                                   <split>.npy    float32 [rows, E], clips in the order of the split
                                   silence.npy    float32 [E], of digital silence

The digest is of the encoder's weights and of the front end whose rows it encodes; see `beside`.
"""

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from data_pipelines.errors import DataError
from data_pipelines.facts.avsbench import SAMPLE_RATE
from data_pipelines.prepared import beside
from data_pipelines.prepared.source import ClipSource, heard, open_source, splits

KIND = "embeddings"
SILENCE_NAME = "silence.npy"
INDEX_KEYS = ("fingerprint", "width", "offsets")
BATCH = 64  # rows that are encoded at once

# Rows [n,...] of a front end -> embeddings float32 [n,E].
Encode = Callable[[np.ndarray], np.ndarray]
# What `loading.front_ends.FrontEnd` says: (waveform float32 [S,channels], seconds) -> rows [T,...].
FrontEnd = Callable[[np.ndarray, int], np.ndarray]


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
        index = beside.read_index(folder, INDEX_KEYS)
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
            raise beside.damaged(folder)
        self.silence = beside.load(folder / SILENCE_NAME, (index["width"],))
        self._shape = (offsets[-1], index["width"])
        self._rows = beside.load(self._path, self._shape)

    def __getstate__(self):
        return {**self.__dict__, "_rows": None}  # a worker process maps the file for itself

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._rows = beside.load(self._path, self._shape)

    def __len__(self) -> int:
        return len(self._ranges)

    def __getitem__(self, index: int) -> np.ndarray:
        start, stop = self._ranges[index]
        return np.array(self._rows[start:stop])


def folder_of(data_dir: str | os.PathLike[str], digest: str, front_end: FrontEnd) -> Path:
    """Where the embeddings by an encoder's weights lie, or will lie.

    Args:
        data_dir: as given to `open_source`.
        digest: of the weights.
        front_end: whose rows are encoded, a `loading.front_ends.FrontEnd`.
    """
    return beside.folder_of(data_dir, KIND, f"{digest} {front_end!r}")


def find(data_dir: str | os.PathLike[str], digest: str, front_end: FrontEnd) -> Path | None:
    """The folder of `folder_of`, if it is complete and belongs to what is prepared there now.

    Raises:
        DataError: it is damaged.
    """
    folder = folder_of(data_dir, digest, front_end)
    if not folder.exists():
        return None
    index, there = beside.read_index(folder, INDEX_KEYS), splits(data_dir)
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
    front_end: FrontEnd,
    encode: Encode,
    *,
    progress: Callable[[int], object] = lambda clips: None,
) -> Path:
    """Encodes the sound of every clip of a prepared data set, unless `find` finds it.

    Args:
        data_dir: as given to `open_source`.
        digest: of the encoder's weights.
        front_end: whose rows are encoded, a `loading.front_ends.FrontEnd`.
        encode: called with BATCH rows at a time, or with fewer at the end of a split.
        progress: called with a number of clips when they are done.

    Returns:
        The folder.

    Raises:
        DataError: nothing prepared in `data_dir`.
        OSError: the disk is full or the folder cannot be written.
    """
    folder = folder_of(data_dir, digest, front_end)
    return beside.write_once(
        folder,
        lambda: find(data_dir, digest, front_end),
        lambda partial: _write_all(partial, data_dir, front_end, encode, progress),
    )


def _write_all(folder: Path, data_dir, front_end, encode: Encode, progress) -> dict:
    silence = encode(front_end(np.zeros((SAMPLE_RATE, front_end.channels), np.float32), 1))[0]
    np.save(folder / SILENCE_NAME, silence)
    offsets = {}
    for split in splits(data_dir):
        source = open_source(data_dir, split)
        lengths = [clip.seconds for clip in source.clips]
        offsets[split] = [0, *itertools.accumulate(lengths)]
        rows = [
            np.asarray(encode(some), np.float32) for some in _batches(source, front_end, progress)
        ]
        np.save(folder / f"{split}.npy", np.concatenate(rows))
    return {
        "front_end": repr(front_end),
        "fingerprint": source.fingerprint,
        "width": len(silence),
        "offsets": offsets,
    }


def _batches(source: ClipSource, front_end, progress) -> Iterator[np.ndarray]:
    """The rows of all clips, one clip's after the other's, BATCH at a time, then the rest."""
    waiting: list[np.ndarray] = []
    for index, clip in enumerate(source.clips):
        waveform = heard(clip, source[index]["waveform"], front_end.channels)
        waiting.extend(front_end(waveform, clip.seconds))
        while len(waiting) >= BATCH:
            yield np.stack(waiting[:BATCH])
            del waiting[:BATCH]
        progress(1)
    if waiting:
        yield np.stack(waiting)
