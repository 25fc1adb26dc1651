"""What a run says of itself on the terminal: messages and bars."""

import contextlib
import sys
import time
import weakref
from collections.abc import Iterator

import jax
from tqdm import tqdm

from aavs_jax.run.memory import give_back

LOG_INTERVAL = 15.0  # seconds between lines of progress where there is no terminal
_BARS: weakref.WeakSet = weakref.WeakSet()  # whose estimates leave compiling out


def say(message: str) -> None:
    """A line on stdout, from the first process only."""
    if jax.process_index() == 0:
        tqdm.write(message, file=sys.stdout)
        sys.stdout.flush()


@contextlib.contextmanager
def compiling(where: str, what: str) -> Iterator[None]:
    """Says that something is being compiled and, afterwards, how many seconds that took.

    They have no part in any bar's rate, and so in no estimate of what is left.

    Args:
      where: such as "localise/all".
      what: such as "the training step".
    """
    say(f"[{where}] compiling {what}")
    start = time.monotonic()
    yield
    give_back()
    seconds = time.monotonic() - start
    say(f"[{where}] compiled in {seconds:.1f} s")
    for bar in _BARS:
        if not bar.disable:
            bar.start_t += seconds
            bar.last_print_t += seconds


class _LineBar(tqdm):
    """A tqdm whose display is a new line each time, for logs."""

    def display(self, msg=None, pos=None):
        text = str(self) if msg is None else msg
        if text:
            self.fp.write(text + "\n")
            self.fp.flush()
        return bool(text)  # True would make tqdm's close wipe the line with a carriage return

    def close(self):
        # tqdm ends its bar with a newline of its own, which here would be an empty line.
        if not self.disable and self.n != self.last_print_n:
            self.refresh()
        self.leave = False
        super().close()

    def clear(self, nolock=False):
        """Nothing to wipe: lines stay."""


def progress_bar(total: int | None, initial: int = 0, description: str = "", *, enabled=True):
    """A tqdm bar on a terminal; in a log, a plain line every 15 seconds, at the start and the end.

    Usage: `with progress_bar(600, 0, "localise/all") as bar: bar.update(1)` and, for figures behind
    it, `bar.set_postfix(loss=3.2, J=0.61, refresh=False)`.

    Args:
      total: how many steps there are in all; None if unknown.
      initial: how many of them were done before (a continued run).
      description: what is going on.
      enabled: False shows nothing (all processes of a host group but one).

    Returns:
      A `tqdm.tqdm`: update(n), set_postfix(...), close(); also a context manager.
    """
    arguments = dict(total=total, initial=initial, desc=description, disable=not enabled)
    if sys.stderr.isatty():
        bar = tqdm(**arguments, dynamic_ncols=True, mininterval=0.2)
        _BARS.add(bar)
        return bar
    layout = "{desc}: {n_fmt}/{total_fmt} ({percentage:.0f}%) in {elapsed}, {remaining} to go"
    if total is None:
        layout = "{desc}: {n_fmt} in {elapsed}"
    # The interval alone decides: a single step may take longer than tqdm would skip.
    bar = _LineBar(
        **arguments,
        file=sys.stderr,
        bar_format=layout + ", {rate_fmt}{postfix}",
        mininterval=LOG_INTERVAL,
        maxinterval=LOG_INTERVAL,
        miniters=1,
    )
    _BARS.add(bar)
    return bar
