"""Excerpts of sound files, and of the sound tracks of videos, that may be broken or hostile.

libsndfile reads WAV, FLAC and OGG, FFmpeg's libraries everything else. Only what is asked for is
decoded and kept; the limits are in `media`.
"""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator

import av
import numpy as np
import soundfile

from data_pipelines import media
from data_pipelines.media import MediaError, streams

BLOCK = 65_536  # samples that are decoded at once
LEAD = 0.25  # s decoded before the moment wanted, as decoders of sound need a run-up
GAP = 0.05  # s by which time stamps must differ from the count of samples to be believed

_MAGIC = (b"RIFF", b"RIFX", b"RF64", b"fLaC", b"OggS")
_SOUNDFILE_ERRORS = (soundfile.SoundFileError, RuntimeError, OSError, ValueError)
ERRORS = (streams.StreamFault, *_SOUNDFILE_ERRORS, *streams.ERRORS)


@dataclasses.dataclass(frozen=True)
class Excerpt:
    """Part of a recording at its own sampling rate."""

    samples: np.ndarray  # float32 [S, 1] (mono: the mean of all channels), or [S, 2]: left, right
    rate: int  # Hz


@dataclasses.dataclass(frozen=True)
class Track:
    """An opened recording: `blocks(begin)` gives (position, float32 [n, channels]) from there.

    The first block may begin before `begin`. `length` is in samples; None: not known.
    """

    rate: int
    channels: int
    length: int | None
    blocks: Callable[[int], Iterator[tuple[int, np.ndarray]]]


def read_sound(
    path: str | os.PathLike[str],
    *,
    start: float = 0.0,
    seconds: float | None = None,
    middle: bool = False,
    sides: bool = False,
) -> Excerpt:
    """Reads a part of a sound file, or of the sound track of a video.

    Args:
        path: of the file.
        start: where to begin, s.
        seconds: how much at most; None: to the end.
        middle: take `seconds` from the middle of the file instead of from `start`.
        sides: whether left and right (the first two channels) are wanted in place of the mean.

    Returns:
        The excerpt, shorter than asked for where the file ends, but not empty. A file of one
        channel has no sides.

    Raises:
        MediaError: naming the file.
    """
    with media.open_file(path, "sound file") as file, contextlib.ExitStack() as stack:
        try:
            track = open_track(path, file, stack)
            with np.errstate(all="ignore"):  # numbers beyond all bounds are looked for below
                samples = _cut(path, track, start, seconds, middle, sides and track.channels > 1)
        except ERRORS as fault:
            raise unreadable(path, fault) from fault
    if not len(samples):
        where = f" from second {start:g} on" if start else ""
        raise MediaError("no samples", f"sound file holds no samples{where}: {path}")
    check_samples(path, samples)
    return Excerpt(samples, track.rate)


def sound_seconds(path: str | os.PathLike[str]) -> float:
    """How long a sound file, or the sound track of a video, is, s: its header's word, or counted.

    Raises:
        MediaError: naming the file.
    """
    with media.open_file(path, "sound file") as file, contextlib.ExitStack() as stack:
        try:
            track = open_track(path, file, stack, whole=True)
            length = track.length
            if length is None:
                length = max((at + len(block) for at, block in track.blocks(0)), default=0)
        except ERRORS as fault:
            raise unreadable(path, fault) from fault
    return length / track.rate


def open_track(path, file, stack: contextlib.ExitStack, *, whole: bool = False) -> Track:
    """Opens a recording.

    Args:
        path: of the file, for errors.
        file: opened.
        stack: that closes the track.
        whole: it is to be read to the end, however long that is.

    Raises:
        MediaError: its rate or channels are beyond the limits; ERRORS, of which `unreadable` makes
            a sentence, here and when blocks are read.
    """
    track = _open_with_soundfile(file, stack, whole) or _open_with_av(file, stack, whole)
    if not media.RATES[0] <= track.rate <= media.RATES[1]:
        raise _beyond(path, "cannot be used", f"its sampling rate is {track.rate} Hz")
    if not 1 <= track.channels <= media.MAX_CHANNELS:
        raise _beyond(path, "cannot be used", f"it has {track.channels} channels")
    return track


def unreadable(path, error: Exception) -> MediaError:
    message = f"sound file cannot be read: {path} ({streams.reason_of(error)})"
    return MediaError("sound unreadable", message)


def check_samples(path, samples: np.ndarray) -> None:
    """Raises a MediaError where samples are no sound of full scale 1."""
    if not np.isfinite(samples).all():
        message = f"sound file holds samples that are no numbers: {path}"
        raise MediaError("samples no numbers", message)
    if (highest := np.abs(samples).max(initial=0)) > media.MAX_LEVEL:
        raise MediaError(
            "samples out of range",
            f"sound file holds samples up to {highest:g}, they should lie between -1 and 1: {path}",
        )


