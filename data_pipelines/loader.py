"""The two Grain chains: endless training batches, and one pass of evaluation batches.

A batch is a dict of NumPy arrays: frames uint8 [B,T,S,S,3], audio float32 [B,T,96,64], labels
uint8 [B,T,G,G], labelled and valid bool [B,T], prior_mask float32 [B,T,G,G] where a prior is asked
for, and ids (str [B], "subset/uid", "" for padding), which stays on the host.
"""

import dataclasses
import math
import os
from collections.abc import Iterator
from typing import Any

import grain
import numpy as np
from absl import flags

from data_pipelines.avsbench import layout
from data_pipelines.errors import DataError
from data_pipelines.source import Clip, ClipSource, open_source
from data_pipelines.transforms import SILENCE, Draw, ReadClip, Request

__all__ = ["ClipSource", "EvalLoader", "eval_loader", "open_source", "train_loader"]

PRIORS = ("none", "true", "predicted", "mixture")
SOUNDS = ("right", "other", "silence")
ENDLESS = 10**9  # epochs; what Grain itself takes for endless overflows in batches of one clip
PAIRING_SEED = 3407  # which other clip is heard where sound is "other"; the same in every run


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
    flip: bool = False,
    prior: str = "none",
    prior_dir: str | os.PathLike[str] | None = None,
    mixture: float = 0.5,
    max_targets: int = 16,
    seed: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    num_workers: int = 0,
    cache: bool = False,
) -> grain.DatasetIterator:
    """Endless training batches, every clip once in each epoch.

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
        shuffle: False walks v1s, then v1m, then v2, each in the order of the table.
        flip: swap left and right in half of the draws.
        prior: "none", "true" (foreground of the label), "predicted" (stage one's masks), or
            "mixture" of these two.
        prior_dir: folder of predicted masks, `<subset>/<uid>/<second>.png` beneath it.
        mixture: share of predicted masks in the mixture.
        max_targets: the most classes a label map may hold.
        seed: of the order and of all draws.
        process_index: of this process.
        process_count: of all.
        num_workers: worker processes; 0 reads in threads of this process.
        cache: keep decoded clips in memory (each worker its own).

    Raises:
        DataError: sizes that do not fit each other or the clips; while iterating: a missing
            predicted mask, a label map with too many classes.
    """
    _check_choice("sampling", sampling, ("clip", "frame"))
    _check_task_and_prior(task, prior, prior_dir, PRIORS)
    longest = 1 if sampling == "frame" else max(clip.seconds for clip in source.clips)
    if seconds < longest or (sampling == "frame" and seconds != 1):
        raise DataError(
            f"seconds is {seconds}, but clips sampled by {sampling} need {longest} seconds"
        )
    if batch_size % process_count or batch_size < 1:
        raise DataError(
            f"batch_size {batch_size} cannot be shared by {process_count} processes: "
            "make it a multiple"
        )
    draw = Draw(
        labelled=tuple(clip.labelled for clip in source.clips),
        lengths=tuple(clip.seconds for clip in source.clips),
        sampling=sampling,
        seconds=seconds,
        prior=prior,
        mixture=mixture,
        flip=flip,
    )
    read = ReadClip(source, task, image_size, label_size, _path(prior_dir), max_targets, cache)
    order = grain.MapDataset.range(len(source)).seed(seed)
    if shuffle:
        order = order.shuffle()
    else:
        subsets = list(layout.SUBSETS)
        walk = sorted(range(len(source)), key=lambda i: subsets.index(source.clips[i].subset))
        order = grain.MapDataset.source(walk).seed(seed)
    # Drawn before the slice: a clip's draws are its own, whichever process it falls to.
    requests = order.repeat(ENDLESS).random_map(draw)
    own = requests[process_index::process_count].map(read)
    batches = own.batch(batch_size // process_count, batch_fn=_stack)
    return iter(_iterate(batches, num_workers))


class EvalLoader:
    """Evaluation batches that can be walked again and again; `len` is their number."""

    def __init__(self, batches: grain.MapDataset, num_workers: int):
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
    image_size: int,
    label_size: int,
    frames_per_batch: int,
    sound: str = "right",
    prior: str = "none",
    prior_dir: str | os.PathLike[str] | None = None,
    process_index: int = 0,
    process_count: int = 1,
    num_workers: int = 0,
    cache: bool = False,
) -> EvalLoader:
    """One pass over all clips, each once, in a fixed order.

    Clips of one length share a batch, so that all batches have `frames_per_batch` frames: first
    the shorter clips, then the longer. The last batch of each length is filled up with rows that
    are `valid=False` and have the id "". Every process gets equally many batches. Seconds without
    a label have `labelled=False`.

    Args:
        source: the clips.
        task: "binary" or "semantic".
        image_size: S of frames, pixels.
        label_size: G of labels and prior masks, pixels.
        frames_per_batch: frames of the global batch, a multiple of every clip length times
            `process_count`.
        sound: "right"; "other": that of a clip of the same source none of whose classes sound in
            this one, always the same one; "silence".
        prior: "none", "true" or "predicted".
        prior_dir: as in `train_loader`.
        process_index: of this process.
        process_count: of all.
        num_workers: worker processes; 0 reads in threads of this process.
        cache: keep decoded clips in memory for the next pass.

    Raises:
        DataError: frames_per_batch does not fit; no clip of other classes to take a sound from;
            while iterating: a missing predicted mask.
    """
    _check_choice("sound", sound, SOUNDS)
    _check_task_and_prior(task, prior, prior_dir, PRIORS[:3])
    lengths = sorted({clip.seconds for clip in source.clips})
    unit = math.lcm(*lengths) * process_count
    if frames_per_batch % unit or frames_per_batch < 1:
        raise DataError(
            f"frames_per_batch {frames_per_batch} does not fit clips of "
            f"{' and '.join(map(str, lengths))} seconds on {process_count} process(es): "
            f"make it a multiple of {unit}"
        )
    everyone = range(len(source))
    if sound == "other":
        sounds = other_sounds(source.clips)
    else:
        sounds = [SILENCE] * len(source) if sound == "silence" else list(everyone)
    read = ReadClip(source, task, image_size, label_size, _path(prior_dir), None, cache)
    buckets = []
    for length in lengths:
        members = [i for i in everyone if source.clips[i].seconds == length]
        whole = tuple(range(length))
        rows = [Request(i, whole, whole, (True,) * length, sounds[i], prior=prior) for i in members]
        clips_per_batch = frames_per_batch // length
        filler = dataclasses.replace(rows[0], valid=(False,) * length)
        rows += [filler] * (-len(rows) % clips_per_batch)
        own = grain.MapDataset.source(rows)[process_index::process_count].map(read)
        buckets.append(own.batch(clips_per_batch // process_count, batch_fn=_stack))
    return EvalLoader(grain.MapDataset.concatenate(buckets), num_workers)


def other_sounds(clips: tuple[Clip, ...]) -> list[int]:
    """For each clip the index of one whose sounding classes are all different.

    The next such clip in a fixed random order, so that sounds are spread over clips.

    Raises:
        DataError: there is none for some clip.
    """
    order = np.random.default_rng(PAIRING_SEED).permutation(len(clips)).tolist()
    others = [0] * len(clips)
    for place, index in enumerate(order):
        own = set(clips[index].objects)
        following = order[place + 1 :] + order[:place]
        other = next((i for i in following if own.isdisjoint(clips[i].objects)), None)
        if other is None:
            raise DataError(
                f"no sound of other classes for clip {clips[index].name}: every clip of this "
                "split shares a class with it; evaluate on more clips or without sound 'other'"
            )
        others[index] = other
    return others


def _stack(elements) -> dict[str, np.ndarray]:
    return {name: np.stack([e[name] for e in elements]) for name in elements[0]}


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
