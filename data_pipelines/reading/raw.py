"""What every layout on disk is read into: a table of clips that says which file holds what.

A layout's reader only looks at names and tables; nothing here has been decoded yet.
"""

import dataclasses
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Sound:
    """One recording that is heard in a clip."""

    path: Path  # of an audio file, or of a video file whose sound track is meant
    # Of its source from left (0) to right (1): L = (1 - p) x, R = p x. None: the file's own
    # channels are taken as they are.
    position: float | None = None


@dataclasses.dataclass(frozen=True)
class RawClip:
    """One clip as it lies on disk."""

    subset: str  # v1s, v1m, v2, vpo_ss, vpo_ms, vpo_msmi, or clips (folders of one's own)
    uid: str  # unique in its subset; can be the name of a folder
    split: str  # train, val or test
    seconds: int  # T
    # T pictures, one a second; or one, a still that is seen in every second; none if `video` is
    # given.
    frames: tuple[Path, ...]
    labels: tuple[tuple[int, Path], ...]  # (second, picture) of the labelled seconds, ascending
    sounds: tuple[Sound, ...]  # what is heard, summed
    # "colours" (AVSBench's palette), "ids" (pixel values, see `label_ids`) or "foreground"
    # (whatever is not black is `foreground`).
    label_encoding: str = "colours"
    # Pixel value -> class id, or `media.labels.IGNORED`, for "ids"; None: the values are class ids.
    # Values that are not named are faults.
    label_ids: tuple[tuple[int, int], ...] | None = None
    # Class id of what is not black, for "foreground"; None: its class is not known (it is stored
    # white, which is foreground but no class).
    foreground: int | None = None
    video: Path | None = None  # a video file, of which the frame at the end of each second is taken
    start: int = 0  # the second of the video and of the sound with which the clip begins
    # Whether T seconds are taken from the middle of each sound, a short one being repeated (VPO),
    # instead of from `start`.
    centred: bool = False
    objects: tuple[int, ...] | None = None  # class ids that the table says sound; None: the labels'

    @property
    def name(self) -> str:
        return f"{self.subset}/{self.uid}"

    @property
    def files(self) -> tuple[Path, ...]:
        """All that is read of it: frames, labels, sounds, the video."""
        labels, sounds = (path for _, path in self.labels), (s.path for s in self.sounds)
        return (*self.frames, *labels, *sounds, *((self.video,) if self.video else ()))


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something that is not as it should be."""

    kind: str  # "left out" (the clip is not prepared), "repaired" (it is, mended), or "noticed"
    clip: str  # "subset/uid", or as much of a name as there is; "" for the folder as a whole
    code: str  # two or three words, the same for all findings alike, which are counted by it
    message: str  # one sentence: what and in which file


@dataclasses.dataclass(frozen=True)
class RawTable:
    """What a folder holds."""

    layout: str  # its name, for people ("AVSBench, unified release")
    roots: tuple[Path, ...]  # folders within which all files must lie
    class_names: tuple[str, ...]  # by class id, background first
    clips: tuple[RawClip, ...]  # in a fixed order
    fingerprint: str  # hex digest that changes with whatever the table was read from
    # Subsets whose labels tell foreground from background, but no classes.
    binary_only: tuple[str, ...] = ()
    stereo: bool = False  # whether left and right mean something and are kept
    # (subset, split) -> clips of a complete published copy; empty where none is known.
    expected: dict[tuple[str, str], int] = dataclasses.field(default_factory=dict)
    # What was wrong with tables and names; clips left out so are not in `clips`.
    findings: tuple[Finding, ...] = ()
