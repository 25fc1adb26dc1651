"""What `torch.save` writes since version 1.6: a zip archive of a pickle and a file per storage."""

import io
import struct
import zipfile
from pathlib import Path
from typing import Any

from aavs_jax.convert.files.known import Region, Storage, storage_named
from aavs_jax.convert.files.pickles import MOST_BYTES, Window, interpret
from aavs_jax.convert.files.tensors import BIG_ENDIAN, Unreadable, damaged
from aavs_jax.errors import shown

MOST_TABLE = 2**23  # bytes of an archive's table of contents: more than 50,000 entries of torch's
_HEADER = 30  # bytes before the name of an entry where its content is


def describe(path: Path, buffer: Any) -> Any:
    """The object that was saved, its tensors as `known.Weight`.

    Args:
      path: of the file, for the table of contents.
      buffer: the same file, mapped.

    Raises:
      Unreadable: it is some other archive, damaged, or asks for more than weights need.
    """
    table = _table(path)
    names = [entry.filename for entry in table]
    if not names:
        raise Unreadable("is an empty zip archive: download it again")
    root = names[0].split("/")[0]
    if all(name.endswith(".npy") for name in names):
        raise Unreadable(
            "is a NumPy .npz archive, which is no form of weights known here: get the PyTorch or "
            "safetensors file"
        )
    if f"{root}/data.pkl" not in names:
        raise Unreadable(
            f"is a zip archive without weights of PyTorch ({shown(names[0])}, ...): unpack it, and "
            "give what is inside"
        )
    if f"{root}/constants.pkl" in names or any(n.startswith(f"{root}/code/") for n in names):
        raise Unreadable(
            "is a TorchScript program, not weights alone: save its state_dict() with torch.save"
        )
    files = {entry.filename: _content(entry, buffer) for entry in table}
    order = files.get(f"{root}/byteorder")  # before 2.1 there is none, and all were little-endian
    if order and buffer[order.start : order.start + min(order.size, 10)] != b"little":
        raise Unreadable(BIG_ENDIAN)

    def persistent(identity: object) -> Storage:
        dtype, key, count = storage_named(identity, 5)
        region = files.get(f"{root}/data/{key}")
        if region is None:
            raise damaged(f"the storage {shown(key)} is missing")
        if type(count) is not int or count * dtype.itemsize != region.size:
            raise damaged(f"the storage {shown(key)} is not as long as it says")
        return Storage(dtype, region)

    pickle = files[f"{root}/data.pkl"]
    if pickle.size > MOST_BYTES:
        raise Unreadable(
            f"holds {pickle.size:,} bytes of things other than numbers, which no checkpoint does; "
            "it was not opened: have the state dict alone saved with torch.save"
        )
    return interpret(Window(buffer, pickle.start, pickle.start + pickle.size), persistent)


class _Bounded(io.FileIO):
    """A file for `zipfile`, which reads a table of contents of any length at once."""

    def read(self, count: int = -1) -> bytes:
        if count > MOST_TABLE:
            raise damaged(f"a table of contents of {count:,} bytes")
        return super().read(count)


def _table(path: Path) -> list[zipfile.ZipInfo]:
    """The entries of an archive, none of which is opened."""
    faults = (zipfile.BadZipFile, ValueError, OSError, struct.error, EOFError, OverflowError)
    try:
        with _Bounded(path) as file, zipfile.ZipFile(file) as archive:
            table = archive.infolist()
    except (*faults, NotImplementedError):
        raise damaged("a zip archive without a sound table of contents; cut short?") from None
    if len({entry.filename for entry in table}) < len(table):
        raise damaged("two entries of the same name")
    return table


def _content(entry: zipfile.ZipInfo, buffer: Any) -> Region:
    """Where the content of an entry lies, uncompressed as torch writes it."""
    if entry.compress_type or entry.flag_bits & 1:
        raise Unreadable(
            f"has a compressed or encrypted entry ({shown(entry.filename)}), which torch never "
            "writes; it was not opened: get the file as torch.save wrote it"
        )
    place = entry.header_offset
    head = buffer[place : place + _HEADER] if place >= 0 else b""
    if len(head) < _HEADER or head[:4] != b"PK\x03\x04":
        raise damaged(f"the entry {shown(entry.filename)} is not where its table says")
    start = place + _HEADER + sum(struct.unpack("<2H", head[26:]))
    if entry.compress_size != entry.file_size or start + entry.file_size > len(buffer):
        raise damaged(f"the size of the entry {shown(entry.filename)}")
    return Region(start, entry.file_size, entry.CRC)
