"""One clip of one's own: what its folder, or its video file, holds (folders.py draws the tree)."""

import dataclasses
import os
from pathlib import Path

import av

from data_pipelines.facts.plain_folders import LABELS_NAME, SOUND_NAMES, passed_over
from data_pipelines.reading.names import leads_outside, natural_key, outside_message
from data_pipelines.reading.raw import Sound

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png")
VIDEO_SUFFIXES = (".mp4", ".webm", ".mkv", ".mov", ".m4v", ".avi")
# Containers that are opened, in FFmpeg's names: none that point to other files or addresses.
VIDEO_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi"
LONGEST = 4 * 3600  # seconds of one recording; a longer one is a fault in its header, or to be cut
TOLERANCE = 0.25  # of a second: a video that lacks less at its end is taken for whole
PNG_HEADER = b"\x89PNG\r\n\x1a\n"
COLOURED_PNG = (2, 6)  # colour types in a PNG's header: RGB without and with alpha
MIXED = "mixed"  # encoding of labels of which some hold colours and some ids


class Skipped(Exception):
    """Why something is no clip: code and sentence. `kind` as in Finding."""

    def __init__(self, code: str, message: str, kind: str = "left out"):
        super().__init__(code, message)
        self.kind = kind


@dataclasses.dataclass(frozen=True)
class Whole:
    """A recording of any length, before it is cut into clips; see RawClip.

    `label_encoding` is "colours", "ids" or MIXED.
    """

    seconds: int
    sound: Sound
    frames: tuple[Path, ...] = ()
    video: Path | None = None
    labels: tuple[tuple[int, Path], ...] = ()
    label_encoding: str = "ids"


def read_folder(folder: Path, roots: tuple[Path, ...]) -> tuple[Whole, list[tuple[str, str]]]:
    """A folder that is a clip.

    Args:
        folder: the folder.
        roots: where links may lead; empty: anywhere.

    Returns:
        The clip, and (code, sentence) of what was noticed.

    Raises:
        Skipped: it cannot be one.
    """
    names = _names(folder)
    frames_folder, labels_folder = folder / "frames", folder / LABELS_NAME
    if roots:
        for path in (frames_folder, labels_folder):
            if path.name in names and leads_outside(path, roots):
                raise Skipped("link leads outside", outside_message(path))
    sound = next((Sound(folder / name) for name in SOUND_NAMES if name in names), None)
    video = _video_in(folder, names)
    if roots and video and leads_outside(video, roots):
        raise Skipped("link leads outside", outside_message(video))
    frames = ()
    if os.path.isdir(frames_folder):
        pictures = [n for n in _names(frames_folder) if _suffix(n) in PICTURE_SUFFIXES]
        if not pictures:
            raise Skipped("no pictures", f"{frames_folder} holds no jpg or png file")
        frames = tuple(frames_folder / name for name in sorted(pictures, key=natural_key))
        seconds = len(frames)
        if seconds > LONGEST:
            raise Skipped("too long", f"{frames_folder} holds more than {LONGEST} pictures")
    elif video:
        seconds = video_seconds(video, with_sound=sound is None)
    elif sound or LABELS_NAME in names:
        raise Skipped("no pictures", f"{folder} has neither a folder frames nor a video file")
    else:
        message = f"{folder} is no clip: it has neither a folder frames nor a video file"
        raise Skipped("no clip", message, kind="noticed")
    if sound is None:
        if video is None:
            raise Skipped("no sound", f"{folder} has neither {', '.join(SOUND_NAMES)} nor a video")
        sound = Sound(video)
    labels, noticed = (), []
    if LABELS_NAME in names:
        labels, noticed = _labels(labels_folder, frames, seconds)
    video = None if frames else video
    return Whole(seconds, sound, frames, video, labels, _encoding(labels)), noticed


