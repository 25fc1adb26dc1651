"""A recording becomes a source that can sound in every second of a clip."""

import numpy as np

from data_pipelines.facts.avsbench import SAMPLE_RATE

_SPEED = (0.93, 1.07)  # of the recording: pitch and pace together
_GAP = (0.04, 0.3)  # s between two repetitions
_WOBBLE = 2.0  # dB, more or less, of each repetition
_FADE = 80  # samples (5 ms) at both ends of each repetition


def source(recording: np.ndarray, rng: np.random.Generator, seconds: int) -> np.ndarray:
    """A recording from somewhere in it, repeated with short gaps; each time a little different.

    Args:
      recording: float32 [n], 16 kHz, root mean square 1.
      rng: chance.
      seconds: T.

    Returns:
      float64 [T * 16000].
    """
    count = seconds * SAMPLE_RATE
    track = np.zeros(count)
    # It has begun before the clip does, so no two clips start at the same place.
    at = -int(rng.random() * len(recording))
    speed = rng.uniform(*_SPEED)
    while at < count:
        again = _at_speed(recording, speed * rng.uniform(0.99, 1.01))
        again *= 10 ** (rng.uniform(-_WOBBLE, _WOBBLE) / 20)
        start, end = max(at, 0), min(at + len(again), count)
        if end > start:
            track[start:end] = again[start - at : end - at]
        at += len(again) + int(rng.uniform(*_GAP) * SAMPLE_RATE)
    return track


def _at_speed(recording, speed):
    """Resampled by linear interpolation, with soft ends."""
    length = max(2 * _FADE, int(len(recording) / speed))
    places = np.linspace(0, len(recording) - 1, length)
    sound = np.interp(places, np.arange(len(recording)), recording)
    ramp = (np.arange(_FADE) + 0.5) / _FADE
    sound[:_FADE] *= ramp
    sound[-_FADE:] *= ramp[::-1]
    return sound
