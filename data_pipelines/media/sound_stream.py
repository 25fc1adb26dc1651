"""A sound of any length as a 16 kHz waveform, read once from beginning to end."""

import contextlib
import os
from collections.abc import Iterator

import numpy as np
import soxr

from data_pipelines import media
from data_pipelines.facts.avsbench import SAMPLE_RATE
from data_pipelines.media import sound_files
from data_pipelines.media.waveforms import FULL_SCALE, to_int16

PEAKS = 50  # a second, of what is told of a sound's course
GAP_BLOCK = 65_536  # samples of a gap that are filled at once


class SoundStream:
    """A sound from some moment on, which counts as its second 0.

    Samples are those that prepared data hold: the mean of the channels, or left and right; at 16
    kHz; rounded to 16 bits.

    Attributes:
        begins: s of the first sample that there is, known once something was read; None: none was.
        ends: s after which there is no more; None: not known yet.
    """

    def __init__(self, channels: int):
        """Of silence; `open_sound` makes the others."""
        self.begins: float | None = None
        self.ends: float | None = None
        self._blocks: Iterator[np.ndarray] = iter(())
        self._kept = np.zeros((0, channels), np.float32)
        self._last = 0  # how many samples have been read
        self._peaks: list[np.ndarray] = []
        self._beyond = np.zeros(0, np.float32)  # levels that fill no peak yet

    def read(self, begin: int, end: int) -> np.ndarray:
        """Samples from `begin` to `end`, silence where there are none.

        Args:
            begin: in samples, not before that of the call before.
            end: the sample after the last.

        Returns:
            float32 [end - begin, channels], full scale 1.

        Raises:
            MediaError: the file cannot be read on.
        """
        parts = [self._kept]
        while self.ends is None and self._last < end:
            block = next(self._blocks, None)
            if block is None:
                self.ends = self._last / SAMPLE_RATE
            else:
                self._last += len(block)
                self._note(block)
                parts.append(block)
        kept = np.concatenate(parts)
        first = self._last - len(kept)
        samples = kept[max(0, begin - first) : max(0, end - first)]
        self._kept = kept[max(0, begin - first) :].copy()
        return np.pad(samples, ((0, end - begin - len(samples)), (0, 0)))

    def peaks(self) -> np.ndarray:
        """Highest level of each 1/50 s that was read, float32 [n], 0..1."""
        return np.minimum(np.concatenate([np.zeros(0, np.float32), *self._peaks]), 1)

    def _note(self, block: np.ndarray) -> None:
        levels = np.concatenate([self._beyond, np.abs(block).max(axis=1)])
        whole = len(levels) // (SAMPLE_RATE // PEAKS) * (SAMPLE_RATE // PEAKS)
        self._peaks.append(levels[:whole].reshape(-1, SAMPLE_RATE // PEAKS).max(axis=1))
        self._beyond = levels[whole:]


@contextlib.contextmanager
def open_sound(
    path: str | os.PathLike[str], start: float = 0.0, channels: int = 1
) -> Iterator[SoundStream]:
    """Opens a sound file, or the sound track of a video, to be read on from a moment.

    Args:
        path: of the file.
        start: s.
        channels: 1, or 2 for left and right, which are alike in a file of one channel.

    Raises:
        MediaError: naming the file, now or while it is read.
    """
    with media.open_file(path, "sound file") as file, contextlib.ExitStack() as stack:
        try:
            track = sound_files.open_track(path, file, stack, whole=True)
        except sound_files.ERRORS as fault:
            raise sound_files.unreadable(path, fault) from fault
        stream = SoundStream(channels)
        stream._blocks = _resampled(stream, track, path, start)
        yield stream


def _resampled(stream: SoundStream, track, path, start: float) -> Iterator[np.ndarray]:
    """float32 [n, channels] at 16 kHz, one after the other."""
    channels = stream._kept.shape[1]
    native = _native(stream, track, path, start, channels)
    if track.rate != SAMPLE_RATE:
        native = _at_16_khz(native, track.rate, channels)
    for block in native:
        if len(block):
            yield to_int16(block).astype(np.float32) / np.float32(FULL_SCALE)


def _at_16_khz(blocks: Iterator[np.ndarray], rate: int, channels: int) -> Iterator[np.ndarray]:
    resampler = soxr.ResampleStream(rate, SAMPLE_RATE, channels, dtype="float32", quality="HQ")
    for block in blocks:
        yield resampler.resample_chunk(np.ascontiguousarray(block)).reshape(-1, channels)
    none = np.zeros((0, channels), np.float32)
    yield resampler.resample_chunk(none, last=True).reshape(-1, channels)


def _native(stream: SoundStream, track, path, start: float, channels: int) -> Iterator[np.ndarray]:
    """float32 [n, channels] at the track's own rate, gaps filled with silence."""
    begin = position = round(start * track.rate)
    blocks = track.blocks(begin)
    while True:
        try:
            with np.errstate(all="ignore"):  # numbers beyond all bounds are looked for below
                at, block = next(blocks, (None, None))
        except sound_files.ERRORS as fault:
            raise sound_files.unreadable(path, fault) from fault
        if block is None:
            return
        sound_files.check_samples(path, block)
        block = block[max(0, position - at) :]
        if not len(block):
            continue
        if stream.begins is None:
            stream.begins = max(0, at - begin) / track.rate
        while position < at:
            gap = min(GAP_BLOCK, at - position)
            yield np.zeros((gap, channels), np.float32)
            position += gap
        if channels == 1:
            yield block.mean(axis=1, keepdims=True)
        else:
            yield block[:, :2] if block.shape[1] > 1 else np.repeat(block, 2, axis=1)
        position += len(block)
