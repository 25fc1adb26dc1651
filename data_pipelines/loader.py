"""The two Grain chains: endless training batches, and one pass of evaluation batches.

A batch is a dict of NumPy arrays: frames uint8 [B,T,S,S,3], or maps of them (`loading.features`),
with 1 in place of T where `stills` of one picture are asked for; audio [B,T,...] as the front end
has it (log-mel float32 [B,T,96,64], of left and right [B,T,96,64,2]) or embeddings float32 [B,T,E];
labels uint8 [B,T,G,G] (255 where a pixel is ignored), labelled and valid bool [B,T], objects bool
[B,K], what sounds in a clip by its table, prior_mask float32 [B,T,G,G] where a prior is asked for
(of two views [B,T,2,G,G]), and ids (str [B], "subset/uid", "" for padding), which stays on the
host. One of evaluation has position int32 [B], the clip's index in the source, too, and where they
are asked for labels_nearest uint8 [B,T,G,G].
"""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import grain

from data_pipelines.errors import DataError
from data_pipelines.facts import avsbench
from data_pipelines.loading.augment import augmentations
from data_pipelines.loading.batches import EVAL_ENTRIES, TRAIN_ENTRIES, EvalLoader, iterate, stack
from data_pipelines.loading.checks import (
    PRIORS,
    SOUNDS,
    VIEWS,
    check_choice,
    check_resize,
    check_shared,
    check_sound,
    check_targets,
    check_task_and_prior,
    labelled_clips,
)
from data_pipelines.loading.features import Features
from data_pipelines.loading.front_ends import LOG_MEL, FrontEnd
from data_pipelines.loading.lengths import ByLength, batch_lengths
from data_pipelines.loading.partners import lenders
from data_pipelines.loading.read_clip import Masks, ReadClip
from data_pipelines.loading.request import SAMPLINGS, Draw, Request, shows_one
from data_pipelines.prepared.embeddings import Embeddings
from data_pipelines.prepared.source import ClipSource, open_source

__all__ = [
    "PRIORS",
    "SOUNDS",
    "VIEWS",
    "ClipSource",
    "EvalLoader",
    "check_targets",
    "eval_loader",
    "labelled_clips",
    "open_source",
    "train_loader",
]

ENDLESS = 10**9  # epochs; what Grain itself takes for endless overflows in batches of one clip


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
    resize: str = "squash",
    augment: Mapping[str, Any] | None = None,
    prior: str = "none",
    prior_dir: Masks | None = None,
    mixture: float = 0.5,
    untold: float = 0.0,
    max_targets: int = 16,
    front_end: FrontEnd = LOG_MEL,
    embeddings: Embeddings | None = None,
    features: Features | None = None,
    stills: bool = False,
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
            labelled (v1s) it is repeated with the sound of each second (the paper's way); "frame":
            one random labelled second, `seconds` is 1; "film": all seconds, each with its frame.
        shuffle: False walks v1s, then v1m, then v2, each in the order of the table, then others.
        bucket_by_length: instead of padding, batches of clips of one length, which is their T; see
            `lengths.ByLength`. Of more than three lengths the next multiples of five.
        resize: of frames, one of `decoding.RESIZES`.
        augment: `data.augment` of a stage, see configs/base.py; None: nothing.
        prior: "none", "true" (foreground of the label), "predicted" (stage one's masks), or a
            "mixture" of true and predicted.
        prior_dir: folder of predicted masks, `<subset>/<uid>/<second>.png` beneath it, or of each
            clip by its name; grey, see `decoding.predicted_mask`.
        mixture: share of predicted masks in the mixture.
        untold: share of seconds whose prior mask is 0.5 everywhere.
        max_targets: the most classes that a label map may show, see `check_targets`.
        front_end: what is heard of a clip's waveform.
        embeddings: of the source's sounds, given in its place.
        features: of the source's frames, given in their place.
        stills: whether a source all of whose clips show a single picture gives it once, as frames
            [B,1,S,S,3]; everything else stays [B,T,...].
        seed: of the order and of all draws.
        process_index: of this process.
        process_count: of all.
        num_workers: worker processes; 0 reads in threads of this process.
        cache: keep decoded clips in memory (each worker its own).

    Raises:
        DataError: sizes that do not fit each other or the clips; no clip with a label, or one with
            too many classes; augmentations that cannot be; while iterating: a missing mask.
    """
    check_choice("sampling", sampling, SAMPLINGS)
    check_resize(resize, prior, features)
    check_task_and_prior(task, prior, prior_dir, PRIORS)
    check_sound(front_end, embeddings)
    members = labelled_clips(source)
    check_targets(source, task, max_targets)
    longest = 1 if sampling == "frame" else max(source.clips[i].seconds for i in members)
    if seconds < longest or (sampling == "frame" and seconds != 1):
        raise DataError(
            f"seconds is {seconds}, but clips sampled by {sampling} need {longest} seconds"
        )
    check_shared(batch_size, process_count)
    chosen = augmentations(
        augment or {},
        source.clips,
        embeddings=embeddings is not None,
        features=features is not None,
    )
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
        untold=untold,
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
        prior_dir=prior_dir,
        front_end=front_end,
        embeddings=embeddings,
        features=features,
        cache=cache,
        changes_sounds=chosen.changes_sounds,
        resize=resize,
        # Of all clips or of none: every process has to give batches of the same shapes.
        one_picture=stills and all(shows_one(source.clips[i], sampling) for i in members),
    )
    for transform in (*chosen.requests, read, *chosen.elements):
        own = own.map(transform)
    names = TRAIN_ENTRIES if features is None else (*features.entries, *TRAIN_ENTRIES)
    batch_fn = functools.partial(stack, names=names)
    batches = own.batch(batch_size // process_count, batch_fn=batch_fn)
    return iter(iterate(batches, num_workers))


def eval_loader(
    source: ClipSource,
    *,
    task: str,
    image_size: int | None,
    label_size: int,
    frames_per_batch: int,
    sound: str = "right",
    prior: str = "none",
    prior_dir: Masks | None = None,
    front_end: FrontEnd = LOG_MEL,
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
        prior: "none", "true", "predicted", "unknown" (0.5 everywhere), or "both" (predicted masks
            and this, two views).
        prior_dir: as in `train_loader`.
        front_end: what is heard of a clip's waveform.
        embeddings: of the source's sounds, given in its place.
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
    check_choice("sound", sound, SOUNDS)
    check_task_and_prior(task, prior, prior_dir, VIEWS)
    check_sound(front_end, embeddings)
    if frames_per_batch < 1:
        raise DataError(f"frames_per_batch is {frames_per_batch}: give at least 1")
    sounds = lenders(source.clips, sound)
    read = ReadClip(
        source,
        task,
        image_size,
        label_size,
        prior_dir=prior_dir,
        front_end=front_end,
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
        for index in range(len(source)):
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
        batch_fn = functools.partial(stack, names=EVAL_ENTRIES)
        buckets.append(own.batch(clips_per_batch // process_count, batch_fn=batch_fn))
    return EvalLoader(grain.MapDataset.concatenate(buckets), len(source), num_workers)
