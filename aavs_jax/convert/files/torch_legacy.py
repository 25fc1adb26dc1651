"""What `torch.save` wrote before version 1.6: five pickles, then the storages one after another."""

import struct
from typing import Any

import numpy as np

from aavs_jax.convert.files.known import Region, Storage, storage_named
from aavs_jax.convert.files.pickles import Window, interpret
from aavs_jax.convert.files.tensors import BIG_ENDIAN, Unreadable, damaged

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
    if interpret(window) != MAGIC:
        raise Unreadable(
            "is a pickle that torch.save did not write, so no weights of PyTorch: load it where it "
            "was made, and save the state dict with torch.save"
        )
    if interpret(window) != PROTOCOL:
        raise damaged("an unknown version of the old format")
    system = interpret(window)
    if type(system) is not dict or system.get("little_endian") is not True:
        raise Unreadable(BIG_ENDIAN)
    regions: dict[str, tuple[Region, np.dtype]] = {}

    def persistent(identity: object) -> Storage:
        dtype, key, view = storage_named(identity, 6)
        region, _ = regions.setdefault(key, (Region(), dtype))
        if view is None:
            return Storage(dtype, region)
        # (key, first element, count)
        if type(view) is not tuple or len(view) != 3 or type(view[1]) is not int or view[1] < 0:
            raise damaged("a storage without a place")
        return Storage(dtype, region, view[1] * dtype.itemsize)

    value = interpret(window, persistent)
    _locate(regions, buffer, interpret(window), window.place)
    return value


def _locate(
    regions: dict[str, tuple[Region, np.dtype]], buffer: Any, keys: object, place: int
) -> None:
    """Finds the storages behind the pickles, in the order of `keys`, each after its length."""
    if type(keys) is not list or any(type(key) is not str for key in keys):
        raise damaged("no list of storages")
    if len(keys) != len(regions) or set(keys) != set(regions):
        raise damaged("its list of storages does not fit")
    for key in keys:
        region, dtype = regions[key]
        if place + 8 > len(buffer):
            raise damaged("it breaks off between storages")
        (count,) = struct.unpack_from("<q", buffer, place)
        region.start = place + 8
        region.size = count * dtype.itemsize
        place = region.start + region.size
        if count < 0 or place > len(buffer):
            raise damaged("it breaks off within a storage")
