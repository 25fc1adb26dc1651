"""Files read with FFmpeg's libraries (PyAV): opened within limits, sought, decoded.

Playlists, which would lead FFmpeg to other files or into the network, are not read; of large files
only a part is. The limits are in `media`.
"""

import contextlib
import os
from collections.abc import Iterator

import av

from data_pipelines import media

RUN_UP_PACKETS = 64  # that may be broken before the first one that is whole

# What PyAV raises on files that are broken.
ERRORS = (av.FFmpegError, OSError, ValueError, RuntimeError)

# MPEG's transport streams and the like are missing, too: they name their streams only midway, when
# the limit on pixels can no longer be set.
_CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,ogg,flac,wav,w64,aiff,au,caf,amr,mp3,aac"


class StreamFault(Exception):
    """Found in a stream, said by the caller, who knows the name of the file."""


class _Bounded:
    """A file that ends after so many bytes have been read of it, in whatever order."""

    def __init__(self, file):
        self._file, self._left = file, media.MAX_STREAM_BYTES

    def read(self, size: int) -> bytes:
        data = self._file.read(min(size, self._left)) or b""
        self._left -= len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def open_stream(file, stack: contextlib.ExitStack, kind: str, *, whole: bool = False):
    """Container and its best stream of a kind, decoded by one thread (others use the cores).

    Args:
        file: opened; read within `media.MAX_STREAM_BYTES`.
        stack: that closes the container.
        kind: "audio" or "video".
        whole: it is to be read to the end, however long that is, and may be an animation.
    """
    codec = {"threads": "1", "max_pixels": str(media.MAX_VIDEO_PIXELS)}
    probe = {
        "format_whitelist": f"{_CONTAINERS},gif" if whole else _CONTAINERS,
        "probesize": str(media.PROBE_BYTES),
        "analyzeduration": str(media.PROBE_MICROSECONDS),
    }
    container = stack.enter_context(
        av.open(file if whole else _Bounded(file), options=codec | probe, metadata_errors="replace")
    )
    stream = container.streams.best(kind)
    if stream is None or stream.codec_context is None:
        raise StreamFault("it has no sound track" if kind == "audio" else "it has no picture track")
    context = stream.codec_context
    if kind == "video":
        check_frame(context.width, context.height, context.format)
    context.options = codec
    context.thread_count = 1
    return container, stream


def origin(container) -> float:
    """The moment in the container's time that counts as second 0."""
    # What lies before 0 is the run-up of a decoder, and not heard or seen.
    return max(0, container.start_time or 0) / av.time_base


def seek(container, stream, seconds: float) -> None:
    # What cannot be sought is decoded from where it is; time stamps tell where that is.
    with contextlib.suppress(av.FFmpegError, OverflowError):
        container.seek(int(seconds / (stream.time_base or 1)), stream=stream)


def decoded_frames(container, stream) -> Iterator:
    """All frames of a stream from where the container stands."""
    begun, broken = False, []
    for packet in container.demux(stream):
        if packet.has_sidedata("encryption_info"):  # noise, which FFmpeg may decode
            raise StreamFault("it is encrypted: decrypt it first, or record it anew")
        try:
            frames = packet.decode()
        except av.InvalidDataError as fault:
            # After a seek the first packets may be halves of what went before.
            broken.append(fault)
            if begun or len(broken) > RUN_UP_PACKETS:
                raise
            continue
        for frame in frames:
            begun = True
            yield frame
    if broken and not begun:
        raise broken[0]


def timed_frames(container, stream, origin: float, usual: float) -> Iterator[tuple]:
    """(time, duration, frame) of a video from where the container stands, in s from `origin`.

    Args:
        container: opened.
        stream: of it.
        origin: see `origin`.
        usual: s from one frame to the next, for those that do not say.
    """
    time = -usual
    for frame in decoded_frames(container, stream):
        check_frame(frame.width, frame.height, frame.format)
        time += usual
        if frame.pts is not None and frame.time_base:
            time = float(frame.pts * frame.time_base) - origin
        yield time, float(frame.duration * frame.time_base) if frame.duration else usual, frame


def reason_of(fault: Exception) -> str:
    if isinstance(fault, av.FFmpegError):
        return fault.strerror or "FFmpeg cannot decode it"
    return str(fault) or type(fault).__name__


def check_frame(width: int, height: int, form: av.VideoFormat | None) -> None:
    """Raises StreamFault where decoding such frames could need too much memory."""
    pixels = width * height
    if pixels > media.MAX_VIDEO_PIXELS:
        raise StreamFault(f"its frames of {width}x{height} pixels are larger than 3840x2160")
    if form is not None and pixels * form.padded_bits_per_pixel > 8 * media.MAX_VIDEO_BYTES:
        raise StreamFault(
            f"its frames of {width}x{height} pixels in {form.name} need too much memory"
        )
