"""What a user may name as a clip: a video, a picture or a folder of frames, each with a sound."""

import contextlib
import dataclasses
import itertools
import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from aavs_jax.errors import UserError
from aavs_jax.run.files import SUMMARY, record_of
from data_pipelines import media
from data_pipelines.errors import reason
from data_pipelines.facts.plain_folders import LABELS_NAME, SOUND_NAMES, passed_over
from data_pipelines.media.films import Shown, open_film
from data_pipelines.media.sound_files import sound_seconds
from data_pipelines.media.sound_stream import SoundStream, open_sound

PICTURES = (".jpg", ".jpeg", ".png")
FILMS = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".3gp", ".gif")
SOUNDS = (".wav", ".flac", ".mp3", ".m4a", ".aac", ".ogg", ".oga", ".opus", ".aiff")
FRAMES = "frames"  # the folder in a clip's folder, as AVSBench has it


@dataclasses.dataclass(frozen=True)
class Clip:
    """A clip as a user named it.

    Attributes:
      name: for folders and headlines.
      path: of the video, the picture or the folder of frames.
      pictures: files of frames in their order; () of a video.
      sound: file whose sound is heard, the video itself or another; None: none was found.
      silent: nothing is to be heard.
      fault: why there is nothing to be opened, in a sentence; "": there may be.
    """

    name: str
    path: Path
    pictures: tuple[Path, ...]
    sound: Path | None
    silent: bool = False
    fault: str = ""


@dataclasses.dataclass(frozen=True)
class OpenClip:
    """A clip whose frames can be read, once.

    Attributes:
      width: of its pictures, upright.
      height: likewise.
      rate: frames a second.
      duration: s, None where that is not known.
      frames: start in s -> its frames from the one that is seen then.
      has_sound: whether the file that shows them has a sound track.
      notes: sentences about it that a user should know.
    """

    width: int
    height: int
    rate: float
    duration: float | None
    frames: Callable[[float], Iterator[Shown]]
    has_sound: bool = False
    notes: tuple[str, ...] = ()


def find(names: Sequence[str], sound: Path | None = None, *, silent: bool = False) -> list[Clip]:
    """The clips that a user named.

    Args:
      names: of videos, pictures, folders of frames, folders of any of these, and text files with a
        name in each line.
      sound: heard in place of each clip's own.
      silent: nothing is heard.

    Raises:
      UserError: there is no such file or folder, or nothing in it. Of several names one that can
        be used is enough; what is wrong with the others, and whether a file can be read, shows
        when they are opened.
    """
    clips: list[Clip] = []
    for name in names:
        try:
            clips += _clips(Path(name), sound, silent, alone=len(names) == 1)
        except RecursionError:
            clips.append(_unusable(Path(name), f"{name} names itself: leave that line out"))
    if clips and all(clip.fault for clip in clips):
        raise UserError(clips[0].fault)
    # Names become folders and lines on a terminal.
    taken = {media.printable(clip.name) for clip in clips}
    used: set[str] = set()
    for place, clip in enumerate(clips):
        name = media.printable(clip.name)
        if name in used:
            numbered = (f"{name}-{number}" for number in itertools.count(2))
            name = next(new for new in numbered if new not in taken | used)
        used.add(name)
        clips[place] = dataclasses.replace(clip, name=name)
    return clips


def _clips(path: Path, sound: Path | None, silent: bool, *, alone: bool = False) -> list[Clip]:
    """What a name stands for; where it stands for nothing, a clip that says so."""
    try:
        return _named(path, sound, silent, alone)
    except OSError as error:
        place = str(error.filename or path)[:200]
        fault = f"cannot look for {place} ({reason(error)}): check the path"
    except UserError as error:
        fault = str(error)
    return [_unusable(path, fault)]


def _unusable(path: Path, fault: str) -> Clip:
    # Folders get its name, which may be none that a folder can have.
    return Clip(path.name.strip(".")[:50] or "unnamed", path, (), None, fault=fault)


def _named(path: Path, sound: Path | None, silent: bool, alone: bool) -> list[Clip]:
    if not path.exists() and alone:
        raise UserError(f"there is no file or folder {path}: check the path")
    if path.is_dir():
        found = _in_folder(path, sound, silent)
        if not found:
            raise UserError(
                f"{path} holds no videos, pictures or folders of frames: name one that does"
            )
        return found
    if path.suffix.lower() == ".txt":
        return [clip for line in _lines(path) for clip in _clips(line, sound, silent)]
    if path.suffix.lower() in PICTURES:
        heard = None if silent else sound or _beside(path)
        return [Clip(path.stem, path, (path,), heard, silent)]
    return [Clip(path.stem, path, (), None if silent else sound or path, silent)]


def _lines(path: Path) -> list[Path]:
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no list of files: write a path in each line") from error
    found = [path.parent / line.strip() for line in lines if line.strip()]
    if not found:
        raise UserError(f"{path} names no files: write a path in each line")
    return found


