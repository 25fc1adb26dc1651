"""What the made data sets (Audible Shapes, Audible Stamps) share in planning their clips.

Chance, decks, subsets and splits, and who sounds when. All chance is PCG64 doubles: a stream that
NumPy does not change, unlike some of its distributions.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from data_pipelines.facts import avsbench

_ALWAYS_ON = 0.35
_STARTS_ON = 0.7


@dataclass(frozen=True)
class Source:
    """An object, or a sound without one."""

    index: int  # which of those that the data set is made of
    name: str  # of its class
    class_id: int
    active: np.ndarray  # bool [T]: whether it sounds in each second


@dataclass(frozen=True)
class Composition:
    """One clip before it is drawn. No class comes twice, on screen or off it.

    Mono sound could not tell two instances of a class apart. `objects` are in drawing order: later
    ones hide earlier ones. `prefix` has six letters: ids are then eleven characters, like the real
    ones.
    """

    prefix: str
    index: int
    subset: str
    split: str
    objects: tuple[Source, ...]
    off_screen: tuple[Source, ...]

    @property
    def sources(self) -> tuple[Source, ...]:
        """All that sound or could."""
        return self.objects + self.off_screen

    @property
    def a_obj(self) -> str:
        names = [source.name for source in self.objects if source.active.any()]
        names += [avsbench.OFF_SCREEN] * bool(self.off_screen)
        return avsbench.OBJECT_SEPARATOR.join(names)

    @property
    def seconds(self) -> int:
        return avsbench.SUBSET_SECONDS[self.subset]

    @property
    def start(self) -> int:
        """Second of the imagined video at which the clip starts."""
        return 0 if self.subset == "v1m" else self.index % 50

    @property
    def vid(self) -> str:
        return f"{self.prefix}{self.index:05d}"

    @property
    def uid(self) -> str:
        if self.subset == "v1m":
            return f"{self.vid}_0"
        return f"{self.vid}_{1000 * self.start}_{1000 * (self.start + self.seconds)}"


@dataclass(frozen=True)
class Clip:
    """A drawn clip."""

    plan: Composition
    frames: np.ndarray  # uint8 [T, S, S, 3]
    labels: np.ndarray  # uint8 [T, S, S], class ids of what sounds and is seen, 0 elsewhere
    # uint8 [T, S, S], which object (position in the plan + 1) is seen, silent ones included
    owners: np.ndarray
    waveform: np.ndarray  # int16 [T * 16000]


@dataclass(frozen=True)
class Chances:
    """How a data set is composed."""

    subsets: Mapping[str, float]  # shares of the clips
    splits: Mapping[str, float]  # shares of each subset
    # Chances of 0, 1, 2 ... objects that could sound but are silent all through a clip of v1s,
    # which has one source.
    rivals_v1s: Sequence[float]
    sources: Sequence[float]  # chances of 1, 2, 3 ... sources in v1m and v2
    rivals: Sequence[Sequence[float]]  # beside so many sources, chances of 0, 1, 2 ... rivals
    off_screen: float  # chance of a sound without an object in v1m and v2


ROLES = ("source", "rival", "off-screen")


def compose(
    prefix: str,
    clips: int,
    chances: Chances,
    generator_of: Callable[[int], np.random.Generator],
    draw: Callable[[str, str, list[int]], tuple[int, Callable[[np.ndarray], Source]]],
) -> Iterator[Composition]:
    """Who is in clips 0..clips-1, and what sounds when.

    Args:
        prefix: of their ids.
        clips: how many.
        chances: how they are composed.
        generator_of: chance of clip i.
        draw: (split, role, classes that are taken) -> another class, and what makes a source of it
            when it is known in which seconds it is active.
    """
    kinds = subsets_and_splits(chances.subsets, chances.splits)
    for index in range(clips):
        subset, split = next(kinds)
        seconds = avsbench.SUBSET_SECONDS[subset]
        rng = generator_of(index)
        if subset == "v1s":
            sources, rivals, off_screen = 1, pick(rng, chances.rivals_v1s), 0
        else:
            sources = 1 + pick(rng, chances.sources)
            rivals = pick(rng, chances.rivals[sources - 1])
            off_screen = int(rng.random() < chances.off_screen)
        taken: list[int] = []
        parts: dict[str, list[Source]] = {role: [] for role in ROLES}
        for role, count in zip(ROLES, (sources, rivals, off_screen), strict=True):
            for _ in range(count):
                drawn, source_of = draw(split, role, taken)
                taken.append(drawn)
                if role == "rival":
                    active = np.zeros(seconds, bool)
                elif subset == "v1s":
                    active = np.ones(seconds, bool)
                else:
                    active = activity(rng, seconds)
                parts[role].append(source_of(active))
        objects = parts["source"] + parts["rival"]
        order = np.argsort(rng.random(len(objects)))
        yield Composition(
            prefix,
            index,
            subset,
            split,
            tuple(objects[i] for i in order),
            tuple(parts["off-screen"]),
        )


def generator(seed: int, stream: int, *rest: int) -> np.random.Generator:
    """A stream of chance that depends on these numbers alone."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, stream, *rest])))


def pick(rng: np.random.Generator, chances: Sequence[float]) -> int:
    """Index drawn with these chances."""
    return min(int(np.searchsorted(np.cumsum(chances), rng.random(), "right")), len(chances) - 1)


class Deck:
    """Cards 0..count-1 in random order, each as often as any other over every `count` cards."""

    def __init__(self, rng: np.random.Generator, count: int):
        self._rng = rng
        self._count = count
        self._cards = []

    def draw(self, taken: Collection[int] = ()) -> int:
        """The next card that is not in `taken`; those passed over stay on top."""
        while not any(card not in taken for card in self._cards):
            self._cards.extend(int(card) for card in np.argsort(self._rng.random(self._count)))
        card = next(card for card in self._cards if card not in taken)
        self._cards.remove(card)
        return card


def _largest_deficit(shares, counts):
    """The key whose count lags most behind its share, once one more is added."""
    total = sum(counts.values()) + 1
    return max(shares, key=lambda key: shares[key] * total - counts[key])


def subsets_and_splits(
    subset_shares: Mapping[str, float], split_shares: Mapping[str, float]
) -> Iterator[tuple[str, str]]:
    """Subset and split of clips 0, 1, ...: near the shares at every length."""
    subsets = dict.fromkeys(subset_shares, 0)
    splits = {subset: dict.fromkeys(split_shares, 0) for subset in subsets}
    while True:
        subset = _largest_deficit(subset_shares, subsets)
        counts = splits[subset]
        # The first three go one to each split, so that a small set can be trained and scored.
        missing = [split for split in split_shares if not counts[split]]
        split = missing[0] if missing else _largest_deficit(split_shares, counts)
        subsets[subset] += 1
        counts[split] += 1
        yield subset, split


def activity(rng: np.random.Generator, seconds: int) -> np.ndarray:
    """When a source of v1m or v2 sounds: all the time, or in runs of two seconds or more.

    Log-mel examples of 0.96 s drift up to 0.4 s against the seconds; long runs keep sound and label
    together for most of the time.

    Returns:
      bool [seconds].
    """
    if rng.random() < _ALWAYS_ON:
        return np.ones(seconds, bool)
    while True:
        active, on = [], rng.random() < _STARTS_ON
        while len(active) < seconds:
            longest = (3 if seconds <= 5 else 6) if on else 3
            active += [on] * (2 + int(rng.random() * (longest - 1)))
            on = not on
        active = np.array(active[:seconds])
        active[-1] = active[-2]  # no run of a single second at the end
        if active.any() and not active.all():
            return active
