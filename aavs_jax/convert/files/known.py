"""The globals that PyTorch checkpoints name, and what each stands for. Nothing is ever imported.

A global outside these tables ends the reading: weights don't need it, and one of them may be
`os.system`. Within, a name that may be called has a small function of ours, which only notes what
would have been made.
"""

from collections.abc import Callable
from dataclasses import dataclass

import ml_dtypes
import numpy as np

from aavs_jax.convert.files.tensors import MOST_DIMENSIONS, Unreadable, damaged, quoted

LARGEST_KEY = 2**61 - 1  # from there on different integers share a hash, and many stall a dict


@dataclass(frozen=True)
class Kind:
    """What elements of a storage are: `dtype` is None for those that no weight here can be."""

    dtype: np.dtype | None
    itemsize: int
    title: str


@dataclass(frozen=True, eq=False, slots=True)
class Named:
    """A global that is known; inert."""

    name: str


@dataclass(frozen=True, eq=False, slots=True)
class Inert:
    """Something that is of no use here.

    Attributes:
      title: what it is, for people.
      weight: whether it is a tensor, of a sort that can't be read.
    """

    title: str
    weight: bool = False


class Region:
    """Bytes of the file; those of the old format are found only after the pickle was read."""

    __slots__ = ("crc", "size", "start")

    def __init__(self, start: int = 0, size: int = 0, crc: int = 0):
        self.start = start
        self.size = size
        self.crc = crc  # CRC-32 of the bytes; 0 if unknown


@dataclass(frozen=True, eq=False, slots=True)
class Storage:
    """Numbers that tensors are views of: `skip` bytes into a region."""

    kind: Kind
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


def _kind(name: str) -> Kind:
    dtype = np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)
    return Kind(dtype, dtype.itemsize, name)


def _stranger(title: str, itemsize: int) -> Kind:
    return Kind(None, itemsize, title)


UNTYPED = _stranger("untyped", 1)

_STORAGES = {
    "Double": _kind("float64"),
    "Float": _kind("float32"),
    "Half": _kind("float16"),
    "BFloat16": _kind("bfloat16"),
    "Long": _kind("int64"),
    "Int": _kind("int32"),
    "Short": _kind("int16"),
    "Char": _kind("int8"),
    "Byte": _kind("uint8"),
    "Bool": _kind("bool"),
    "Untyped": UNTYPED,
    "ComplexDouble": _stranger("complex", 16),
    "ComplexFloat": _stranger("complex", 8),
    "QUInt8": _stranger("quantised", 1),
    "QInt8": _stranger("quantised", 1),
    "QInt32": _stranger("quantised", 4),
    "QUInt4x2": _stranger("quantised", 1),
    "QUInt2x4": _stranger("quantised", 1),
}
STORAGES = {
    f"{module}.{name}Storage": kind
    for module in ("torch", "torch.cuda", "torch.storage")
    for name, kind in _STORAGES.items()
}

_READ = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "bool")
_READ_UNSIGNED = ("uint8", "uint16", "uint32", "uint64")
DTYPES = {f"torch.{name}": _kind(name) for name in (*_READ, *_READ_UNSIGNED)} | {
    f"torch.{name}": _stranger(title, size)
    for name, title, size in [
        ("complex32", "complex", 4),
        ("complex64", "complex", 8),
        ("complex128", "complex", 16),
        ("float8_e4m3fn", "8-bit", 1),
        ("float8_e4m3fnuz", "8-bit", 1),
        ("float8_e5m2", "8-bit", 1),
        ("float8_e5m2fnuz", "8-bit", 1),
        ("float8_e8m0fnu", "8-bit", 1),
        ("qint8", "quantised", 1),
        ("quint8", "quantised", 1),
        ("qint32", "quantised", 4),
    ]
}


def plain_key(key: object) -> bool:
    """Whether a dict may hash this key: nothing nested, and no integers that were made to clash."""
    return type(key) in (str, bool, type(None)) or (type(key) is int and 0 <= key < LARGEST_KEY)


def _whole(*numbers: object) -> bool:
    """Whether these are integers from 0 up, of 63 bits; True and False are none."""
    return all(type(number) is int and 0 <= number < 2**63 for number in numbers)


def _tensor(storage, offset, shape, strides, dtype: Kind | None, notes) -> Weight | Inert:
    """What all the functions of torch say that rebuild a dense tensor."""
    if not (
        isinstance(storage, Storage)
        and type(shape) is tuple
        and type(strides) is tuple
        and max(len(shape), len(strides)) <= MOST_DIMENSIONS
        and _whole(offset, *shape, *strides)
    ):
        raise damaged("a tensor that is no view of a storage")
    kind = dtype or storage.kind
    if kind.dtype is None:
        return Inert(f"a tensor of {kind.title} numbers", weight=True)
    if notes:  # 'conj' and 'neg': the numbers mean something other than they say
        return Inert("a tensor that is conjugated or negated only when used", weight=True)
    return Weight(storage, kind.dtype, offset, shape, strides)


def _rebuild(storage, offset, shape, strides, gradient=None, hooks=None, notes=None):
    return _tensor(storage, offset, shape, strides, None, notes)


def _rebuild_v3(storage, offset, shape, strides, gradient, hooks, dtype, notes=None):
    kind = DTYPES.get(dtype.name) if isinstance(dtype, Named) else None
    if kind is None:
        raise damaged("a tensor without a dtype")
    return _tensor(storage, offset, shape, strides, kind, notes)


