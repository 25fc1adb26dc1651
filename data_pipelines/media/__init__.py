"""Files that may be broken or hostile: the limits, how files are opened, and pictures.

Sound and video are in `sound_files` and `video_files`. Whatever is wrong with a file is raised as a
`MediaError` that names it; the errors of the libraries are caught where the libraries are called.
With the limits below one worker process needs 1 GiB at most (`PEAK_MEMORY`), whatever the files
hold.
"""

import contextlib
import io
import os
import stat
import struct
import warnings
import zlib
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image

from data_pipelines.errors import DataError

PEAK_MEMORY = 2**30  # bytes that a worker process needs at most, the interpreter counted

# Pictures. Pillow keeps 4 bytes for a pixel, and a picture that is converted is there twice.
MAX_PICTURE_PIXELS = 64_000_000
MAX_PICTURE_BYTES = 128 * 2**20  # of one file
MAX_CLIP_BYTES = 192 * 2**20  # of all encoded pictures of a clip, as they are stored

# Sound. What is kept of a file is at most `MAX_SOUND_VALUES` float32 (128 MiB), at its own rate.
MAX_CHANNELS = 64
RATES = (1_000, 768_000)  # Hz
MAX_SOUND_VALUES = 2**25
MAX_LEVEL = 100.0  # full scale is 1; above this the samples are surely of another scale

# Streams read with FFmpeg: how much of them is looked at to find a moment of them.
MAX_STREAM_BYTES = 256 * 2**20  # read of a file, whatever its size
PROBE_BYTES = 5_000_000
PROBE_MICROSECONDS = 5_000_000
MAX_DECODED_VALUES = 2**28  # samples of all channels
MAX_VIDEO_PIXELS = 3840 * 2160  # of a frame
MAX_VIDEO_BYTES = 4 * MAX_VIDEO_PIXELS  # of a decoded frame; a decoder may keep 20 of them
MAX_DECODED_FRAMES = 20_000
MAX_DECODED_PIXELS = 2**34  # of all frames decoded for a clip together

JPEG_OPTIONS = {"format": "JPEG", "quality": 95, "subsampling": 0}
# By EXIF's orientation how a picture is turned to be upright; 1 is upright.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What Pillow raises on bytes that are no picture, or not a whole one.
_PICTURE_ERRORS = (OSError, SyntaxError, ValueError, struct.error, zlib.error, EOFError)


class MediaError(DataError):
    """A file that cannot be used.

    Attributes:
        code: two or three words, the same for all files with the same fault.
    """

    def __init__(self, code: str, message: str):
        super().__init__(printable(message))
        self.code = code

    def __reduce__(self):
        return MediaError, (self.code, str(self))


def fault(code: str, detail: str) -> MediaError:
    """The usual kind, whose message begins with its code."""
    return MediaError(code, f"{code}: {detail}")


def printable(text: object) -> str:
    """A name or message as one line that any terminal can show: the rest becomes escapes."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in str(text)
    )


@contextlib.contextmanager
def open_file(path: str | os.PathLike[str], what: str) -> Iterator[BinaryIO]:
    """Opens an ordinary file for reading; never waits for a pipe or a device.

    Args:
        path: of the file.
        what: it is, for the message ("frame", "sound file", ...).

    Yields:
        The file, unbuffered.

    Raises:
        MediaError: missing, no ordinary file, or may not be read.
    """
    try:
        # Opening a device can already do something, so its kind is asked for first.
        mode = os.stat(path).st_mode
        file = open(path, "rb", buffering=0) if stat.S_ISREG(mode) else None
    except (FileNotFoundError, NotADirectoryError) as error:
        raise fault(f"{what} missing", str(path)) from error
    except (OSError, ValueError) as error:  # ValueError: NUL in the name
        raise _unreadable(path, what, error) from error
    if file is None:
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe, socket or device"
        raise fault(f"{what} unreadable", f"{path} is {kind}, no file")
    with file:
        yield file


def read_picture(path: str | os.PathLike[str], what: str) -> tuple[bytes, Image.Image]:
    """Reads a JPEG or PNG, whatever its name says, and decodes it.

    Args:
        path: of the picture.
        what: "frame" or "label", for the message.

    Returns:
        The file's bytes, and the picture as Pillow has it (any mode), decoded to the end. Of an
        animation it is the first picture.

    Raises:
        MediaError: see `open_file`; empty, no whole picture, or beyond the limits.
    """
    with open_file(path, what) as file:
        try:
            if os.fstat(file.fileno()).st_size > MAX_PICTURE_BYTES:
                raise _too_large(path, what, f"more than {MAX_PICTURE_BYTES >> 20} MiB")
            encoded = file.readall()
        except OSError as error:
            raise _unreadable(path, what, error) from error
    if not encoded:
        raise fault(f"corrupt {what}", f"{path} (the file is empty)")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow: large pictures, odd metadata
            image = Image.open(io.BytesIO(encoded), formats=("JPEG", "PNG"))
            width, height = image.size
            if width * height > MAX_PICTURE_PIXELS:
                raise _too_large(path, what, f"{width}x{height} pixels, {_PIXEL_LIMIT}")
            image.load()
    except Image.DecompressionBombError as error:
        raise _too_large(path, what, f"{_PIXEL_LIMIT} by far") from error
    except _PICTURE_ERRORS as error:
        raise fault(f"corrupt {what}", f"{path} (no whole JPEG or PNG image)") from error
    return encoded, image


def bits_per_channel(encoded: bytes, image: Image.Image) -> int:
    """Bits of a sample in a JPEG (8) or PNG (1 to 16) that Pillow has opened."""
    return encoded[24] if image.format == "PNG" else 8


def turn_of(image: Image.Image) -> Image.Transpose | None:
    """How a picture is to be turned to be upright: phones store upright pictures lying, and say so.

    Args:
        image: as Pillow has opened it.

    Returns:
        What `Image.transpose` takes; None where it is upright, or its EXIF is damaged.
    """
    with contextlib.suppress(TypeError, *_PICTURE_ERRORS):  # of damaged EXIF
        return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
    return None


def to_rgb(image: Image.Image) -> Image.Image:
    """The picture in 8-bit RGB; of 16 bits the high ones are kept, alpha is dropped."""
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow would clip rather than scale
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transparency of palettes
        return image.convert("RGB")


def encode_frame(image: Image.Image, size: int | None, *, lossless: bool) -> bytes:
    """Encodes a frame as it is stored.

    Args:
        image: 8-bit RGB.
        size: pixels of both sides (Pillow's bilinear, antialiased when shrinking); None: its own.
        lossless: PNG rather than JPEG, for a frame that keeps its size.

    Returns:
        JPEG of quality 95 with whole colour resolution, or PNG.
    """
    if size is not None:
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return encode(image, {"format": "PNG"} if lossless and size is None else JPEG_OPTIONS)


def encode(image: Image.Image, options: dict) -> bytes:
    """Encodes a picture without any metadata it may have come with."""
    out = io.BytesIO()
    bare = image.copy() if image.info else image
    bare.info = {}
    bare.save(out, **options)
    return out.getvalue()


_PIXEL_LIMIT = f"more than {MAX_PICTURE_PIXELS // 10**6} megapixels"


def _too_large(path, what: str, reason: str) -> MediaError:
    return fault(f"{what} too large", f"{path} ({reason})")


def _unreadable(path, what: str, error: Exception) -> MediaError:
    return fault(f"{what} unreadable", f"{path} ({getattr(error, 'strerror', None) or error})")
