"""Maps of the frames of training clips, by an encoder that does not train, in place of the frames.

They are computed once and kept in memory, or beside the prepared data:

    <prepared>/features/<digest>/index.json    of which data set they are
                                 frames.npy    float32 [frames, numbers], the maps of a frame one
                                               after the other

The digest is of the encoder, of the frames and of the size they are seen at; see `prepared.beside`.
"""

import dataclasses
import errno
import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from data_pipelines.loading.checks import labelled_clips
from data_pipelines.loading.decoding import decode_frame
from data_pipelines.loading.request import seconds_shown, stored_second
from data_pipelines.prepared import beside
from data_pipelines.prepared.source import ClipSource, fingerprint

KIND = "features"
ROWS_NAME = "frames.npy"
BATCH = 4  # frames that are encoded at once

# uint8 [n,S,S,3] -> maps, float32 [n,h,w,C] each.
Encode = Callable[[np.ndarray], Sequence[np.ndarray]]
Progress = Callable[[int], object]


def entry(level: int) -> str:
    """How a batch calls the maps of a level, float32 [B,T,h,w,C], in place of frames."""
    return f"features_{level}"


@dataclasses.dataclass(frozen=True)
class Wanted:
    """The maps of every frame that training on a source may show.

    Attributes:
        source: the clips; those without a label are not trained on.
        sampling: as in `loader.train_loader`.
        image_size: S, pixels.
        shapes: of a frame's maps, [h,w,C] each.
    """

    source: ClipSource
    sampling: str
    image_size: int
    shapes: tuple[tuple[int, int, int], ...]

    @property
    def frames(self) -> list[tuple[int, int]]:
        """(Clip, which of its stored frames), each frame once."""
        found = []
        for index in labelled_clips(self.source):
            clip = self.source.clips[index]
            shown = seconds_shown(clip.labelled, clip.seconds, self.sampling)
            stored = {stored_second(clip, second) for second in shown}
            found += [(index, second) for second in sorted(stored)]
        return found

    @property
    def width(self) -> int:
        """Numbers of a frame."""
        return sum(map(math.prod, self.shapes))

    @property
    def size(self) -> int:
        """Of all maps, bytes."""
        return 4 * len(self.frames) * self.width

    def rows(self, encode: Encode, progress: Progress) -> Iterator[np.ndarray]:
        """The maps of all frames in their order, float32 [up to BATCH, width] at a time."""
        frames = self.frames
        for start in range(0, len(frames), BATCH):
            some = frames[start : start + BATCH]
            pictures = [
                decode_frame(self.source[index]["frames"][second], self.image_size)
                for index, second in some
            ]
            maps = encode(np.stack(pictures))
            yield np.concatenate([each.reshape(len(some), -1) for each in maps], axis=1)
            progress(len(some))


class Features:
    """`features[index, second]`: the maps of a stored frame, float32 [h,w,C] each."""

    def __init__(self, wanted: Wanted, rows: np.ndarray | Path):
        """
        Args:
            wanted: whose maps they are.
            rows: float32 [frames, width] of `wanted`, or the folder that has them. Those of a
                folder are read as they are asked for, and what reads them can be pickled.

        Raises:
            DataError: the folder is damaged.
        """
        self._places = {frame: place for place, frame in enumerate(wanted.frames)}
        self._shapes = wanted.shapes
        self._path = None if isinstance(rows, np.ndarray) else rows / ROWS_NAME
        self._rows = rows if self._path is None else self._mapped()

    def __getstate__(self):
        return self.__dict__ if self._path is None else {**self.__dict__, "_rows": None}

    def __setstate__(self, state):
        self.__dict__.update(state)
        if self._path is not None:  # a worker process maps the file for itself
            self._rows = self._mapped()

    @property
    def entries(self) -> tuple[str, ...]:
        """What a batch calls them."""
        return tuple(entry(level) for level in range(len(self._shapes)))

    def __getitem__(self, frame: tuple[int, int]) -> list[np.ndarray]:
        row = np.array(self._rows[self._places[frame]])
        ends = np.cumsum([math.prod(shape) for shape in self._shapes])[:-1]
        parts = np.split(row, ends)
        return [part.reshape(shape) for part, shape in zip(parts, self._shapes, strict=True)]

    def _mapped(self) -> np.ndarray:
        width = sum(map(math.prod, self._shapes))
        return beside.load(self._path, (len(self._places), width))


def in_memory(wanted: Wanted, encode: Encode, *, progress: Progress = lambda n: None) -> Features:
    """Computes maps into memory.

    Args:
        wanted: which.
        encode: called with up to BATCH frames at a time.
        progress: called with a number of frames when they are done.

    Raises:
        MemoryError: there is not enough.
    """
    rows = np.empty((len(wanted.frames), wanted.width), np.float32)
    start = 0
    for some in wanted.rows(encode, progress):
        rows[start : start + len(some)] = some
        start += len(some)
    return Features(wanted, rows)


def folder_of(data_dir: str | os.PathLike[str], wanted: Wanted, digest: str) -> Path:
    """Where maps lie, or will lie.

    Args:
        data_dir: as given to `open_source`.
        wanted: which.
        digest: of the encoder: its weights, and all else that its maps depend on.
    """
    positions = wanted.source.positions
    frames = [(positions[index], second) for index, second in wanted.frames]
    told = f"{digest} {wanted.source.split} {frames} {wanted.image_size} {wanted.shapes}"
    return beside.folder_of(data_dir, KIND, told)


def find(data_dir: str | os.PathLike[str], wanted: Wanted, digest: str) -> Path | None:
    """The folder of `folder_of`, if it is complete and belongs to what is prepared there now.

    Raises:
        DataError: it is damaged.
    """
    folder = folder_of(data_dir, wanted, digest)
    if not folder.exists():
        return None
    index = beside.read_index(folder, ("fingerprint",))
    return folder if index["fingerprint"] == fingerprint(data_dir) else None


def write(
    data_dir: str | os.PathLike[str],
    wanted: Wanted,
    digest: str,
    encode: Encode,
    *,
    progress: Progress = lambda n: None,
) -> Path:
    """Computes maps into their folder, unless `find` finds it.

    Args:
        data_dir: as given to `open_source`.
        wanted: which.
        digest: as in `folder_of`.
        encode: called with up to BATCH frames at a time.
        progress: called with a number of frames when they are done.

    Returns:
        The folder.

    Raises:
        OSError: there is no room for all of them, or the folder cannot be written.
    """

    def write_all(folder: Path) -> dict[str, str]:
        if shutil.disk_usage(folder).free < wanted.size:  # known before hours are spent
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with open(folder / ROWS_NAME, "wb") as file:
            shape = (len(wanted.frames), wanted.width)
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for rows in wanted.rows(encode, progress):
                file.write(rows.astype("<f4").tobytes())
        return {"fingerprint": fingerprint(data_dir)}

    folder = folder_of(data_dir, wanted, digest)
    return beside.write_once(folder, lambda: find(data_dir, wanted, digest), write_all)
