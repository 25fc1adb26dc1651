"""Who sounds in a picture: the rules of VPO's three settings.

What the paper and its published files say (Chen et al., arXiv 2304.02970, and the data set that
came with it):

* SS: one object sounds. MS: several objects of different classes sound. Pictures that show two of
  one class are dropped from both, as a mono sound cannot tell the two apart.
* MSMI: several objects sound that may share a class, and the sound is spatial: a source at p,
  the horizontal centre of its mask from 0 (left) to 1, is heard as L = (1 - p) x, R = p x. MSMI
  is pictures with two of one class beside the pictures of MS.
* The mask of a picture shows its sounding objects. What is silent is background, though it be of
  a VPO class.

What they do not say, and is decided here:

* Two or more objects sound in MS and in MSMI, at most MAX_SOURCES; how many and which is drawn. In
  SS it is drawn, too, so that silent rivals stay in the picture.
* In MSMI a class that is seen more than once sounds at least twice, and others of it may be silent.
* "Two of one class" counts objects of any size; a region that COCO marks as a crowd is several.
* A crowd, or an object whose outline is broken, silences its class in the picture.
* COCO only knows persons. One of unknown kind never sounds and is not counted as a second one of
  any class, but silences all kinds of person in the picture.
"""

import collections
import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from data_pipelines.facts.vpo import BACKGROUND_ID, COCO_IDS, PEOPLE
from data_pipelines.making.vpo.coco import Object

# Pixels that a sounding object shows at least: below 32 x 32 COCO itself calls objects small, and
# few are left of them at the 224 or 384 pixels that networks see.
MIN_AREA = 32 * 32
MAX_SOURCES = 5
# In widths of the picture, between the centres of two objects of one class in MSMI. In the middle
# nearer ones differ by less than 2 dB in either ear, so little tells which of them sounds.
MIN_DISTANCE = 0.1


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """An object that may sound."""

    annotation: int  # COCO's number of it
    class_name: str  # of VPO
    mask: np.ndarray  # bool [H, W]
    area: int  # pixels of the mask
    position: float  # of the mask's centre, from left (0) to right (1)

    @classmethod
    def of(cls, thing: Object, mask: np.ndarray) -> "Source":
        area = int(np.count_nonzero(mask))
        columns = np.count_nonzero(mask, axis=0)
        centre = (columns @ (np.arange(len(columns)) + 0.5)) / max(area, 1) / len(columns)
        return cls(thing.annotation, str(thing.class_name), mask, area, round(float(centre), 4))


def possible(
    objects: Sequence[Object], recordings: Mapping[str, int]
) -> tuple[list[Object], collections.Counter]:
    """The objects that might sound in some setting, judged without their masks.

    Args:
        objects: all of VPO's classes in a picture.
        recordings: class -> how many recordings there are for this picture's split; MAX_SOURCES
            may stand for more.

    Returns:
        Whole classes only: all objects of each. And why others are silent: reason -> classes.
    """
    silent: collections.Counter = collections.Counter()
    found = []
    unknown_person = any(thing.class_name is None for thing in objects)
    by_class = _by_class(objects)
    for name, things in by_class.items():
        if name is None:
            silent["a person of unknown kind"] += 1
        elif name in PEOPLE and unknown_person:
            silent["beside a person of unknown kind"] += 1
        elif any(thing.crowd for thing in things):
            silent["a crowd"] += 1
        elif any(thing.outline is None for thing in things):
            silent["a broken outline"] += 1
        elif len(things) > MAX_SOURCES:
            silent[f"more than {MAX_SOURCES} of the class"] += 1
        elif not recordings.get(name):
            silent["no recording of the class"] += 1
        else:
            found += things
    return found, silent


def settings_of(objects: Sequence[Object], audible: Sequence[Object]) -> set[str]:
    """The settings that a picture may be good for, judged without its masks.

    `objects` are all of VPO's classes in the picture, `audible` what `possible` left of them.
    """
    counts = [len(group) for group in _by_class(audible).values()]
    clear = not several(objects)
    rules = {
        "ss": clear and len(counts) >= 1,
        "ms": clear and len(counts) >= 2,
        "msmi": max(counts, default=0) > 1,
    }
    return {setting for setting, fits in rules.items() if fits}


def several(objects: Sequence[Object]) -> bool:
    """Whether any class is seen more than once."""
    groups = [group for name, group in _by_class(objects).items() if name is not None]
    return any(len(group) > 1 or group[0].crowd for group in groups)


def draw(
    setting: str,
    single: Sequence[Source],
    groups: Sequence[Sequence[Source]],
    rng: np.random.Generator,
) -> list[Source]:
    """Who sounds, in a fixed order; none where the setting asks for more than there is.

    Args:
        setting: ss: one of `single`; ms: two or more of them; msmi: two of a group, and perhaps
            more of any.
        single: those that `alone` found.
        groups: those that `together` found.
        rng: of this picture and setting.
    """
    if setting == "msmi":
        if not groups:
            return []
        pair = _draw(groups[rng.integers(len(groups))], 2, rng)
        rest = [source for group in groups for source in group if source not in pair]
        rest += single
        return pair + _draw(rest, rng.integers(0, min(len(rest), MAX_SOURCES - 2) + 1), rng)
    least, most = {"ss": (1, 1), "ms": (2, MAX_SOURCES)}[setting]
    if len(single) < least:
        return []
    return _draw(single, rng.integers(least, min(len(single), most) + 1), rng)


def alone(sources: Sequence[Source]) -> list[Source]:
    """Those that are the only ones of their class, and large enough."""
    return [
        group[0]
        for group in _by_class(sources).values()
        if len(group) == 1 and group[0].area >= MIN_AREA
    ]


def together(sources: Sequence[Source], recordings: Mapping[str, int]) -> list[list[Source]]:
    """The large ones of each class of which there are several that the ear can tell apart.

    Each needs a recording of its own: one recording from two places sounds like one source between
    them.
    """
    groups = []
    for name, group in _by_class(sources).items():
        places = np.sort([source.position for source in group])
        large = [source for source in group if source.area >= MIN_AREA]
        if len(large) < 2 or len(large) > recordings[name]:
            continue
        if np.diff(places).min() >= MIN_DISTANCE:
            groups.append(large)
    return groups


def paint(sources: Sequence[Source]) -> np.ndarray | None:
    """The mask of a picture, smaller objects over larger ones.

    Returns:
        uint8 [H, W] of COCO's numbers; None if objects hide one another, so that one of them
        shows fewer than MIN_AREA pixels.
    """
    mask = np.full(sources[0].mask.shape, BACKGROUND_ID, np.uint8)
    owner = np.zeros(mask.shape, np.uint8)
    order = sorted(range(len(sources)), key=lambda i: (-sources[i].area, i))
    for i in order:
        mask[sources[i].mask] = COCO_IDS[sources[i].class_name]
        owner[sources[i].mask] = i + 1
    visible = np.bincount(owner.ravel(), minlength=len(sources) + 1)[1:]
    return mask if visible.min() >= MIN_AREA else None


def _by_class(things):
    groups = collections.defaultdict(list)
    for thing in things:
        groups[thing.class_name].append(thing)
    return groups


def _draw(sources, count, rng) -> list[Source]:
    """`count` different ones, in their order."""
    chosen = rng.choice(len(sources), size=int(count), replace=False) if len(sources) else []
    return [sources[i] for i in sorted(chosen)]
