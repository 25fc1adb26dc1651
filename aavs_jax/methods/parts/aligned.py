"""Bilinear resizing with aligned corners; `layers.resize_bilinear` has half-pixel centres."""

import jax
import jax.numpy as jnp
import numpy as np

from aavs_jax.methods.parts.layers import wide


def resize_aligned(x: jax.Array, size: tuple[int, int], axes: tuple[int, int]) -> jax.Array:
    """Resizes two axes, as torch's `interpolate` does with `align_corners=True`.

    Args:
      x: float array.
      size: new height and width.
      axes: which axes of `x` are height and width.

    Returns:
      float32, `x`'s shape but for the two axes.
    """
    x = wide(x)
    for axis, new_size in zip(axes, size, strict=True):
        last = x.shape[axis] - 1
        position = np.arange(new_size) * (last / max(new_size - 1, 1))
        # The taps' hats: 1 on their own pixel, falling to 0 on its neighbours.
        matrix = np.maximum(0, 1 - np.abs(position[:, None] - np.arange(last + 1)))
        matrix = jnp.asarray(matrix, x.dtype)
        product = jnp.tensordot(x, matrix, axes=(axis, 1), precision=jax.lax.Precision.HIGHEST)
        x = jnp.moveaxis(product, -1, axis)
    return x
