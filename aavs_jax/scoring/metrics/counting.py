"""What all protocols are made of: thresholds, histograms of pixels, scores, sums that forget order.

The scores are those of the evaluation published with AVSBench (Zhou et al., ECCV 2022), which the
other code bases took over. Its additions to denominators (1e-7, 1e-20, 2.2e-16) are below float32's
resolution for the counts at hand and left out.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

IGNORED = 255  # label of a pixel that no score looks at
BETA_SQUARED_TENTHS = 3  # beta^2 = 0.3
THRESHOLDS = 255

# Fixed point: 2^24 is the finest unit float32 resolves just below 1. A sum of such integers is kept
# as two int32, upper and lower 12 bits apart, which has room for 2^31 / 2^12 values.
_UNIT = 2**24
_HALF_BITS = 12
LARGEST_COUNT = 2**31 // 2**_HALF_BITS - 1
LARGEST_CLIP = 2**31 // _UNIT - 1
LARGEST_FRAME = _UNIT  # pixels: up to here float32 has each count exactly, and sums have room


def thresholds() -> np.ndarray:
    """float32 [255], ascending: evenly spaced from 0 to 1 - 1e-10, which float32 makes 1.

    The rule is `torch.linspace`'s, which the reference calls: one float32 step, counted up from the
    start in the lower half and down from the end in the upper half, each with a single rounding.
    (`numpy.linspace` differs in the last bit of ten thresholds.)
    """
    step = np.float64(np.float32(1.0 - 1e-10) / np.float32(THRESHOLDS - 1))
    index = np.arange(THRESHOLDS)
    upward, downward = step * index, 1.0 - step * (THRESHOLDS - 1 - index)
    return np.where(index < THRESHOLDS // 2, upward, downward).astype(np.float32)


def thresholds_reached(scores: jax.Array) -> jax.Array:
    """int32, for each score how many thresholds it reaches (0 to 255); NaN reaches none.

    Threshold i lies within a rounding of i/254. So the nearest i is the only one in doubt, and one
    comparison settles it exactly: the same answer as 255 comparisons.
    """
    scaled = jnp.where(jnp.isnan(scores), 0.0, scores) * (THRESHOLDS - 1)
    nearest = jnp.round(scaled).clip(0, THRESHOLDS - 1).astype(jnp.int32)
    return nearest + (scores >= jnp.asarray(thresholds())[nearest])


def histogram(index: jax.Array, bins: int) -> jax.Array:
    """int32 [N, bins] from indices [N, P] below `bins`. On CPU a scatter is 10 times faster here
    than one-hot matrix products and 100 times faster than comparing with every threshold."""
    return jax.vmap(lambda row: jnp.zeros(bins, jnp.int32).at[row].add(1))(index)


def f_ratio(overlap, predicted, wanted, beta_squared_tenths=BETA_SQUARED_TENTHS):
    """F from pixel counts, as integer numerator and denominator (0 where nothing is there).

    (1 + b) P R / (b P + R) with P = overlap / predicted and R = overlap / wanted is
    (1 + b) overlap / (b wanted + predicted), which needs no 0 / 0. In tenths it needs no fractions
    either, which compilers would round in their own ways.
    """
    numerator = (10 + beta_squared_tenths) * overlap
    return numerator, beta_squared_tenths * wanted + 10 * predicted


def f_score(overlap: jax.Array, predicted: jax.Array, wanted: jax.Array) -> jax.Array:
    """float32 F from pixel counts, int32; 0 without overlap, where precision and recall leave it
    undefined."""
    numerator, denominator = f_ratio(overlap, predicted, wanted)
    return numerator / jnp.maximum(denominator, 1)


def frames_of(pictures: Any, dtype=None) -> jax.Array:
    """[B, T, G, G'] -> [B T, pixels].

    Raises:
      ValueError: more pixels than LARGEST_FRAME.
    """
    pictures = jnp.asarray(pictures)
    clips, frames, *size = pictures.shape
    pixels = int(np.prod(size))
    if pixels > LARGEST_FRAME:
        raise ValueError(f"a frame has {pixels} pixels; metrics take at most {LARGEST_FRAME}")
    flat = pictures.reshape(clips * frames, pixels)
    return flat if dtype is None else flat.astype(dtype)


def scored(labels: Any, valid: Any) -> jax.Array:
    """Frames that are scored, bool [B, T]: the valid ones, without those of which every pixel
    [B, T, G, G'] is ignored."""
    return jnp.asarray(valid, bool) & (jnp.asarray(labels) != IGNORED).any(axis=(2, 3))


def to_units(value: jax.Array) -> jax.Array:
    """Values in [0, 1] as int32 multiples of 2^-24."""
    return jnp.round(value.astype(jnp.float32) * _UNIT).astype(jnp.int32)


def rounded_mean(total: jax.Array, count: jax.Array) -> jax.Array:
    """total / count in integers, to the nearest; 0 where count is 0."""
    return (total + count // 2) // jnp.maximum(count, 1)


def empty_sum(shape: tuple[int, ...]) -> jax.Array:
    """int32 [2, ...]: upper and lower half of a sum of units or pixels."""
    return jnp.zeros((2, *shape), jnp.int32)


def halves(values: jax.Array) -> jax.Array:
    """int32 [...] -> [2, ...], to be summed apart so that neither half overflows."""
    return jnp.stack([values >> _HALF_BITS, values & (2**_HALF_BITS - 1)])


def add(accumulated: jax.Array, values: jax.Array) -> jax.Array:
    """Adds values [n, ...], each at most 2^24, to a sum [2, ...]."""
    return accumulated + jnp.sum(halves(values), axis=1, dtype=jnp.int32)


def total_pixels(accumulated: Any) -> np.ndarray:
    """int64 value of a sum [2, ...] of pixels."""
    upper, lower = np.asarray(accumulated).astype(np.int64)
    return upper * 2**_HALF_BITS + lower


def total(accumulated: Any) -> np.ndarray:
    """float64 value of a sum [2, ...] of units."""
    return total_pixels(accumulated) / _UNIT
