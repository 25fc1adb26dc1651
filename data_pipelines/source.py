"""Random access to the clips of a prepared data set."""

import dataclasses
import os
from typing import Any

import tensorflow_datasets as tfds

from data_pipelines.avsbench import layout
from data_pipelines.avsbench.avsbench_dataset_builder import Builder, is_complete
from data_pipelines.errors import DataError


@dataclasses.dataclass(frozen=True)
class Clip:
    """What is known of a clip without reading it."""

    subset: str
    uid: str
    seconds: int
    labelled: tuple[int, ...]  # seconds that have a label
    objects: tuple[int, ...]  # class ids of what sounds in the picture, by the table

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
        clips: a `Clip` for each index.
        class_names: by class id, background first.
        num_classes: K, background counted.
    """

    def __init__(self, data_dir: str, split: str, subsets: tuple[str, ...] | None = None):
        self._state = (data_dir, split, subsets)
        builder = Builder(data_dir=data_dir)
        if not is_complete(builder):
            raise DataError(f"no prepared data set in {data_dir}: prepare the data folder first")
        metadata = builder.info.metadata
        self.class_names = tuple(metadata["class_names"])
        self.num_classes = len(self.class_names)
        self._positions, clips = [], []
        for position, (subset, uid, objects) in enumerate(metadata["clips"].get(split, ())):
            if subsets is None or subset in subsets:
                self._positions.append(position)
                seconds = layout.SUBSET_SECONDS[subset]
                labelled = tuple(range(layout.labelled_seconds(subset, split)))
                clips.append(Clip(subset, uid, seconds, labelled, tuple(objects)))
        self.clips = tuple(clips)
        if not clips:
            of = f" of {', '.join(subsets)}" if subsets is not None else ""
            raise DataError(f"no clips{of} in split {split!r} of the data set in {data_dir}")
        self._records = builder.as_data_source(
            split,
            decoders={"frames": _Encoded(), "labels": _Encoded()},
        )

    def __reduce__(self):
        return (ClipSource, self._state)

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """frames: T encoded images; labels: those of the labelled seconds; audio [T,96,64]."""
        record = self._records[self._positions[index]]
        clip = self.clips[index]
        found = f"{record['subset'].decode()}/{record['uid'].decode()}"
        if found != clip.name or len(record["labels"]) != len(clip.labelled):
            raise DataError(
                f"data set in {self._state[0]} is damaged: clip {clip.name} is not where its "
                "index says; delete the folder and prepare it again"
            )
        return {name: record[name] for name in ("frames", "labels", "audio")}


def open_source(
    data_dir: str | os.PathLike[str], split: str, subsets: tuple[str, ...] | None = None
) -> ClipSource:
    """Opens a prepared data set.

    Args:
        data_dir: as given to `prepare`.
        split: "train", "val" or "test".
        subsets: of v1s, v1m, v2 those wanted; None: all there are.

    Raises:
        DataError: nothing prepared there, or no such clips in it.
    """
    return ClipSource(os.fspath(data_dir), split, None if subsets is None else tuple(subsets))