def _parameter(data, *_) -> Weight | Inert:
    if not isinstance(data, Weight | Inert):
        raise damaged("a parameter that is no tensor")
    return data


def _with_attributes(function, of_type, arguments, *_) -> Weight | Inert:
    """torch._tensor._rebuild_from_type_v2: a tensor that had attributes set on it."""
    if not isinstance(function, Named) or function.name not in TENSORS:
        raise damaged("a tensor rebuilt by something else")
    return called(function, arguments)


def _ordered_dict(pairs=()) -> dict:
    """Python 2 wrote them as OrderedDict([[key, value], ...])."""
    made = {}
    if type(pairs) not in (list, tuple):
        raise damaged("an OrderedDict of no pairs")
    for pair in pairs:
        if type(pair) not in (list, tuple) or len(pair) != 2 or not plain_key(pair[0]):
            raise damaged("an OrderedDict of no pairs")
        made[pair[0]] = pair[1]
    return made


def _size(sizes=()) -> tuple:
    if type(sizes) not in (list, tuple):
        raise damaged("a torch.Size of no sizes")
    return tuple(sizes)


def _an(title: str, weight: bool = False) -> Callable[..., Inert]:
    thing = Inert(title, weight)
    return lambda *_: thing


TENSORS: dict[str, Callable] = {
    "torch._utils._rebuild_tensor": _rebuild,
    "torch._utils._rebuild_tensor_v2": _rebuild,
    "torch._utils._rebuild_tensor_v3": _rebuild_v3,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._utils._rebuild_sparse_tensor": _an("a sparse tensor", True),
    "torch._utils._rebuild_sparse_csr_tensor": _an("a sparse tensor", True),
    "torch._utils._rebuild_nested_tensor": _an("a nested tensor", True),
    "torch._utils._rebuild_qtensor": _an("a quantised tensor", True),
    "torch._utils._rebuild_meta_tensor_no_storage": _an("a tensor without numbers", True),
    "torch._utils._rebuild_wrapper_subclass": _an("a tensor of a class of its own", True),
    "torch._utils._rebuild_device_tensor_from_numpy": _an("a tensor of a device", True),
    "torch._utils._rebuild_xla_tensor": _an("a tensor of a TPU", True),
}

_NUMPY = ("numpy.core.multiarray", "numpy._core.multiarray")
_PATHS = ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath")
_BUILTINS = ("builtins", "__builtin__")
_VALUES = ("bytes", "bytearray", "set", "frozenset", "complex", "slice", "range", "xrange")
_TYPES = ("int", "float", "str", "bool", "list", "dict", "tuple", "object")
_SETTINGS = (
    "argparse.Namespace",
    "types.SimpleNamespace",
    "yacs.config.CfgNode",
    "fvcore.common.config.CfgNode",
    "detectron2.config.config.CfgNode",
    "easydict.EasyDict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "lightning.pytorch.utilities.parsing.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "lightning.fabric.utilities.data.AttributeDict",
)

CALLS: dict[str, Callable] = {
    **TENSORS,
    "torch._tensor._rebuild_from_type_v2": _with_attributes,
    "torch.Size": _size,
    "torch.device": _an("a device"),
    "torch.serialization._get_layout": _an("a layout"),
    "collections.OrderedDict": _ordered_dict,
    "collections.defaultdict": lambda *_: {},
    "collections.Counter": lambda *_: {},
    "_codecs.encode": _an("bytes"),
    "numpy.dtype": _an("a dtype"),
    **{f"{module}.scalar": _an("a NumPy number") for module in _NUMPY},
    **{f"{module}._reconstruct": _an("a NumPy array") for module in _NUMPY},
    **{f"pathlib.{name}": _an("a path") for name in _PATHS},
    **{f"pathlib._local.{name}": _an("a path") for name in _PATHS},
    **{f"{module}.{name}": _an(f"a {name}") for module in _BUILTINS for name in _VALUES},
    **{name: _an("settings") for name in _SETTINGS},
}

_NAMES = {
    "numpy.ndarray",
    "torch.Tensor",
    "torch.nn.parameter.Parameter",
    "torch.nn.parameter.Buffer",
    "torch.per_tensor_affine",
    "torch.per_channel_affine",
    "torch.strided",
    *(f"{module}.{name}" for module in _BUILTINS for name in _TYPES),
}


def named(module: str, name: str) -> Named:
    """The inert mark for a global that a file names; raises Unreadable for one not known."""
    full = f"{module}.{name}"
    if full in CALLS or full in STORAGES or full in DTYPES or full in _NAMES:
        return Named(full)
    shown = full[:100] if full.isprintable() else quoted(full)
    if full.startswith("torch.nn.modules."):
        raise Unreadable(
            f"is a whole network saved as program objects ({shown}), which can't be opened without "
            "running its code: have torch.save(model.state_dict(), ...) saved instead"
        )
    raise Unreadable(
        f"asks to run {shown}, which no file of weights needs; it was not opened: do not trust it, "
        "or, if you know where it comes from, save its state dict alone with torch.save"
    )


def called(function: object, arguments: object) -> object:
    """What stands for the result of calling a known global; raises Unreadable."""
    if not isinstance(function, Named) or function.name not in CALLS:
        raise damaged("it calls what is no function")
    if type(arguments) is not tuple:
        raise damaged(f"{function.name} is called without arguments")
    try:
        return CALLS[function.name](*arguments)
    except TypeError:  # all of these are ours and short: only the number of arguments can be wrong
        raise damaged(f"{function.name} is called with {len(arguments)} arguments") from None
