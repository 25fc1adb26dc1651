"""From a request to the arrays of one clip."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import grain
import numpy as np

from data_pipelines.facts import avsbench
from data_pipelines.facts.avsbench import SAMPLE_RATE
from data_pipelines.loading.augment import changed_waveform
from data_pipelines.loading.checks import PREDICTED
from data_pipelines.loading.decoding import (
    binary_label,
    decode_frame,
    nearest_binary_label,
    predicted_mask,
    semantic_label,
    sounding,
)
from data_pipelines.loading.front_ends import LOG_MEL, FrontEnd
from data_pipelines.loading.request import NOTHING, SILENCE, Request, stored_second
from data_pipelines.media.labels import IGNORED
from data_pipelines.prepared.source import heard

Folder = str | os.PathLike[str]
Masks = Folder | Mapping[str, Folder]  # a folder, or that of each clip by its name
UNKNOWN = 0.5  # of a prior mask: it says nothing


def folder_of_masks(folder: Masks, clip: Any) -> Folder:
    """Where the predicted masks of a `source.Clip` lie."""
    return folder[clip.name] if isinstance(folder, Mapping) else folder


@dataclasses.dataclass(frozen=True)
class ReadClip(grain.transforms.Map):
    """`Request` -> the arrays of one clip."""

    source: Any  # random access to clips (`source.ClipSource`)
    task: str  # "binary" or "semantic"
    image_size: int | None  # S; None: only labels are wanted, neither frames nor sounds are read
    label_size: int  # G
    prior_dir: Masks | None = None  # the folder of stage one's masks, or of each clip's
    front_end: FrontEnd = LOG_MEL  # what is heard of a waveform
    embeddings: Any = None  # `embeddings.Embeddings` of the clips' sounds, read in its place
    features: Any = None  # `features.Features` of the clips' frames, read in their place
    nearest: bool = False  # binary task: whether labels are read a second time, resized by nearest
    cache: bool = False  # keep what was decoded in memory
    # Whether requests ask for changed waveforms: these are kept then, and not what the front end
    # made of them.
    changes_sounds: bool = False
    resize: str = "squash"  # of `decoding.RESIZES`
    one_picture: bool = False  # whether all seconds of a clip show one, which is given once
    _kept: dict = dataclasses.field(default_factory=dict, repr=False, compare=False)

    def __getstate__(self):
        return {**self.__dict__, "_kept": {}}  # a worker process starts with an empty cache

    def map(self, request: Request) -> dict[str, Any]:
        """Reads what the request names.

        Returns:
            frames uint8 [T,S,S,3], of one picture [1,S,S,3], labels uint8 [T,G,G], labelled and
            valid bool [T], audio, rows [T,...] of the front end or [T,E] of embeddings, ids str, if
            a prior is asked for prior_mask float32 [T,G,G] (with "both" [T,2,G,G]), if nearest
            labels are labels_nearest uint8 [T,G,G]; objects bool [K], what sounds in the clip by
            its table, background included; and the request's flip and seed, and its index as
            position. In place of frames there may be their maps, see `features.entry`.
            Labels are 0 where `labelled` is False, as it is in padding, and IGNORED (255) in pixels
            that count for nothing, which are background in prior masks made of labels. The id
            of a request that is padding from end to end is "".
        """
        clip = self.source.clips[request.index]
        kept = self._kept if self.cache else {}
        records: dict[int, Any] = {}
        self._decode(request, kept, records)
        stored = [stored_second(clip, t) for t in request.frames]
        valid = np.array(request.valid)
        labelled = np.array([t in clip.labelled for t in request.frames]) & valid
        element = {
            "labelled": labelled,
            "valid": valid,
            "ids": clip.name if valid.any() else "",
            "flip": request.flip,
            "seed": request.seed,
            "position": np.int32(request.index),
            "objects": self._objects(clip, request.empty),
        }
        for name in ("labels", "labels_nearest") if self.nearest else ("labels",):
            labels = np.stack([kept[request.index, t, name] for t in stored])
            labels[~labelled] = 0
            if request.empty:
                labels[labels != IGNORED] = 0
            element[name] = labels
        if self.image_size is not None:
            element |= self._seen(request, stored[:1] if self.one_picture else stored, kept)
            element["audio"] = self._heard(request, kept, records)
        if request.prior != "none":
            element["prior_mask"] = self._told(request, element["labels"], kept)
        return element

    def _told(self, request: Request, labels: np.ndarray, kept: dict) -> np.ndarray:
        """The prior masks of a request, float32 [T,G,G], or of two views [T,2,G,G]."""
        unknown = np.full(labels.shape, UNKNOWN, np.float32)
        if request.prior == "unknown":
            return unknown
        if request.prior == "true":
            told = sounding(labels).astype(np.float32)
        else:
            masks = np.stack([kept[request.index, t, "predicted"] for t in request.frames])
            told = masks.astype(np.float32) / np.float32(255)
        if request.untold:
            told[list(request.untold)] = UNKNOWN
        return np.stack([told, unknown], 1) if request.prior == "both" else told

    def _objects(self, clip, empty: bool) -> np.ndarray:
        """bool [K], what sounds in a clip by the data set's table, background, 0, included."""
        objects = np.zeros(self.source.num_classes, bool)
        objects[[0, *(() if empty else clip.objects)]] = True
        return objects

    def _decode(self, request: Request, kept: dict, records: dict) -> None:
        """Adds to `kept` the pictures that the request needs and that are not there."""
        index, clip = request.index, self.source.clips[request.index]
        seconds = sorted({stored_second(clip, t) for t in request.frames})
        missing = [t for t in seconds if (index, t, "labels") not in kept]
        if missing:
            record = records[index] = self.source[index]
            for t in missing:
                if self.image_size is not None and self.features is None:
                    kept[index, t, "frame"] = decode_frame(
                        record["frames"][t], self.image_size, self.resize
                    )
                if self.nearest:
                    nearest = self._label(nearest_binary_label, clip, record, t)
                    kept[index, t, "labels_nearest"] = nearest
                decode = binary_label if self.task == "binary" else semantic_label
                kept[index, t, "labels"] = self._label(decode, clip, record, t)
        if request.prior in PREDICTED:
            # Of a still, too, there is a mask for every second: they differ by what is heard.
            for t in set(request.frames):
                if (index, t, "predicted") not in kept:
                    folder = folder_of_masks(self.prior_dir, clip)
                    path = avsbench.mask_path(folder, clip.subset, clip.uid, t)
                    kept[index, t, "predicted"] = predicted_mask(path, self.label_size)

    def _seen(self, request: Request, stored: list[int], kept: dict) -> dict[str, np.ndarray]:
        """The stored frames of these seconds, or their maps."""
        if self.features is None:
            return {"frames": np.stack([kept[request.index, t, "frame"] for t in stored])}
        maps = [self.features[request.index, t] for t in stored]
        levels = map(np.stack, zip(*maps, strict=True))
        return dict(zip(self.features.entries, levels, strict=True))

    def _label(self, decode, clip, record: dict[str, Any], second: int) -> np.ndarray:
        if second not in clip.labelled:
            return np.zeros((self.label_size, self.label_size), np.uint8)
        encoded = record["labels"][clip.labelled.index(second)]
        if decode is semantic_label:
            return decode(encoded, self.label_size, self.resize)
        # To look for ignored pixels takes time, and few clips have any.
        return decode(encoded, self.label_size, clip.ignored > 0, self.resize)

    def _heard(self, request: Request, kept: dict, records: dict) -> np.ndarray:
        """What the request says is heard, a row for each of its seconds."""
        index = request.sound_index
        if self.embeddings is not None:
            if index == SILENCE:
                return np.stack([self.embeddings.silence] * len(request.sounds))
            rows = self.embeddings[index]
            return rows[np.minimum(request.sounds, len(rows) - 1)]
        length = self.source.clips[request.index if index == SILENCE else index].seconds
        # Another clip's sound may be shorter than this clip.
        seconds = np.minimum(request.sounds, length - 1)
        # A single channel is the same from both sides.
        key = (index, length, request.flip and self.front_end.channels == 2)
        rows = kept.get(key)
        if rows is None:
            if index == SILENCE:
                waveform = np.zeros((length * SAMPLE_RATE, self.front_end.channels), np.float32)
            else:
                waveform = self._waveform(index, kept, records)
            mixed = request.mixed_index
            other = None if mixed == NOTHING else self._waveform(mixed, kept, records)
            waveform = changed_waveform(waveform, request, other)
            keeps_rows = self.cache and not self.changes_sounds
            # What is kept serves other seconds, too.
            rows = self.front_end(waveform, length if keeps_rows else int(seconds.max()) + 1)
            if keeps_rows:
                kept[key] = rows
        return rows[seconds]

    def _waveform(self, index: int, kept: dict, records: dict) -> np.ndarray:
        """The whole sound of a clip, float32 [S, channels]."""
        stored = kept.get((index, "waveform"))
        if stored is None:
            record = records.get(index) or self.source[index]
            stored = record["waveform"]
            if self.changes_sounds:
                kept[index, "waveform"] = stored
        return heard(self.source.clips[index], stored, self.front_end.channels)
