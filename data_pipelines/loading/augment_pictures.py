"""Augmentations of pictures; see `augment.py`."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import cv2
import grain
import numpy as np
from PIL import Image

from data_pipelines.errors import DataError
from data_pipelines.loading.request import generator
from data_pipelines.media.labels import IGNORED

Element = dict[str, Any]
PICTURES = ("frames", "labels", "prior_mask")


@dataclasses.dataclass(frozen=True)
class Flip(grain.transforms.Map):
    """Swaps left and right where the request says so; `ReadClip` swaps them of the sound."""

    def map(self, element: Element) -> Element:
        if not element["flip"]:
            return element
        return element | {name: element[name][:, :, ::-1] for name in PICTURES if name in element}


@dataclasses.dataclass(frozen=True)
class ResizedCrop(grain.transforms.Map):
    """A random part of the picture, enlarged to the whole.

    Frames and prior masks are interpolated bilinearly, labels never. A side that would be longer
    than the picture's is as long as it.
    """

    probability: float  # of a crop
    scale: tuple[float, float]  # least and greatest area, shares of the picture's
    # Least and greatest width : height, relative to the picture's own; the logarithm of the ratio
    # is uniform.
    ratio: tuple[float, float]

    def __post_init__(self):
        check_range("resized_crop.scale", self.scale, 1e-4, 1)
        check_range("resized_crop.ratio", self.ratio, 0.01, 100)

    def map(self, element: Element) -> Element:
        rng = generator(element["seed"], self)
        if rng.random() >= self.probability:
            return element
        area = rng.uniform(*self.scale)
        ratio = np.exp(rng.uniform(*np.log(self.ratio)))
        width, height = min(1.0, np.sqrt(area * ratio)), min(1.0, np.sqrt(area / ratio))
        left, top = rng.random(2) * (1 - np.array([width, height]))
        box = (left, top, width, height)
        cropped = {"labels": crop_labels(element["labels"], box)}
        for name in ("frames", "prior_mask"):
            if name in element:
                cropped[name] = crop_pictures(element[name], box)
        return element | cropped


@dataclasses.dataclass(frozen=True)
class ScaledCrop(grain.transforms.Map):
    """A picture at one of several scales, and a random part of it of the old size.

    What becomes smaller lies at the top left of a field of the mean colour, whose labels are
    IGNORED and in whose prior masks nothing sounds.
    """

    probability: float  # of a change
    scales: tuple[float, ...]  # factors

    def __post_init__(self):
        if not self.scales or not all(0.1 <= scale <= 10 for scale in self.scales):
            raise DataError(
                f"augment.scaled_crop.scales is {self.scales}: give factors from 0.1 to 10"
            )

    def map(self, element: Element) -> Element:
        rng = generator(element["seed"], self)
        if rng.random() >= self.probability:
            return element
        scale = self.scales[rng.integers(len(self.scales))]
        # Where the part begins in the whole picture, as shares of it.
        left, top = rng.random(2) * max(0.0, 1 - 1 / scale)
        scaled = {"labels": _scaled(element["labels"], scale, (left, top), IGNORED, "nearest")}
        if "frames" in element:
            scaled["frames"] = _scaled(element["frames"], scale, (left, top), MEAN_COLOUR, "cubic")
        if "prior_mask" in element:
            scaled["prior_mask"] = _scaled(element["prior_mask"], scale, (left, top), 0, "linear")
        return element | scaled


MEAN_COLOUR = (123, 116, 103)  # of ImageNet, which CAVP's loaders pad with
_RESAMPLING = {"nearest": Image.NEAREST, "linear": Image.BILINEAR, "cubic": Image.BICUBIC}


def _scaled(
    pictures: np.ndarray, scale: float, corner: tuple[float, float], around: Any, how: str
) -> np.ndarray:
    """Pictures [T,S,S'] or [T,S,S',3] at a scale: a part from `corner` on, of the same shape."""
    rows, columns = pictures.shape[1:3]
    high, wide = int(rows * scale), int(columns * scale)
    left, top = (int(share * size) for share, size in zip(corner, (wide, high), strict=True))
    new = np.empty_like(pictures)
    new[:] = around
    for old, result in zip(pictures, new, strict=True):
        resized = np.asarray(Image.fromarray(old).resize((wide, high), _RESAMPLING[how]))
        part = resized[top : top + rows, left : left + columns]
        result[: len(part), : part.shape[1]] = part
    return new


Box = tuple[float, float, float, float]  # left, top, width, height, as shares of the picture


def crop_pictures(pictures: np.ndarray, box: Box) -> np.ndarray:
    """Parts of pictures at the pictures' own size, bilinearly.

    Args:
        pictures: uint8 [T,S,S,3] or float32 [T,G,G].
        box: the part.

    Returns:
        The same shape and dtype.
    """
    left, top, width, height = box
    rows, columns = pictures.shape[1:3]
    # Pixel centres lie at halves; what is asked for beyond the outermost centre is the edge's.
    inverse = np.array(
        [[width, 0, left * columns + width / 2 - 0.5], [0, height, top * rows + height / 2 - 0.5]]
    )
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.stack(
        [
            cv2.warpAffine(
                picture, inverse, (columns, rows), flags=flags, borderMode=cv2.BORDER_REPLICATE
            )
            for picture in pictures
        ]
    )


def crop_labels(labels: np.ndarray, box: Box) -> np.ndarray:
    """Parts of label maps at the maps' own size: of each pixel's centre the label, never a mean.

    Args:
        labels: uint8 [T,G,G].
        box: the part.

    Returns:
        uint8 [T,G,G].
    """
    left, top, width, height = box
    rows, columns = (
        np.minimum(((np.arange(size) + 0.5) * share + start * size).astype(int), size - 1)
        for size, start, share in zip(labels.shape[1:], (top, left), (height, width), strict=True)
    )
    return labels[:, rows[:, None], columns]


@dataclasses.dataclass(frozen=True)
class ColourJitter(grain.transforms.Map):
    """Brightness, contrast, saturation and hue, in this order."""

    probability: float  # of a change
    brightness: tuple[float, float]  # least and greatest factor of all colours
    contrast: tuple[float, float]  # of the distance from the clip's mean grey
    saturation: tuple[float, float]  # of the distance from each pixel's grey
    hue: tuple[float, float]  # least and greatest turn of the colour circle, in whole turns

    def __post_init__(self):
        for name in ("brightness", "contrast", "saturation"):
            check_range(f"colour_jitter.{name}", getattr(self, name), 0, 10)
        check_range("colour_jitter.hue", self.hue, -0.5, 0.5)

    def map(self, element: Element) -> Element:
        rng = generator(element["seed"], self)
        if rng.random() >= self.probability:
            return element
        brightness, contrast, saturation, hue = (
            rng.uniform(*limits)
            for limits in (self.brightness, self.contrast, self.saturation, self.hue)
        )
        frames = element["frames"]
        # Padding repeats a frame as often as it happens to be padded, and must not count. One
        # picture of all seconds is that of the first, which is never padding.
        valid = element["valid"][: len(frames)]
        mean = frames[valid].mean((0, 1, 2)) if valid.any() else np.zeros(3)
        grey = _GREY @ mean * brightness
        colours = _saturation_and_hue(saturation, hue)
        # Greys, and with them the mean, are left alone by saturation and hue.
        change = np.column_stack(
            [brightness * contrast * colours, np.full(3, grey * (1 - contrast))]
        )
        return element | {"frames": np.stack([cv2.transform(frame, change) for frame in frames])}


_GREY = np.array([0.299, 0.587, 0.114])  # luma of red, green and blue (ITU-R BT.601)
# Luma and the two colour differences of NTSC, in whose plane a hue is an angle.
_TO_YIQ = np.array([_GREY, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])


def _saturation_and_hue(saturation: float, hue: float) -> np.ndarray:
    """The matrix [3,3] that changes colours, but not their luma."""
    cosine, sine = np.cos(2 * np.pi * hue), np.sin(2 * np.pi * hue)
    turn = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    turn[1:] *= saturation
    return np.linalg.inv(_TO_YIQ) @ turn @ _TO_YIQ


def check_range(name: str, limits: Sequence[float], least: float, most: float) -> None:
    """Whether a range of an augmentation can be.

    Raises:
        DataError: it is not two numbers in order, or goes beyond least and most.
    """
    if len(limits) != 2 or not least <= limits[0] <= limits[1] <= most:
        raise DataError(
            f"augment.{name} is {limits}: give two numbers from {least:g} to {most:g}, the smaller "
            "first"
        )
