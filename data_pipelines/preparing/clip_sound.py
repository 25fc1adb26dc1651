"""The sound of a clip: the recordings heard in it, cut, placed left and right, summed.

Mono is the mean of a file's channels. Left and right are its first two, or for a source with a
position p they are (1 - p) and p times its mono sound.
"""

import dataclasses

import numpy as np

from data_pipelines import audio
from data_pipelines.media import MediaError, sound_files
from data_pipelines.reading.layouts.folders import SUBSET as OWN_CLIPS
from data_pipelines.reading.raw import RawClip, Sound


@dataclasses.dataclass(frozen=True)
class Repair:
    """Something that was mended.

    Attributes:
        code: two or three words, the same for all repairs alike.
        message: one sentence.
        seconds: of the clip, whose sound is a repetition.
    """

    code: str
    message: str
    seconds: frozenset[int]


def read_waveforms(clip: RawClip, *, stereo: bool) -> tuple[list[np.ndarray], list[Repair]]:
    """Reads what is heard in a clip.

    Args:
        clip: with at least one sound.
        stereo: whether left and right are wanted.

    Returns:
        float32 [S] at 16 kHz: mono, and, if `stereo` and they differ from it, left and right. For
        `centred` clips S is T seconds, for others up to one more.

    Raises:
        MediaError: naming the file.
    """
    mono, left, right, repairs = [], [], [], []
    for sound in clip.sounds:
        waveforms, repeated = _read(clip, sound, stereo)
        repairs += repeated
        x = waveforms[0]
        mono.append(x)
        if sound.position is not None:
            left.append(np.float32(1 - sound.position) * x)
            right.append(np.float32(sound.position) * x)
        else:
            left.append(waveforms[-2 % len(waveforms)])
            right.append(waveforms[-1])
    sides = [left, right] if stereo else []
    if all(a is x and b is x for x, a, b in zip(mono, left, right, strict=True)):
        sides = []  # one channel each: computed once
    return [_sum(each) for each in (mono, *sides)], repairs


def log_mel(clip: RawClip, waveforms: list[np.ndarray]) -> tuple[list[np.ndarray], list[Repair]]:
    """Exactly T log-mel examples of each waveform, the last one repeated where it is short.

    Args:
        clip: whose sound it is.
        waveforms: all of the same length, float32 [S], 16 kHz.

    Returns:
        float32 [T, 96, 64] for each waveform.

    Raises:
        MediaError: it is too short for one example, or for half of a clip of one's own.
    """
    names = ", ".join(str(sound.path) for sound in clip.sounds)
    examples = [audio.log_mel_examples(waveform) for waveform in waveforms]
    count = len(examples[0])
    if not count:
        raise MediaError(
            "sound too short",
            f"the sound is shorter than one second: too short for a log-mel example: {names}",
        )
    repairs = []
    if count < clip.seconds:
        times = f"for {clip.seconds - count} of the clip's {clip.seconds} seconds"
        # In a folder of one's own, mostly repeated sound means that frames are not one a second.
        # Published sets know how long their clips are.
        if clip.subset == OWN_CLIPS and 2 * count < clip.seconds:
            pictures = clip.video is None and len(clip.frames) == clip.seconds
            hint = " (one frame a second is expected)" if pictures else ""
            raise MediaError(
                "sound too short",
                f"the sound is too short: it would have to be repeated {times}{hint}: {names}",
            )
        repairs.append(
            Repair(
                "sound short",
                f"sound short: its last second was repeated {times}: {names}",
                frozenset(range(count, clip.seconds)),
            )
        )
    return [audio.fit_examples(each, clip.seconds) for each in examples], repairs


def _read(clip: RawClip, sound: Sound, stereo: bool) -> tuple[list[np.ndarray], list[Repair]]:
    excerpt = sound_files.read_sound(
        sound.path,
        start=0 if clip.centred else clip.start,
        # More than the examples need: resampling looks past the end.
        seconds=clip.seconds + (0 if clip.centred else 1),
        middle=clip.centred,
        sides=stereo and sound.position is None,
    )
    waveforms = [audio.resample(channel, excerpt.rate) for channel in excerpt.samples.T]
    if not clip.centred:
        return waveforms, []
    want = clip.seconds * audio.SAMPLE_RATE
    lasts = len(excerpt.samples) / excerpt.rate
    repairs = []
    if clip.seconds - lasts > 1 / excerpt.rate:  # a sample may be lost to rounding
        repairs.append(
            Repair(
                "sound repeated",
                f"sound repeated: {sound.path} lasts {lasts:.2f} s, it was repeated to fill "
                f"{clip.seconds} s",
                frozenset(range(int(lasts), clip.seconds)),
            )
        )
    return [np.resize(waveform, want) for waveform in waveforms], repairs


def _sum(waveforms: list[np.ndarray]) -> np.ndarray:
    """Sounds of different lengths together, as long as the longest."""
    total = np.zeros(max(map(len, waveforms)), np.float32)
    for waveform in waveforms:
        total[: len(waveform)] += waveform
    return total
