"""What a network hears of a waveform (stub until the waveform is stored)."""

import dataclasses
from typing import Protocol

import numpy as np


class FrontEnd(Protocol):
    channels: int

    def __call__(self, waveform: np.ndarray, seconds: int) -> np.ndarray: ...


@dataclasses.dataclass(frozen=True)
class LogMel:
    channels: int = 1

    def __call__(self, waveform: np.ndarray, seconds: int) -> np.ndarray:
        raise NotImplementedError
