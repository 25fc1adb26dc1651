"""Waveforms at the rate that networks hear, and the form in which they are stored."""

import math
import os

import numpy as np

from data_pipelines.facts.avsbench import SAMPLE_RATE
from data_pipelines.media import sound_files

FULL_SCALE = 32768  # of int16; WAV files of 16 bits are divided by it, and so come back exactly

# What a second of a clip needs to be heard by VGGish: a log-mel example for each 0.96 s, whose last
# window reaches 15 ms further. A sound that lacks that little is not called short.
EXAMPLE_SAMPLES = 15_360
OVERLAP_SAMPLES = 240


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


def to_int16(waveform: np.ndarray) -> np.ndarray:
    """The stored form: rounded, and clipped where it is beyond full scale.

    Args:
        waveform: float32, any shape, full scale 1.

    Returns:
        int16, the same shape.
    """
    return np.clip(np.rint(waveform * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)


def example_count(samples: int) -> int:
    """How many log-mel examples so many samples at 16 kHz give."""
    return max(0, (samples - OVERLAP_SAMPLES) // EXAMPLE_SAMPLES)
