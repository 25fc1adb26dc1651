"""Who is in a clip: its subset and split, the classes in it, and what sounds in which second."""

from collections.abc import Iterator
from functools import partial

from data_pipelines.making.audible_shapes.shapes import CLASS_NAMES, NUM_SHAPES
from data_pipelines.making.compositions import (
    ROLES,
    Chances,
    Composition,
    Deck,
    Source,
    compose,
    generator,
)

MIN_CLIPS = 9  # from here on every subset has every split
CHANCES = Chances(
    subsets={"v1s": 0.35, "v1m": 0.30, "v2": 0.35},
    splits={"train": 0.70, "val": 0.08, "test": 0.22},
    rivals_v1s=(0.10, 0.50, 0.40),
    sources=(0.45, 0.40, 0.15),
    rivals=((0.0, 0.6, 0.4), (0.1, 0.6, 0.3), (0.25, 0.75)),
    off_screen=0.22,
)

# Streams of chance below the seed; a clip's own are (seed, stream, clip index).
_DECKS, _PLAN, DRAW = range(3)


def plans(seed: int, clips: int) -> Iterator[Composition]:
    """Plans of clips 0..clips-1; plan i is the same however many clips are asked for."""
    # A deck for each split and role, so that classes are even in every one of them.
    decks = {
        (split, role): Deck(generator(seed, _DECKS, i, j), NUM_SHAPES)
        for i, split in enumerate(CHANCES.splits)
        for j, role in enumerate(ROLES)
    }

    def draw(split, role, taken):
        shape = decks[split, role].draw(taken)
        return shape, partial(Source, shape, CLASS_NAMES[shape], shape + 1)

    return compose("shapes", clips, CHANCES, partial(generator, seed, _PLAN), draw)
