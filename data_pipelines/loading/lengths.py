"""Clips of several lengths: which share a batch, and in what order their batches come."""

import collections
import dataclasses
import threading
from collections.abc import Collection, Mapping, Sequence
from typing import Any

# A network is compiled anew for every length of batches, which takes a minute or more: so few
# lengths are taken as they are, and of more the next multiple of some seconds.
EXACT = 3
ROUNDED_TO = 5  # seconds


def batch_lengths(lengths: Collection[int]) -> dict[int, int]:
    """For each length of clips that of the batches they are in, both in seconds.

    At most three lengths have batches of their own; more are rounded up to multiples of five (none
    beyond the longest clip), and what a clip lacks is padding.
    """
    distinct = sorted(set(lengths))
    if len(distinct) <= EXACT:
        return {length: length for length in distinct}
    longest = distinct[-1]
    return {length: min(-(-length // ROUNDED_TO) * ROUNDED_TO, longest) for length in distinct}


@dataclasses.dataclass(frozen=True)
class _Epoch:
    """One walk over all clips."""

    places: dict[int, list[int]]  # for each length, the places in the walk of its clips
    # (length, how many batches of it there were before) of the batches that become complete within
    # the walk, in order.
    complete: list[tuple[int, int]]


class ByLength:
    """An endless walk over clips, put into batches of one length each; can be pickled.

    The walk stays what it is: clips are laid aside by length, and as soon as there are enough of
    one length they are the next batch. So lengths come as often as their clips do, each clip comes
    once in every epoch of its length, and batches of one clip are in the very order of the walk.
    What element i is depends on nothing but i.
    """

    def __init__(
        self,
        walk: Sequence[int],
        lengths: Mapping[int, int],
        batch_size: int,
        process_index: int,
        process_count: int,
    ):
        """
        Args:
            walk: place -> index of a clip; each epoch of len(lengths) places has all clips once.
            lengths: index of a clip -> its length.
            batch_size: clips of the global batch, a multiple of process_count.
            process_index: of this process, which has the elements of its share.
            process_count: of all.
        """
        self._walk = walk
        self._lengths = lengths
        self._batch_size = batch_size
        self._process = (process_index, process_count)
        self._counts = dict(collections.Counter(lengths.values()))
        # A batch may need as many epochs as its rarest length has to wait for.
        self._most_kept = 4 + batch_size // min(self._counts.values())
        self._kept: dict[int, _Epoch] = {}
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_lock"} | {
            "_kept": {}
        }

    def __setstate__(self, state: dict[str, Any]):
        self.__dict__.update(state, _lock=threading.Lock())

    def __len__(self) -> int:
        # The last epochs of an endless walk are of no use to anyone.
        return len(self._walk) // 2

    def __getitem__(self, index: int) -> int:
        """The place in the walk of this process's element."""
        process_index, process_count = self._process
        batch, row = divmod(index, self._batch_size // process_count)
        length, number = self._batch(batch)
        member = number * self._batch_size + row * process_count + process_index
        epoch, rank = divmod(member, self._counts[length])
        return epoch * len(self._lengths) + self._epoch(epoch).places[length][rank]

    def _batch(self, batch: int) -> tuple[int, int]:
        """Length and number, within its length, of a batch of all."""
        # All clips of an epoch would make this many batches; those laid aside come later.
        epoch = max(0, batch * self._batch_size // len(self._lengths) - 1)
        while self._batches_before(epoch + 1) <= batch:
            epoch += 1
        return self._epoch(epoch).complete[batch - self._batches_before(epoch)]

    def _batches_before(self, epoch: int) -> int:
        return sum(epoch * count // self._batch_size for count in self._counts.values())

    def _epoch(self, epoch: int) -> _Epoch:
        with self._lock:
            if epoch not in self._kept:
                while len(self._kept) >= self._most_kept:
                    del self._kept[next(iter(self._kept))]
                self._kept[epoch] = self._look(epoch)
            return self._kept[epoch]

    def _look(self, epoch: int) -> _Epoch:
        clips = len(self._lengths)
        seen = {length: epoch * count for length, count in self._counts.items()}
        places: dict[int, list[int]] = {length: [] for length in self._counts}
        complete = []
        for place in range(clips):
            length = self._lengths[self._walk[epoch * clips + place]]
            places[length].append(place)
            seen[length] += 1
            if seen[length] % self._batch_size == 0:
                complete.append((length, seen[length] // self._batch_size - 1))
        return _Epoch(places, complete)
