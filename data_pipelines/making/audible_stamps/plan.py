"""Who is in a clip: its subset and split, the stamps in it, and what sounds in which second."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from data_pipelines.facts import avsbench
from data_pipelines.making.audible_stamps.stamps import Stamp, in_split
from data_pipelines.making.compositions import (
    Composition,
    Deck,
    activity,
    generator,
    pick,
    subsets_and_splits,
)

# Few of v1s: in training it has labels in its first second alone.
SUBSET_SHARES = {"v1s": 0.20, "v1m": 0.30, "v2": 0.50}
SPLIT_SHARES = {"train": 0.70, "val": 0.15, "test": 0.15}
MIN_CLIPS = 13  # from here on every subset has every split

# Chances. Rivals are stamps that could sound but are silent all through the clip.
_RIVALS_V1S = (0.10, 0.70, 0.20)  # 0, 1, 2
_SOURCES = (0.50, 0.40, 0.10)  # 1, 2, 3 in v1m and v2
_RIVALS = ((0.0, 0.8, 0.2), (0.4, 0.6), (1.0,))  # 0, 1, 2 beside 1, 2, 3 sources
_OFF_SCREEN = 0.12  # in v1m and v2

# Streams of chance below the seed; a clip's own are (seed, stream, clip index).
_CLASS_DECKS, _STAMP_DECKS, _PLAN, _DRAW, _SOUND = range(5)
_ROLES = ("source", "rival", "off-screen")


@dataclass(frozen=True)
class Source:
    """A stamp, or the recording of one. `active` bool [T]: whether it sounds in each second."""

    index: int  # into Media.stamps
    stamp: Stamp
    active: np.ndarray

    @property
    def class_id(self) -> int:
        return avsbench.CLASS_NAMES.index(self.stamp.name)


@dataclass(frozen=True)
class Plan(Composition):
    """One clip before it is drawn. No class comes twice, on screen or off it.

    Mono sound could not tell two instances of a class apart. `objects` are in drawing order: later
    ones hide earlier ones.
    """

    objects: tuple[Source, ...]
    off_screen: tuple[Source, ...]

    @property
    def prefix(self) -> str:
        return "stamps"

    @property
    def a_obj(self) -> str:
        names = [source.stamp.name for source in self.objects if source.active.any()]
        names += [avsbench.OFF_SCREEN] * bool(self.off_screen)
        return avsbench.OBJECT_SEPARATOR.join(names)


def picture_generator(seed: int, index: int) -> np.random.Generator:
    """What the pixels of clip `index` are drawn from."""
    return generator(seed, _DRAW, index)


def sound_generator(seed: int, index: int) -> np.random.Generator:
    """What the samples of clip `index` are drawn from: the same at every frame size."""
    return generator(seed, _SOUND, index)


class _Hand:
    """Stamps of one split and role: classes come evenly, and so do the stamps of a class."""

    def __init__(self, seed, stamps, allowed, split, role):
        self._names = sorted({stamp.name for stamp in allowed})
        self._indices = [
            [i for i, stamp in enumerate(stamps) if stamp.name == name and stamp in allowed]
            for name in self._names
        ]
        self._classes = Deck(generator(seed, _CLASS_DECKS, split, role), len(self._names))
        self._stamps = [
            Deck(generator(seed, _STAMP_DECKS, split, role, k), len(indices))
            for k, indices in enumerate(self._indices)
        ]

    def draw(self, taken):
        """(class, index into the stamps), of a class that is not in `taken`."""
        k = self._classes.draw(taken)
        return k, self._indices[k][self._stamps[k].draw()]


def plans(seed: int, clips: int, stamps: Sequence[Stamp], held_out: bool = False) -> Iterator[Plan]:
    """Plans of clips 0..clips-1; plan i is the same however many clips are asked for.

    Args:
      seed: of all chance.
      clips: how many.
      stamps: those that there are (`Media.stamps`).
      held_out: whether some are kept for the test split (`stamps.in_split`).
    """
    hands = {
        (split, role): _Hand(seed, stamps, in_split(tuple(stamps), split, held_out), i, j)
        for i, split in enumerate(SPLIT_SHARES)
        for j, role in enumerate(_ROLES)
    }
    kinds = subsets_and_splits(SUBSET_SHARES, SPLIT_SHARES)
    for index in range(clips):
        subset, split = next(kinds)
        seconds = avsbench.SUBSET_SECONDS[subset]
        rng = generator(seed, _PLAN, index)
        if subset == "v1s":
            sources, rivals, off_screen = 1, pick(rng, _RIVALS_V1S), 0
        else:
            sources = 1 + pick(rng, _SOURCES)
            rivals = pick(rng, _RIVALS[sources - 1])
            off_screen = int(rng.random() < _OFF_SCREEN)
        taken: list[int] = []
        parts = {}
        for role, count in zip(_ROLES, (sources, rivals, off_screen), strict=True):
            parts[role] = []
            for _ in range(count):
                kind, stamp = hands[split, role].draw(taken)
                taken.append(kind)
                if role == "rival":
                    active = np.zeros(seconds, bool)
                elif subset == "v1s":
                    active = np.ones(seconds, bool)
                else:
                    active = activity(rng, seconds)
                parts[role].append(Source(stamp, stamps[stamp], active))
        objects = parts["source"] + parts["rival"]
        order = np.argsort(rng.random(len(objects)))
        yield Plan(
            index, subset, split, tuple(objects[i] for i in order), tuple(parts["off-screen"])
        )
