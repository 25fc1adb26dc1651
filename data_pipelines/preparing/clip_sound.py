"""The sound of a clip: the recordings heard in it, cut, placed left and right, summed.

Without stereo it is mono, the mean of a file's channels. With it, left and right are a file's
first two channels, and mono is their mean. Where sources have positions, one at p with the mono
sound x is (1 - p) x on the left and p x on the right, so that mono is both added up; a source
without a position is in the middle there, half of each channel.
"""

import numpy as np

from data_pipelines.media import MediaError, sound_files
from data_pipelines.media.waveforms import (
    EXAMPLE_SAMPLES,
    OVERLAP_SAMPLES,
    SAMPLE_RATE,
    example_count,
    resample,
)
from data_pipelines.reading.layouts.folders import SUBSET as OWN_CLIPS
from data_pipelines.reading.raw import RawClip, Sound

# Something that was mended: code and sentence of the finding, and the seconds of the clip whose
# sound is a repetition.
Repair = tuple[str, str, frozenset[int]]


def is_placed(clip: RawClip, *, stereo: bool) -> bool:
    """Whether left and right come of positions: mono is then their sum."""
    return stereo and any(sound.position is not None for sound in clip.sounds)


def read_waveform(clip: RawClip, *, stereo: bool) -> tuple[np.ndarray, list[Repair]]:
    """Reads what is heard in a clip.

    Args:
        clip: with at least one sound.
        stereo: whether left and right are wanted.

    Returns:
        float32 at 16 kHz: [S, 1], mono, or, if `stereo` and they differ, [S, 2], left and right.
        For `centred` clips S is T seconds, for others up to one more.

    Raises:
        MediaError: naming the file.
    """
    sources, repairs = [], []
    for sound in clip.sounds:
        waveform, repeated = _read(clip, sound, stereo)
        repairs += repeated
        if is_placed(clip, stereo=stereo):
            position = 0.5 if sound.position is None else sound.position
            waveform = waveform * np.array([1 - position, position], np.float32)
        sources.append(waveform)
    total = np.zeros(np.max([waveform.shape for waveform in sources], axis=0), np.float32)
    for waveform in sources:
        total[: len(waveform)] += waveform  # of one channel: on both sides
    return total, repairs


def check_length(clip: RawClip, samples: int) -> list[Repair]:
    """What has to be repeated of a sound of so many samples (16 kHz) to last as long as its clip.

    Raises:
        MediaError: it is too short for one example, or for half of a clip of one's own.
    """
    names = ", ".join(str(sound.path) for sound in clip.sounds)
    count = example_count(samples)
    if not count:
        message = f"the sound is shorter than one second: too short for a log-mel example: {names}"
        raise MediaError("sound too short", message)
    if count >= clip.seconds:
        return []
    times = f"for {clip.seconds - count} of the clip's {clip.seconds} seconds"
    # In a folder of one's own, mostly repeated sound means that frames are not one a second.
    # Published sets know how long their clips are.
    if clip.subset == OWN_CLIPS and 2 * count < clip.seconds:
        pictures = clip.video is None and len(clip.frames) == clip.seconds
        hint = " (one frame a second is expected)" if pictures else ""
        message = f"the sound is too short: it would have to be repeated {times}{hint}: {names}"
        raise MediaError("sound too short", message)
    message = f"sound short: its last second was repeated {times}: {names}"
    return [("sound short", message, frozenset(range(count, clip.seconds)))]


def silent_seconds(waveform: np.ndarray, seconds: int) -> int:
    """How many seconds of a clip hear nothing, the last one repeated where the sound is short.

    Args:
        waveform: int16 [S, channels], 16 kHz, enough for one log-mel example.
        seconds: T, of the clip.
    """
    count = min(seconds, example_count(len(waveform)))
    starts = range(0, count * EXAMPLE_SAMPLES, EXAMPLE_SAMPLES)
    heard = [waveform[at : at + EXAMPLE_SAMPLES + OVERLAP_SAMPLES].any() for at in starts]
    return heard.count(False) + (seconds - count) * (not heard[-1])


def _read(clip: RawClip, sound: Sound, stereo: bool) -> tuple[np.ndarray, list[Repair]]:
    """float32 [S, 1 or 2] at 16 kHz, and what was repeated."""
    excerpt = sound_files.read_sound(
        sound.path,
        start=0 if clip.centred else clip.start,
        # More than is stored: resampling looks past the end.
        seconds=clip.seconds + (0 if clip.centred else 1),
        middle=clip.centred,
        sides=stereo and sound.position is None,
    )
    waveform = np.stack([resample(side, excerpt.rate) for side in excerpt.samples.T], axis=1)
    if not clip.centred:
        return waveform, []
    lasts = len(excerpt.samples) / excerpt.rate
    repairs = []
    if clip.seconds - lasts > 1 / excerpt.rate:  # a sample may be lost to rounding
        why = f"lasts {lasts:.2f} s, it was repeated to fill {clip.seconds} s"
        message = f"sound repeated: {sound.path} {why}"
        again = frozenset(range(int(lasts), clip.seconds))
        repairs.append(("sound repeated", message, again))
    return np.resize(waveform, (clip.seconds * SAMPLE_RATE, waveform.shape[1])), repairs
