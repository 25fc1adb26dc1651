"""The globals that PyTorch checkpoints name, and what each stands for. Nothing is ever imported.

A global outside these tables ends the reading: weights don't need it, and one of them may be
`os.system`. Within, a name that may be called has a small function of ours, which only notes what
would have been made.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from aavs_jax.convert.files.tensors import MOST_DIMENSIONS, Unreadable, damaged
from aavs_jax.errors import shown


@dataclass(frozen=True, eq=False, slots=True)
class Named:
    """A global that is known; inert."""

    name: str


@dataclass(frozen=True, eq=False, slots=True)
class Inert:
    """Something that is of no use here; `title` says what it is, for people."""

    title: str


@dataclass(eq=False, slots=True)
class Region:
    """Bytes of the file; those of the old format are found only after the pickle was read."""

    start: int = 0
    size: int = 0
    crc: int = 0  # CRC-32 of the bytes; 0 if unknown


@dataclass(frozen=True, eq=False, slots=True)
class Storage:
    """Numbers that tensors are views of: `skip` bytes into a region."""

    dtype: np.dtype
    region: Region
    skip: int = 0


@dataclass(frozen=True, eq=False, slots=True)
class Weight:
    """A tensor as the pickle describes it: offset and strides in elements; not checked yet."""

    storage: Storage
    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _dtypes(**names: str) -> dict[str, np.dtype]:
    bfloat16 = np.dtype(ml_dtypes.bfloat16)
    return {name: bfloat16 if d == "bfloat16" else np.dtype(d) for name, d in names.items()}


TYPED_STORAGES = _dtypes(
    DoubleStorage="float64",
    FloatStorage="float32",
    HalfStorage="float16",
    BFloat16Storage="bfloat16",
    LongStorage="int64",
    IntStorage="int32",
    ShortStorage="int16",
    CharStorage="int8",
    ByteStorage="uint8",
    BoolStorage="bool",
)
STORAGES = {
    f"{module}.{name}": dtype
    for module in ("torch", "torch.cuda", "torch.storage")
    for name, dtype in (TYPED_STORAGES | _dtypes(UntypedStorage="uint8")).items()
}
_UNSIGNED = ("uint16", "uint32", "uint64")
DTYPES = {f"torch.{d.name}": d for d in TYPED_STORAGES.values()} | {
    f"torch.{name}": np.dtype(name) for name in _UNSIGNED
}
# Tensors that are no plain array of such numbers: sparse, quantised, complex and so on.
_OTHER_TENSORS = re.compile(
    r"torch\.((cuda|storage)\.)?(\w+Storage|q?u?int\w+|float8\w+|complex\w+)"
    r"|torch\._utils\._rebuild_\w+"
)


def storage_named(identity: object, length: int) -> tuple[np.dtype, str, Any]:
    """What a persistent id ('storage', type, key, device, count[, view]) says.

    Returns:
      The type of its numbers, its key, and the last part.

    Raises:
      Unreadable: it is no such id of `length` parts.
    """
    if type(identity) is tuple and len(identity) == length and identity[0] == "storage":
        _, of_type, key, *rest = identity
        dtype = STORAGES.get(of_type.name) if isinstance(of_type, Named) else None
        if dtype is not None and type(key) is str:
            return dtype, key, rest[-1]
    raise damaged("a storage without a place")


def _whole(*numbers: object) -> bool:
    """Whether these are integers from 0 up, of 63 bits; True and False are none."""
    return all(type(number) is int and 0 <= number < 2**63 for number in numbers)


def _tensor(storage, offset, shape, strides, gradient=None, hooks=None, notes=None) -> Weight:
    if not (
        isinstance(storage, Storage)
        and type(shape) is tuple
        and type(strides) is tuple
        and max(len(shape), len(strides)) <= MOST_DIMENSIONS
        and _whole(offset, *shape, *strides)
    ):
        raise damaged("a tensor that is no view of a storage")
    if notes:  # 'conj' and 'neg': the numbers mean something other than they say
        raise Unreadable(
            "has a tensor that is conjugated or negated only when used: save it as an ordinary one"
        )
    return Weight(storage, storage.dtype, offset, shape, strides)


def _tensor_of_dtype(storage, offset, shape, strides, gradient, hooks, dtype, notes=None) -> Weight:
    found = _tensor(storage, offset, shape, strides, gradient, hooks, notes)
    if not isinstance(dtype, Named) or dtype.name not in DTYPES:
        raise damaged("a tensor without a dtype")
    return Weight(found.storage, DTYPES[dtype.name], offset, shape, strides)


def _parameter(data, *_) -> Weight:
    if not isinstance(data, Weight):
        raise damaged("a parameter that is no tensor")
    return data


def _with_attributes(function, of_type, arguments, *_) -> Weight:
    """A tensor that had attributes set on it."""
    if not isinstance(function, Named) or function.name not in TENSORS:
        raise damaged("a tensor rebuilt by something else")
    return called(function, arguments)


def _ordered_dict(pairs=()) -> dict:
    """Python 2 wrote them as OrderedDict([[key, value], ...])."""
    if type(pairs) not in (list, tuple):
        raise damaged("an OrderedDict of no pairs")
    for pair in pairs:
        if type(pair) not in (list, tuple) or len(pair) != 2 or type(pair[0]) is not str:
            raise damaged("an OrderedDict of no pairs")
    return dict(pairs)


def _size(sizes=()) -> tuple:
    if type(sizes) not in (list, tuple):
        raise damaged("a torch.Size of no sizes")
    return tuple(sizes)


TENSORS: dict[str, Callable] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_dtype,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
}
# What checkpoints hold beside weights, of no use here: called or not, it stays inert.
_HARMLESS = re.compile(
    r"torch\.(Tensor|device|nn\.parameter\.(Parameter|Buffer)|serialization\._get_layout)"
    r"|numpy\.(dtype|ndarray|_?core\.multiarray\.(scalar|_reconstruct))"
    r"|pathlib\.(_local\.)?(Pure)?(Posix|Windows)?Path"
    r"|(builtins|__builtin__)\.(bytes|bytearray|set|frozenset|complex|slice|x?range)"
    r"|(builtins|__builtin__)\.(int|float|str|bool|list|dict|tuple|object)"
    r"|_codecs\.encode|argparse\.Namespace|types\.SimpleNamespace|easydict\.EasyDict"
    r"|(yacs|fvcore\.common|detectron2\.config)\.config\.CfgNode"
    r"|(pytorch_)?lightning(\.pytorch|\.fabric|_fabric)?\.utilities\.\w+\.AttributeDict"
)
CALLS: dict[str, Callable] = {
    **TENSORS,
    "torch._tensor._rebuild_from_type_v2": _with_attributes,
    "torch.Size": _size,
    "collections.OrderedDict": _ordered_dict,
    "collections.defaultdict": lambda *_: {},
    "collections.Counter": lambda *_: {},
}


def named(module: str, name: str) -> Named:
    """The inert mark for a global that a file names; raises Unreadable for one not known."""
    full = f"{module}.{name}"
    known = full in CALLS or full in STORAGES or full in DTYPES
    if known or _HARMLESS.fullmatch(full):
        return Named(full)
    name = full[:100] if full.isprintable() else shown(full)
    if _OTHER_TENSORS.fullmatch(full):
        raise Unreadable(
            f"has tensors that can't be read here, such as sparse, quantised, complex and 8-bit "
            f"ones ({name}): save them as ordinary tensors of float32"
        )
    if full.startswith("torch.nn.modules."):
        raise Unreadable(
            f"is a whole network saved as program objects ({name}), which can't be opened without "
            "running its code: have torch.save(model.state_dict(), ...) saved instead"
        )
    raise Unreadable(
        f"asks to run {name}, which no file of weights needs; it was not opened: do not trust it, "
        "or, if you know where it comes from, save its state dict alone with torch.save"
    )


def called(function: object, arguments: object) -> object:
    """What stands for the result of calling a known global; raises Unreadable."""
    if isinstance(function, Named) and _HARMLESS.fullmatch(function.name):
        return Inert(f"a {function.name.rpartition('.')[2].strip('_')}")
    if not isinstance(function, Named) or function.name not in CALLS:
        raise damaged("it calls what is no function")
    if type(arguments) is not tuple:
        raise damaged(f"{function.name} is called without arguments")
    try:
        return CALLS[function.name](*arguments)
    except TypeError:  # all of these are ours and short: only the number of arguments can be wrong
        raise damaged(f"{function.name} is called with {len(arguments)} arguments") from None
