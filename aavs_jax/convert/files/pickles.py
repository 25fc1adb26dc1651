"""A stack machine that reads what a pickle describes, and runs nothing.

It knows the opcodes that checkpoints are made of. Values come out as plain None, bool, int, float,
str, bytes, list, tuple and dict, tensors as `known.Weight`, anything else as `known.Inert`. Values
may be nested as deeply, and refer to themselves as often, as the pickle likes: whoever walks over
them has to bound his way.
"""

import pickletools
import struct
from collections.abc import Callable
from typing import Any

from aavs_jax.convert.files.known import Inert, Storage, Weight, called, named, plain_key
from aavs_jax.convert.files.tensors import Unreadable, damaged

# A state dict of 1000 tensors takes 30,000 opcodes and 100 kB, its optimiser's state thrice that.
MOST_STEPS = 1_000_000
MOST_BYTES = 2**25
LONGEST_LINE = 2**16
WIDEST_INTEGER = 2048  # bits

_ODD_KEY = "an odd key"
_VALUES = set(
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING "
    "UNICODE SHORT_BINUNICODE BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 "
    "BYTEARRAY8".split()
)
_EMPTY: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": list,  # a set would hash its elements, however deep they are
}
_IGNORED = {"PROTO", "FRAME"}


class Window:
    """Part of a mapped file as the file object that `genops` reads; it never reads beyond."""

    def __init__(self, buffer: Any, start: int, stop: int):
        self._buffer = buffer
        self.place = start
        self._stop = min(stop, start + MOST_BYTES)

    def read(self, count: int) -> bytes:
        stop = min(self.place + count, self._stop)
        found = self._buffer[self.place : stop]
        self.place = stop
        return found

    def readline(self) -> bytes:
        stop = min(self.place + LONGEST_LINE, self._stop)
        end = self._buffer.find(b"\n", self.place, stop)
        return self.read((stop if end < 0 else end + 1) - self.place)

    def tell(self) -> int:
        return self.place


def interpret(window: Window, persistent: Callable[[object], Storage] | None = None) -> Any:
    """Reads one pickle, and leaves `window` behind it.

    Args:
      window: where it begins.
      persistent: gives the storage for a persistent id; None where there are none.

    Returns:
      What it describes.

    Raises:
      Unreadable: it is damaged, names a global that weights don't need, or is unreasonably large.
    """
    machine = _Machine(persistent)
    operations = pickletools.genops(window)
    while True:
        try:
            code, argument, _ = next(operations)
        except (ValueError, OverflowError, struct.error, StopIteration):
            # Of several kinds, and genops' texts quote what is in the file.
            raise damaged("its pickle breaks off or is none") from None
        if code.name == "STOP":
            return machine.pop()
        machine.step(code.name, argument)


