"""A process of its own for each run, whose output is seen as it comes."""

import collections
import contextlib
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence

ERROR = "error: "  # how a run begins the sentence that says why it ends
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run(program: Sequence[str]) -> str:
    """Runs a program to its end.

    A Ctrl-C is passed on once for each time, so that the program can save what it has; so are the
    signals by which a system ends programs. The program has a process group of its own, or a
    terminal would pass Ctrl-C on, too, and a second one ends it before it has saved.

    Args:
      program: and its arguments.

    Returns:
      '' where it did its work; else why not, in a sentence.

    Raises:
      KeyboardInterrupt: after the program has ended, where one was asked for.
    """
    last: collections.deque = collections.deque(maxlen=20)
    with _signals_noted() as asked:  # from before its start, or one in between would be lost
        process = subprocess.Popen(
            program, stderr=subprocess.PIPE, text=True, errors="replace", process_group=0
        )
        reader = threading.Thread(target=_pass_on, args=(process.stderr, last), daemon=True)
        reader.start()
        passed_on = 0
        while process.poll() is None:
            while passed_on < len(asked):
                process.send_signal(signal.SIGINT)
                passed_on += 1
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.1)
    reader.join()
    process.stderr.close()
    if asked:
        raise KeyboardInterrupt
    return "" if process.returncode == 0 else _why(process.returncode, list(last))


def _pass_on(stream, last: collections.deque) -> None:
    for line in stream:
        sys.stderr.write(line)
        sys.stderr.flush()
        last.append(line.strip())


@contextlib.contextmanager
def _signals_noted() -> Iterator[list[int]]:
    """Signals that would end this process are only noted, inside: the list says which came."""
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # where nobody handles signals
        yield came
        return
    before = {
        number: signal.signal(number, lambda number, frame: came.append(number))
        for number in SIGNALS
    }
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _why(code: int, last: list[str]) -> str:
    errors = [line for line in last if line.startswith(ERROR)]
    if errors:
        return errors[-1].removeprefix(ERROR)
    if code < 0:
        killed = signal.Signals(-code).name
        return f"it was ended by {killed}, by which a system ends what takes too much memory, too"
    said = next((line for line in reversed(last) if line), "it said nothing")
    return f"exit code {code}: {said}"
