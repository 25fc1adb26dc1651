"""What `torch.save` wrote before version 1.6: five pickles, then the storages one after another."""

import struct
from typing import Any

from aavs_jax.convert.files.known import STORAGES, Kind, Named, Region, Storage
from aavs_jax.convert.files.pickles import Window, interpret
from aavs_jax.convert.files.tensors import Unreadable, damaged

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001


def describe(buffer: Any) -> Any:
    """The object that was saved, its tensors as `known.Weight`.

    Args:
      buffer: the mapped file.

    Raises:
      Unreadable: it is some other pickle, damaged, or asks for more than weights need.
    """
    window = Window(buffer, 0, len(buffer))
    if not _is(interpret(window), MAGIC):
        raise Unreadable(
            "is a pickle that torch.save did not write, so no weights of PyTorch: load it where it "
            "was made, and save the state dict with torch.save"
        )
    if not _is(interpret(window), PROTOCOL):
        raise damaged("an unknown version of the old format")
    system = interpret(window)
    if type(system) is not dict or system.get("little_endian") is not True:
        raise Unreadable(
            "was written on a big-endian machine: load and save it again with torch on this one"
        )
    storages = _Storages()
    value = interpret(window, storages.persistent)
    storages.locate(buffer, interpret(window), window.place)
    return value


def _is(value: object, number: int) -> bool:
    return type(value) is int and value == number


class _Storages:
    """Storages by their keys, found in the file once the pickle was read."""

    def __init__(self):
        self._regions: dict[str, tuple[Region, Kind]] = {}

    def persistent(self, identity: object) -> Storage:
        """The storage of ('storage', type, key, device, count, view), where view is None or
        (key, first element, count)."""
        if type(identity) is not tuple or len(identity) != 6 or identity[0] != "storage":
            raise damaged("a storage without a place")
        _, of_type, key, _, _, view = identity
        kind = STORAGES.get(of_type.name) if isinstance(of_type, Named) else None
        if kind is None or type(key) is not str:
            raise damaged("a storage without a place")
        region, _ = self._regions.setdefault(key, (Region(), kind))
        skip = 0
        if view is not None:
            if type(view) is not tuple or len(view) != 3 or type(view[1]) is not int or view[1] < 0:
                raise damaged("a storage without a place")
            skip = view[1] * kind.itemsize
        return Storage(kind, region, skip)

    def locate(self, buffer: Any, keys: object, place: int) -> None:
        """Finds the storages behind the pickles, in the order of `keys`, each after its length."""
        if type(keys) is not list or any(type(key) is not str for key in keys):
            raise damaged("no list of storages")
        if len(keys) != len(self._regions) or set(keys) != set(self._regions):
            raise damaged("its list of storages does not fit")
        for key in keys:
            region, kind = self._regions[key]
            if place + 8 > len(buffer):
                raise damaged("it breaks off between storages")
            (count,) = struct.unpack_from("<q", buffer, place)
            region.start = place + 8
            region.size = count * kind.itemsize
            place = region.start + region.size
            if count < 0 or place > len(buffer):
                raise damaged("it breaks off within a storage")