class _Machine:
    """The stack, the marks on it, the memo, and how much was done."""

    def __init__(self, persistent: Callable[[object], Storage] | None):
        self._persistent = persistent
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._steps = 0

    def _charge(self, steps: int) -> None:
        self._steps += steps
        if self._steps > MOST_STEPS:
            raise Unreadable(
                "describes millions of objects, which no checkpoint does; it was not opened: "
                "have the state dict alone saved with torch.save"
            )

    def pop(self) -> Any:
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            raise damaged("its pickle takes what is not there")
        return self._stack.pop()

    def _top(self) -> Any:
        value = self.pop()
        self._stack.append(value)
        return value

    def _from_mark(self) -> list[Any]:
        if not self._marks:
            raise damaged("its pickle takes what is not there")
        mark = self._marks.pop()
        found = self._stack[mark:]
        del self._stack[mark:]
        return found

    def step(self, name: str, argument: Any) -> None:
        """One opcode, by its name in `pickletools`."""
        self._charge(1)
        if name in _VALUES:
            if type(argument) is int and argument.bit_length() > WIDEST_INTEGER:
                raise damaged("an integer of thousands of digits")
            self._stack.append(argument)
        elif name in _EMPTY:
            self._stack.append(_EMPTY[name]())
        elif name not in _IGNORED:
            operation = _OPERATIONS.get(name)
            if operation is None:
                raise Unreadable(
                    f"uses the pickle operation {name}, which no file of weights needs; it was not "
                    "opened: do not trust it"
                )
            operation(self, argument)

    def _mark(self, _):
        self._marks.append(len(self._stack))

    def _pop(self, _):
        if self._marks and self._marks[-1] == len(self._stack):
            self._marks.pop()
        else:
            self.pop()

    def _pop_mark(self, _):
        self._from_mark()

    def _dup(self, _):
        self._stack.append(self._top())

    def _get(self, key):
        if not plain_key(key) or key not in self._memo:
            raise damaged("its pickle takes what is not there")
        self._stack.append(self._memo[key])

    def _put(self, key):
        if not plain_key(key):
            raise damaged("a place in its memo that nobody counts to")
        self._memo[key] = self._top()

    def _memoize(self, _):
        self._memo[len(self._memo)] = self._top()

    def _tuple(self, _):
        self._stack.append(tuple(self._from_mark()))

    def _short_tuple(self, count: int):
        found = [self.pop() for _ in range(count)]
        self._stack.append(tuple(reversed(found)))

    def _list(self, _):
        self._stack.append(self._from_mark())

    def _dict(self, _):
        items = self._from_mark()
        self._stack.append({})
        self._set(items)

    def _append(self, _):
        self._extend([self.pop()])

    def _appends(self, _):
        self._extend(self._from_mark())

    def _extend(self, items: list[Any]):
        to = self._top()
        if type(to) is list:
            to.extend(items)
        elif not isinstance(to, Inert):
            raise damaged("it appends to what is no list")

    def _setitem(self, _):
        value = self.pop()
        self._set([self.pop(), value])

    def _setitems(self, _):
        self._set(self._from_mark())

    def _set(self, items: list[Any]):
        to = self._top()
        if len(items) % 2 or not (type(to) is dict or isinstance(to, Inert)):
            raise damaged("it sets items of what is no dict")
        if type(to) is dict:
            for key, value in zip(items[::2], items[1::2], strict=True):
                to[_key(key)] = value

    def _global(self, argument: str):
        # Both halves are the file's; where a space belongs makes no difference to an inert name.
        module, _, name = argument.rpartition(" ")
        self._stack.append(named(module, name))

    def _stack_global(self, _):
        name, module = self.pop(), self.pop()
        if type(name) is not str or type(module) is not str:
            raise damaged("a global without a name")
        self._stack.append(named(module, name))

    def _call(self, function: Any, arguments: Any):
        # Arguments may be long and called with again and again, which is work to be counted.
        if type(arguments) is tuple:
            self._charge(len(arguments))
            self._charge(sum(len(a) for a in arguments if type(a) in (list, tuple)))
        self._stack.append(called(function, arguments))

    def _reduce(self, _):
        arguments, function = self.pop(), self.pop()
        self._call(function, arguments)

    def _newobj_ex(self, _):
        keywords, arguments, cls = self.pop(), self.pop(), self.pop()
        if type(keywords) is not dict or keywords:
            raise damaged("an object made with keywords")
        self._call(cls, arguments)

    def _inst(self, argument: str):
        module, _, name = argument.rpartition(" ")
        function = named(module, name)
        self._call(function, tuple(self._from_mark()))

    def _obj(self, _):
        found = self._from_mark()
        if not found:
            raise damaged("an object of no class")
        self._call(found[0], tuple(found[1:]))

    def _build(self, _):
        # What it would set are attributes, such as a state dict's `_metadata`: never needed here.
        self.pop()
        if not isinstance(self._top(), dict | Inert | Weight):
            raise damaged("it sets attributes of what has none")

    def _persistent_id(self, _):
        identity = self.pop()
        if self._persistent is None:
            raise damaged("a storage where there can be none")
        self._stack.append(self._persistent(identity))


def _key(key: Any) -> Any:
    """A key as it is if it is plain; any other is kept apart by its identity, never hashed."""
    return key if plain_key(key) else Inert(_ODD_KEY)


_OPERATIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": _Machine._mark,
    "POP": _Machine._pop,
    "POP_MARK": _Machine._pop_mark,
    "DUP": _Machine._dup,
    "GET": _Machine._get,
    "BINGET": _Machine._get,
    "LONG_BINGET": _Machine._get,
    "PUT": _Machine._put,
    "BINPUT": _Machine._put,
    "LONG_BINPUT": _Machine._put,
    "MEMOIZE": _Machine._memoize,
    "TUPLE": _Machine._tuple,
    "TUPLE1": lambda machine, _: machine._short_tuple(1),
    "TUPLE2": lambda machine, _: machine._short_tuple(2),
    "TUPLE3": lambda machine, _: machine._short_tuple(3),
    "LIST": _Machine._list,
    "DICT": _Machine._dict,
    "APPEND": _Machine._append,
    "APPENDS": _Machine._appends,
    "ADDITEMS": _Machine._appends,
    "FROZENSET": _Machine._list,
    "SETITEM": _Machine._setitem,
    "SETITEMS": _Machine._setitems,
    "GLOBAL": _Machine._global,
    "STACK_GLOBAL": _Machine._stack_global,
    "REDUCE": _Machine._reduce,
    "NEWOBJ": _Machine._reduce,  # cls.__new__(cls, *arguments): the same to us
    "NEWOBJ_EX": _Machine._newobj_ex,
    "INST": _Machine._inst,
    "OBJ": _Machine._obj,
    "BUILD": _Machine._build,
    "BINPERSID": _Machine._persistent_id,
}
