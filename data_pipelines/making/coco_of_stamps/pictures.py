"""One picture: which stamps stand where, and which of them are annotated.

Three of four pictures show twins: four objects of one class, two on the left and two on the right,
of which one side alone is annotated. VPO-MSMI lets both of an annotated pair sound, and never what
is not annotated. So nothing but where the sound comes from tells the two that sound from the two
that do not. That VPO lets all of two sound is why there are four: of one on either side, both
annotated, both would always sound.

The fourth shows three classes, one object of each, all annotated: a picture of VPO-MS, of which two
or three sound, and what is heard tells which.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from data_pipelines.making.audible_stamps.media import Media
from data_pipelines.making.audible_stamps.scene import Cutout, background
from data_pipelines.making.compositions import generator
from data_pipelines.making.drawing import develop, stick

OTHERS = 3  # classes in a picture without twins
_PERIOD = 4  # every so many pictures one is without twins
_TURNED = 0.2  # radians at most, either way

# In parts of the picture's side: where the two of a half stand, square roots of solid areas, and
# the longest side of a thing. VPO wants centres 0.1 apart.
_COLUMNS, _ROWS = ((0.09, 0.12), (0.29, 0.32)), ((0.22, 0.30), (0.70, 0.78))
_TWIN_SIZES, _TWIN_LONGEST = (0.20, 0.26), 0.36
_OTHER_COLUMNS, _OTHER_ROWS = ((0.14, 0.20), (0.46, 0.54), (0.80, 0.86)), (0.3, 0.7)
_OTHER_SIZES, _OTHER_LONGEST = (0.25, 0.33), 0.5

# Stream of chance below the seed; a picture's own is (seed, stream, picture).
PICTURE = 0


@dataclass(frozen=True)
class Thing:
    """An object in a picture."""

    name: str  # of its class
    stamp: int  # index into `Media.stamps`
    centre: tuple[float, float]  # (x, y), in parts of the picture's side
    annotated: bool


@dataclass(frozen=True)
class Picture:
    """A drawn picture."""

    things: tuple[Thing, ...]  # in drawing order
    pixels: np.ndarray  # uint8 [S, S, 3]
    masks: np.ndarray  # bool [things, S, S], what is seen of each


def draw(
    seed: int, index: int, stamps: Mapping[str, Sequence[int]], media: Media, size: int
) -> Picture:
    """Draws picture `index` of the folder `seed`.

    Args:
        seed: of the folder.
        index: of the picture; it depends on no other.
        stamps: class -> indices into `media.stamps`; at least OTHERS classes.
        media: what it is drawn of.
        size: S, pixels.
    """
    rng = generator(seed, PICTURE, index)
    twins = index % _PERIOD < _PERIOD - 1
    things = (_twins if twins else _others)(rng, stamps)
    things = [things[i] for i in np.argsort(rng.random(len(things)))]
    sizes, longest = (_TWIN_SIZES, _TWIN_LONGEST) if twins else (_OTHER_SIZES, _OTHER_LONGEST)
    frames = background(rng, media.backgrounds, 1, size)
    owners = np.zeros((size, size), np.uint8)
    for i, thing in enumerate(things):
        cutout = Cutout(rng, media.cutouts[thing.stamp], sizes, longest)
        angle = rng.uniform(-_TURNED, _TURNED)
        rows, columns, solid = stick(frames[0], cutout, np.array(thing.centre), 1.0, angle)
        owners[rows, columns][solid] = i + 1
    masks = owners == np.arange(1, 1 + len(things))[:, None, None]
    return Picture(tuple(things), develop(rng, frames)[0], masks)


def _twins(rng, stamps) -> list[Thing]:
    name = _one(rng, sorted(stamps))
    sounding = int(rng.random() < 0.5)  # right
    things = []
    for side in range(2):
        rows = _ROWS if rng.random() < 0.5 else _ROWS[::-1]
        for column, row in zip(_COLUMNS, rows, strict=True):
            x = rng.uniform(*column)
            centre = (1 - x if side else x, rng.uniform(*row))
            things.append(Thing(name, _one(rng, stamps[name]), centre, side == sounding))
    return things


def _others(rng, stamps) -> list[Thing]:
    names = sorted(stamps)
    order = np.argsort(rng.random(len(names)))[:OTHERS]
    return [
        Thing(
            names[i],
            _one(rng, stamps[names[i]]),
            (rng.uniform(*column), rng.uniform(*_OTHER_ROWS)),
            True,
        )
        for i, column in zip(order, _OTHER_COLUMNS, strict=True)
    ]


def _one(rng, items):
    return items[int(rng.random() * len(items))]
