"""Chunks read by several processes, of which any may die."""

import contextlib
import dataclasses
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

from data_pipelines.errors import DataError
from data_pipelines.preparing.chunks import Chunk, Record, read_chunk

_CONTEXT = multiprocessing.get_context("spawn")  # forked children of threads may hang


def read_chunks(chunks: Sequence[Chunk], workers: int) -> Iterator[tuple[int, list[Record]]]:
    """Reads chunks and says of each what became of its clips.

    A process may be killed for memory, or crash in a decoder. The chunks that were under way then
    are read again, each by a process of its own; a clip that ends that one, too, is left out.

    Args:
        chunks: what to read.
        workers: processes; with 1 it is done in this one.

    Yields:
        (number, records) of each chunk, in order.

    Raises:
        OSError: a chunk's file cannot be written.
        DataError: no process can be started.
    """
    if workers == 1:
        yield from enumerate(map(read_chunk, chunks))
        return
    done: dict[int, list[Record]] = {}
    pending = list(range(len(chunks)))
    following = 0
    while following < len(chunks):
        suspects: list[int] = []
        for number, records in _until_one_dies(chunks, pending, workers, suspects):
            done[number] = records
            while following in done:
                yield following, done.pop(following)
                following += 1
        blameless = True
        for number in suspects:
            done[number], died = _alone(chunks[number])
            blameless &= not died
        if suspects and blameless:  # there was not enough memory for so many
            workers = max(2, workers // 2)
        while following in done:
            yield following, done.pop(following)
            following += 1


def _until_one_dies(
    chunks: Sequence[Chunk], pending: list[int], workers: int, suspects: list[int]
) -> Iterator[tuple[int, list[Record]]]:
    """Takes chunks off `pending`; those under way when a process dies are added to `suspects`."""
    pool = ProcessPoolExecutor(workers, _CONTEXT, initializer=_begin)
    running: dict[Future, int] = {}
    try:
        while pending or running:
            # Few ahead: all that are under way are suspected when a process dies.
            while pending and len(running) < workers + 1:
                with starting_processes():
                    future = pool.submit(read_chunk, chunks[pending[0]])
                running[future] = pending.pop(0)
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                records = future.result()
                yield running.pop(future), records
    except BrokenProcessPool:
        wait(running)
        for future, number in running.items():
            if future.exception() is None:
                yield number, future.result()
            elif isinstance(future.exception(), BrokenProcessPool):
                suspects.append(number)
            else:
                raise future.exception() from None
        suspects.sort()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _alone(chunk: Chunk) -> tuple[list[Record], bool]:
    """Reads a chunk in fresh processes until one survives.

    Returns:
        Its records, and whether a clip had to be left out.
    """
    deadly = dict(chunk.deadly)
    while True:
        told = dataclasses.replace(chunk, deadly=tuple(sorted(deadly.items())))
        receiver, sender = _CONTEXT.Pipe(duplex=False)
        process = _CONTEXT.Process(target=_read_and_tell, args=(told, sender), daemon=True)
        with starting_processes():
            process.start()
        sender.close()
        position = None
        with receiver, contextlib.suppress(EOFError):
            while True:
                message = receiver.recv()
                if isinstance(message, Exception):
                    process.join()
                    raise message
                if isinstance(message, list):
                    process.join()
                    return message, bool(deadly)
                position = message
        process.join()
        how = _how_it_ended(process.exitcode)
        if position is None or position in deadly:
            raise DataError(f"processes that read clips {how} as they start: try --workers=1")
        deadly[position] = f"the process that read it {how}"


def _how_it_ended(code: int) -> str:
    if code == -signal.SIGKILL:
        return "was killed, most likely for want of memory"
    return f"died of {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"


def _read_and_tell(chunk: Chunk, sender) -> None:
    """In a process of its own: sends the position of each clip, then the records."""
    _begin()
    try:
        sender.send(read_chunk(chunk, sender.send))
    except Exception as fault:
        sender.send(fault)


def _begin() -> None:
    """In each new process."""
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
