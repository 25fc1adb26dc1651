"""Who is in a clip: its subset and split, the classes in it, and what sounds in which second."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from data_pipelines.audible_shapes.shapes import CLASS_NAMES, NUM_SHAPES
from data_pipelines.avsbench import layout

SUBSET_SHARES = {"v1s": 0.35, "v1m": 0.30, "v2": 0.35}
SPLIT_SHARES = {"train": 0.70, "val": 0.08, "test": 0.22}
MIN_CLIPS = 9  # from here on every subset has every split

# Chances. Rivals are objects that could sound but are silent all through the clip.
_RIVALS_V1S = (0.10, 0.50, 0.40)  # 0, 1, 2
_SOURCES = (0.45, 0.40, 0.15)  # 1, 2, 3 in v1m and v2
_RIVALS = ((0.0, 0.6, 0.4), (0.1, 0.6, 0.3), (0.25, 0.75))  # 0, 1, 2 beside 1, 2, 3 sources
_OFF_SCREEN = 0.22  # in v1m and v2
_ALWAYS_ON = 0.35
_STARTS_ON = 0.7

# Streams of chance below the seed; a clip's own are (seed, stream, clip index).
_DECKS, _PLAN, _DRAW = range(3)


@dataclass(frozen=True)
class Source:
    """An object, or a sound without one. `active` bool [T]: whether it sounds in each second."""

    shape: int  # index into shapes.SHAPES; class id - 1
    active: np.ndarray


@dataclass(frozen=True)
class Plan:
    """One clip before it is drawn. No class comes twice, on screen or off it.

    Mono sound could not tell two instances of a class apart. `objects` are in drawing order: later
    ones hide earlier ones.
    """

    index: int
    subset: str
    split: str
    objects: tuple[Source, ...]
    off_screen: tuple[Source, ...]

    @property
    def seconds(self) -> int:
        return layout.SUBSET_SECONDS[self.subset]

    @property
    def start(self) -> int:
        """Second of the imagined video at which the clip starts."""
        return 0 if self.subset == "v1m" else self.index % 50

    @property
    def vid(self) -> str:
        return f"shapes{self.index:05d}"  # eleven characters, like the real ids

    @property
    def uid(self) -> str:
        if self.subset == "v1m":
            return f"{self.vid}_0"
        return f"{self.vid}_{1000 * self.start}_{1000 * (self.start + self.seconds)}"

    @property
    def a_obj(self) -> str:
        names = [CLASS_NAMES[o.shape] for o in self.objects if o.active.any()]
        names += [layout.OFF_SCREEN] * bool(self.off_screen)
        return layout.OBJECT_SEPARATOR.join(names)


def generator(seed: int, stream: int, *rest: int) -> np.random.Generator:
    """A stream of chance that depends on these numbers alone."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, stream, *rest])))


def drawing_generator(seed: int, index: int) -> np.random.Generator:
    """What the pixels and samples of clip `index` are drawn from."""
    return generator(seed, _DRAW, index)


def _pick(rng, chances):
    """Index drawn with these chances."""
    return min(int(np.searchsorted(np.cumsum(chances), rng.random(), "right")), len(chances) - 1)


class _Deck:
    """Classes in random order, each as often as any other over every NUM_SHAPES cards."""

    def __init__(self, rng):
        self._rng = rng
        self._cards = []

    def draw(self, taken):
        """The next class that is not in `taken`; those passed over stay on top."""
        while not any(card not in taken for card in self._cards):
            self._cards.extend(int(card) for card in np.argsort(self._rng.random(NUM_SHAPES)))
        card = next(card for card in self._cards if card not in taken)
        self._cards.remove(card)
        return card


def _largest_deficit(shares, counts):
    """The key whose count lags most behind its share, once one more is added."""
    total = sum(counts.values()) + 1
    return max(shares, key=lambda key: shares[key] * total - counts[key])


def _subsets_and_splits() -> Iterator[tuple[str, str]]:
    """Subset and split of clips 0, 1, ...: near the shares at every length."""
    subsets = dict.fromkeys(SUBSET_SHARES, 0)
    splits = {subset: dict.fromkeys(SPLIT_SHARES, 0) for subset in subsets}
    while True:
        subset = _largest_deficit(SUBSET_SHARES, subsets)
        counts = splits[subset]
        # The first three go one to each split, so that a small set can be trained and scored.
        missing = [split for split in SPLIT_SHARES if not counts[split]]
        split = missing[0] if missing else _largest_deficit(SPLIT_SHARES, counts)
        subsets[subset] += 1
        counts[split] += 1
        yield subset, split


def _activity(rng, seconds):
    """bool [seconds] of a source in v1m or v2: on all the time, or in runs of two seconds or more.

    Log-mel examples of 0.96 s drift up to 0.4 s against the seconds; long runs keep sound and label
    together for most of the time.
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


def plans(seed: int, clips: int) -> Iterator[Plan]:
    """Plans of clips 0..clips-1; plan i is the same however many clips are asked for."""
    # A deck for each split and role, so that classes are even in every one of them.
    decks = {
        (split, role): _Deck(generator(seed, _DECKS, i, j))
        for i, split in enumerate(SPLIT_SHARES)
        for j, role in enumerate(("source", "rival", "off-screen"))
    }
    kinds = _subsets_and_splits()
    for index in range(clips):
        subset, split = next(kinds)
        seconds = layout.SUBSET_SECONDS[subset]
        rng = generator(seed, _PLAN, index)
        if subset == "v1s":
            sources, rivals, off_screen = 1, _pick(rng, _RIVALS_V1S), 0
        else:
            sources = 1 + _pick(rng, _SOURCES)
            rivals = _pick(rng, _RIVALS[sources - 1])
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
                    active = _activity(rng, seconds)
                parts[role].append(Source(shape, active))
        objects = parts["source"] + parts["rival"]
        order = np.argsort(rng.random(len(objects)))
        yield Plan(
            index, subset, split, tuple(objects[i] for i in order), tuple(parts["off-screen"])
        )
