"""Random access to the clips of a prepared data set."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from data_pipelines.errors import DataError
from data_pipelines.media.waveforms import FULL_SCALE
from data_pipelines.prepared.avs_clips.avs_clips_dataset_builder import (
    Builder,
    check_form,
    damaged,
    is_complete,
)


@dataclasses.dataclass(frozen=True)
class Clip:
    """What is known of a clip without reading it."""

    subset: str
    uid: str
    seconds: int
    labelled: tuple[int, ...]  # seconds that have a label
    objects: tuple[int, ...]  # class ids of what sounds in the picture
    still: bool = False  # whether one frame is stored, which is seen in every second
    classes: int = 0  # the most that one label map shows, background counted, as it was prepared
    ignored: int = 0  # pixels of its label maps that count for nothing
    mono_is_sum: bool = False  # of left and right, where those are stored; else it is their mean

    @property
    def name(self) -> str:
        return f"{self.subset}/{self.uid}"


class _Encoded(tfds.decode.SkipDecoding):
    """Leaves a sequence of images encoded: frames that are not shown need not be decoded."""

    def decode_batch_example_np(self, serialized_example):
        return serialized_example


class ClipSource:
    """Random access to the clips of one split of a prepared data set; can be pickled.

    Attributes:
        split: "train", "val" or "test".
        clips: a `Clip` for each index.
        positions: for each index, that of the clip in the whole split.
        class_names: by class id, background first.
        num_classes: K, background counted.
        binary_only: subsets whose labels tell foreground from background, but no classes.
        stereo: whether the sound of left and right was kept.
        ignores: whether any label map of these clips has ignored pixels.
        fingerprint: of the data set, its tables and its sounds.
    """

    def __init__(
        self,
        data_dir: str,
        split: str,
        subsets: tuple[str, ...] = (),
        names: frozenset[str] | None = None,
    ):
        self._state = (data_dir, split, subsets, names)
        builder = _open(data_dir)
        metadata = builder.info.metadata
        self.split = split
        self.class_names = tuple(metadata["class_names"])
        self.num_classes = len(self.class_names)
        self.binary_only = tuple(metadata["binary_only"])
        self.stereo = bool(metadata["stereo"])
        self.fingerprint = f"{metadata['fingerprint']}/{metadata['sounds']}"
        chosen = [
            (position, row)
            for position, row in enumerate(metadata["clips"].get(split, ()))
            if (not subsets or row[0] in subsets)
            and (names is None or f"{row[0]}/{row[1]}" in names)
        ]
        if not chosen:
            raise DataError(_why_none(metadata["clips"], data_dir, split, subsets))
        self.positions = tuple(position for position, _ in chosen)
        self._stored = tuple(row[5] for _, row in chosen)
        self.clips = tuple(_clip(row) for _, row in chosen)
        self.ignores = any(clip.ignored for clip in self.clips)
        try:
            self._records = builder.as_data_source(
                split, decoders={"frames": _Encoded(), "labels": _Encoded()}
            )
        except (OSError, RuntimeError, ValueError) as fault:
            raise damaged(builder.data_path, "its records cannot be opened") from fault

    def __reduce__(self):
        return (ClipSource, self._state)

    def only(self, names: Collection[str]) -> "ClipSource":
        """Those of its clips that have these names, see `Clip.name`; at least one."""
        data_dir, split, subsets, _ = self._state
        return ClipSource(data_dir, split, subsets, frozenset(names))

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """A clip as it is stored.

        Returns:
            frames: T encoded images, or 1 of a still; labels: those of the labelled seconds;
            waveform: int16 [S, 1] (mono) or [S, 2] (left and right), 16 kHz, S up to 16000 T.

        Raises:
            DataError: the data set is damaged.
        """
        clip = self.clips[index]
        try:
            record = self._records[self.positions[index]]
        except (MemoryError, OSError):
            raise  # the machine's fault: nobody should delete a sound data set for it
        except Exception as fault:  # array_record, protobuf and NumPy have each their own
            raise damaged(self._state[0], f"clip {clip.name} cannot be read") from fault
        found = f"{record['subset'].decode()}/{record['uid'].decode()}"
        counts = len(record["frames"]), len(record["labels"])
        if found != clip.name or counts != (self._stored[index], len(clip.labelled)):
            raise damaged(self._state[0], f"clip {clip.name} is not where its index says")
        return {name: record[name] for name in ("frames", "labels", "waveform")}


def heard(clip: Clip, stored: np.ndarray, channels: int) -> np.ndarray:
    """The waveform of a clip as a front end wants it.

    Args:
        clip: whose waveform it is.
        stored: int16 [S, 1] or [S, 2], as `ClipSource` gives it.
        channels: 1, or 2 for left and right, which are alike where only mono is stored.

    Returns:
        float32 [S, channels], full scale 1.
    """
    waveform = stored.astype(np.float32) / np.float32(FULL_SCALE)
    if waveform.shape[1] == channels:
        return waveform
    if channels == 2:
        return np.repeat(waveform, 2, axis=1)
    return waveform.sum(axis=1, keepdims=True) * np.float32(1 if clip.mono_is_sum else 0.5)


def open_source(
    data_dir: str | os.PathLike[str], split: str, subsets: Sequence[str] | None = None
) -> ClipSource:
    """Opens a prepared data set.

    Args:
        data_dir: as given to `prepare`.
        split: "train", "val" or "test".
        subsets: those wanted; None or none: all there are.

    Raises:
        DataError: nothing prepared there, or in the form of another version; no such clips in it;
            it is damaged.
    """
    return ClipSource(os.fspath(data_dir), split, tuple(subsets or ()))


def splits(data_dir: str | os.PathLike[str]) -> dict[str, int]:
    """Splits of a prepared data set -> how many clips they have.

    Raises:
        DataError: nothing prepared there, or it is damaged.
    """
    clips = _open(os.fspath(data_dir)).info.metadata["clips"]
    return {split: len(rows) for split, rows in clips.items()}


def fingerprint(data_dir: str | os.PathLike[str]) -> str:
    """Changes with what is in a prepared data set, and not with where it lies.

    Returns:
        16 hexadecimal digits, of all that its metadata says: the tables it was made from and how,
        its clips, a digest of its sounds and its pictures, the sizes of its files.

    Raises:
        DataError: nothing prepared there, or it is damaged.
    """
    metadata = dict(_open(os.fspath(data_dir)).info.metadata)
    text = json.dumps(metadata, sort_keys=True, default=list)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _open(data_dir: str) -> Builder:
    builder = Builder(data_dir=data_dir)
    if not is_complete(builder):
        check_form(builder)
        raise DataError(f"no prepared data set in {data_dir}: prepare the data folder first")
    return builder


def _why_none(
    clips: Mapping[str, Sequence[Any]], data_dir: str, split: str, subsets: Sequence[str]
) -> str:
    """What to say where no clip was chosen of the metadata's `clips`."""
    if split not in clips:
        return (
            f"no clip of the data set in {data_dir} is in split {split!r}: "
            f"it only has {' and '.join(clips)}"
        )
    here = ", ".join(dict.fromkeys(row[0] for row in clips[split]))
    return (
        f"no clips of {', '.join(subsets)} in split {split!r} of the data set in {data_dir}: "
        f"it has {here}"
    )


def _clip(row: Sequence[Any]) -> Clip:
    """From a row of the metadata's `clips`."""
    subset, uid, objects, seconds, labelled, stored, *counts_and_mono = row
    still = stored == 1 and seconds > 1
    return Clip(subset, uid, seconds, tuple(labelled), tuple(objects), still, *counts_and_mono)
