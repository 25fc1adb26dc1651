"""A stack machine that reads what a pickle describes, and runs nothing.

It knows the opcodes that checkpoints are made of. Values come out as plain None, bool, int, float,
str, bytes, list, tuple and dict, tensors as `known.Weight`, anything else as `known.Inert`. Values
may be nested as deeply, and refer to themselves as often, as the pickle likes: whoever walks over
them has to bound his way.
"""

import functools
import pickletools
import struct
from collections.abc import Callable
from typing import Any

from aavs_jax.convert.files.known import Inert, Storage, called, named
from aavs_jax.convert.files.tensors import Unreadable, damaged

# A state dict of 1000 tensors takes 30,000 opcodes and 100 kB, its optimiser's state thrice that.
MOST_STEPS = 1_000_000
MOST_BYTES = 2**25
LONGEST_LINE = 2**16

# Opcodes that put their own argument on the stack; those of protocol 2 and later.
_VALUES = set(
    "BININT BININT1 BININT2 LONG1 LONG4 BINFLOAT BINSTRING SHORT_BINSTRING SHORT_BINUNICODE "
    "BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8".split()
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
    """The stack, the marks on it, the memo, and how much was done.

    A method in capitals carries out the opcode of that name in `pickletools`; an opcode without one
    is refused.
    """

    def __init__(self, persistent: Callable[[object], Storage] | None):
        self._persistent = persistent
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._steps = 0

    def step(self, name: str, argument: Any) -> None:
        """Carries out one opcode."""
        self._charge(1)
        if name in _VALUES:
            self._stack.append(argument)
        elif name in _EMPTY:
            self._stack.append(_EMPTY[name]())
        elif operation := getattr(self, name, None):
            operation(argument)
        elif name not in _IGNORED:
            raise Unreadable(
                f"uses the pickle operation {name}, which no file of weights needs; it was not "
                "opened: do not trust it"
            )

    def pop(self) -> Any:
        """Takes what is on top of the stack."""
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            raise damaged("its pickle takes what is not there")
        return self._stack.pop()

    def _charge(self, steps: int) -> None:
        self._steps += steps
        if self._steps > MOST_STEPS:
            raise Unreadable(
                "describes millions of objects, which no checkpoint does; it was not opened: "
                "have the state dict alone saved with torch.save"
            )

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

    def MARK(self, _):
        self._marks.append(len(self._stack))

    def POP(self, _):
        if self._marks and self._marks[-1] == len(self._stack):
            self._marks.pop()
        else:
            self.pop()

    def POP_MARK(self, _):
        self._from_mark()

    def DUP(self, _):
        self._stack.append(self._top())

    def BINGET(self, key):
        if key not in self._memo:
            raise damaged("its pickle takes what is not there")
        self._stack.append(self._memo[key])

    LONG_BINGET = BINGET

    def BINPUT(self, key):
        self._memo[key] = self._top()

    LONG_BINPUT = BINPUT

    def MEMOIZE(self, _):
        self._memo[len(self._memo)] = self._top()

    def TUPLE(self, _):
        self._stack.append(tuple(self._from_mark()))

    def _short_tuple(self, count: int, _):
        found = [self.pop() for _ in range(count)]
        self._stack.append(tuple(reversed(found)))

    TUPLE1 = functools.partialmethod(_short_tuple, 1)
    TUPLE2 = functools.partialmethod(_short_tuple, 2)
    TUPLE3 = functools.partialmethod(_short_tuple, 3)

    def FROZENSET(self, _):
        self._stack.append(self._from_mark())

    def APPEND(self, _):
        self._extend([self.pop()])

    def APPENDS(self, _):
        self._extend(self._from_mark())

    ADDITEMS = APPENDS

    def _extend(self, items: list[Any]):
        to = self._top()
        if type(to) is list:
            to.extend(items)
        elif not isinstance(to, Inert):
            raise damaged("it appends to what is no list")

    def SETITEM(self, _):
        value = self.pop()
        self._set([self.pop(), value])

    def SETITEMS(self, _):
        self._set(self._from_mark())

    def _set(self, items: list[Any]):
        to = self._top()
        if len(items) % 2 or not isinstance(to, dict | Inert):
            raise damaged("it sets items of what is no dict")
        if type(to) is dict:
            for key, value in zip(items[::2], items[1::2], strict=True):
                # A key that is no name is never hashed: it may be as deep as it likes.
                to[key if type(key) is str else Inert("an odd key")] = value

    def GLOBAL(self, argument: str):
        # Both halves are the file's; where a space belongs makes no difference to an inert name.
        module, _, name = argument.rpartition(" ")
        self._stack.append(named(module, name))

    def STACK_GLOBAL(self, _):
        name, module = self.pop(), self.pop()
        if type(name) is not str or type(module) is not str:
            raise damaged("a global without a name")
        self._stack.append(named(module, name))

    def REDUCE(self, _):
        arguments, function = self.pop(), self.pop()
        # Arguments may be long and called with again and again, which is work to be counted.
        if type(arguments) is tuple:
            self._charge(len(arguments))
            self._charge(sum(len(a) for a in arguments if type(a) in (list, tuple)))
        self._stack.append(called(function, arguments))

    NEWOBJ = REDUCE  # cls.__new__(cls, *arguments): the same to us

    def BUILD(self, _):
        # What it would set are attributes, such as a state dict's `_metadata`: never needed here.
        self.pop()
        self._top()

    def BINPERSID(self, _):
        identity = self.pop()
        if self._persistent is None:
            raise damaged("a storage where there can be none")
        self._stack.append(self._persistent(identity))
