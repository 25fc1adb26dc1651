"""CAVP's front end: a power spectrogram in mel bands, of one second or of three.

"Unraveling Instance Associations" (CVPR 2024) and its code. It is not VGGish's log-mel: frames are
centred, powers and not magnitudes are summed, bands end at 3800 Hz and have flanks that are linear
in Hz, and decibels are divided by 100.
"""

import dataclasses
import functools
from types import ModuleType

import numpy as np

from data_pipelines.facts.avsbench import SAMPLE_RATE

WINDOW = 400  # samples, 25 ms
HOP = 160  # samples, 10 ms
FFT_LENGTH = 512
MEL_BANDS = 64
MEL_RANGE = (125.0, 3800.0)  # Hz
LEAST_POWER = 1e-5
MOST_FRAMES = {1: 96, 3: 300}  # that are kept, by seconds
CLIP_SECONDS = 10  # of the excerpt that the public code cuts into seconds
SILENCE = -1.0  # in every band of a sound of zeros


@dataclasses.dataclass(frozen=True)
class PowerMel:
    """What CAVP hears with a second: that second, or three around it.

    Attributes:
        channels: 1, or 2: left and right, transformed one by one.
        heard: seconds of sound in a row: 1 (AVSBench) or 3 (VPO).
        as_published: cut as the public code does, whose excerpt of a clip that is too short begins
            within it, see `middle`; of one second by cutting the middle 10 s of the clip. False:
            the samples of the second itself, or of the three around it that the clip has.
    """

    channels: int = 1
    heard: int = 1
    as_published: bool = False

    def __call__(self, waveform: np.ndarray, seconds: int, xp: ModuleType = np) -> np.ndarray:
        """float32 [T, F, 64] of one channel, [T, F, 64, 2] of two; F is 96 of 1 s, 300 of 3 s.

        A sound that is too short is repeated; of nothing at all there is silence.
        """
        if not len(waveform):
            waveform = xp.zeros((self.heard * SAMPLE_RATE, self.channels), np.float32)
        samples = np.stack([self._samples(len(waveform), second) for second in range(seconds)])
        sides = [
            power_mel(side[samples], MOST_FRAMES[self.heard], xp)
            for side in xp.asarray(waveform, dtype=np.float32).T
        ]
        return sides[0] if self.channels == 1 else xp.stack(sides, axis=-1)

    def _samples(self, have: int, second: int) -> np.ndarray:
        """Which samples of a clip a row is made of, int [heard * 16000]."""
        want = self.heard * SAMPLE_RATE
        if self.as_published:
            if self.heard > 1:
                return middle(have, want, as_published=True)
            excerpt = middle(have, CLIP_SECONDS * SAMPLE_RATE, as_published=True)
            start = min(second, CLIP_SECONDS - 1) * SAMPLE_RATE
            return excerpt[start : start + want]
        start = (second - self.heard // 2) * SAMPLE_RATE
        start = max(0, min(start, have - want))
        return np.resize(np.arange(start, min(start + want, have)), want)


def middle(have: int, want: int, *, as_published: bool = False) -> np.ndarray:
    """Which samples of a sound its middle excerpt is made of, int [want].

    An excerpt that is too short is repeated whole.

    Args:
        have: samples that there are, at least 1.
        want: samples that are wanted.
        as_published: cut by the rules of Python's slices, where a negative start counts from the
            end: a sound shorter than wanted then begins not at 0 but within itself.
    """
    start = have // 2 - want // 2
    stop = start + want
    if start < 0 and not as_published:
        start, stop = 0, have
    return np.resize(np.arange(have)[start:stop], want)


def power_mel(sounds: np.ndarray, most_frames: int, xp: ModuleType = np) -> np.ndarray:
    """Mel powers of sounds, 20 log10(max(1e-5, power)) / 100, each sound by itself.

    Args:
        sounds: float [N, S], 16 kHz, full scale 1.
        most_frames: of 10 ms, the first that are kept.
        xp: numpy or jax.numpy.

    Returns:
        [N, F, 64] (time, band), F = min(most_frames, 1 + S // 160); float32, or float64 of such.
    """
    size = sounds.shape[-1]
    frames = min(most_frames, 1 + size // HOP)
    # Frame t is centred at sample 160 t, and beyond the ends the sound is reflected.
    at = np.abs(HOP * np.arange(frames)[:, None] + np.arange(WINDOW) - WINDOW // 2)
    at = np.where(at >= size, 2 * (size - 1) - at, at)
    windows = sounds[:, at]
    fourier, mel = (matrix.astype(sounds.dtype) for matrix in (_fourier_matrix(), _mel_matrix()))
    real, imaginary = xp.split(windows @ fourier, 2, axis=-1)
    power = (real * real + imaginary * imaginary) @ mel
    # Of silence exactly -1, however the logarithm rounds.
    return xp.maximum(xp.log10(xp.maximum(power, LEAST_POWER)) / 5, SILENCE)


def _bins() -> np.ndarray:
    """Frequencies of the FFT's bins inside the bands, Hz."""
    frequencies = np.arange(FFT_LENGTH // 2 + 1) * SAMPLE_RATE / FFT_LENGTH
    return frequencies[(frequencies > MEL_RANGE[0]) & (frequencies < MEL_RANGE[1])]


@functools.cache
def _fourier_matrix() -> np.ndarray:
    """Window and Fourier transform in one matrix, float64 [400, 2F]: cosines, then sines."""
    time = np.arange(WINDOW)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * time / WINDOW)  # periodic
    phase = 2 * np.pi / SAMPLE_RATE * np.outer(time, _bins())
    return np.concatenate([np.cos(phase), np.sin(phase)], axis=1) * hann[:, None]


@functools.cache
def _mel_matrix() -> np.ndarray:
    """Triangles that are linear in Hz, their edges evenly spaced in HTK's mel, float64 [F, 64]."""
    ends = 2595 * np.log10(1 + np.array(MEL_RANGE) / 700)
    edges = 700 * (10 ** (np.linspace(*ends, MEL_BANDS + 2) / 2595) - 1)
    lower, centre, upper = edges[:-2], edges[1:-1], edges[2:]
    frequency = _bins()[:, None]
    rising = (frequency - lower) / (centre - lower)
    falling = (upper - frequency) / (upper - centre)
    return np.maximum(0.0, np.minimum(rising, falling))
