"""Ctrl-C: work is saved where there is any, and one line says what the same command will do."""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator

import jax


class Stopped(KeyboardInterrupt):
    """Ctrl-C, with one sentence on what the same command will do next."""


class SoftStop:
    """Inside `with` a first Ctrl-C only sets `asked`, so that a step can end; a second one stops.

    Several processes would stop at different steps, each waiting for the others to save: there, and
    outside of the main thread, where Python lets nobody handle signals, Ctrl-C stops at once.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before = None

    def __enter__(self) -> "SoftStop":
        alone = jax.process_count() == 1
        if alone and threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(self, *exception) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Inside, where nothing is lost by it, a first Ctrl-C stops at once."""
        if self._before is None:
            yield
            return
        signal.signal(signal.SIGINT, self._before)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, self._ask)

    def _ask(self, number, frame) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        print("\nstopping after this step; Ctrl-C again stops at once", file=sys.stderr, flush=True)


@contextlib.contextmanager
def what_is_next(sentence: str) -> Iterator[None]:
    """Ctrl-C inside says this, unless something within knows better.

    Args:
      sentence: what the same command, given again, will do.
    """
    try:
        yield
    except Stopped:
        raise
    except KeyboardInterrupt as stop:
        raise Stopped(sentence) from stop
