"""Arrays that a user gives, as networks take them."""

import numpy as np
from PIL import Image

from aavs_jax.errors import UserError
from data_pipelines.media import RATES
from data_pipelines.media.waveforms import FULL_SCALE, resample

MAX_LEVEL = 8.0  # of samples whose full scale is 1; above, they are surely of another scale


def checked_frames(frames: np.ndarray) -> np.ndarray:
    """uint8 [T,H,W,3].

    Raises:
      UserError: they are something else.
    """
    frames = np.asarray(frames)
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not frames.size:
        raise UserError(
            f"frames are {frames.dtype} {list(frames.shape)}: give uint8 [T,H,W,3], 0 to 255, one "
            "a second"
        )
    return frames


def shown_at(frame: np.ndarray, side: int) -> np.ndarray:
    """A frame uint8 [H,W,3] as the loader shows it: squeezed into a square, uint8 [S,S,3]."""
    if frame.shape[:2] == (side, side):
        return frame
    picture = Image.fromarray(frame).resize((side, side), Image.Resampling.BILINEAR)
    return np.asarray(picture)


def heard(waveform: np.ndarray, rate: int, channels: int) -> np.ndarray:
    """A sound as front ends want it.

    Args:
      waveform: [S] or [S,1 or 2], float in [-1,1] or int16.
      rate: Hz.
      channels: 1: the mean of both; 2: one channel is both sides.

    Returns:
      float32 [S',channels] at 16 kHz.

    Raises:
      UserError: it is something else.
    """
    given = np.asarray(waveform)
    sound = given[:, None] if given.ndim == 1 else given
    if sound.ndim != 2 or sound.shape[1] not in (1, 2) or not len(sound):
        raise UserError(f"a waveform of shape {list(given.shape)} is no sound: give [S] or [S,2]")
    if not (sound.dtype == np.int16 or np.issubdtype(sound.dtype, np.floating)):
        raise UserError(f"the waveform is {sound.dtype}: give floats in [-1,1], or int16")
    if not (isinstance(rate, (int, np.integer)) and RATES[0] <= rate <= RATES[1]):
        raise UserError(f"sample_rate is {rate!r}: give it in Hz, such as 16000 or 44100")
    if sound.dtype == np.int16:
        sound = sound.astype(np.float32) / np.float32(FULL_SCALE)
    else:
        sound = sound.astype(np.float32)
        highest = np.abs(sound).max()
        if not highest <= MAX_LEVEL:  # nor is it where it is no number
            raise UserError(
                f"the waveform's samples reach {highest:g}: give floats in [-1,1], or int16"
            )
    if channels == 1:
        sound = sound.mean(1, keepdims=True)
    elif sound.shape[1] == 1:
        sound = np.repeat(sound, 2, axis=1)
    return np.stack([resample(side, rate) for side in sound.T], axis=1)
