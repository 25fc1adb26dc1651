"""One clip from disk: read, checked, mended where that is possible, or left out with the reason.

`read_clip` runs in worker processes. Whatever the files hold it returns; what is wrong with them
becomes findings.
"""

import dataclasses
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines import media
from data_pipelines.media import MediaError, labels, video_files, waveforms
from data_pipelines.preparing import clip_sound
from data_pipelines.reading.names import leads_outside
from data_pipelines.reading.raw import Finding, RawClip


@dataclasses.dataclass(frozen=True)
class ReadOptions:
    """How clips are stored."""

    size: int | None = None  # frames become size x size pixels (JPEG); None: they stay as they are
    stereo: bool = False  # whether left and right are kept, where they differ
    follow_links: bool = False  # whether links may lead out of the data folder


@dataclasses.dataclass(frozen=True)
class ReadResult:
    """What became of a clip.

    Attributes:
        example: what the builder stores; None if and only if a finding says "left out". uid,
            subset, frames (T encoded pictures, or 1 of a still), labels (encoded, of the labelled
            seconds), labelled (bool [T]), objects (class ids), waveform (int16 [S, 1], mono, or
            [S, 2], left and right; 16 kHz, S up to 16000 T).
        findings: what was not as it should be.
        facts: what reports count, fit for JSON: pixels (class id -> pixels in label maps),
            ignored_pixels, label_pixels (all), empty_masks (label maps without foreground),
            classes (the most that one label map shows, background counted; 0 without labels),
            silent_seconds, repaired_seconds (whose frame or sound was repeated), mono_is_sum (see
            `clip_sound`), sound_digest (of the waveform; that of silent clips says nothing),
            frame_digests and label_digests (of the stored pictures), objects. Empty for a clip
            that is left out.
    """

    example: dict[str, Any] | None
    findings: tuple[Finding, ...]
    facts: dict[str, Any]


class _Reading:
    """A clip while it is read."""

    def __init__(self, clip: RawClip, options: ReadOptions, class_count: int, roots):
        self.clip, self.options, self.class_count = clip, options, class_count
        self.roots = roots
        self.findings: list[Finding] = []
        self.repaired: set[int] = set()
        self.bytes = 0

    def find(self, kind: str, code: str, message: str) -> None:
        name = media.printable(self.clip.name)
        self.findings.append(Finding(kind, name, code, media.printable(message)))

    def check_inside(self, path: Path) -> None:
        """Raises MediaError if a link leads the file out of the roots."""
        if not self.options.follow_links and leads_outside(path, self.roots):
            message = f"link leads out of the data folder: {path} is {os.path.realpath(path)}"
            raise MediaError("link leads outside", message)

    def keep(self, encoded: bytes) -> bytes:
        """Counts what is kept of a clip against the limit."""
        self.bytes += len(encoded)
        if self.bytes > media.MAX_CLIP_BYTES:
            limit = f"{media.MAX_CLIP_BYTES >> 20} MiB"
            what = f"the pictures of {self.clip.name} need more than {limit}"
            raise media.fault("clip too large", what)
        return encoded


def read_clip(
    clip: RawClip, options: ReadOptions, class_count: int, roots: tuple[Path, ...]
) -> ReadResult:
    """Reads one clip, decoding everything once to see that it can be.

    Args:
        clip: where its files are.
        options: how it is stored.
        class_count: K, background counted.
        roots: folders within which its files must lie.

    Returns:
        The example, or the reason why there is none.
    """
    reading = _Reading(clip, options, class_count, roots)
    try:
        frames, sizes = _read_frames(reading)
        stored = _read_labels(reading, sizes)
        waveform, mono_is_sum = _read_sound(reading)
    except MediaError as fault:
        reading.find("left out", fault.code, str(fault))
        return ReadResult(None, tuple(reading.findings), {})
    pixels = sum((label.pixels for label in stored), np.zeros(256, np.int64))
    objects = clip.objects
    counted = np.flatnonzero(pixels[: labels.IGNORED])
    if objects is None:
        objects = tuple(int(i) for i in counted if i)
    seconds = {second for second, _ in clip.labels}
    example = {
        "uid": clip.uid,
        "subset": clip.subset,
        "frames": frames,
        "labels": [label.encoded for label in stored],
        "labelled": np.array([second in seconds for second in range(clip.seconds)], bool),
        "objects": list(objects),
        "waveform": waveform,
    }
    facts = {
        "pixels": {int(i): int(pixels[i]) for i in counted},
        "ignored_pixels": int(pixels[labels.IGNORED]),
        "label_pixels": sum(label.size[0] * label.size[1] for label in stored),
        "empty_masks": sum(not label.foreground for label in stored),
        "classes": max((label.classes for label in stored), default=0),
        "silent_seconds": clip_sound.silent_seconds(waveform, clip.seconds),
        "repaired_seconds": len(reading.repaired),
        "mono_is_sum": mono_is_sum,
        "sound_digest": _digest(waveform.tobytes()),
        "frame_digests": [_digest(frame) for frame in frames],
        "label_digests": [_digest(label.encoded) for label in stored],
        "objects": list(objects),
    }
    return ReadResult(example, tuple(reading.findings), facts)


