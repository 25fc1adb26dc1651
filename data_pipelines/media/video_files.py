"""Frames of videos that may be broken or hostile."""

import contextlib
import os
from collections.abc import Iterator

import av
from PIL import Image

from data_pipelines import media
from data_pipelines.media import MediaError, streams

FRAME_MOMENT = 15 / 16  # s after the beginning of a second: 16 frames a second, the last taken
STAMP = 0.002  # s by which time stamps of frames are rounded (to whole milliseconds in Matroska)


def video_frames(
    path: str | os.PathLike[str], start: float, seconds: int
) -> Iterator[tuple[Image.Image, bool]]:
    """The frame that is seen 15/16 s after the beginning of each second.

    Args:
        path: of the video.
        start: where the first second begins, s.
        seconds: T.

    Yields:
        (8-bit RGB picture, True) for each second that the video reaches; where it lacks only the
        last of the T seconds, its last frame with False in place of that second's.

    Raises:
        MediaError: naming the file.
    """
    with media.open_file(path, "video") as file, contextlib.ExitStack() as stack:
        try:
            container, stream = streams.open_stream(file, stack, "video")
            yield from _at_moments(
                _decoded(container, stream, start),
                [start + t + FRAME_MOMENT for t in range(seconds)],
            )
        except (streams.StreamFault, *streams.ERRORS) as fault:
            raise MediaError(
                "video unreadable", f"video cannot be read: {path} ({streams.reason_of(fault)})"
            ) from fault


def _decoded(container, stream, start: float) -> Iterator[tuple[float, float, av.VideoFrame]]:
    """(time, duration, frame) of a video from a little before `start`, s."""
    origin = streams.origin(container)
    if start > 0:
        streams.seek(container, stream, start + origin)
    usual = float(1 / stream.average_rate) if stream.average_rate else 1 / 25
    pixels = 0
    timed = streams.timed_frames(container, stream, origin, usual)
    for count, (time, duration, frame) in enumerate(timed):
        pixels += frame.width * frame.height
        if count > media.MAX_DECODED_FRAMES or pixels > media.MAX_DECODED_PIXELS:
            raise streams.StreamFault("the moment asked for lies too deep in the stream")
        yield time, duration, frame


def _at_moments(frames, moments: list[float]) -> Iterator[tuple[Image.Image, bool]]:
    done, current, end = 0, None, 0.0
    for time, duration, frame in frames:
        if current is None and time > moments[0] + STAMP:
            raise streams.StreamFault(f"it shows nothing before second {time:g}")
        while time > moments[done] + STAMP:
            yield _picture(current), True
            done += 1
            if done == len(moments):
                return
        current, end = frame, time + duration
    while current is not None and done < len(moments) and moments[done] < end:
        yield _picture(current), True
        done += 1
    if current is not None and done == len(moments) - 1:
        yield _picture(current), False


def _picture(frame: av.VideoFrame) -> Image.Image:
    image = frame.to_image()
    turn = round(frame.rotation)  # phones store upright films lying
    return image.rotate(turn, expand=True) if turn % 90 == 0 else image