def _cut(path, track: Track, start, seconds, middle: bool, sides: bool) -> np.ndarray:
    most = media.MAX_SOUND_VALUES // (2 if sides else 1)
    want = most + 1 if seconds is None else round(seconds * track.rate)
    if seconds is not None and want > most:
        raise _beyond(path, "is too long", f"{seconds:g} s at {track.rate} Hz")
    if not middle:
        samples = _fill(track, round(start * track.rate), want, sides)
        if len(samples) > most:
            raise _beyond(
                path, "is too long", f"more than {most / track.rate:.0f} s at {track.rate} Hz"
            )
        return samples
    if track.length is not None:
        samples = _fill(track, max(0, (track.length - want) // 2), want, sides)
        if len(samples) >= min(want, track.length):
            return samples
    # The length is not known, or was not true: what there is, up to the limit, tells it.
    samples = _fill(track, 0, most, sides)
    begin = max(0, (len(samples) - want) // 2)
    return samples[begin : begin + want].copy()


def _fill(track: Track, begin: int, want: int, sides: bool) -> np.ndarray:
    """float32 [up to `want`, 1 or 2]. Where a stream has gaps there is silence."""
    buffer = np.zeros((want, 2 if sides else 1), np.float32)
    end = 0
    for position, block in track.blocks(begin):
        offset = position - begin
        low, high = max(0, -offset), min(len(block), want - offset)
        if low < high:
            part = block[low:high]
            heard = part[:, :2] if sides else part.mean(axis=1, keepdims=True)
            buffer[offset + low : offset + high] = heard
            end = max(end, offset + high)
        if offset + len(block) >= want:
            break
    return buffer[:end]


def _open_with_soundfile(file, stack: contextlib.ExitStack, whole: bool) -> Track | None:
    """None: it is not for libsndfile, or libsndfile does not know it."""
    magic = file.read(4)
    file.seek(0)
    if magic not in _MAGIC:
        return None
    try:
        # By the descriptor, as Python objects are read slower and report faults on stderr.
        sound = stack.enter_context(soundfile.SoundFile(file.fileno(), closefd=False))
    except _SOUNDFILE_ERRORS:
        file.seek(0)
        return None

    def blocks(begin: int) -> Iterator[tuple[int, np.ndarray]]:
        if begin >= sound.frames:
            return
        sound.seek(begin)
        position, decoded = begin, 0
        while len(block := sound.read(BLOCK, dtype="float32", always_2d=True)):
            yield position, block
            position += len(block)
            decoded += block.size
            if decoded > media.MAX_DECODED_VALUES and not whole:
                raise streams.StreamFault("it is too long")

    # FLAC files need not say how long they are; libsndfile then gives the largest number there is.
    length = sound.frames if sound.frames < 2**48 else None
    return Track(sound.samplerate, sound.channels, length, blocks)


def _open_with_av(file, stack: contextlib.ExitStack, whole: bool) -> Track:
    container, stream = streams.open_stream(file, stack, "audio", whole=whole)
    rate, channels = stream.codec_context.sample_rate or 0, stream.codec_context.channels
    length = None
    if stream.duration and stream.time_base:
        length = round(stream.duration * stream.time_base * rate)
    elif container.duration:
        length = round(container.duration * rate / av.time_base)

    def blocks(begin: int) -> Iterator[tuple[int, np.ndarray]]:
        origin = streams.origin(container)
        streams.seek(container, stream, max(0.0, begin / rate - LEAD) + origin)
        position, decoded = None, 0
        for frame in streams.decoded_frames(container, stream):
            block = _to_float(frame)
            if frame.sample_rate != rate or block.shape[1] != channels:
                raise streams.StreamFault("it changes its sampling rate or channels midway")
            stamp = position
            if frame.pts is not None and frame.time_base:
                stamp = round((float(frame.pts * frame.time_base) - origin) * rate)
            if position is None or abs(stamp - position) > GAP * rate:
                position = begin if stamp is None else stamp
            yield position, block
            position += len(block)
            decoded += block.size
            if decoded > media.MAX_DECODED_VALUES and not whole:
                raise streams.StreamFault("the moment asked for lies too deep in the stream")

    return Track(rate, channels, length if length and length > 0 else None, blocks)


def _to_float(frame: av.AudioFrame) -> np.ndarray:
    """float32 [n, channels], full scale 1."""
    samples = frame.to_ndarray()
    channels = frame.layout.nb_channels
    samples = samples.T if frame.format.is_planar else samples.reshape(-1, channels)
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128) / 128
    if samples.dtype.kind == "i":
        return (samples / float(2 ** (8 * samples.dtype.itemsize - 1))).astype(np.float32)
    return samples.astype(np.float32)


def _beyond(path, what: str, reason: str) -> MediaError:
    return MediaError("sound out of limits", f"sound file {what}: {path} ({reason})")