def video_seconds(path: Path, *, with_sound: bool = True) -> int:
    """Whole seconds of a video, by its header; nothing is decoded.

    Raises:
        Skipped: not readable, no picture or (`with_sound`) no sound in it, length unknown or above
            LONGEST.
    """
    # Without these, a text file that is called a video could make FFmpeg open other files.
    options = {"format_whitelist": VIDEO_FORMATS, "protocol_whitelist": "file"}
    try:
        file = os.path.abspath(path)
        with av.open(file, options=options, metadata_errors="replace") as container:
            if not container.streams.video:
                raise Skipped("no pictures", f"{path} has no pictures")
            if with_sound and not container.streams.audio:
                message = f"{path} has no sound track, and no audio file is beside it"
                raise Skipped("no sound", message)
            stream = container.streams.video[0]
            length = container.duration / av.time_base if container.duration else None
            if length is None and stream.duration and stream.time_base:
                length = float(stream.duration * stream.time_base)
    except Skipped:
        raise
    except (av.FFmpegError, OSError, ValueError, OverflowError, MemoryError) as fault:
        reason = getattr(fault, "strerror", None) or "damaged"
        message = f"corrupt video: {path} cannot be opened ({reason})"
        raise Skipped("corrupt video", message) from fault
    if length is None or length <= 0:
        message = f"{path} does not say how long it is: write it anew, as with ffmpeg -c copy"
        raise Skipped("no length", message)
    if length > LONGEST:
        raise Skipped("too long", f"{path} is longer than {LONGEST // 3600} hours: cut it")
    return max(1, int(length + TOLERANCE))


def is_coloured(path: Path) -> bool:
    """Whether a PNG holds colours rather than numbers, by its header."""
    try:
        with path.open("rb") as file:
            head = file.read(26)
    except OSError:
        return False
    return head.startswith(PNG_HEADER) and len(head) == 26 and head[25] in COLOURED_PNG


def _names(folder: Path) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if not passed_over(entry.name)}
    except OSError as fault:
        raise Skipped("unreadable", f"{folder} cannot be listed: {fault.strerror}") from fault


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _video_in(folder: Path, names: set[str]) -> Path | None:
    """The video of a clip: video.*, or the only one."""
    videos = sorted(name for name in names if _suffix(name) in VIDEO_SUFFIXES)
    called = [name for name in videos if os.path.splitext(name)[0] == "video"]
    if len(called) != 1 and len(videos) > 1:
        message = f"{folder} has several video files: call one of them video, or make folders"
        raise Skipped("several videos", message)
    found = [folder / name for name in called or videos]
    return next((path for path in found if os.path.isfile(path)), None)


def _encoding(labels: tuple[tuple[int, Path], ...]) -> str:
    coloured = {is_coloured(path) for _, path in labels}
    if len(coloured) > 1:
        return MIXED
    return "colours" if True in coloured else "ids"


def _labels(folder: Path, frames: tuple[Path, ...], seconds: int):
    """(second, picture) of the labels, and what was noticed."""
    stems = [path.stem for path in frames] or [str(second) for second in range(seconds)]
    second_of = {stem: second for second, stem in enumerate(stems)}
    second_of_number = {_number(stem): second for stem, second in second_of.items()}
    if None in second_of_number or len(second_of_number) < len(second_of):
        second_of_number = {}
    names = sorted(_names(folder))
    pictures = [name for name in names if _suffix(name) == ".png"]
    found = {}
    # By name first: the number only counts where no label is called like the frame.
    for key, seconds_by in ((str, second_of), (_number, second_of_number)):
        for name in pictures:
            second = seconds_by.get(key(os.path.splitext(name)[0]))
            if second is not None:
                found.setdefault(second, folder / name)
    noticed = []
    if others := [n for n in names if _suffix(n) in PICTURE_SUFFIXES and n not in pictures]:
        message = (
            f"labels must be PNG: {folder / others[0]} is passed over, as are all {len(others)} "
            "like it (JPEG changes the colours that stand for classes)"
        )
        noticed.append(("label no PNG", message))
    if strays := len(pictures) - len(found):
        of = "frame" if frames else "second"
        message = f"{folder} has {strays} labels that are called like no {of} of the clip"
        noticed.append(("label without frame", message))
    return tuple(sorted(found.items())), noticed


def _number(stem: str) -> int | None:
    """What a name of digits counts: 0 and 00000 are the same frame."""
    return int(stem) if stem.isascii() and stem.isdigit() else None
