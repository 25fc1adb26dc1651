"""What a training or evaluation example is made of, said before anything is read.

All that decides what is read is in a `Request`; the rest is a function of it, so that an iterator
resumes exactly and caching changes nothing.
"""

import dataclasses
import zlib
from typing import Any

import grain
import numpy as np

SILENCE = -1  # in place of the index of a clip: no sound at all
NOTHING = -2  # in place of the index of a second clip: there is none
# All seconds, where only the first is labelled its frame with the sound of each; one random
# labelled second; all seconds as they are.
SAMPLINGS = ("clip", "frame", "film")
FIRST_ONLY = (0,)  # labelled seconds of a clip that shows this frame with the sound of each second


@dataclasses.dataclass(frozen=True)
class Request:
    """One clip of a batch, said in numbers."""

    index: int  # which clip of the source
    frames: tuple[int, ...]  # T seconds whose frames and labels are shown
    sounds: tuple[int, ...]  # T seconds whose sound is heard
    valid: tuple[bool, ...]  # T flags; False is padding
    sound_index: int  # the clip whose sound is heard, or SILENCE
    prior: str = "none"  # one of `checks.VIEWS`
    untold: tuple[bool, ...] = ()  # of T seconds those told nothing, 0.5 everywhere; (): none
    flip: bool = False  # whether left and right are swapped
    seed: int = 0  # of this example's augmentations
    empty: bool = False  # whether nothing that is shown sounds, so that the labels are background
    mixed_index: int = NOTHING  # a second clip that is heard, too, or NOTHING
    mixed_level: float = 0.0  # by how much the second clip is made louder, decibels
    shift: int = 0  # how much later the sound is taken, windows of 10 ms
    gain: float = 0.0  # by how much all that is heard is made louder, decibels


@dataclasses.dataclass(frozen=True)
class Draw(grain.transforms.RandomMap):
    """The index of a clip -> a `Request`, everything random in it drawn."""

    labelled: tuple[tuple[int, ...], ...]  # for each clip of the source, its labelled seconds
    lengths: tuple[int, ...]  # for each clip, its length in seconds
    sampling: str  # of SAMPLINGS
    seconds: tuple[int, ...]  # for each clip, T of its requests; what it lacks is padding
    prior: str  # one of `checks.PRIORS`
    mixture: float  # share of requests with predicted masks where prior is "mixture"
    untold: float  # share of seconds that are told nothing
    flip: float  # share of requests that are flipped

    def random_map(self, index: int, rng: np.random.Generator) -> Request:
        # Always the same draws in the same order, so that no option shifts what the others get.
        pick, coin, share = rng.random(3)
        seed = int(rng.integers(2**63))
        untold = rng.random(self.seconds[int(index)]) < self.untold
        index = int(index)
        labelled, length, seconds = self.labelled[index], self.lengths[index], self.seconds[index]
        if self.sampling == "frame":
            frames = sounds = (labelled[int(pick * len(labelled))],)
            length = 1
        else:
            sounds = tuple(min(t, length - 1) for t in range(seconds))
            # Where only the first frame is labelled it is shown with each second's sound.
            first = self.sampling == "clip" and labelled == FIRST_ONLY
            frames = (0,) * seconds if first else sounds
        prior = self.prior
        if prior == "mixture":
            prior = "predicted" if share < self.mixture else "true"
        return Request(
            index=index,
            frames=frames,
            sounds=sounds,
            valid=tuple(t < length for t in range(seconds)),
            sound_index=index,
            prior=prior,
            untold=tuple(map(bool, untold)) if self.untold and prior != "none" else (),
            flip=bool(coin < self.flip),
            seed=seed,
        )


def seconds_shown(labelled: tuple[int, ...], length: int, sampling: str) -> tuple[int, ...]:
    """The seconds whose frames `Draw` may ask for, of a clip of this length that has labels."""
    if sampling == "frame" or (sampling == "clip" and labelled == FIRST_ONLY):
        return labelled
    return tuple(range(length))


def stored_second(clip: Any, second: int) -> int:
    """Where the frame and label of a second are: of a still one is stored, and seen in all."""
    return 0 if clip.still else second


def shows_one(clip: Any, sampling: str) -> bool:
    """Whether whole clips are shown, and each second of this `source.Clip` shows one picture."""
    one = clip.still or len(seconds_shown(clip.labelled, clip.seconds, sampling)) == 1
    return one and sampling != "frame"


def generator(seed: int, transform: grain.transforms.Map) -> np.random.Generator:
    """Random numbers of one transform for one request: of the request's seed and its class name."""
    return np.random.default_rng((seed, zlib.crc32(type(transform).__name__.encode())))