def _in_folder(path: Path, sound: Path | None, silent: bool) -> list[Clip]:
    """One clip of frames, or those inside, if there are any; a folder may hold other things."""
    path = path if path.name.strip(".") else path.resolve()  # "." has no name
    entries = _entries(path)
    frames = _frames_in(path / FRAMES if (path / FRAMES).is_dir() else path)
    sounds = [p for p in entries if p.suffix.lower() in SOUNDS]
    films = [p for p in entries if p.suffix.lower() in FILMS]
    # Frames with one sound at most are one clip; otherwise each file is one.
    if frames and not films and len(sounds) <= 1:
        heard = sound or (sounds[0] if sounds else _beside(path))
        return [Clip(path.name, path, frames, None if silent else heard, silent)]
    # The only film is the folder's, where something in the folder says so.
    audio = next((path / name for name in SOUND_NAMES if path / name in entries), None)
    labels = path / LABELS_NAME
    own = films[0] if len(films) == 1 and not frames else None
    if own and not audio and not labels.is_dir() and own.stem != "video":
        own = None
    found: list[Clip] = []
    for inside in entries:
        if inside.is_dir():
            of_labels = inside == labels and (frames or films)
            predicted = record_of(inside / SUMMARY) is not None
            if not of_labels and not predicted and not _leads_up(inside):
                found += _in_folder(inside, sound, silent)
        elif inside == own:
            heard = None if silent else sound or audio or inside
            found.append(Clip(path.name, inside, (), heard, silent))
        elif inside.suffix.lower() in (*FILMS, *PICTURES):
            found += _clips(inside, sound, silent)
    return found


def _leads_up(folder: Path) -> bool:
    """Whether it is a link to a folder that it lies in, and so would be searched without end."""
    return folder.is_symlink() and any(os.path.samefile(folder, up) for up in folder.parents)


def _entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not passed_over(path.name))


def _frames_in(folder: Path) -> tuple[Path, ...]:
    """Pictures by the numbers in their names: 2.jpg before 10.jpg."""
    found = [path for path in _entries(folder) if path.suffix.lower() in PICTURES]
    parts = {path: re.split(r"(\d+)", path.name) for path in found}
    return tuple(
        sorted(found, key=lambda p: [(int(x), "") if x.isdecimal() else (-1, x) for x in parts[p]])
    )


def _beside(path: Path) -> Path | None:
    """A sound file beside it that has its name, in whatever case."""
    stem = path.name if path.is_dir() else path.stem
    there: dict[str, str] = {}
    with contextlib.suppress(OSError):  # a folder may be opened that cannot be listed
        there = {name.lower(): name for name in sorted(os.listdir(path.parent), reverse=True)}
    for name in (stem + suffix for suffix in SOUNDS):
        for beside in (path.with_name(name), path.with_name(there.get(name.lower(), name))):
            if beside.is_file():
                return beside
    return None


@contextlib.contextmanager
def open_pictures(clip: Clip, rate: float = 1.0) -> Iterator[OpenClip]:
    """Opens what is seen of a clip.

    Args:
      clip: from `find`.
      rate: frames a second of a folder of frames, or of one picture shown as long as its sound.

    Raises:
      UserError: the clip has a fault.
      DataError, now or while frames are read: a file cannot be read.
    """
    if clip.fault:
        raise UserError(clip.fault)
    if not clip.pictures:
        with open_film(clip.path) as film:
            notes = (
                ("Its colours are of high dynamic range and were taken as they are.",)
                if film.high_range
                else ()
            )
            sizes = film.width, film.height, film.rate, film.duration
            yield OpenClip(*sizes, film.frames, film.has_sound, notes)
        return
    first = _picture(clip.pictures[0])
    count = len(clip.pictures)
    if count == 1 and clip.sound is not None:
        count = max(1, math.ceil(sound_seconds(clip.sound) * rate - 0.5))
    height, width = first.shape[:2]

    def frames(start: float = 0.0) -> Iterator[Shown]:
        for number in range(int(start * rate), count):
            path = clip.pictures[min(number, len(clip.pictures) - 1)]
            if len(clip.pictures) == 1:
                yield Shown(number / rate, 1 / rate, lambda: first)
            else:
                yield Shown(number / rate, 1 / rate, lambda path=path: _picture(path, first.shape))

    yield OpenClip(width, height, rate, count / rate, frames)


def sound_of(clip: Clip, opened: OpenClip) -> Path | None:
    """The file whose sound a clip is heard with; None: silence.

    Raises:
      UserError: it has none.
    """
    if clip.silent:
        return None
    if clip.sound is None or (clip.sound == clip.path and not opened.has_sound):
        heard = None if clip.sound is None else _beside(clip.path)
        if heard is None:
            raise UserError(
                f"{clip.path} has no sound: give one with --sound=FILE, or ask for --silence"
            )
        return heard
    return clip.sound


@contextlib.contextmanager
def open_heard(path: Path | None, start: float, channels: int) -> Iterator[SoundStream]:
    """Opens a sound from second `start` on; None is silence.

    Raises:
      DataError, now or while it is read: the file cannot be read.
    """
    if path is None:
        yield SoundStream(channels)
    else:
        with open_sound(path, start, channels) as sound:
            yield sound


def _picture(path: Path, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """uint8 [H,W,3], upright; of another size than `shape` resized to it."""
    _, image = media.read_picture(path, "frame")
    if (turn := media.turn_of(image)) is not None:
        image = image.transpose(turn)
    image = media.to_rgb(image)
    if shape is not None and image.size != (shape[1], shape[0]):
        image = image.resize((shape[1], shape[0]))
    return np.asarray(image)
