"""Films that every browser plays, written as their frames come: memory does not grow with them."""

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np

from data_pipelines import media
from data_pipelines.errors import reason, remedy
from data_pipelines.media import MediaError, sound_files, streams

TICKS = 90_000  # a second: whole numbers of them for all usual frame rates
KEY_FRAMES = 48  # from which a player can begin: one of so many

# What the browsers play, the best first, and how each is told to be quick.
_ENCODERS = {
    "libx264": {"preset": "veryfast"},
    "libopenh264": {},
    "h264_videotoolbox": {},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "6"},
}
# The codes of BT.709, in its limited range, as FFmpeg numbers them.
_BT709, _LIMITED = 1, 1

_COPIED = ("aac", "mp3")  # sound that all browsers play in MP4 as it is
_AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
_USUAL_RATE = 48_000
_BLOCK = 16_384  # samples of silence that are made at once


@dataclasses.dataclass(frozen=True)
class SoundTrack:
    """The sound of a film.

    Attributes:
        path: of a sound file, or of a video that has a sound track.
        start: s of it that is heard at the film's second 0, by the file's clock.
        seconds: for how long.
    """

    path: str | os.PathLike[str]
    start: float
    seconds: float


class FilmWriter:
    """An MP4 file in the making: H.264, and AAC or the sound as it came.

        with FilmWriter(path, 640, 360, sound=SoundTrack("clip.mp4", 0, 10)) as film:
            for seconds, picture in ...:
                film.write(seconds, picture)
            film.finish(10)

    Frames keep their times, however irregular. The file is no film before `finish`, and what is
    there then is the caller's to remove. Sizes that are odd gain a column or a row.

    Attributes:
        width: of the pictures it is given.
        height: likewise.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        width: int,
        height: int,
        *,
        sound: SoundTrack | None = None,
        crf: int = 20,
        rate_hint: float = 30.0,
    ):
        """Opens the file.

        Args:
            path: of the file, which is replaced.
            width: of the pictures.
            height: likewise.
            sound: what is heard; None: the film has no sound track.
            crf: x264's quality, 18 (hardly seen from the original) to 28 (small); other encoders
                take their own.
            rate_hint: about how many frames there are in a second.

        Raises:
            MediaError: the sound cannot be read, or no encoder is there.
        """
        self.width, self.height = width, height
        self._path = path
        self._held: av.VideoFrame | None = None  # its duration is known when the next one comes
        self._sound: Iterator[tuple[float, list]] = iter(())
        self._heard = 0.0  # s of sound that are written
        self._encoder = None  # of a sound that is not copied
        with contextlib.ExitStack() as stack, self._as_sentence():
            # A name without a folder could be taken for a protocol, as in "a:b.mp4".
            name = os.path.abspath(path)
            options = {"movflags": "+faststart"}
            self._container = stack.enter_context(
                av.open(name, "w", format="mp4", container_options=options)
            )
            self._video = self._add_video(crf, rate_hint)
            if sound is not None:
                self._sound = self._add_sound(sound, stack)
            self._stack = stack.pop_all()

    def __enter__(self) -> "FilmWriter":
        return self

    def __exit__(self, *_) -> None:
        # Of a film that was not finished nobody wants to know what else is wrong with it.
        with contextlib.suppress(*streams.ERRORS):
            self._stack.close()

    def write(self, seconds: float, picture: np.ndarray) -> None:
        """Adds a frame.

        Args:
            seconds: when it is shown, after those before it. The first is shown from 0 on, as
                players differ in what they do before it.
            picture: uint8 [H,W,3], RGB, of the film's size.

        Raises:
            MediaError: the file cannot be written, or the sound not read on.
            ValueError: a picture of another size or dtype.
        """
        shape = (self.height, self.width, 3)
        if picture.shape != shape or picture.dtype != np.uint8:
            found = f"{picture.dtype} {list(picture.shape)}"
            raise ValueError(f"{found} in a film of uint8 {list(shape)}")
        with self._as_sentence():
            tick = 0
            if self._held is not None:
                tick = max(round(seconds * TICKS), self._held.pts + 1)
            self._encode_held(tick)
            self._held = self._frame(picture, tick)

    def finish(self, end_seconds: float) -> None:
        """Ends the film, and closes the file.

        Args:
            end_seconds: until when the last frame is shown; no more sound is read after it.

        Raises:
            MediaError: see `write`; or there was no frame.
        """
        if self._held is None:
            raise MediaError("film empty", f"no frame for the film {self._path}")
        with self._as_sentence():
            self._encode_held(max(round(end_seconds * TICKS), self._held.pts + 1))
            self._container.mux(self._video.encode(None))
            if self._encoder is not None:
                self._container.mux(self._encoder.encode(None))
            self._stack.close()

    def _add_video(self, crf: int, rate_hint: float):
        encoder = next((name for name in _ENCODERS if name in av.codecs_available), None)
        if encoder is None:
            raise MediaError("film unwritable", "PyAV has no encoder of H.264: install av>=15")
        options = {"crf": str(crf)} if encoder == "libx264" else {}
        rate = Fraction(max(1.0, rate_hint)).limit_denominator(1001)
        stream = self._container.add_stream(encoder, rate, options=_ENCODERS[encoder] | options)
        stream.width, stream.height = self.width + self.width % 2, self.height + self.height % 2
        stream.pix_fmt = _YUV
        stream.time_base = stream.codec_context.time_base = Fraction(1, TICKS)
        context = stream.codec_context
        # Without frames that lean on later ones every player finds each frame at its own time.
        context.max_b_frames, context.gop_size = 0, KEY_FRAMES
        context.flags |= av.codec.context.Flags.frame_duration
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _LIMITED
        return stream

    def _add_sound(self, sound: SoundTrack, stack: contextlib.ExitStack):
        """(s that are reached, packets) of the sound, as an iterator."""
        if sound.start == 0:
            opened = _to_be_copied(sound.path, stack)
            if opened is not None:
                target = self._container.add_stream_from_template(opened[1])
                return _copied(sound, *opened, target)
        file = stack.enter_context(media.open_file(sound.path, "sound file"))
        try:
            track = sound_files.open_track(sound.path, file, stack, whole=True)
        except sound_files.ERRORS as fault:
            raise sound_files.unreadable(sound.path, fault) from fault
        layout = "mono" if track.channels == 1 else "stereo"
        rate = track.rate if track.rate in _AAC_RATES else _USUAL_RATE
        self._encoder = self._container.add_stream("aac", rate, layout=layout)
        return _encoded(sound, track, self._encoder, layout)

    def _frame(self, picture: np.ndarray, tick: int) -> av.VideoFrame:
        if self.height % 2 or self.width % 2:
            more = ((0, self.height % 2), (0, self.width % 2), (0, 0))
            picture = np.pad(picture, more, mode="edge")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24").reformat(
            format=_YUV, dst_colorspace="ITU709", dst_color_range="MPEG"
        )
        frame.pts, frame.time_base = tick, Fraction(1, TICKS)
        return frame

    def _encode_held(self, until: int) -> None:
        """Writes the last frame, which is shown until then (in ticks), and the sound to it."""
        if self._held is not None:
            self._held.duration = until - self._held.pts
            self._container.mux(self._video.encode(self._held))
            self._write_sound(until / TICKS)

    def _write_sound(self, until: float) -> None:
        while self._heard < until:
            self._heard, packets = next(self._sound, (float("inf"), []))
            self._container.mux(packets)

    @contextlib.contextmanager
    def _as_sentence(self) -> Iterator[None]:
        try:
            yield
        except streams.ERRORS as fault:
            message = f"cannot write {self._path} ({reason(fault)}): {remedy(fault)}"
            raise MediaError("film unwritable", message) from fault


_YUV = "yuv420p"


def _to_be_copied(path, stack: contextlib.ExitStack):
    """Container and stream of a sound that needs no other encoding; None: it does."""
    with contextlib.ExitStack() as opened:
        file = opened.enter_context(media.open_file(path, "sound file"))
        try:
            container, stream = streams.open_stream(file, opened, "audio", whole=True)
        except (streams.StreamFault, *streams.ERRORS):
            return None  # libsndfile may know it, or says what is wrong
        if stream.codec_context.codec.canonical_name not in _COPIED:
            return None
        stack.push(opened.pop_all())
        return container, stream


def _copied(sound: SoundTrack, container, stream, target) -> Iterator[tuple[float, list]]:
    origin = round(streams.origin(container) / stream.time_base)
    try:
        for packet in container.demux(stream):
            if packet.dts is None or packet.pts is None:  # the last one, which is empty
                continue
            packet.pts, packet.dts = packet.pts - origin, packet.dts - origin
            at = float(packet.pts * stream.time_base)
            if at >= sound.seconds:
                return
            packet.stream = target
            yield at, [packet]
    except streams.ERRORS as fault:
        raise sound_files.unreadable(sound.path, fault) from fault


def _encoded(sound: SoundTrack, track, target, layout: str) -> Iterator[tuple[float, list]]:
    done = 0
    for block in _blocks(sound, track):
        if block.shape[1] > 2:  # which is which is not known: all of them on both sides
            block = np.repeat(block.mean(axis=1, keepdims=True), 2, axis=1)
        planes = np.ascontiguousarray(np.clip(block, -1, 1).T)
        frame = av.AudioFrame.from_ndarray(planes, format="fltp", layout=layout)
        frame.sample_rate, frame.pts = track.rate, done
        frame.time_base = Fraction(1, track.rate)
        done += len(block)
        yield done / track.rate, target.encode(frame)


def _blocks(sound: SoundTrack, track) -> Iterator[np.ndarray]:
    """float32 [n, channels], one after the other from `start` on, gaps filled with silence."""
    begin = position = round(sound.start * track.rate)
    end = begin + round(sound.seconds * track.rate)
    blocks = track.blocks(begin)
    while position < end:
        try:
            at, block = next(blocks, (end, None))
        except sound_files.ERRORS as fault:
            raise sound_files.unreadable(sound.path, fault) from fault
        if block is None:
            return
        sound_files.check_samples(sound.path, block)
        while position < min(at, end):
            length = min(_BLOCK, at - position, end - position)
            yield np.zeros((length, track.channels), np.float32)
            position += length
        block = block[position - at : end - at]
        if len(block):
            yield block
            position += len(block)
