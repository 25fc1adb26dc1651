"""Any one file, recognised by its content, never by its name."""

import codecs
import contextlib
import functools
import mmap
import os
import stat
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from aavs_jax.convert.files import safetensors_file, torch_legacy, torch_zip
from aavs_jax.convert.files.known import Region, Weight
from aavs_jax.convert.files.tensors import (
    StateDict,
    Tensor,
    Unreadable,
    check_sound,
    tensor,
)
from aavs_jax.convert.files.unwrapping import unwrap
from aavs_jax.errors import UserError, shown
from aavs_jax.weights.foreign import HEAD, form_of

_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"7z\xbc\xaf", b"Rar!")
# What a file of something else begins with -> the rest of the sentence "FILE is ...".
_STRANGERS = {
    b"version https://git-lfs": "a Git LFS pointer, not the file itself: run `git lfs pull` there",
    b"\x89HDF": "an HDF5 file of Keras or TensorFlow: get the PyTorch or safetensors file",
    b"\x93NUMPY": "a NumPy array, no network's weights: get the PyTorch or safetensors file",
    b"GGUF": "a GGUF file: get the PyTorch or safetensors file",
    **dict.fromkeys(_COMPRESSED, "compressed: unpack it, and give what is inside"),
}
_TEXTS = {
    b"<": "a web page, not weights: the link led to a page with the download (or a log-in) on it, "
    "so fetch the file itself",
    b"{": "JSON text, not weights: give the file or folder that it belongs to",
    b"[": "JSON text, not weights: give the file or folder that it belongs to",
}


def read_file(path: Path) -> StateDict:
    """Reads one file of weights; the tensors stay in the file until they are asked for.

    Returns:
      Its tensors by their names as they are there.

    Raises:
      UserError: it is missing, can't be read, or is no file of weights.
    """
    with refusing(path):
        with open(path, "rb", opener=_open) as file:
            if not os.fstat(file.fileno()).st_size:
                raise Unreadable("is empty: download it again")
            buffer = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        found = _read(path, buffer)
        check_sound(found.tensors, len(buffer))
        return found


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


def _read(path: Path, buffer: Any) -> StateDict:
    form = form_of(buffer[:HEAD])
    if form == "safetensors":
        tensors, metadata = safetensors_file.describe(path, buffer)
        return StateDict(tensors, form, "", {}, metadata, (path,))
    if form == "zip":
        form, value = "torch", torch_zip.describe(path, buffer)
    elif form:
        form, value = "torch (before 1.6)", torch_legacy.describe(buffer)
    else:
        raise Unreadable(_stranger(buffer[:HEAD]))
    weights, places, besides = unwrap(value)
    check = _checker(path, buffer)
    tensors = {name: _tensor(buffer, weight, check) for name, weight in weights.items()}
    under = f"under {'/'.join(map(repr, places))}" if places else ""
    return StateDict(tensors, form, under, besides, {}, (path,))


def _tensor(buffer: Any, weight: Weight, check: Callable[[Region], None]) -> Tensor:
    region, skip = weight.storage.region, weight.storage.skip
    place = region.start + skip, region.size - skip
    checking = functools.partial(check, region)
    return tensor(
        buffer, place, weight.dtype, weight.offset, weight.shape, weight.strides, checking
    )


def _checker(path: Path, buffer: Any) -> Callable[[Region], None]:
    """A function that raises UserError if a region's CRC-32 is not as noted; looks at each once."""

    @functools.cache
    def check(region: Region) -> None:
        with memoryview(buffer) as whole, whole[region.start :][: region.size] as part:
            if region.crc and zlib.crc32(part) != region.crc:
                raise UserError(
                    f"{path} is damaged (the check sum of its numbers differs): download it again"
                )

    return check


def _stranger(head: bytes) -> str:
    """What a file is that holds no weights, as the rest of a sentence."""
    for mark, title in _STRANGERS.items():
        if head.startswith(mark):
            return f"is {title}"
    if head[257:262] == b"ustar":
        return (
            "is a tar archive: unpack it; if torch 0.1 wrote it, load and save it again with a "
            "newer torch"
        )
    if title := _TEXTS.get(head.removeprefix(codecs.BOM_UTF8).lstrip()[:1]):
        return f"is {title}"
    if not head.strip(b"\0"):
        return "holds nothing but zeros, a download that was broken off: download it again"
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # may end within a character
    except UnicodeDecodeError:
        return (
            f"is no file of weights that is known here (it begins with {head[:8].hex(' ')}): give "
            "one of PyTorch or safetensors"
        )
    return f"is text, not weights (it begins with {shown(text[:40])}): download it again"
