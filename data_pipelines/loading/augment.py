"""Augmentations, as small Grain transforms: those of sounds, and the choice of all.

Each draws from the example's own seed and its own name, so that what it does to a clip depends
neither on processes nor on workers nor on the other augmentations. Those of sounds say what is to
be heard, before it is read: `Request` -> `Request`; the waveform is changed before the front end
hears it. Those of pictures change what was read: they map the dict of arrays that
`read_clip.ReadClip` gives. All seconds of a clip are changed alike.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import grain
import numpy as np

from data_pipelines.errors import DataError
from data_pipelines.loading.augment_pictures import (
    ColourJitter,
    Flip,
    ResizedCrop,
    ScaledCrop,
    check_range,
)
from data_pipelines.loading.partners import Partners
from data_pipelines.loading.request import Request, generator

CHANGES_OF_SOUND = ("mix_sounds", "time_shift", "sound_gain")  # after which it sounds otherwise
# After which it looks otherwise.
CHANGES_OF_PICTURE = ("flip", "resized_crop", "scaled_crop", "colour_jitter")
WINDOW = 160  # samples of the 10 ms that sounds are shifted by


# --- what is heard: Request -> Request --------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Sometimes(grain.transforms.Map):
    """A change of requests that is made with some probability."""

    probability: float

    def map(self, request: Request) -> Request:
        rng = generator(request.seed, self)
        return request if rng.random() >= self.probability else self.change(request, rng)


@dataclasses.dataclass(frozen=True)
class SwapSound(_Sometimes):
    """Another clip's sound, none of whose classes is to be heard: nothing that is shown sounds.

    Labels become background, and so do prior masks made from them; predicted ones stay.
    """

    partners: Partners

    def change(self, request: Request, rng: np.random.Generator) -> Request:
        other = self.partners.draw(request.index, rng)
        return dataclasses.replace(request, sound_index=other, empty=True)


@dataclasses.dataclass(frozen=True)
class MixSounds(_Sometimes):
    """A second clip's sound, of other classes, beside the clip's own; the labels stay."""

    decibels: tuple[float, float]
    partners: Partners

    def __post_init__(self):
        check_range("mix_sounds.decibels", self.decibels, -120, 120)

    def change(self, request: Request, rng: np.random.Generator) -> Request:
        other = self.partners.draw(request.index, rng)
        level = float(rng.uniform(*self.decibels))
        return dataclasses.replace(request, mixed_index=other, mixed_level=level)


@dataclasses.dataclass(frozen=True)
class TimeShift(_Sometimes):
    """Sound and picture apart by up to `windows` of 10 ms, either way."""

    windows: int

    def __post_init__(self):
        if not isinstance(self.windows, int) or self.windows < 0:
            raise DataError(
                f"augment.time_shift.windows is {self.windows}: give a whole number, 0 or more"
            )

    def change(self, request: Request, rng: np.random.Generator) -> Request:
        shift = int(rng.integers(-self.windows, self.windows + 1))
        return dataclasses.replace(request, shift=shift)


@dataclasses.dataclass(frozen=True)
class SoundGain(_Sometimes):
    """Louder or softer by some decibels."""

    decibels: tuple[float, float]

    def __post_init__(self):
        check_range("sound_gain.decibels", self.decibels, -120, 120)

    def change(self, request: Request, rng: np.random.Generator) -> Request:
        return dataclasses.replace(request, gain=float(rng.uniform(*self.decibels)))


# --- what the waveform becomes ----------------------------------------------------------------


def changed_waveform(
    waveform: np.ndarray, request: Request, other: np.ndarray | None = None
) -> np.ndarray:
    """A waveform as a request wants it: mixed, shifted, made louder, left and right swapped.

    Args:
        waveform: float32 [S, channels], 16 kHz.
        request: says how.
        other: that of the second clip, float32 [S', channels]; None: there is none. Where it is
            shorter there is only the first.

    Returns:
        float32 [S, channels]. What a shift leaves empty is silent.
    """
    waveform = waveform[:, ::-1] if request.flip else waveform
    if other is not None:
        other = other[: len(waveform), ::-1] if request.flip else other[: len(waveform)]
        mixed = waveform.copy()
        mixed[: len(other)] += amplitude(request.mixed_level) * other
        waveform = mixed
    if request.shift:
        samples = request.shift * WINDOW
        taken = np.arange(len(waveform)) + samples
        inside = (taken >= 0) & (taken < len(waveform))
        shifted = np.zeros_like(waveform)
        shifted[inside] = waveform[taken[inside]]
        waveform = shifted
    return amplitude(request.gain) * waveform if request.gain else waveform


def amplitude(decibels: float) -> np.float32:
    """The factor of a waveform that makes it so much louder."""
    return np.float32(10 ** (decibels / 20))


# --- from the config --------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Augmentations:
    """What a config's `data.augment` asks for."""

    flip: float  # share of requests that are flipped; `Draw` has the coin
    changes_sounds: bool  # whether waveforms are changed
    requests: tuple[grain.transforms.Map, ...]  # transforms of requests
    elements: tuple[grain.transforms.Map, ...]  # transforms of arrays


def augmentations(
    options: Mapping[str, Any],
    clips: Sequence[Any],
    *,
    embeddings: bool = False,
    features: bool = False,
) -> Augmentations:
    """The transforms that are asked for, in the order in which they are applied.

    Args:
        options: `data.augment` of a stage, see configs/base.py; what is not named is off.
        clips: `source.Clip`s of the source.
        embeddings: whether sounds are read as embeddings, which cannot be changed any more.
        features: whether frames are read as maps, likewise.

    Raises:
        DataError: an unknown name; a probability or range that cannot be; a clip without any
            other to take a sound from; a change of sounds that are embeddings, or of pictures
            that are maps.
    """
    partners = functools.cache(lambda: Partners(clips))
    makers = {
        "flip": lambda probability: Flip(),
        "swap_sound": lambda probability: SwapSound(probability, partners()),
        "mix_sounds": lambda **values: MixSounds(**values, partners=partners()),
        "time_shift": TimeShift,
        "colour_jitter": ColourJitter,  # before a crop pads with the mean colour
        "resized_crop": ResizedCrop,
        "scaled_crop": ScaledCrop,
        "sound_gain": SoundGain,
    }
    if unknown := options.keys() - makers.keys():
        raise DataError(f"augment.{min(unknown)} is no augmentation: there are {', '.join(makers)}")
    made = {}
    for name, make in makers.items():
        values = options.get(name, 0.0)
        values = dict(values) if isinstance(values, Mapping) else {"probability": values}
        probability = values["probability"]
        if not 0 <= probability <= 1:
            raise DataError(f"augment.{name}: the probability is {probability}: give 0 to 1")
        if not probability:
            continue
        if embeddings and name in CHANGES_OF_SOUND:
            raise DataError(
                f"augment.{name} changes sounds, but they are read as embeddings, which cannot be "
                "changed: turn it off, or train without embeddings"
            )
        if features and name in CHANGES_OF_PICTURE:
            raise DataError(
                f"augment.{name} changes pictures, but their maps are read, which cannot be "
                "changed: turn it off, or train without features"
            )
        made[name] = make(**values)
    requests = ("swap_sound", *CHANGES_OF_SOUND)
    return Augmentations(
        flip=float(options.get("flip", 0.0)),
        changes_sounds=not made.keys().isdisjoint(CHANGES_OF_SOUND),
        requests=tuple(made[name] for name in requests if name in made),
        elements=tuple(made[name] for name in makers if name in made and name not in requests),
    )
