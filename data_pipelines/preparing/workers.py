"""Clips read by several processes, of which any may die."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import types
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import resource_tracker

from threadpoolctl import threadpool_limits

from data_pipelines.errors import DataError
from data_pipelines.preparing import clip_files
from data_pipelines.preparing.clip_files import Record, Task

_CONTEXT = multiprocessing.get_context("spawn")  # forked children of threads may hang
_Numbered = tuple[int, Task]


def read_clips(tasks: Sequence[Task], workers: int) -> Iterator[Record]:
    """Reads clips and says of each what became of it.

    A process may be killed for memory, or crash in a decoder. The clips that were under way then
    are read again, each by a process of its own; one that ends that, too, is left out.

    Args:
        tasks: what to read.
        workers: processes; with 1 it is done in this one.

    Yields:
        A record of each clip, in order.

    Raises:
        OSError: what is kept of a clip cannot be written.
        DataError: no process can be started.
    """
    if workers == 1:
        with threadpool_limits(1, user_api="blas"):
            yield from map(clip_files.read, tasks)
        return
    done: dict[int, Record] = {}
    following = 0
    for number, record in _in_any_order(list(enumerate(tasks)), workers):
        done[number] = record
        while following in done:
            yield done.pop(following)
            following += 1


def _in_any_order(pending: list[_Numbered], workers: int) -> Iterator[tuple[int, Record]]:
    while pending:
        suspects: list[_Numbered] = []
        yield from _until_one_dies(pending, workers, suspects)
        blameless = bool(suspects)
        for number, task in suspects:
            record, died = _alone(task)
            blameless &= not died
            yield number, record
        if blameless:  # there was not enough memory for so many
            workers = max(2, workers // 2)


def _until_one_dies(
    pending: list[_Numbered], workers: int, suspects: list[_Numbered]
) -> Iterator[tuple[int, Record]]:
    """Takes clips off `pending`; those under way when a process dies are added to `suspects`."""
    pool = ProcessPoolExecutor(workers, _CONTEXT, initializer=_begin)
    running: dict[Future, _Numbered] = {}
    try:
        while pending or running:
            # Few ahead: all that are under way are suspected when a process dies.
            while pending and len(running) < 2 * workers:
                with starting_processes():
                    future = pool.submit(clip_files.read, pending[0][1])
                running[future] = pending.pop(0)
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                record = future.result()
                yield running.pop(future)[0], record
    except BrokenProcessPool:
        wait(running)
        for future, numbered in running.items():
            if future.exception() is None:
                yield numbered[0], future.result()
            elif isinstance(future.exception(), BrokenProcessPool):
                suspects.append(numbered)
            else:
                raise future.exception() from None
    finally:
        # Waits: the pool's thread fails where Python ends while it still cleans up.
        pool.shutdown(cancel_futures=True)


def _alone(task: Task) -> tuple[Record, bool]:
    """Reads a clip in a fresh process; says whether that died, so that the clip is left out."""
    receiver, sender = _CONTEXT.Pipe(duplex=False)
    process = _CONTEXT.Process(target=_read_and_tell, args=(task, sender), daemon=True)
    with starting_processes():
        process.start()
    sender.close()
    started, answer = False, None
    with receiver, contextlib.suppress(EOFError):
        started = bool(receiver.recv())
        answer = receiver.recv()
    process.join()
    if isinstance(answer, Exception):
        raise answer
    if answer is not None:
        return answer, False
    how = _how_it_ended(process.exitcode)
    if not started:
        raise DataError(f"processes that read clips {how} as they start: try --workers=1")
    return clip_files.left_out(task.clip, "process died", f"the process that read it {how}"), True


def _how_it_ended(code: int) -> str:
    if code == -signal.SIGKILL:
        return "was killed, most likely for want of memory"
    return f"died of {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"


def _read_and_tell(task: Task, sender) -> None:
    """In a process of its own: says that it has started, then sends the record."""
    sender.send("started")
    _begin()
    try:
        sender.send(clip_files.read(task))
    except Exception as fault:
        sender.send(fault)


def _begin() -> None:
    """In each new process."""
    # More threads would only hinder each other, and may sum in another order.
    threadpool_limits(1, user_api="blas")
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A killed process cannot tell its children to go, and they would wait for work for ever."""
    multiprocessing.parent_process().join()
    os._exit(1)


@contextlib.contextmanager
def starting_processes() -> Iterator[None]:
    """Processes started inside neither import the main module again nor ever hear Ctrl-C.

    The main module may be a script that has no `if __name__ == "__main__"` and would start over, or
    may have been read from a pipe; and what it imports can take seconds. Ctrl-C reaches all
    processes of a terminal, and one that is only starting would print a traceback: it is blocked
    here, which a process inherits. This process hears it at the end, when the new one has been told
    all that it needs.
    """
    resource_tracker.ensure_running()  # or it would be started inside, and lift the blockade
    main, missed = sys.modules["__main__"], []
    sys.modules["__main__"] = types.ModuleType("__main__")
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    # The mask is of one thread; another may take the signal, which Python handles in the main one.
    ours = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGINT, lambda *_: missed.append(True)) if ours else None
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        if handler is not None:
            signal.signal(signal.SIGINT, handler)
        if missed:
            signal.raise_signal(signal.SIGINT)
