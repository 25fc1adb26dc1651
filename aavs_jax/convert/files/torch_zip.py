"""What `torch.save` writes since version 1.6: a zip archive of a pickle and a file per storage."""

from typing import Any

from aavs_jax.convert.files.known import STORAGES, Named, Region, Storage
from aavs_jax.convert.files.pickles import MOST_BYTES, Window, interpret
from aavs_jax.convert.files.tensors import Unreadable, damaged, quoted
from aavs_jax.convert.files.zip_archive import contents, entries


def describe(buffer: Any) -> Any:
    """The object that was saved, its tensors as `known.Weight`.

    Args:
      buffer: the mapped file.

    Raises:
      Unreadable: it is some other archive, damaged, or asks for more than weights need.
    """
    table, stop = entries(buffer)
    names = [entry.name for entry in table]
    if not names:
        raise Unreadable("is an empty zip archive: download it again")
    root = names[0].split("/")[0]
    pickle = f"{root}/data.pkl"
    if pickle not in names:
        _refuse(names)
    if f"{root}/constants.pkl" in names or any(n.startswith(f"{root}/code/") for n in names):
        raise Unreadable(
            "is a TorchScript program, not weights alone: save its state_dict() with torch.save"
        )
    files = contents(buffer, table, stop)
    sums = {entry.name: entry.crc for entry in table}
    _check_byte_order(buffer, *files.get(f"{root}/byteorder", (0, 0)))

    def persistent(identity: object) -> Storage:
        if type(identity) is not tuple or len(identity) != 5 or identity[0] != "storage":
            raise damaged("a storage without a place")
        _, of_type, key, _, count = identity
        kind = STORAGES.get(of_type.name) if isinstance(of_type, Named) else None
        if kind is None or type(key) is not str or type(count) is not int:
            raise damaged("a storage without a place")
        name = f"{root}/data/{key}"
        place = files.get(name)
        if place is None:
            raise damaged(f"the storage {quoted(key)} is missing")
        if count < 0 or count * kind.itemsize != place[1]:
            raise damaged(f"the storage {quoted(key)} is not as long as it says")
        return Storage(kind, Region(*place, sums[name]))

    start, size = files[pickle]
    if size > MOST_BYTES:
        raise Unreadable(
            f"holds {size:,} bytes of things other than numbers, which no checkpoint does; it was "
            "not opened: have the state dict alone saved with torch.save"
        )
    return interpret(Window(buffer, start, start + size), persistent)


def _refuse(names: list[str]) -> None:
    if all(name.endswith(".npy") for name in names):
        raise Unreadable(
            "is a NumPy .npz archive, which is no form of weights known here: get the PyTorch or "
            "safetensors file"
        )
    raise Unreadable(
        f"is a zip archive without weights of PyTorch ({quoted(names[0])}, ...): unpack it, and "
        "give what is inside"
    )


def _check_byte_order(buffer: Any, start: int, size: int) -> None:
    """Before 2.1 there is no such entry: those were little-endian in all but name."""
    if size and buffer[start : start + min(size, 10)] != b"little":
        raise Unreadable(
            "was written on a big-endian machine: load and save it again with torch on this one"
        )
