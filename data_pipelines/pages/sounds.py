"""Sounds inside a page."""

import base64
import io

import numpy as np
import soundfile


def sound_uri(waveform: np.ndarray, rate: int) -> str:
    """A sound as text for the `src` of an `<audio>`.

    MP3, which every browser plays, at a tenth of the waveform's size and not quite its samples.
    Where libsndfile is too old to write it (before 1.1), WAV of 16 bits.

    Args:
        waveform: float [S, channels] of one or two channels, full scale 1.
        rate: Hz, one that MP3 has, as 16000 and 44100.
    """
    kind, media_type = ("MP3", "mpeg") if "MP3" in soundfile.available_formats() else ("WAV", "wav")
    buffer = io.BytesIO()
    soundfile.write(buffer, waveform, rate, format=kind)
    content = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f"data:audio/{media_type};base64,{content}"
