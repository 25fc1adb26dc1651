"""Sound: a file to a waveform, a waveform to the log-mel examples that VGGish was trained on.

The front end of "CNN architectures for large-scale audio classification": 25 ms windows every
10 ms, 64 mel bands, one example for each 0.96 s. Nothing is centred and nothing padded; what does
not fill a window, or an example, at the end is dropped.
"""

import functools
import math
import os

import numpy as np

from data_pipelines.errors import DataError
from data_pipelines.media import sound_files

SAMPLE_RATE = 16000  # Hz
WINDOW = 400  # samples, 25 ms
HOP = 160  # samples, 10 ms
FFT_LENGTH = 512
MEL_BANDS = 64
MEL_RANGE = (125.0, 7500.0)  # Hz
LOG_OFFSET = 0.01
EXAMPLE_WINDOWS = 96  # windows per example, 0.96 s


def load_waveform(path: str | os.PathLike[str]) -> np.ndarray:
    """Reads a sound file, or the sound track of a video, as 16 kHz mono.

    Channels are averaged, other sampling rates resampled.

    Args:
        path: of the file; see `sound_files` for what can be read, `media` for the limits.

    Returns:
        float32 [S], samples in [-1, 1): int16 files are divided by 32768.

    Raises:
        DataError: the file is missing, cannot be read, or holds no samples.
    """
    excerpt = sound_files.read_sound(path)
    return resample(excerpt.samples[:, 0], excerpt.rate)


def resample(waveform: np.ndarray, rate: int) -> np.ndarray:
    """Brings a waveform to 16 kHz.

    Args:
        waveform: float32 [S].
        rate: its sampling rate, Hz.

    Returns:
        float32 [S * 16000 / rate], rounded up.
    """
    if rate != SAMPLE_RATE and len(waveform):
        import soxr  # only files at other rates need it

        length = math.ceil(len(waveform) * SAMPLE_RATE / rate)
        resampled = soxr.resample(np.ascontiguousarray(waveform), rate, SAMPLE_RATE, quality="HQ")
        # The library may give a sample more or less than the time that was recorded.
        waveform = np.pad(resampled[:length], (0, max(0, length - len(resampled))))
    return np.ascontiguousarray(waveform, dtype=np.float32)


def log_mel_examples(waveform: np.ndarray) -> np.ndarray:
    """Log-mel examples of a waveform (VGGish's front end).

    log(mel + 0.01), natural logarithm, of magnitudes (not powers) in 64 bands.

    Args:
        waveform: float [S], 16 kHz mono, samples in [-1, 1).

    Returns:
        float32 [n, 96, 64] (time, band); n = 0 if the sound is shorter than 0.975 s.
    """
    waveform = np.asarray(waveform, dtype=np.float32)
    count = max(0, (len(waveform) - WINDOW) // HOP + 1) // EXAMPLE_WINDOWS
    if not count:
        return np.zeros((0, EXAMPLE_WINDOWS, MEL_BANDS), np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(waveform, WINDOW)[::HOP]
    windows = windows[: count * EXAMPLE_WINDOWS]
    # One matrix product in place of an FFT: a third of the time, as most of 512 points are
    # padding or lie outside the bands.
    real, imaginary = np.split(windows @ _fourier_matrix(), 2, axis=1)
    mel = np.sqrt(real * real + imaginary * imaginary) @ _mel_matrix()
    return np.log(mel + np.float32(LOG_OFFSET)).reshape(count, EXAMPLE_WINDOWS, MEL_BANDS)


def fit_examples(examples: np.ndarray, seconds: int) -> np.ndarray:
    """Makes examples as many as a clip has seconds, the last one repeated where there are too few.

    Args:
        examples: float32 [n, 96, 64].
        seconds: T, of the clip.

    Returns:
        float32 [T, 96, 64].

    Raises:
        DataError: there is no example to repeat.
    """
    if not len(examples):
        raise DataError("the sound is shorter than one second: too short for a log-mel example")
    return examples[np.minimum(np.arange(seconds), len(examples) - 1)]


def silence_example() -> np.ndarray:
    """The log-mel example of digital silence, float32 [96, 64]."""
    return np.full((EXAMPLE_WINDOWS, MEL_BANDS), np.log(LOG_OFFSET), np.float32)


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
