"""What a side is asked to do: something that can be run, and what can be told of it afterwards."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Work:
    """A case made ready by one side: read, compiled, its parameters where they are computed with.

    Attributes:
      run: does it once, to its end; the first time may take longer.
      told: after the rounds, plain values by name, each where a side knows it: 'flops' of one run
        and 'intensity', FLOP per byte; 'loss', the first step's; 'trained', how many numbers train;
        'device'; 'frames' that one run reads; of the machine 'flops_per_second' and
        'bytes_per_second'.
      outputs: of an inference, by name, for comparison.
      settle: done before each round, uncounted.
      device_memory: the highest number of bytes in use on an accelerator so far; None: it computes
        in the process's own memory.
    """

    run: Callable[[], Any]
    told: Callable[[], Mapping[str, Any]] = dict
    outputs: Callable[[], Mapping[str, np.ndarray]] = dict
    settle: Callable[[], Any] = lambda: None
    device_memory: Callable[[], int] | None = None


def best(run: Callable[[], float]) -> float:
    """The highest of ten runs: what a machine can do shows when nothing else disturbs it."""
    return max(run() for _ in range(10))
