"""Tensors as views of a mapped file, the state dict they make up, and digests of files."""

import hashlib
import math
import mmap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from aavs_jax.errors import shown

# A tensor may repeat numbers of its storage (torch's expand), which a file could abuse to describe
# arrays of any size: together they may be four times the file, and this much in any case.
REPEATED = 4
SLACK = 2**24  # bytes
MOST_DIMENSIONS = 32
MOST_CHARACTERS = 500  # of a tensor's name


class Unreadable(Exception):
    """Why a file can't be read: the rest of a sentence that begins with its path."""


BIG_ENDIAN = "was written on a big-endian machine: load and save it again with torch on this one"


def damaged(detail: str) -> Unreadable:
    """The error for a file that is not as any writer would have left it."""
    return Unreadable(f"is damaged ({detail}): download it or copy it again")


@dataclass(frozen=True)
class Tensor:
    """Where a tensor lies in a mapped file.

    Attributes:
      shape: sizes of its dimensions.
      dtype: of its elements; `ml_dtypes.bfloat16` for that.
      buffer: the mapped file.
      start: byte at which its first element lies; the bounds were checked when this was made.
      strides: bytes from element to element, per dimension.
      check: raises UserError if the bytes are not those that were written; None where nobody knows.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    buffer: Any = field(repr=False, compare=False)
    start: int = field(repr=False, compare=False)
    strides: tuple[int, ...] = field(repr=False, compare=False)
    check: Callable[[], None] | None = field(default=None, repr=False, compare=False)

    def read(self) -> np.ndarray:
        """The numbers: a read-only view of the file, which may be strided and unaligned.

        Raises:
          UserError: they are damaged.
        """
        if not math.prod(self.shape):  # may lie at the very end, where NumPy makes no view
            return np.empty(self.shape, self.dtype)
        if self.check:
            self.check()
        return np.ndarray(self.shape, self.dtype, self.buffer, self.start, self.strides)

    def release(self) -> None:
        """Lets the memory of the pages go that `read` brought in; they are read again if needed.

        Mapped pages count as the process's memory until something else needs it, so whoever goes
        through a large file and keeps copies would otherwise seem to hold it twice.
        """
        if math.prod(self.shape):
            reach = sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
            begin = self.start // mmap.PAGESIZE * mmap.PAGESIZE
            stop = self.start + reach + self.dtype.itemsize
            self.buffer.madvise(mmap.MADV_DONTNEED, begin, stop - begin)


def tensor(
    buffer: Any,
    region: tuple[int, int],
    dtype: np.dtype,
    offset: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...] | None,
    check: Callable[[], None] | None = None,
) -> Tensor:
    """A view of part of a file, if it lies within.

    Args: as in Tensor, but for
      region: first byte of the storage, and its bytes, both known to lie in the file.
      offset: of the first element, in elements from the storage's start.
      strides: in elements, not negative; None for an array in C order.

    Raises:
      Unreadable: it would leave the storage.
    """
    if len(shape) > MOST_DIMENSIONS:
        raise damaged(f"a tensor of {len(shape)} dimensions")
    if strides is None:
        strides = tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
    if len(shape) != len(strides):
        raise damaged(f"a tensor of {len(shape)} dimensions and {len(strides)} strides")
    if not math.prod(shape):
        return Tensor(shape, dtype, buffer, 0, (0,) * len(shape))
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    if (last + 1) * dtype.itemsize > region[1]:
        raise damaged("a tensor that reaches beyond its storage")
    # Along a dimension of one element nothing ever strides, and torch notes what it likes.
    steps = (s * dtype.itemsize if n > 1 else 0 for n, s in zip(shape, strides, strict=True))
    return Tensor(shape, dtype, buffer, region[0] + offset * dtype.itemsize, tuple(steps), check)


def check_sound(tensors: Mapping[str, Tensor], size: int) -> None:
    """Refuses names that would spoil a terminal or a report, and tensors beyond all memory.

    Args:
      tensors: all of a file.
      size: bytes of the file.

    Raises:
      Unreadable: there is such a name, or the tensors are together many times larger than the file.
    """
    total = 0
    for name, value in tensors.items():
        if not name or not name.isprintable() or len(name) > MOST_CHARACTERS:
            raise damaged(f"a tensor named {shown(name)}")
        # Sides of 0 count as 1: NumPy refuses what is empty and yet too wide.
        total += math.prod(max(side, 1) for side in value.shape) * value.dtype.itemsize
    if total > REPEATED * size + SLACK:
        raise damaged("its tensors are together many times larger than the file")


@dataclass(frozen=True)
class StateDict:
    """The weights in a file or a folder of shards.

    Attributes:
      tensors: by their names in the file, less what `wrapping` says.
      form: 'torch', 'torch (before 1.6)' or 'safetensors'.
      wrapping: what was taken off, for people: "under 'state_dict'; prefix 'module.'"; else ''.
      besides: what else the file holds that is no weight: place -> what it is.
      metadata: the strings that a safetensors file carries.
      files: what was read.
    """

    tensors: dict[str, Tensor]
    form: str
    wrapping: str
    besides: dict[str, str]
    metadata: dict[str, str]
    files: tuple[Path, ...]

    @property
    def bytes(self) -> int:
        """Of all files together."""
        return sum(path.stat().st_size for path in self.files)


def digest(files: Iterable[Path]) -> list[dict[str, str | int]]:
    """Name, bytes and SHA-256 of each file, read in blocks."""
    found = []
    for path in files:
        with open(path, "rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        found.append(
            {"name": Path(path).name, "bytes": Path(path).stat().st_size, "sha256": sha256}
        )
    return found
