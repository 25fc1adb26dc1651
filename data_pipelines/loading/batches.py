"""Batches of what was read: stacked, and walked by threads or by worker processes."""

import os
from collections.abc import Iterator
from typing import Any

import grain
import numpy as np
from absl import flags

TRAIN_ENTRIES = ("frames", "audio", "labels", "labelled", "valid", "objects", "prior_mask", "ids")
EVAL_ENTRIES = (*TRAIN_ENTRIES, "position", "labels_nearest", "masks", "stray_pixels")


class EvalLoader:
    """Evaluation batches that can be walked again and again; `len` is their number."""

    def __init__(self, batches: grain.MapDataset, clips: int, num_workers: int):
        self.clips = clips  # of the whole source, whichever process
        self._batches = batches
        self._num_workers = num_workers

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(iterate(self._batches, self._num_workers))


def stack(elements, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """A batch of the named arrays, as far as they are there."""
    there = [name for name in names if name in elements[0]]
    if len(elements) == 1:  # a view, as frames are large
        return {name: np.asarray(elements[0][name])[None] for name in there}
    return {name: np.stack([element[name] for element in elements]) for name in there}


def iterate(batches: grain.MapDataset, num_workers: int) -> grain.IterDataset:
    """Walks batches; 0 workers: in threads of this process."""
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
