"""Mistakes that a user can make and mend, and what is said where a user stops a command."""

import contextlib
import sys
from collections.abc import Iterator

INTERRUPTED = 130  # exit code of a command that Ctrl-C stopped, as shells have it


class UserError(Exception):
    """One clear sentence: what is wrong, where, what to do. `main` prints it and exits with 2."""


class Stopped(KeyboardInterrupt):
    """Ctrl-C, with one sentence on what the same command will do next."""


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


def exit_after(stop: KeyboardInterrupt) -> None:
    """Ends the process with one line on stderr."""
    sentence = str(stop) or "the same command starts again from the beginning"
    print(f"\nstopped: {sentence}", file=sys.stderr, flush=True)
    sys.exit(INTERRUPTED)
