"""What a network hears of a waveform: VGGish's log-mel examples.

A front end is computed when clips are loaded, so that prepared data serve every method. Log-mel is
the front end of "CNN architectures for large-scale audio classification": 25 ms windows every
10 ms, 64 mel bands, one example for each 0.96 s. Nothing is centred and nothing padded; what does
not fill a window, or an example, at the end is dropped.
"""

import dataclasses
import functools
import math
from types import ModuleType
from typing import Protocol

import numpy as np
from threadpoolctl import threadpool_limits

from data_pipelines.errors import DataError
from data_pipelines.facts.avsbench import SAMPLE_RATE
from data_pipelines.media.waveforms import example_count

WINDOW = 400  # samples, 25 ms
HOP = 160  # samples, 10 ms
FFT_LENGTH = 512
MEL_BANDS = 64
MEL_RANGE = (125.0, 7500.0)  # Hz
LOG_OFFSET = 0.01
EXAMPLE_WINDOWS = 96  # windows per example, 0.96 s


class FrontEnd(Protocol):
    """A frozen dataclass that can be pickled, and whose `repr` says all that its output depends on.

    Attributes:
        channels: of the waveform it wants: 1, or 2 for left and right.
    """

    channels: int

    def __call__(self, waveform: np.ndarray, seconds: int, xp: ModuleType = np) -> np.ndarray:
        """What is heard in each second.

        Args:
            waveform: float32 [S, channels], 16 kHz, full scale 1; it may be somewhat longer or
                shorter than the seconds.
            seconds: T.
            xp: what it computes with: numpy when clips are loaded, jax.numpy in an exported
                program, whose arrays the waveform and the rows then are. A front end without this
                parameter serves everything but `aavs_jax.export`.

        Returns:
            [T, ...], a row for each second; a row is the same however many are asked for.
        """


@dataclasses.dataclass(frozen=True)
class LogMel:
    """VGGish's log-mel examples, the last one repeated where a sound has too few."""

    channels: int = 1

    def __call__(self, waveform: np.ndarray, seconds: int, xp: ModuleType = np) -> np.ndarray:
        """float32 [T, 96, 64] of one channel, [T, 96, 64, 2] of two.

        Raises:
            DataError: there is no example to repeat: the sound is shorter than 0.975 s.
        """
        count = min(seconds, example_count(len(waveform)))
        if not count:
            raise DataError("the sound is shorter than one second: too short for a log-mel example")
        examples = self._examples(waveform, count, xp)
        return examples[np.minimum(np.arange(seconds), count - 1)]

    def _examples(self, waveform: np.ndarray, count: int, xp: ModuleType) -> np.ndarray:
        """float32 [count, 96, 64], or [count, 96, 64, 2]."""
        _use_one_thread()
        sides = [log_mel_examples(side, count, xp) for side in waveform.T]
        return sides[0] if self.channels == 1 else xp.stack(sides, axis=-1)


@dataclasses.dataclass(frozen=True)
class ZeroPaddedLogMel(LogMel):
    """VGGish's log-mel examples, and zeros where a sound has too few.

    So does AVSBench's public loader of AVSS. Zero is no silence, whose logarithm is that of 0.01.
    """

    def __call__(self, waveform: np.ndarray, seconds: int, xp: ModuleType = np) -> np.ndarray:
        """float32 [T, 96, 64] of one channel, [T, 96, 64, 2] of two."""
        count = min(seconds, example_count(len(waveform)))
        examples = self._examples(waveform, count, xp)
        short = ((0, seconds - count), *((0, 0),) * (examples.ndim - 1))
        return xp.pad(examples, short)


LOG_MEL = LogMel()  # the usual one


def log_mel_examples(
    waveform: np.ndarray, count: int | None = None, xp: ModuleType = np
) -> np.ndarray:
    """Log-mel examples of a waveform.

    log(mel + 0.01), natural logarithm, of magnitudes (not powers) in 64 bands.

    Args:
        waveform: float [S], 16 kHz mono, samples in [-1, 1).
        count: n, no more than there are; None: all there are.
        xp: numpy or jax.numpy, see `FrontEnd`.

    Returns:
        float32 [n, 96, 64] (time, band); n = 0 if the sound is shorter than 0.975 s.
    """
    waveform = xp.asarray(waveform, dtype=np.float32)
    count = example_count(len(waveform)) if count is None else count
    if not count:
        return xp.zeros((0, EXAMPLE_WINDOWS, MEL_BANDS), np.float32)
    windows = _windows(waveform, count * EXAMPLE_WINDOWS, xp)
    # One matrix product in place of an FFT: a third of the time, as most of 512 points are
    # padding or lie outside the bands.
    real, imaginary = xp.split(windows @ _fourier_matrix(), 2, axis=1)
    mel = xp.sqrt(real * real + imaginary * imaginary) @ _mel_matrix()
    return xp.log(mel + np.float32(LOG_OFFSET)).reshape(count, EXAMPLE_WINDOWS, MEL_BANDS)


def _windows(waveform: np.ndarray, count: int, xp: ModuleType) -> np.ndarray:
    """The first windows of a waveform, float32 [count, 400].

    Laid out of blocks that windows share, by slices, which numpy and jax.numpy both have.
    """
    block = math.gcd(WINDOW, HOP)
    blocks = waveform[: (count - 1) * HOP + WINDOW].reshape(-1, block)
    step, last = HOP // block, (count - 1) * HOP // block + 1
    return xp.concatenate(
        [blocks[first : first + last : step] for first in range(WINDOW // block)], axis=1
    )


@functools.cache
def _use_one_thread() -> None:
    """Grain and XLA share the cores: threads of the matrix product's own would wait for each other,
    at four times the processor time."""
    threadpool_limits(1, user_api="blas")


def _bins() -> np.ndarray:
    """Indices of the FFT bins that lie inside the mel bands, int [F]."""
    frequencies = np.arange(FFT_LENGTH // 2 + 1) * SAMPLE_RATE / FFT_LENGTH
    return np.flatnonzero((frequencies > MEL_RANGE[0]) & (frequencies < MEL_RANGE[1]))


@functools.cache
def _fourier_matrix() -> np.ndarray:
    """Window and Fourier transform in one matrix, float32 [400, 2F]: cosines, then sines."""
    time = np.arange(WINDOW)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * time / WINDOW)  # periodic: the period is 400, not 399
    # The phase is reduced in integers, so that it is exact for large products.
    phase = 2 * np.pi * (np.outer(time, _bins()) % FFT_LENGTH) / FFT_LENGTH
    matrix = np.concatenate([np.cos(phase), np.sin(phase)], axis=1) * hann[:, None]
    return matrix.astype(np.float32)


@functools.cache
def _mel_matrix() -> np.ndarray:
    """Triangular bands whose flanks are linear in mel (not in Hz as librosa's), float32 [F, 64]."""

    def to_mel(hertz):
        return 1127.0 * np.log1p(np.asarray(hertz) / 700.0)

    edges = np.linspace(*to_mel(MEL_RANGE), MEL_BANDS + 2)
    lower, centre, upper = edges[:-2], edges[1:-1], edges[2:]
    mel = to_mel(_bins() * SAMPLE_RATE / FFT_LENGTH)[:, None]
    rising = (mel - lower) / (centre - lower)
    falling = (upper - mel) / (upper - centre)
    return np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32)
