"""A side at work in a process of its own, which is told what to do over a pipe.

So its memory and its processor time are its own, and all of it is given back afterwards.
"""

import contextlib
import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from aavs_jax.benchmark.cases import Case
from aavs_jax.benchmark.work import Work
from aavs_jax.run.memory import give_back

SIDES = ("aavs_jax", "torch_eager", "torch_compile")
LEAST = 0.2  # seconds of a round: what takes less is repeated
WARM_UPS = 5  # at most
PAUSE = 0.2  # seconds before a round, in which threads of the other side fall asleep


class Failure(Exception):
    """A side could not do what it was asked; what it said, in a line."""


class Local:
    """A side in this process."""

    def __init__(self, side: str, case: Case, weights: Path | None):
        start = time.perf_counter()
        self.work = _prepare(side, case, weights)
        self.work.run()
        self.started = {"seconds": time.perf_counter() - start, "bytes": _peak(self.work)}
        seconds = self.started["seconds"]
        # torch.compile makes a function anew for its second and third call.
        for _ in range(WARM_UPS):
            self.work.settle()
            start, before = time.perf_counter(), seconds
            self.work.run()
            seconds = time.perf_counter() - start
            if seconds > before / 2:
                break
        self.repeats = max(1, round(LEAST / max(seconds, 1e-6)))
        give_back()

    def round(self) -> dict[str, float]:
        """Seconds and processor seconds of one run, and the most bytes held meanwhile."""
        self.work.settle()
        _forget_peak()
        passed, processor = time.perf_counter(), time.process_time()
        for _ in range(self.repeats):
            self.work.run()
        processor = (time.process_time() - processor) / self.repeats
        passed = (time.perf_counter() - passed) / self.repeats
        return {"seconds": passed, "cpu_seconds": processor, "peak_bytes": _peak(self.work)}

    def told(self) -> dict[str, Any]:
        """See `work.Work`; 'started', the seconds and bytes until the rounds could begin."""
        return {**self.work.told(), "started": self.started}

    def outputs(self) -> dict[str, np.ndarray]:
        """See `work.Work`."""
        return dict(self.work.outputs())


class Remote:
    """A side in a new process; the same as `Local`, whose errors are `Failure` here."""

    def __init__(self, side: str, case: Case, weights: Path | None):
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(
            target=_serve, args=(theirs, side, case, weights), daemon=False
        )
        self.process.start()
        theirs.close()
        self._answer()

    def round(self) -> dict[str, float]:
        time.sleep(PAUSE)
        return self._ask("round")

    def told(self) -> dict[str, Any]:
        return self._ask("told")

    def outputs(self) -> dict[str, np.ndarray]:
        return self._ask("outputs")

    def close(self) -> None:
        """Ends the process."""
        with contextlib.suppress(OSError):
            self.pipe.send("stop")
        self.process.join(20)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()

    def _ask(self, what: str) -> Any:
        try:
            self.pipe.send(what)
        except OSError:
            raise self._died() from None
        return self._answer()

    def _answer(self) -> Any:
        try:
            well, answer = self.pipe.recv()
        except (EOFError, OSError):
            raise self._died() from None
        if not well:
            raise Failure(answer)
        return answer

    def _died(self) -> Failure:
        self.process.join(20)
        code = self.process.exitcode
        return Failure(
            "its process was killed, which is what systems do when memory runs out"
            if code == -9
            else f"its process ended with code {code}"
        )


@contextlib.contextmanager
def opened(side: str, case: Case, weights: Path | None) -> Iterator[Remote]:
    """A side in a new process for as long as the block lasts.

    Raises:
      Failure: it could not be made ready.
    """
    remote = Remote.__new__(Remote)
    try:
        remote.__init__(side, case, weights)
        yield remote
    finally:
        remote.close()


def _serve(pipe: Any, side: str, case: Case, weights: Path | None) -> None:
    """What the new process does until it is told to stop."""
    # Compilers and loaders talk; what is measured is told over the pipe.
    sys.stdout = sys.stderr = open(os.devnull, "w")
    try:
        local = Local(side, case, weights)
        pipe.send((True, None))
        while (asked := pipe.recv()) != "stop":
            pipe.send((True, getattr(local, asked)()))
    except (EOFError, KeyboardInterrupt):
        pass  # whoever asks is gone
    except Exception as error:  # whatever the compilers of three sides may raise
        lines = str(error).strip().splitlines() or [""]
        with contextlib.suppress(OSError):
            pipe.send((False, f"{type(error).__name__}: {lines[0]}"[:300]))


def _prepare(side: str, case: Case, weights: Path | None) -> Work:
    if case.devices:
        count = f"--xla_force_host_platform_device_count={case.devices}"
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {count}"
        os.environ["JAX_PLATFORMS"] = "cpu"
    # Imported late: each process has one of them only.
    if side == "weights":
        from aavs_jax.benchmark import torch_side

        return Work(lambda: None if weights.exists() else torch_side.write_weights(case, weights))
    if case.what == "loader":
        from aavs_jax.benchmark import loader_side

        return loader_side.prepare(case)
    if side == "aavs_jax":
        # Or else it would take most of an accelerator's memory, which the other sides share.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        from aavs_jax.benchmark import jax_side

        return jax_side.prepare(case, weights)
    from aavs_jax.benchmark import torch_side

    return torch_side.prepare(case, compiled=side == "torch_compile")


def _forget_peak() -> None:
    """From here on the system counts the process's peak anew, where Linux lets it."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak(work: Work) -> int:
    """Bytes of memory: of the accelerator, or the process's most since `_forget_peak`, or without
    /proc since it began."""
    if work.device_memory:
        return work.device_memory()
    with contextlib.suppress(OSError, IndexError):
        return 1024 * int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most
