"""Clips that lend others their sound: none of their classes is to be seen there."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from data_pipelines.errors import DataError
from data_pipelines.loading.request import SILENCE

PAIRING_SEED = 3407  # of the order in which clips are asked for their sound; the same in every run


def lenders(clips: Sequence[Any], sound: str) -> list[int]:
    """For each clip the index of the one whose sound is heard with it, or `request.SILENCE`.

    Args:
        clips: `source.Clip`s.
        sound: "right", "other" or "silence".

    Raises:
        DataError: see `other_sounds`.
    """
    if sound == "other":
        return other_sounds(clips)
    return [SILENCE] * len(clips) if sound == "silence" else list(range(len(clips)))


def other_sounds(clips: Sequence[Any]) -> list[int]:
    """For each clip the index of one whose sounding classes are all different.

    The next such clip in a fixed random order, so that sounds are spread over clips.

    Args:
        clips: `source.Clip`s.

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


def has_other_sounds(clips: Sequence[Any]) -> bool:
    """Whether `other_sounds` finds one for each clip."""
    kinds = {frozenset(clip.objects) for clip in clips}
    each_once = len(clips) > 1 or not clips
    return each_once and all(any(own.isdisjoint(kind) for kind in kinds) for own in kinds)


class Partners:
    """For each clip others none of whose classes sound in it.

    A clip of which the table says no class is nobody's partner: it may sound like anything.
    """

    def __init__(self, clips: Sequence[Any]):
        """
        Args:
            clips: `source.Clip`s.

        Raises:
            DataError: a clip has no partner.
        """
        self._objects = tuple(frozenset(clip.objects) for clip in clips)
        known = [index for index, objects in enumerate(self._objects) if objects]
        self._order = np.random.default_rng(PAIRING_SEED).permutation(known).tolist()
        kinds = {self._objects[index] for index in known}
        alone = {own for own in set(self._objects) if not any(map(own.isdisjoint, kinds))}
        for clip, objects in zip(clips, self._objects, strict=True):
            if objects in alone:
                raise DataError(
                    f"no sound of other classes for clip {clip.name}: every clip of the training "
                    "split shares a class with it or tells none; train on more clips, or without "
                    "augment.mix_sounds and augment.swap_sound"
                )

    def draw(self, index: int, rng: np.random.Generator) -> int:
        """The index of one of the clip's partners."""
        own = self._objects[index]
        start = int(rng.integers(len(self._order)))
        following = (self._order[(start + i) % len(self._order)] for i in range(len(self._order)))
        return next(other for other in following if own.isdisjoint(self._objects[other]))
