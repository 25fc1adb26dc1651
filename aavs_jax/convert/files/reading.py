"""Any one file, recognised by its content, never by its name."""

import codecs
import contextlib
import functools
import mmap
import os
import stat
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aavs_jax.convert.files import safetensors_file, torch_legacy, torch_zip
from aavs_jax.convert.files.known import Region
from aavs_jax.convert.files.tensors import (
    Tensor,
    Unreadable,
    check_names,
    check_total,
    quoted,
    tensor,
)
from aavs_jax.convert.files.unwrapping import unwrap
from aavs_jax.errors import UserError

HEAD = 1024  # bytes that tell what a file is

_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"7z\xbc\xaf", b"Rar!")
_STRANGERS = [
    (
        b"version https://git-lfs",
        "a Git LFS pointer, not the file itself: run `git lfs pull` there",
    ),
    (
        b"\x89HDF\r\n\x1a\n",
        "an HDF5 file of Keras or TensorFlow: get the PyTorch or safetensors file",
    ),
    (b"\x93NUMPY", "a NumPy array, no network's weights: get the PyTorch or safetensors file"),
    (b"GGUF", "a GGUF file: get the PyTorch or safetensors file"),
    *((mark, "compressed: unpack it, and give what is inside") for mark in _COMPRESSED),
]


@dataclass(frozen=True)
class Raw:
    """What one file holds, with its names as they are."""

    tensors: dict[str, Tensor]
    form: str
    under: list[str]
    besides: dict[str, str]
    metadata: dict[str, str]
    bytes: int


def sniff(path: Path) -> str:
    """'zip', 'pickle', 'safetensors' or '' by the first bytes, '' for what is no file, too."""
    try:
        if not path.is_file():
            return ""
        with open(path, "rb") as file:
            head = file.read(HEAD)
    except OSError:
        return ""
    return _form(head)


def _form(head: bytes) -> str:
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    if safetensors_file.looks_like(head):
        return "safetensors"
    # Protocol 0 and 1 have no mark; torch has never written them unless asked to.
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "pickle"
    return ""


def read_file(path: Path) -> Raw:
    """Reads one file of weights; the tensors stay in the file until they are asked for.

    Raises:
      UserError: it is missing, can't be read, or is no file of weights.
    """
    with refusing(path):
        with open(path, "rb", opener=_open) as file:
            size = os.fstat(file.fileno()).st_size
            if not size:
                raise Unreadable("is empty: download it again")
            buffer = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return _read(path, buffer)


@contextlib.contextmanager
def refusing(path: Path) -> Iterator[None]:
    """Whatever keeps a file or folder from being read inside becomes one sentence, a UserError."""
    try:
        yield
    except Unreadable as error:
        raise UserError(f"{path} {error}") from None
    except (OSError, ValueError) as error:
        reason = (error.strerror or error) if isinstance(error, OSError) else error
        raise UserError(
            f"{path} can't be read ({reason}): check the path and its permissions"
        ) from None


def _open(path: str, flags: int) -> int:
    """Opens what is an ordinary file; a pipe would wait for a writer for ever."""
    found = os.open(path, flags | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(found).st_mode):
        os.close(found)
        raise Unreadable("is no ordinary file: give a file of weights, or a folder with one")
    return found


def _read(path: Path, buffer: Any) -> Raw:
    form = _form(buffer[:HEAD])
    if form == "safetensors":
        tensors, metadata = safetensors_file.describe(path, buffer)
        check_names(tensors)
        return Raw(tensors, "safetensors", [], {}, metadata, len(buffer))
    if not form:
        raise Unreadable(_stranger(buffer[:HEAD]))
    found = unwrap((torch_zip if form == "zip" else torch_legacy).describe(buffer))
    tensors = {}
    check = _checker(path, buffer)
    for name, weight in found.weights.items():
        region = weight.storage.region
        place = region.start + weight.storage.skip, region.size - weight.storage.skip
        tensors[name] = tensor(
            buffer,
            place,
            weight.dtype,
            weight.offset,
            weight.shape,
            weight.strides,
            functools.partial(check, region),
        )
    check_names(tensors)
    check_total(tensors, len(buffer))
    form = "torch" if form == "zip" else "torch (before 1.6)"
    return Raw(tensors, form, found.under, found.besides, {}, len(buffer))


def _checker(path: Path, buffer: Any) -> Callable[[Region], None]:
    """A function that raises UserError if a region's CRC-32 is not as noted; looks at each once."""
    sound: set[int] = set()

    def check(region: Region) -> None:
        if not region.crc or region.start in sound:
            return
        with memoryview(buffer) as whole, whole[region.start :][: region.size] as part:
            found = zlib.crc32(part)
        if found != region.crc:
            raise UserError(
                f"{path} is damaged (the check sum of its numbers differs): download it again"
            )
        sound.add(region.start)

    return check


def _stranger(head: bytes) -> str:
    """What a file is that holds no weights, as the rest of a sentence."""
    for mark, title in _STRANGERS:
        if head.startswith(mark):
            return f"is {title}"
    if head[257:262] == b"ustar":
        return (
            "is a tar archive: unpack it; if torch 0.1 wrote it, load and save it again with a "
            "newer torch"
        )
    start = head.removeprefix(codecs.BOM_UTF8).lstrip()
    if start.startswith(b"<"):
        return (
            "is a web page, not weights: the link led to a page with the download (or a log-in) on "
            "it, so fetch the file itself"
        )
    if start.startswith((b"{", b"[")):
        return "is JSON text, not weights: give the file or folder that it belongs to"
    if not head.strip(b"\0"):
        return "holds nothing but zeros, a download that was broken off: download it again"
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # may end within a character
    except UnicodeDecodeError:
        return (
            f"is no file of weights that is known here (it begins with {head[:8].hex(' ')}): give "
            "one of PyTorch or safetensors"
        )
    return f"is text, not weights (it begins with {quoted(text[:40])}): download it again"
