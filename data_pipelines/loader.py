"""The two Grain chains: endless training batches, and one pass of evaluation batches.

A batch is a dict of NumPy arrays: frames uint8 [B,T,S,S,3], audio float32 [B,T,96,64] (of two
channels [B,T,96,64,2], left and right; as embeddings [B,T,E]), labels uint8 [B,T,G,G] (255 where a
pixel is ignored), labelled and valid bool [B,T], prior_mask float32 [B,T,G,G] where a prior is
asked for, and ids (str [B], "subset/uid", "" for padding), which stays on the host. One of
evaluation has position int32 [B], the clip's index in the source, too, and where they are asked for
labels_nearest uint8 [B,T,G,G].
"""

import dataclasses
import functools
import math
import os
from collections.abc import Iterator, Mapping
from typing import Any

import grain
import numpy as np
from absl import flags

from data_pipelines.errors import DataError
from data_pipelines.facts import avsbench
from data_pipelines.loading.augment import augmentations
from data_pipelines.loading.decoding import ReadClip
from data_pipelines.loading.lengths import ByLength, batch_lengths
from data_pipelines.loading.partners import other_sounds
from data_pipelines.loading.request import SILENCE, Draw, Request
from data_pipelines.prepared.embeddings import Embeddings
from data_pipelines.prepared.source import ClipSource, open_source

__all__ = [
    "ClipSource",
    "EvalLoader",
    "check_targets",
    "eval_loader",
    "labelled_clips",
    "open_source",
    "train_loader",
]

PRIORS = ("none", "true", "predicted", "mixture")
SOUNDS = ("right", "other", "silence")
ENDLESS = 10**9  # epochs; what Grain itself takes for endless overflows in batches of one clip
BATCH = ("frames", "audio", "labels", "labelled", "valid", "prior_mask", "ids")
EVAL_BATCH = (*BATCH, "position", "labels_nearest", "masks", "stray_pixels")


