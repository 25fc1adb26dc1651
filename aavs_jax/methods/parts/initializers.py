"""How fresh parameters are drawn: hashable descriptions that ride on every `nnx.Param` as metadata.

They draw with NumPy, not with jax: filling a network this way compiles nothing, and a tensor's
values depend on the seed and its own path only (see `functional.py`).
"""

import dataclasses
import math

import numpy as np


def _fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """Fan-in and fan-out of a kernel [..., in, out]; leading axes are a convolution's window."""
    window = math.prod(shape[:-2])
    return shape[-2] * window, shape[-1] * window


def _uniform(rng: np.random.Generator, shape: tuple[int, ...], bound: float) -> np.ndarray:
    return (rng.random(shape, dtype=np.float32) * 2 - 1) * np.float32(bound)


@dataclasses.dataclass(frozen=True)
class Zeros:
    """All zero: biases."""

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Returns float32 of `shape`."""
        return np.zeros(shape, np.float32)


@dataclasses.dataclass(frozen=True)
class Ones:
    """All one: the scales of norms."""

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Returns float32 of `shape`."""
        return np.ones(shape, np.float32)


@dataclasses.dataclass(frozen=True)
class Normal:
    """Gaussian around zero."""

    std: float = 0.02

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Returns float32 of `shape`."""
        return rng.standard_normal(shape, dtype=np.float32) * np.float32(self.std)


@dataclasses.dataclass(frozen=True)
class XavierUniform:
    """Uniform within sqrt(6 / (fan-in + fan-out)) (Glorot and Bengio, 2010)."""

    stacked: int = 1  # so many kernels of this shape are one matrix, drawn with its fan-out

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Returns float32 of `shape` [..., in, out]."""
        fan_in, fan_out = _fans(shape)
        return _uniform(rng, shape, math.sqrt(6 / (fan_in + self.stacked * fan_out)))


@dataclasses.dataclass(frozen=True)
class HeUniform:
    """Uniform within sqrt(6 / fan-in): keeps the scale through ReLU layers (He et al., 2015)."""

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Returns float32 of `shape` [..., in, out]."""
        return _uniform(rng, shape, math.sqrt(6 / _fans(shape)[0]))


@dataclasses.dataclass(frozen=True)
class FanInUniform:
    """Uniform within 1 / sqrt(fan_in); `fan_in` is given, so that biases can use it as well."""

    fan_in: int

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Returns float32 of `shape`."""
        return _uniform(rng, shape, 1 / math.sqrt(self.fan_in))


@dataclasses.dataclass(frozen=True)
class OffsetStar:
    """Sampling offsets of deformable attention: one direction per head, one distance per point.

    Head k points at the angle 2 pi k / heads, scaled so that its larger coordinate is 1; point p
    lies p + 1 pixels out, the same on every level (Deformable DETR).
    """

    heads: int
    levels: int
    points: int

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Returns float32 of `shape` [heads * levels * points * 2], (x, y) innermost."""
        angle = 2 * np.pi * np.arange(self.heads) / self.heads
        star = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
        star = star / np.abs(star).max(axis=-1, keepdims=True)
        distance = np.arange(1, self.points + 1)
        offsets = star[:, None, None, :] * distance[None, None, :, None]
        offsets = np.broadcast_to(offsets, (self.heads, self.levels, self.points, 2))
        return offsets.astype(np.float32).reshape(shape)
