"""Who is in a clip: its subset and split, the stamps in it, and what sounds in which second."""

from collections.abc import Iterator, Sequence
from functools import partial

from data_pipelines.facts import avsbench
from data_pipelines.making.audible_stamps.stamps import Stamp, in_split
from data_pipelines.making.compositions import (
    ROLES,
    Chances,
    Composition,
    Deck,
    Source,
    compose,
    generator,
)

MIN_CLIPS = 13  # from here on every subset has every split
CHANCES = Chances(
    # Few of v1s: in training it has labels in its first second alone.
    subsets={"v1s": 0.20, "v1m": 0.30, "v2": 0.50},
    splits={"train": 0.70, "val": 0.15, "test": 0.15},
    rivals_v1s=(0.10, 0.70, 0.20),
    sources=(0.50, 0.40, 0.10),
    rivals=((0.0, 0.8, 0.2), (0.4, 0.6), (1.0,)),
    off_screen=0.12,
)

# Streams of chance below the seed; a clip's own are (seed, stream, clip index).
_CLASS_DECKS, _STAMP_DECKS, _PLAN, DRAW, SOUND = range(5)


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


def plans(
    seed: int, clips: int, stamps: Sequence[Stamp], held_out: bool = False
) -> Iterator[Composition]:
    """Plans of clips 0..clips-1; plan i is the same however many clips are asked for.

    `stamps` are those that there are (`Media.stamps`); `held_out` is for `stamps.in_split`.
    """
    hands = {
        (split, role): _Hand(seed, stamps, in_split(tuple(stamps), split, held_out), i, j)
        for i, split in enumerate(CHANCES.splits)
        for j, role in enumerate(ROLES)
    }

    def draw(split, role, taken):
        kind, index = hands[split, role].draw(taken)
        name = stamps[index].name
        return kind, partial(Source, index, name, avsbench.CLASS_NAMES.index(name))

    return compose("stamps", clips, CHANCES, partial(generator, seed, _PLAN), draw)
