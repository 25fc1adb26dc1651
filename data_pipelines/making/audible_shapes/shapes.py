"""How each class looks: an implicit function for the shape and a hue."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

# Each function takes coordinates u (right), v (down) [...], in units of the object's radius, and
# returns a value that is positive inside, zero on the outline and about the distance to it. Their
# areas are alike (about 1.9 to 2.6), so that no class is found by its size.


def _disc(u, v):
    return 0.9 - np.hypot(u, v)


def _triangle(u, v):
    v = v - 0.08  # between its centre of area and the centre of its box
    side = 0.8660254037844386 * np.abs(u) - 0.5 * v
    return 0.6 - np.maximum(side, v)


def _square(u, v):
    return 0.8 - np.maximum(np.abs(u), np.abs(v))


def _star(u, v):
    fifth = 2 * np.pi / 5
    angle = np.arctan2(u, -v)  # 0 is up, where a tip points
    angle = np.abs(angle - fifth * np.round(angle / fifth))  # folded to [0, 36 degrees]
    radius = np.hypot(u, v)
    tip, notch = 1.15, 0.65
    notch_x, notch_y = notch * np.cos(fifth / 2), notch * np.sin(fifth / 2)
    edge_x, edge_y = notch_x - tip, notch_y
    x, y = radius * np.cos(angle) - tip, radius * np.sin(angle)
    return (edge_y * -x + edge_x * y) / np.hypot(edge_x, edge_y)


def _cross(u, v):
    u, v = np.abs(u), np.abs(v)
    length, width = 0.92, 0.4
    return np.maximum(np.minimum(length - u, width - v), np.minimum(width - u, length - v))


def _heart(u, v):
    half = 0.6  # of a square on its corner; two half discs sit on its upper edges
    up = 0.1 - v
    a, b = (up + u) / np.sqrt(2), (up - u) / np.sqrt(2)
    square = half - np.maximum(np.abs(a), np.abs(b))
    lobes = half - np.minimum(np.hypot(a - half, b), np.hypot(a, b - half))
    return np.maximum(square, lobes)


def _moon(u, v):
    u = u + 0.15
    return np.minimum(1.0 - np.hypot(u, v), np.hypot(u - 0.75, v) - 0.72)


def _flower(u, v):
    return 0.72 + 0.28 * np.abs(np.cos(3 * np.arctan2(u, -v))) - np.hypot(u, v)  # six petals


@dataclass(frozen=True)
class Shape:
    """One class. `hue` in degrees; `inside` the implicit function of its outline."""

    name: str
    hue: float
    inside: Callable[[np.ndarray, np.ndarray], np.ndarray]


# Class id = position + 1. Hues lie 45 degrees apart and an instance strays by HUE_SPREAD at most:
# a class-typical hue is what lets a small network learn to listen within minutes.
SHAPES = (
    Shape("disc", 135.0, _disc),
    Shape("triangle", 45.0, _triangle),
    Shape("square", 225.0, _square),
    Shape("star", 90.0, _star),
    Shape("cross", 180.0, _cross),
    Shape("heart", 0.0, _heart),
    Shape("moon", 270.0, _moon),
    Shape("flower", 315.0, _flower),
)
NUM_SHAPES = len(SHAPES)
HUE_SPREAD = 7.0  # degrees
CLASS_NAMES = tuple(shape.name for shape in SHAPES)


def hsv_to_rgb(hue: float, saturation: float, value: float) -> np.ndarray:
    """Hue in degrees, saturation and value in [0, 1] -> float64 [3] in [0, 1]."""
    k = (np.array([5.0, 3.0, 1.0]) + hue / 60.0) % 6.0
    return value * (1.0 - saturation * np.clip(np.minimum(k, 4.0 - k), 0.0, 1.0))


def rasterise(
    shape: int,
    size: int,
    centre: tuple[float, float],
    radius: float,
    angle: float,
    samples: int = 3,
):
    """Covers the pixels of a square frame with one shape.

    Args:
      shape: index into SHAPES.
      size: side of the frame in pixels.
      centre, radius: (x, y) and length as parts of the frame's side.
      angle: clockwise turn in radians.
      samples: sub-samples per pixel and axis.

    Returns:
      (rows, columns): the slices of the frame that hold the shape, and over them
      coverage float64 [h, w] in [0, 1]; depth float64 [h, w], about the distance to the outline in
      radii (positive inside); u, v float64 [h, w], coordinates in radii at pixel centres.
      The slices are empty where the shape lies outside the frame.
    """
    reach = 1.25 * radius  # the farthest corner of any shape
    spans = [
        (max(0, int(np.floor((c - reach) * size))), min(size, int(np.ceil((c + reach) * size))))
        for c in centre
    ]
    (x0, x1), (y0, y1) = [(low, max(low, high)) for low, high in spans]
    offsets = (np.arange(samples) + 0.5) / samples
    xs = ((np.arange(x0, x1)[:, None] + offsets) / size - centre[0]).ravel() / radius
    ys = ((np.arange(y0, y1)[:, None] + offsets) / size - centre[1]).ravel() / radius
    cos, sin = np.cos(angle), np.sin(angle)
    u = cos * xs[None, :] + sin * ys[:, None]
    v = cos * ys[:, None] - sin * xs[None, :]
    values = SHAPES[shape].inside(u, v)

    def per_pixel(array):
        return array.reshape(y1 - y0, samples, x1 - x0, samples).mean(axis=(1, 3))

    coverage = per_pixel((values > 0).astype(np.float64))
    rows, columns = slice(y0, y1), slice(x0, x1)
    return rows, columns, coverage, per_pixel(values), per_pixel(u), per_pixel(v)
