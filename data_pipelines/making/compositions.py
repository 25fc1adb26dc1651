"""What the made data sets (Audible Shapes, Audible Stamps) share in planning their clips.

Chance, decks, subsets and splits, who sounds when, and where things drift. All chance is PCG64
doubles: a stream that NumPy does not change, unlike some of its distributions.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from data_pipelines.facts import avsbench

_ALWAYS_ON = 0.35
_STARTS_ON = 0.7


@dataclass(frozen=True)
class Composition:
    """One clip before it is drawn: what its row in the table says.

    A subclass names itself with `prefix` (six letters: ids are then eleven characters, like the
    real ones) and says in `a_obj` what sounds.
    """

    index: int
    subset: str
    split: str

    @property
    def prefix(self) -> str:
        raise NotImplementedError

    @property
    def a_obj(self) -> str:
        raise NotImplementedError

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


def switch(active: np.ndarray, fade: float = 0.01) -> np.ndarray:
    """Envelope of a source that is on in some seconds, with fades (s) inside those seconds.

    Args:
      active: bool [T].

    Returns:
      float64 [T * 16000] in [0, 1]; exactly 0 in every second that is off.
    """
    rate = avsbench.SAMPLE_RATE
    ramp = (np.arange(int(fade * rate)) + 0.5) / int(fade * rate)
    envelope = np.repeat(active.astype(np.float64), rate)
    padded = np.concatenate([[False], active, [False]])
    for t in np.flatnonzero(active):
        start, end = t * rate, (t + 1) * rate
        if not padded[t]:
            envelope[start : start + ramp.size] = ramp
        if not padded[t + 2]:
            envelope[end - ramp.size : end] = ramp[::-1]
    return envelope


def noise_floor(rng: np.random.Generator, seconds: int) -> np.ndarray:
    """The faint noise of a recorder, 0.001 to 0.003 root mean square. float64 [T * 16000]."""
    floor = rng.uniform(0.001, 0.003) * np.sqrt(12)  # uniform noise has a variance of 1/12
    return floor * (rng.random(seconds * avsbench.SAMPLE_RATE) - 0.5)


def loudness(rng: np.random.Generator) -> float:
    """Root mean square of one source: -23 dB, 4 dB more or less."""
    return 0.07 * 10 ** (rng.uniform(-4, 4) / 20)


def to_int16(waveform: np.ndarray) -> np.ndarray:
    """Samples in [-1, 1], scaled down where they do not fit, as int16."""
    waveform = waveform * min(1.0, 0.98 / np.abs(waveform).max())
    return np.round(waveform * 32768).astype(np.int16)


def drifting_paths(rng: np.random.Generator, radii: np.ndarray, seconds: int) -> np.ndarray:
    """Where objects are: slow drifts on slightly bent lines that mostly avoid each other.

    Args:
      rng: chance.
      radii: float64 [count], as parts of the frame's side.
      seconds: T.

    Returns:
      Centres, float64 [count, T, 2] (x, y), as parts of the frame's side.
    """
    steps = np.linspace(0, 1, seconds)
    centres = np.zeros((len(radii), seconds, 2))
    for i, radius in enumerate(radii):
        tries = 64
        margin = 0.85 * radius  # a corner may leave the frame
        start = rng.uniform(margin, 1 - margin, (tries, 2))
        heading = rng.uniform(0, 2 * np.pi, tries)
        length = rng.uniform(0.08, 0.32 if seconds <= 5 else 0.45, tries)
        end = start + length[:, None] * np.stack([np.cos(heading), np.sin(heading)], -1)
        end = np.clip(end, margin, 1 - margin)
        move = end - start
        bend = rng.uniform(-0.25, 0.25, (tries, 1)) * np.stack([-move[:, 1], move[:, 0]], -1)
        lines = start[:, None] + steps[:, None] * move[:, None]
        lines = lines + np.sin(np.pi * steps)[:, None] * bend[:, None]
        lines = np.clip(lines, margin, 1 - margin)
        # How far it stays clear of the others at its worst second; some overlap is welcome.
        clear = np.full(tries, np.inf)
        for other in range(i):
            apart = np.hypot(*np.moveaxis(lines - centres[other], -1, 0)).min(axis=1)
            clear = np.minimum(clear, apart - 0.82 * (radius + radii[other]))
        good = np.flatnonzero(clear >= 0)
        centres[i] = lines[good[0] if good.size else int(np.argmax(clear))]
    return centres
