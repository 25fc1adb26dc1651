"""The process's memory, where the system lets it be steered."""

import contextlib
import ctypes
import gc
import importlib.metadata
import importlib.util
import os

# Of glibc's malloc.h: settings of mallopt.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8
# Bytes: where more is free at the heap's end, it goes back to the system. An int's largest.
_KEPT = 2**31 - 1


def keep_freed() -> None:
    """Keeps what is freed for what comes next, instead of fetching it from the system again.

    On a CPU each step asks for the same memory anew, and the system clears every page of it: that
    was a seventh of the small network's step. To be called before jax has threads, which would
    have heaps of their own, none of which may keep as much. Does nothing where an accelerator's
    package is installed, since its memory is another and its host has other work, where the
    environment has settings of its own (MALLOC_...), or where the C library is not glibc.
    """
    if any(name.startswith("MALLOC_") for name in os.environ):
        return
    if importlib.metadata.entry_points(group="jax_plugins") or importlib.util.find_spec("libtpu"):
        return
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        for setting, value in (
            (_ARENA_MAX, 1),
            (_MMAP_MAX, 0),
            (_TRIM_THRESHOLD, _KEPT),
            (_TOP_PAD, 2**26),
        ):
            mallopt(setting, value)


def give_back() -> None:
    """Returns to the system what has been freed: compilers leave a gigabyte behind.

    Without it that would stay beside what a step takes. Does nothing where the C library is not
    glibc.
    """
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
