"""Films read from their first frame to their last, however long: memory does not grow with them."""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator

import av
import cv2
import numpy as np

from data_pipelines import media
from data_pipelines.media import MediaError, streams
from data_pipelines.media.video_files import STAMP

CUT_SHORT = 1.0  # s that a film may lack of the length in its header
# Transfer functions of high dynamic range, as FFmpeg numbers them: PQ and HLG.
_HIGH_RANGE = (16, 18)


@dataclasses.dataclass(frozen=True)
class Shown:
    """A frame of a film.

    Attributes:
        seconds: when it is shown, by the film's own clock.
        duration: for how long, s.
        picture: gives it: uint8 [H,W,3], RGB, upright, with square pixels.
    """

    seconds: float
    duration: float
    picture: Callable[[], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Film:
    """An opened film.

    Attributes:
        width: of its pictures, upright, with square pixels.
        height: likewise.
        rate: frames a second, on average.
        duration: s until its last frame ends, as its header says; None: it does not.
        has_sound: whether it has a sound track.
        high_range: whether its colours are of high dynamic range, which is shown without mapping.
        frames: start in s -> its frames from the one that is seen then. To be called once.
    """

    width: int
    height: int
    rate: float
    duration: float | None
    has_sound: bool
    high_range: bool
    frames: Callable[[float], Iterator[Shown]]


@contextlib.contextmanager
def open_film(path: str | os.PathLike[str]) -> Iterator[Film]:
    """Opens a video to be read whole.

    Args:
        path: of the file.

    Raises:
        MediaError: naming the file, now or while frames are read; also where it ends more than
            `CUT_SHORT` before the end that its header promises.
    """
    with media.open_file(path, "video") as file, contextlib.ExitStack() as stack:
        if not os.fstat(file.fileno()).st_size:
            raise _unreadable(path, "the file is empty")
        with _as_sentence(path):
            container, stream = streams.open_stream(file, stack, "video", whole=True)
            context = stream.codec_context
            aspect = float(stream.sample_aspect_ratio or 0) or 1.0
            first = _first_picture(container, stream, aspect)
            has_sound = container.streams.best("audio") is not None
        if first is None:
            raise _unreadable(path, "it has no frames")
        (height, width, _), origin = first.shape, streams.origin(container)
        rate = float(stream.average_rate or stream.guessed_rate or 25)
        duration = _end_of(stream, origin)

        def picture_of(frame: av.VideoFrame) -> np.ndarray:
            with _as_sentence(path):
                return _picture(frame, aspect, first.shape)

        def frames(start: float = 0.0) -> Iterator[Shown]:
            with _as_sentence(path):
                end, before = 0.0, None
                # What was decoded to learn the size is decoded again: few containers give it back.
                streams.seek(container, stream, start + origin)
                timed = streams.timed_frames(container, stream, origin, 1 / rate)
                for time, lasts, frame in timed:
                    shown = Shown(time, lasts, lambda frame=frame: picture_of(frame))
                    end = max(end, time + lasts)
                    if time <= start + STAMP:
                        before = shown
                        continue
                    if before is not None:
                        yield before
                        before = None
                    yield shown
                if before is not None and duration is None and end < start:
                    raise streams.StreamFault(f"it ends after {end:.1f} s, before second {start:g}")
                if before is not None:
                    yield before
                if duration is not None and end < duration - CUT_SHORT:
                    raise streams.StreamFault(
                        f"it ends after {end:.1f} s of {duration:.1f} s: the file is cut short"
                    )

        yield Film(
            width,
            height,
            rate,
            duration,
            has_sound,
            getattr(context, "color_trc", None) in _HIGH_RANGE,
            frames,
        )


def at_moments(
    frames: Iterator[Shown], moments: Iterator[float], late: float = 0.0
) -> Iterator[tuple[float, Shown]]:
    """The frame that is seen at each of some moments.

    Args:
        frames: in order of time.
        moments: in s, growing, without end.
        late: s by which a moment may come after the film's end; the last frame is taken for it.

    Yields:
        (moment, frame), at least one of a film that has a frame: one shorter than the first moment
        gives its last. In place of a moment after the end one of the last frame is told.
    """
    current, moment, none_yet = None, next(moments), True
    for shown in frames:
        while current is not None and shown.seconds > moment + STAMP:
            yield moment, current
            moment, none_yet = next(moments), False
        current = shown
    if current is None:
        return
    end = current.seconds + current.duration
    while moment < end + late or none_yet:
        yield moment if moment < end else max(current.seconds, end - late), current
        moment, none_yet = next(moments), False


def _end_of(stream, origin: float) -> float | None:
    """s, from the moment that counts as 0: the pictures may begin later than the sound."""
    if not stream.duration or stream.duration < 0 or not stream.time_base:
        return None
    begin = float((stream.start_time or 0) * stream.time_base) - origin
    return max(0.0, begin) + float(stream.duration * stream.time_base)


def _first_picture(container, stream, aspect: float) -> np.ndarray | None:
    for frame in streams.decoded_frames(container, stream):
        streams.check_frame(frame.width, frame.height, frame.format)
        return _picture(frame, aspect)
    return None


def _picture(
    frame: av.VideoFrame, aspect: float, shape: tuple[int, ...] | None = None
) -> np.ndarray:
    """uint8 [H,W,3], of a shape that is given; `aspect` is the width of a pixel by its height."""
    picture = frame.to_ndarray(format="rgb24")
    if aspect != 1:
        wide = max(1, round(picture.shape[1] * aspect))
        if wide * picture.shape[0] <= media.MAX_VIDEO_PIXELS:
            picture = cv2.resize(picture, (wide, picture.shape[0]), interpolation=cv2.INTER_LINEAR)
    turn = round(frame.rotation)  # phones store upright films lying
    if turn % 90 == 0:
        picture = np.rot90(picture, turn // 90)
    if shape is not None and picture.shape != shape:  # a film whose size changes midway
        picture = cv2.resize(picture, shape[1::-1], interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(picture)


@contextlib.contextmanager
def _as_sentence(path) -> Iterator[None]:
    try:
        yield
    except av.InvalidDataError as fault:
        reason = "it is cut short, damaged, encrypted or no video: does a player show it?"
        raise _unreadable(path, reason) from fault
    except (streams.StreamFault, *streams.ERRORS) as fault:
        raise _unreadable(path, streams.reason_of(fault)) from fault


def _unreadable(path, reason: str) -> MediaError:
    return MediaError("video unreadable", f"video cannot be read: {path} ({reason})")
