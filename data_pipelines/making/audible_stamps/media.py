"""The packages' files as arrays: cut-outs, backgrounds and recordings."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from data_pipelines.errors import DataError
from data_pipelines.facts.avsbench import SAMPLE_RATE
from data_pipelines.making.audible_stamps.stamps import BACKGROUNDS, PICTURES, STAMPS, TABLE, Stamp
from data_pipelines.media.waveforms import load_waveform

PACKAGES = ("tuxpaint-stamps-default", "tuxpaint-data")
INSTALLED = Path("/usr/share")
MIN_CLASSES = 8  # a clip takes up to four different ones
# Backgrounds are kept this much larger than a frame, on their shorter side, to be moved over.
BACKGROUND_ROOM = 1.6

_ENVELOPE = 320  # samples (20 ms) over which the level of a recording is measured
_QUIET = 0.1  # of the highest level: below it, a pause
_LONGEST_PAUSE = 0.2  # s; longer ones within a recording are cut to this


@dataclass(frozen=True)
class Media:
    """What clips are made of."""

    stamps: tuple[Stamp, ...]  # rows of the table of which both files are there
    cutouts: tuple[np.ndarray, ...]  # uint8 [h, w, 4], RGBA cut to its solid part, of `stamps`
    recordings: tuple[np.ndarray, ...]  # float32 [n], 16 kHz, root mean square 1, of `stamps`
    backgrounds: tuple[np.ndarray, ...]  # uint8 [h, w, 3]
    background_names: tuple[str, ...]  # their files
    missing: tuple[Stamp, ...]  # rows without a file; these packages are of another version


def find(packages: str | os.PathLike | None) -> tuple[Path, ...]:
    """Folders that stand for /usr/share.

    Args:
      packages: a folder into which the packages were unpacked, together or each into a folder of
        its own; None: they are installed.

    Raises:
      DataError: a package is not there.
    """
    if packages is None:
        places = (INSTALLED,)
        where = f"the media are not in {INSTALLED / 'tuxpaint'}"
    else:
        top = Path(packages)
        if not top.is_dir():
            raise DataError(f"there is no folder {top}; give --packages another one.")
        places = tuple(
            share
            for folder in (top, *sorted(p for p in top.iterdir() if p.is_dir()))
            for share in (folder / "usr" / "share", folder)
            if (share / "tuxpaint").is_dir()
        )
        where = f"the media are not in {top}"
    absent = [
        package
        for package, folder in zip(PACKAGES, (STAMPS, PICTURES[0]), strict=True)
        if not any((share / folder).is_dir() for share in places)
    ]
    if absent:
        raise DataError(
            f"{where}: install them with `apt-get install {' '.join(PACKAGES)}` (as root), or "
            "unpack both with `dpkg-deb -x FILE.deb DIR` and give --packages DIR."
        )
    return places


def load(places: tuple[Path, ...], size: int) -> Media:
    """Reads everything once.

    Args:
      places: folders that stand for /usr/share.
      size: side of the frames in pixels; pictures are shrunk to what such frames can show.

    Raises:
      DataError: a file cannot be read, or too little is there.
    """
    stamps, cutouts, recordings, missing = [], [], [], []
    heard: dict[str, np.ndarray] = {}
    for stamp in TABLE:
        picture = _first(places, STAMPS, (f"{stamp.picture}.png",))
        sound = _first(places, STAMPS, (f"{stamp.recording}.ogg", f"{stamp.recording}.wav"))
        if picture is None or sound is None:
            missing.append(stamp)
            continue
        if stamp.recording not in heard:
            heard[stamp.recording] = tidy(load_waveform(sound), sound)
        stamps.append(stamp)
        cutouts.append(_cutout(picture, size))
        recordings.append(heard[stamp.recording])
    paths = {
        name: path
        for name in BACKGROUNDS
        if (path := next((p for f in PICTURES if (p := _first(places, f, (name,)))), None))
    }
    classes = len({stamp.name for stamp in stamps})
    if classes < MIN_CLASSES or not paths:
        raise DataError(
            f"only {classes} classes of stamps and {len(paths)} backgrounds were found below "
            f"{' and '.join(str(p) for p in places)}: are these whole copies of the packages "
            f"{' and '.join(PACKAGES)}?"
        )
    return Media(
        tuple(stamps),
        tuple(cutouts),
        tuple(recordings),
        tuple(_background(path, size) for path in paths.values()),
        tuple(paths),
        tuple(missing),
    )


def _first(places, folder, names) -> Path | None:
    paths = (place / folder / name for name in names for place in places)
    return next((path for path in paths if path.is_file()), None)


def _open(path: Path, mode: str) -> Image.Image:
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as image:
            return image.convert(mode)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as fault:
        raise DataError(
            f"the picture {path} cannot be read ({fault}); install the packages anew."
        ) from fault


def _cutout(path: Path, size: int) -> np.ndarray:
    """uint8 [h, w, 4], cut to what is solid with two clear pixels around it."""
    image = _open(path, "RGBA")
    box = image.getchannel("A").point(lambda a: 255 * (a > 127)).getbbox()
    if box is None:
        raise DataError(f"the picture {path} is transparent everywhere; install the packages anew.")
    image = image.crop(box)
    image.thumbnail((size, size), Image.Resampling.LANCZOS, reducing_gap=None)
    return np.pad(np.asarray(image), ((2, 2), (2, 2), (0, 0)))


def _background(path: Path, size: int) -> np.ndarray:
    image = _open(path, "RGB")
    scale = BACKGROUND_ROOM * size / min(image.size)
    if scale < 1:
        image = image.resize(
            tuple(round(scale * side) for side in image.size), Image.Resampling.LANCZOS
        )
    return np.asarray(image)


def tidy(waveform: np.ndarray, path: Path) -> np.ndarray:
    """A recording without silence at its ends and without long pauses, so that it can be looped.

    In each second in which it is looped something is then heard.

    Args:
      waveform: float32 [n], 16 kHz.
      path: for the message.

    Returns:
      float32 [m], root mean square 1.

    Raises:
      DataError: nothing is to be heard in it.
    """
    power = np.convolve(waveform.astype(np.float64) ** 2, np.ones(_ENVELOPE) / _ENVELOPE, "same")
    level = np.sqrt(np.maximum(power, 0))
    if level.max() < 1e-3:
        raise DataError(f"the recording {path} holds only silence; install the packages anew.")
    quiet = level < _QUIET * level.max()
    keep = np.ones(len(waveform), bool)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], quiet, [False]]).astype(np.int8)))
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        inside = start > 0 and end < len(waveform)
        keep[start + (int(_LONGEST_PAUSE * SAMPLE_RATE) if inside else 0) : end] = False
    sound = waveform[keep].astype(np.float64)
    return (sound / np.sqrt(np.mean(sound**2))).astype(np.float32)
