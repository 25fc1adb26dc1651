"""Both formats, written beside their place and put there once whole."""

import contextlib
import os
import struct
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from aavs_jax.convert.files.known import STORAGES
from aavs_jax.convert.files.placing import cannot_write, staged
from aavs_jax.errors import UserError

ALIGNMENT = 64  # bytes; as torch aligns storages, so that it can map them
_LARGE = 2**31 - 1  # bytes from which an entry gets ZIP64 sizes
_LOCAL = 30  # bytes of a local header before the name
_ZIP64 = 20  # bytes that `zipfile` puts before our padding for large entries
_PADDING = b"FB"  # the extra field that torch pads with, too

# torch.float32 -> 'FloatStorage', for the dtypes that have a storage of their own.
_STORAGE_NAMES = {
    kind.dtype: name.removeprefix("torch.")
    for name, kind in STORAGES.items()
    if kind.dtype is not None and name.count(".") == 1
}


@contextlib.contextmanager
def _new(path: Path) -> Iterator[Path]:
    """A place to write a file at, which becomes `path` if all goes well, else vanishes."""
    with staged(path) as made:
        try:
            yield made
            with open(made, "rb") as file:
                os.fsync(file.fileno())
        except (OSError, SafetensorError) as error:
            raise cannot_write(path, error) from error


def _dense(array: np.ndarray) -> np.ndarray:
    """The same, C-contiguous and little-endian; `np.ascontiguousarray` would make 0-dim 1-dim."""
    array = np.asarray(array)
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("<"))
    return np.asarray(array, order="C")


def write_safetensors(
    path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
    """Writes a safetensors file by its library, which takes the arrays as they lie in memory.

    Args:
      path: of the file, which is new; its folder exists.
      tensors: arrays by name. Arrays that are not contiguous are copied first, all of them.
      metadata: strings to go along.

    Raises:
      UserError: something is there, or it can't be written.
    """
    path = Path(path)
    dense = {name: _dense(array) for name, array in tensors.items()}
    with _new(path) as made:
        made.touch()
        rights = made.stat().st_mode  # as of any new file; the library keeps others from reading it
        save_file(dense, made, metadata=dict(metadata) or None)
        made.chmod(rights)


def write_torch(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes what torch.load reads as an OrderedDict of contiguous tensors, without torch.

    One array after another is asked for and written, so a lazy mapping is never in memory as a
    whole.

    Args:
      path: of the file, which is new; its folder exists.
      tensors: arrays by name, of the dtypes that torch had storages for before 2.3: floats,
        bfloat16, signed integers, uint8 and bool.

    Raises:
      UserError: something is there, it can't be written, or an array is of another dtype.
    """
    path = Path(path)
    root = "archive"
    described = []
    with (
        _new(path) as made,
        open(made, "wb") as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive,
    ):
        # The pickle follows the storages, since only then all shapes are known.
        for number, (name, array) in enumerate(tensors.items()):
            array = _dense(array)
            if array.dtype not in _STORAGE_NAMES:
                raise UserError(
                    f"{path} can't hold {name!r}: torch files written here have no {array.dtype}"
                )
            # Bytes, because bfloat16 has no buffer protocol.
            numbers = array.reshape(-1).view(np.uint8)
            _entry(archive, file, f"{root}/data/{number}", numbers.data)
            described.append((name, array.dtype, array.shape))
        _entry(archive, file, f"{root}/data.pkl", _pickle(described))
        _entry(archive, file, f"{root}/byteorder", b"little")
        _entry(archive, file, f"{root}/.format_version", b"1")
        _entry(archive, file, f"{root}/.storage_alignment", str(ALIGNMENT).encode())
        _entry(archive, file, f"{root}/version", b"3\n")


def _entry(archive: zipfile.ZipFile, file: BinaryIO, name: str, content: bytes | memoryview):
    """Adds an entry whose content begins at a multiple of `ALIGNMENT`."""
    large = len(content) > _LARGE
    start = file.tell() + _LOCAL + len(name.encode()) + (_ZIP64 if large else 0) + 4
    padding = -start % ALIGNMENT
    info = zipfile.ZipInfo(name)  # dated 1980: the same weights are the same file
    info.extra = struct.pack("<2sH", _PADDING, padding) + b"Z" * padding
    with archive.open(info, "w", force_zip64=large) as entry:
        entry.write(content)


def _integer(number: int) -> bytes:
    """BININT1, BININT or LONG1."""
    if number < 2**8:
        return b"K" + struct.pack("<B", number)
    if number < 2**31:
        return b"J" + struct.pack("<i", number)
    content = number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + struct.pack("<B", len(content)) + content


def _text(text: str) -> bytes:
    """BINUNICODE."""
    content = text.encode()
    return b"X" + struct.pack("<I", len(content)) + content


def _tuple(*items: bytes) -> bytes:
    """MARK, items, TUPLE."""
    return b"(" + b"".join(items) + b"t"


_ORDERED_DICT = b"ccollections\nOrderedDict\n)R"


def _pickle(described: list[tuple[str, np.dtype, tuple[int, ...]]]) -> bytes:
    """Protocol 2 for an OrderedDict of tensors, storage number n belonging to the n-th."""
    parts = [b"\x80\x02", _ORDERED_DICT, b"("]
    for number, (name, dtype, shape) in enumerate(described):
        count = int(np.prod(shape, dtype=np.int64))
        strides, stride = [], 1
        for size in reversed(shape):
            strides.insert(0, stride)
            stride *= max(size, 1)
        storage = _tuple(
            _text("storage"),
            f"ctorch\n{_STORAGE_NAMES[dtype]}\n".encode(),
            _text(str(number)),
            _text("cpu"),
            _integer(count),
        )
        parts += [
            _text(name),
            b"ctorch._utils\n_rebuild_tensor_v2\n",
            _tuple(
                storage + b"Q",
                _integer(0),
                _tuple(*map(_integer, shape)),
                _tuple(*map(_integer, strides)),
                b"\x89",  # requires no gradient
                _ORDERED_DICT,  # no hooks
            ),
            b"R",
        ]
    return b"".join([*parts, b"u."])
