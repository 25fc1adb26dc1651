"""Both formats, written to a path at which nothing is (`placing` gives such)."""

import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
from safetensors.numpy import save_file

from aavs_jax.convert.files.known import TYPED_STORAGES
from aavs_jax.errors import UserError

ALIGNMENT = 64  # bytes; as torch aligns storages, so that it can map them
_LARGE = 2**31 - 1  # bytes from which an entry gets ZIP64 sizes
_LOCAL = 30  # bytes of a local header before the name
_ZIP64 = 20  # bytes that `zipfile` puts before our padding for large entries
_PADDING = b"FB"  # the extra field that torch pads with, too
_ROOT = "archive"
_STORAGE_NAMES = {dtype: name for name, dtype in TYPED_STORAGES.items()}


def write_safetensors(
    path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
    """Writes a safetensors file by its library, which takes the arrays as they lie in memory.

    Args:
      path: of the file, which is new; its folder exists.
      tensors: arrays by name. Arrays that are not contiguous are copied first, all of them.
      metadata: strings to go along.

    Raises:
      SafetensorError: the disk is full, or an array is of a dtype that the format does not have.
    """
    dense = {name: _dense(array) for name, array in tensors.items()}
    path.touch()
    rights = path.stat().st_mode  # as of any new file; the library keeps others from reading it
    save_file(dense, path, metadata=dict(metadata) or None)
    path.chmod(rights)


def write_torch(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes what torch.load reads as an OrderedDict of contiguous tensors, without torch.

    One array after another is asked for and written, so a lazy mapping is never in memory as a
    whole.

    Args:
      path: of the file, which is new; its folder exists.
      tensors: arrays by name, of the dtypes that torch had storages for before 2.3: floats,
        bfloat16, signed integers, uint8 and bool.

    Raises:
      UserError: an array is of another dtype.
      OSError: the disk is full.
    """
    described = []
    with open(path, "wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        # The pickle follows the storages, since only then all shapes are known.
        for number, (name, array) in enumerate(tensors.items()):
            array = _dense(array)
            if array.dtype not in _STORAGE_NAMES:
                raise UserError(f"{name!r} is {array.dtype}, which torch files written here lack")
            # Bytes, because bfloat16 has no buffer protocol.
            _entry(archive, file, f"data/{number}", array.reshape(-1).view(np.uint8).data)
            described.append((name, array.dtype, array.shape))
        _entry(archive, file, "data.pkl", _pickle(described))
        _entry(archive, file, "byteorder", b"little")
        _entry(archive, file, "version", b"3\n")


def _dense(array: np.ndarray) -> np.ndarray:
    """The same, C-contiguous and little-endian; `np.ascontiguousarray` would make 0-dim 1-dim."""
    array = np.asarray(array)
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("<"))
    return np.asarray(array, order="C")


def _entry(archive: zipfile.ZipFile, file: BinaryIO, name: str, content: bytes | memoryview):
    """Adds an entry whose content begins at a multiple of `ALIGNMENT`."""
    name, large = f"{_ROOT}/{name}", len(content) > _LARGE
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
        strides = [int(np.prod([max(n, 1) for n in shape[i:]])) for i in range(1, len(shape) + 1)]
        storage = _tuple(
            _text("storage"),
            f"ctorch\n{_STORAGE_NAMES[dtype]}\n".encode(),
            _text(str(number)),
            _text("cpu"),
            _integer(int(np.prod(shape, dtype=np.int64))),
        )
        tensor = _tuple(
            storage + b"Q",
            _integer(0),
            _tuple(*map(_integer, shape)),
            _tuple(*map(_integer, strides)),
            b"\x89",  # requires no gradient
            _ORDERED_DICT,  # no hooks
        )
        parts += [_text(name), b"ctorch._utils\n_rebuild_tensor_v2\n", tensor, b"R"]
    return b"".join([*parts, b"u."])