def train_loader(
    source: ClipSource,
    *,
    task: str,
    image_size: int,
    label_size: int,
    batch_size: int,
    seconds: int,
    sampling: str,
    shuffle: bool = True,
    bucket_by_length: bool = False,
    augment: Mapping[str, Any] | None = None,
    prior: str = "none",
    prior_dir: str | os.PathLike[str] | None = None,
    mixture: float = 0.5,
    max_targets: int = 16,
    channels: int = 1,
    embeddings: Embeddings | None = None,
    seed: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    num_workers: int = 0,
    cache: bool = False,
) -> grain.DatasetIterator:
    """Endless training batches, every clip that has a label once in each epoch.

    Epochs are shuffled by seed and number; a batch may hold the end of one and the start of the
    next. Batches do not depend on the number of processes (each has its share of the same global
    batch), on the workers, or on the cache. `get_state` and `set_state` resume exactly.

    Args:
        source: the clips.
        task: "binary" (labels 0/1) or "semantic" (class ids).
        image_size: S of frames, pixels.
        label_size: G of labels and prior masks, pixels.
        batch_size: clips of the global batch; a process gets its share.
        seconds: T of every batch.
        sampling: "clip": all seconds in order, shorter clips padded, and where only frame 0 is
            labelled (v1s) it is repeated with the sound of each second (the paper's way);
            "frame": one random labelled second, `seconds` is 1.
        shuffle: False walks v1s, then v1m, then v2, each in the order of the table, then others.
        bucket_by_length: instead of padding, batches of clips of one length, which is their T; see
            `lengths.ByLength`. Of more than three lengths the next multiples of five.
        augment: `data.augment` of a stage, see configs/base.py; None: nothing.
        prior: "none", "true" (foreground of the label), "predicted" (stage one's masks), or
            "mixture" of these two.
        prior_dir: folder of predicted masks, `<subset>/<uid>/<second>.png` beneath it; grey, see
            `transforms.predicted_mask`.
        mixture: share of predicted masks in the mixture.
        max_targets: the most classes that a label map may show, see `check_targets`.
        channels: of the sound, 1 or 2.
        embeddings: of the source's sounds, given instead of log-mel examples.
        seed: of the order and of all draws.
        process_index: of this process.
        process_count: of all.
        num_workers: worker processes; 0 reads in threads of this process.
        cache: keep decoded clips in memory (each worker its own).

    Raises:
        DataError: sizes that do not fit each other or the clips; no clip with a label, or one
            with too many classes; augmentations that cannot be; while iterating: a missing
            predicted mask.
    """
    _check_choice("sampling", sampling, ("clip", "frame"))
    _check_task_and_prior(task, prior, prior_dir, PRIORS)
    _check_sound(channels, embeddings)
    members = labelled_clips(source)
    check_targets(source, task, max_targets)
    longest = 1 if sampling == "frame" else max(source.clips[i].seconds for i in members)
    if seconds < longest or (sampling == "frame" and seconds != 1):
        raise DataError(
            f"seconds is {seconds}, but clips sampled by {sampling} need {longest} seconds"
        )
    if batch_size % process_count or batch_size < 1:
        raise DataError(
            f"batch_size {batch_size} cannot be shared by {process_count} processes: "
            "make it a multiple"
        )
    chosen = augmentations(augment or {}, source.clips, embeddings=embeddings is not None)
    lengths = [1 if sampling == "frame" else clip.seconds for clip in source.clips]
    if bucket_by_length:
        of_batch = batch_lengths({lengths[i] for i in members})
        totals = [of_batch.get(length, seconds) for length in lengths]
    else:
        totals = [seconds] * len(lengths)
    draw = Draw(
        labelled=tuple(clip.labelled for clip in source.clips),
        lengths=tuple(lengths),
        sampling=sampling,
        seconds=tuple(totals),
        prior=prior,
        mixture=mixture,
        flip=chosen.flip,
    )
    if shuffle:
        order = grain.MapDataset.source(members).seed(seed).shuffle()
    else:
        rank = {subset: i for i, subset in enumerate(avsbench.SUBSETS)}
        walk = sorted(members, key=lambda i: rank.get(source.clips[i].subset, len(rank)))
        order = grain.MapDataset.source(walk).seed(seed)
    order = order.repeat(ENDLESS)
    # Drawn before the share is taken: a clip's draws are its own, whichever process it falls to.
    requests = order.random_map(draw)
    if len({totals[i] for i in members}) > 1:
        places = ByLength(
            order, {i: totals[i] for i in members}, batch_size, process_index, process_count
        )
        own = grain.MapDataset.source(places).map(requests.__getitem__)
    else:
        own = requests[process_index::process_count]
    read = ReadClip(
        source,
        task,
        image_size,
        label_size,
        prior_dir=_path(prior_dir),
        channels=channels,
        embeddings=embeddings,
        cache=cache,
    )
    for transform in (*chosen.requests, read, *chosen.elements):
        own = own.map(transform)
    batches = own.batch(batch_size // process_count, batch_fn=_stack)
    return iter(_iterate(batches, num_workers))


def labelled_clips(source: ClipSource) -> list[int]:
    """Indices of the clips that can be trained on: those that have a label.

    Raises:
        DataError: there are none.
    """
    members = [index for index, clip in enumerate(source.clips) if clip.labelled]
    if not members:
        raise DataError("no clip of the training split has a label: nothing can be learnt from it")
    return members


def check_targets(
    source: ClipSource, task: str, max_targets: int, key: str = "max_targets"
) -> None:
    """Whether the label maps that are trained on show no more classes than there is room for.

    They were counted when the data were prepared, at the maps' own size; where maps are made
    smaller, fewer may be left, and so the check may ask for more room than is needed.

    Args:
        source: the clips.
        task: "binary", which always has two, or "semantic".
        max_targets: the most classes of one label map, background counted, ignored pixels not.
        key: what to call it in the message.

    Raises:
        DataError: a label map shows more; no clip with a label.
    """
    counts = {
        source.clips[i].name: 2 if task == "binary" else source.clips[i].classes
        for i in labelled_clips(source)
    }
    name = max(counts, key=counts.__getitem__)
    if counts[name] > max_targets:
        others = sum(count > max_targets for count in counts.values()) - 1
        raise DataError(
            f"clip {name} shows up to {counts[name]} classes in one label map, background "
            f"counted, which is more than {max_targets}"
            + (f" (and {others} other clips show more, too)" if others else "")
            + f": give {key}={counts[name]}"
        )


class EvalLoader:
    """Evaluation batches that can be walked again and again; `len` is their number."""

    def __init__(self, batches: grain.MapDataset, clips: int, num_workers: int):
        self.clips = clips  # of the whole source, whichever process
        self._batches = batches
        self._num_workers = num_workers

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(_iterate(self._batches, self._num_workers))


def eval_loader(
    source: ClipSource,
    *,
    task: str,
    image_size: int | None,
    label_size: int,
    frames_per_batch: int,
    sound: str = "right",
    prior: str = "none",
    prior_dir: str | os.PathLike[str] | None = None,
    channels: int = 1,
    embeddings: Embeddings | None = None,
    nearest: bool = False,
    masks: grain.transforms.Map | None = None,
    devices: int = 1,
    process_index: int = 0,
    process_count: int = 1,
    num_workers: int = 0,
    cache: bool = False,
) -> EvalLoader:
    """One pass over all clips, each once, in a fixed order.

    Clips of one length share a batch: first the shorter clips, then the longer. Of more than three
    lengths the next multiples of five share one, and seconds that a clip lacks are `valid=False`.
    The last batch of each length is filled up with rows that are `valid=False` and have the id "".
    Every process gets equally many batches. Seconds without a label have `labelled=False`.

    Args:
        source: the clips.
        task: "binary" or "semantic".
        image_size: S of frames, pixels; None leaves frames and sounds out.
        label_size: G of labels and prior masks, pixels.
        frames_per_batch: frames of the global batch, rounded up so that there are whole clips of
            the longest for processes and devices; lengths that do not divide it have somewhat
            more or fewer.
        sound: "right"; "other": that of a clip of the same source none of whose classes sound in
            this one, always the same one; "silence".
        prior: "none", "true" or "predicted".
        prior_dir: as in `train_loader`.
        channels: of the sound, 1 or 2.
        embeddings: of the source's sounds, given instead of log-mel examples.
        nearest: binary task: whether labels are given a second time, resized by nearest, as
            labels_nearest.
        masks: puts predictions from elsewhere, uint8 [T,G,G], beside the arrays of a clip, as
            masks; stray_pixels int64, if it has them, are passed on, too.
        devices: what the clips of every global batch are a multiple of.
        process_index: of this process.
        process_count: of all.
        num_workers: worker processes; 0 reads in threads of this process.
        cache: keep decoded clips in memory for the next pass.

    Raises:
        DataError: frames_per_batch is not positive; no clip of other classes to take a sound from;
            while iterating: a missing predicted mask.
    """
    _check_choice("sound", sound, SOUNDS)
    _check_task_and_prior(task, prior, prior_dir, PRIORS[:3])
    _check_sound(channels, embeddings)
    if frames_per_batch < 1:
        raise DataError(f"frames_per_batch is {frames_per_batch}: give at least 1")
    everyone = range(len(source))
    if sound == "other":
        sounds = other_sounds(source.clips)
    else:
        sounds = [SILENCE] * len(source) if sound == "silence" else list(everyone)
    read = ReadClip(
        source,
        task,
        image_size,
        label_size,
        prior_dir=_path(prior_dir),
        channels=channels,
        embeddings=embeddings,
        nearest=nearest,
        cache=cache,
    )
    total_of = batch_lengths({clip.seconds for clip in source.clips})
    totals = sorted(set(total_of.values()))
    shared_by = math.lcm(process_count, devices)
    unit = totals[-1] * shared_by
    frames = math.ceil(frames_per_batch / unit) * unit
    buckets = []
    for total in totals:
        rows = []
        for index in everyone:
            length = source.clips[index].seconds
            if total_of[length] == total:
                seconds = tuple(min(t, length - 1) for t in range(total))
                valid = tuple(t < length for t in range(total))
                rows.append(Request(index, seconds, seconds, valid, sounds[index], prior=prior))
        clips_per_batch = math.ceil(frames // total / shared_by) * shared_by
        filler = dataclasses.replace(rows[0], valid=(False,) * total)
        rows += [filler] * (-len(rows) % clips_per_batch)
        own = grain.MapDataset.source(rows)[process_index::process_count].map(read)
        own = own if masks is None else own.map(masks)
        stack = functools.partial(_stack, names=EVAL_BATCH)
        buckets.append(own.batch(clips_per_batch // process_count, batch_fn=stack))
    return EvalLoader(grain.MapDataset.concatenate(buckets), len(source), num_workers)


def _stack(elements, names: tuple[str, ...] = BATCH) -> dict[str, np.ndarray]:
    return {name: np.stack([e[name] for e in elements]) for name in names if name in elements[0]}


def _iterate(batches: grain.MapDataset, num_workers: int) -> grain.IterDataset:
    # An element is a whole batch; Grain's own default would prefetch hundreds.
    threads = min(8, os.cpu_count() or 1)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads + 2)
    batches = batches.to_iter_dataset(options)
    if not num_workers:
        return batches
    # Grain's workers read absl flags, which nobody has parsed in notebooks and tests.
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    return batches.mp_prefetch(
        grain.MultiprocessingOptions(num_workers=num_workers, per_worker_buffer_size=2)
    )


def _path(folder: str | os.PathLike[str] | None) -> str | None:
    return None if folder is None else os.fspath(folder)


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise DataError(f"{name} {value!r} is none of {', '.join(choices)}")


def _check_task_and_prior(task, prior, prior_dir, priors) -> None:
    _check_choice("task", task, ("binary", "semantic"))
    _check_choice("prior", prior, priors)
    if task == "binary" and prior != "none":
        raise DataError(f"the binary task takes no prior mask, but prior is {prior!r}")
    if prior in ("predicted", "mixture") and prior_dir is None:
        raise DataError(f"prior is {prior!r}, but prior_dir, the folder of its masks, is not given")


def _check_sound(channels: int, embeddings: Embeddings | None) -> None:
    if channels not in (1, 2):
        raise DataError(f"a sound has 1 or 2 channels, not {channels}")
    if channels == 2 and embeddings is not None:
        raise DataError("embeddings are of mono sound: set model.audio.channels to 1")
