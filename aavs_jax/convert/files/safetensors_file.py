"""The safetensors format: checked by its library, then mapped, so that tensors are views.

The library opens the file first and judges its header: lengths, overlaps, holes, dtypes. Offsets
are then read from the header once more, because the library hands out copies only.
"""

import json
import struct
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from aavs_jax.convert.files.tensors import Tensor, Unreadable, damaged, tensor
from aavs_jax.errors import shown

MOST_HEADER = 2**23  # bytes; the library allows 100 MB, of which Python would make gigabytes

DTYPES = {
    **{f"F{8 * size}": np.dtype(f"f{size}") for size in (2, 4, 8)},
    **{f"I{8 * size}": np.dtype(f"i{size}") for size in (1, 2, 4, 8)},
    **{f"U{8 * size}": np.dtype(f"u{size}") for size in (1, 2, 4, 8)},
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "BOOL": np.dtype(np.bool_),
}


def describe(path: Path, buffer: Any) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by name, and the strings that the file carries.

    Args:
      path: of the file, for the library.
      buffer: the same file, mapped.

    Raises:
      Unreadable: it is cut short or damaged, or has tensors of a dtype that no weight here has.
    """
    (size,) = struct.unpack_from("<Q", buffer)
    if size > len(buffer) - 8:
        raise damaged("it breaks off within its header")
    if size > MOST_HEADER:
        raise damaged(f"a header of {size:,} bytes")
    try:
        with safe_open(path, framework="numpy") as file:
            names = set(file.keys())
            metadata = dict(file.metadata() or {})
        header = json.loads(buffer[8 : 8 + size])
    except (SafetensorError, ValueError, RecursionError) as error:
        raise damaged(f"the safetensors library says: {shown(str(error))}") from None
    header.pop("__metadata__", None)
    if set(header) != names:
        raise damaged("its header names tensors twice")
    tensors = {name: _tensor(name, entry, buffer, 8 + size) for name, entry in header.items()}
    return tensors, metadata


def _tensor(name: str, entry: dict[str, Any], buffer: Any, data: int) -> Tensor:
    """A tensor from its header entry, whose form the library has checked."""
    dtype = DTYPES.get(entry["dtype"])
    if dtype is None:
        raise Unreadable(
            f"has in {shown(name)} numbers of the kind {shown(entry['dtype'])}, which no weight "
            "here can be: save it as float32"
        )
    begin, end = entry["data_offsets"]
    shape = tuple(entry["shape"])
    return tensor(buffer, (data + begin, end - begin), dtype, 0, shape, None)
