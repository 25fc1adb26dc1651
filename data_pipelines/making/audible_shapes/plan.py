"""Who is in a clip: its subset and split, the classes in it, and what sounds in which second."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from data_pipelines.facts import avsbench
from data_pipelines.making.audible_shapes.shapes import CLASS_NAMES, NUM_SHAPES
from data_pipelines.making.compositions import (
    Composition,
    Deck,
    activity,
    generator,
    pick,
    subsets_and_splits,
)

SUBSET_SHARES = {"v1s": 0.35, "v1m": 0.30, "v2": 0.35}
SPLIT_SHARES = {"train": 0.70, "val": 0.08, "test": 0.22}
MIN_CLIPS = 9  # from here on every subset has every split

# Chances. Rivals are objects that could sound but are silent all through the clip.
_RIVALS_V1S = (0.10, 0.50, 0.40)  # 0, 1, 2
_SOURCES = (0.45, 0.40, 0.15)  # 1, 2, 3 in v1m and v2
_RIVALS = ((0.0, 0.6, 0.4), (0.1, 0.6, 0.3), (0.25, 0.75))  # 0, 1, 2 beside 1, 2, 3 sources
_OFF_SCREEN = 0.22  # in v1m and v2

# Streams of chance below the seed; a clip's own are (seed, stream, clip index).
_DECKS, _PLAN, _DRAW = range(3)


@dataclass(frozen=True)
class Source:
    """An object, or a sound without one. `active` bool [T]: whether it sounds in each second."""

    shape: int  # index into shapes.SHAPES; class id - 1
    active: np.ndarray


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
        return "shapes"

    @property
    def a_obj(self) -> str:
        names = [CLASS_NAMES[o.shape] for o in self.objects if o.active.any()]
        names += [avsbench.OFF_SCREEN] * bool(self.off_screen)
        return avsbench.OBJECT_SEPARATOR.join(names)


def drawing_generator(seed: int, index: int) -> np.random.Generator:
    """What the pixels and samples of clip `index` are drawn from."""
    return generator(seed, _DRAW, index)


def plans(seed: int, clips: int) -> Iterator[Plan]:
    """Plans of clips 0..clips-1; plan i is the same however many clips are asked for."""
    # A deck for each split and role, so that classes are even in every one of them.
    decks = {
        (split, role): Deck(generator(seed, _DECKS, i, j), NUM_SHAPES)
        for i, split in enumerate(SPLIT_SHARES)
        for j, role in enumerate(("source", "rival", "off-screen"))
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
        for role, count in (("source", sources), ("rival", rivals), ("off-screen", off_screen)):
            parts[role] = []
            for _ in range(count):
                shape = decks[split, role].draw(taken)
                taken.append(shape)
                if role == "rival":
                    active = np.zeros(seconds, bool)
                elif subset == "v1s":
                    active = np.ones(seconds, bool)
                else:
                    active = activity(rng, seconds)
                parts[role].append(Source(shape, active))
        objects = parts["source"] + parts["rival"]
        order = np.argsort(rng.random(len(objects)))
        yield Plan(
            index, subset, split, tuple(objects[i] for i in order), tuple(parts["off-screen"])
        )