# --- pictures -----------------------------------------------------------------------------------


def _read_frames(reading: _Reading) -> tuple[list[bytes], list[tuple[int, int]]]:
    """Encoded frames, and their sizes (width, height) before any resizing."""
    clip, size = reading.clip, reading.options.size
    if clip.video is not None:
        return _read_video(reading)
    _check_present(clip)
    frames, sizes, converted, turned = [], [], [], []
    for path in clip.frames:
        reading.check_inside(path)
        encoded, image = media.read_picture(path, "frame")
        plain = image.mode == "RGB" and media.bits_per_channel(encoded, image) == 8
        turn = media.turn_of(image)
        # A large photograph as PNG would fill the room that a clip has.
        lossless = turn is None or image.format == "PNG"
        if not plain:
            depth = media.bits_per_channel(encoded, image)
            converted.append(f"{path} (mode {image.mode}, {depth} bits)")
            image = media.to_rgb(image)
        if turn is not None:
            turned.append(str(path))
            image = image.transpose(turn)
        if size is not None or not plain or turn is not None:
            encoded = media.encode_frame(image, size, lossless=lossless)
        frames.append(reading.keep(encoded))
        sizes.append(image.size)
        del image  # before the next one is decoded
    for code, how, which in (
        ("frame converted", "to 8-bit RGB", converted),
        ("frame turned", "upright, as its EXIF says", turned),
    ):
        if which:
            more = f" and {len(which) - 1} more of the clip" if which[1:] else ""
            reading.find("repaired", code, f"{code} {how}: {which[0]}{more}")
    return frames, sizes


def _check_present(clip: RawClip) -> None:
    missing = [path for path in clip.frames if not _exists(path)]
    if not missing:
        return
    folder = missing[0].parent
    if not _exists(folder):
        while not _exists(folder.parent):
            folder = folder.parent
        raise MediaError("folder missing", f"clip folder missing: {folder}")
    names = ", ".join(path.name for path in missing[:10]) + (", ..." if missing[10:] else "")
    raise MediaError(
        "frame missing",
        f"frames missing in {folder}: {names} (the clip has {clip.seconds} seconds)",
    )


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return True  # it cannot be asked; opening it says why


def _read_video(reading: _Reading) -> tuple[list[bytes], list[tuple[int, int]]]:
    clip = reading.clip
    reading.check_inside(clip.video)
    frames, sizes = [], []
    for image, reached in video_files.video_frames(clip.video, clip.start, clip.seconds):
        frames.append(reading.keep(media.encode_frame(image, reading.options.size, lossless=False)))
        sizes.append(image.size)
        if not reached:
            reading.repaired.add(clip.seconds - 1)
            end = f"ends before second {clip.start + clip.seconds}"
            message = (
                f"video short: {clip.video} {end}, its last frame was taken for the last second"
            )
            reading.find("repaired", "video short", message)
    if len(frames) < clip.seconds:
        raise media.fault(
            "video too short",
            f"{clip.video} shows {len(frames)} of the {clip.seconds} seconds from second "
            f"{clip.start} on",
        )
    return frames, sizes


def _read_labels(reading: _Reading, sizes: Sequence[tuple[int, int]]) -> list[labels.Label]:
    clip, stored, stray = reading.clip, [], 0
    for second, path in clip.labels:
        reading.check_inside(path)
        label = labels.read_label(
            path,
            clip.label_encoding,
            reading.class_count,
            label_ids=clip.label_ids,
            foreground=clip.foreground,
        )
        reading.keep(label.encoded)
        stored.append(label)
        labels.check_size(path, label.size, sizes[second % len(sizes)], stored[0].size)
        stray += label.stray
    if stray:
        share = stray / sum(label.size[0] * label.size[1] for label in stored)
        reading.find(
            "noticed",
            "colours of no class",
            f"colours of no class: labels of {clip.name} hold them in {stray} pixels "
            f"({share:.2%}), which count as background",
        )
    return stored


def _read_sound(reading: _Reading) -> tuple[np.ndarray, bool]:
    """The waveform as it is stored, and whether mono is left and right added up."""
    clip = reading.clip
    for sound in clip.sounds:
        reading.check_inside(sound.path)
    placed = clip_sound.is_placed(clip, stereo=reading.options.stereo)
    waveform, repairs = clip_sound.read_waveform(clip, stereo=reading.options.stereo)
    for code, message, seconds in repairs + clip_sound.check_length(clip, len(waveform)):
        reading.repaired |= seconds
        reading.find("repaired", code, message)
    return waveforms.to_int16(waveform[: clip.seconds * waveforms.SAMPLE_RATE]), placed


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
