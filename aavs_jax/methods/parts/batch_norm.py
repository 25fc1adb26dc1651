"""Batch norm (Ioffe and Szegedy, 2015), as PyTorch computes it."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from aavs_jax.methods.parts.initializers import Ones
from aavs_jax.methods.parts.layers import EPSILON, ZEROS, parameter, wide

ONES = Ones()
MOMENTUM = 0.1  # share of a batch's statistics in the running ones


class BatchNorm(nnx.Module):
    """Normalises each channel over all other axes; float32 inside and out.

    In training by mean and (biased) variance of the batch, which also move the running ones, the
    variance unbiased. A batch that is split over devices counts as a whole: the sums are those of
    the whole array, wherever its parts are. Elsewhere by the running ones.
    """

    def __init__(self, size: int, *, scale_init: Any = ONES):
        self.scale = parameter((size,), scale_init)
        self.bias = parameter((size,), ZEROS)
        self.mean = nnx.BatchStat(jnp.zeros((size,), jnp.float32), initializer=ZEROS)
        self.var = nnx.BatchStat(jnp.zeros((size,), jnp.float32), initializer=ONES)

    def __call__(self, x: jax.Array, training: bool) -> jax.Array:
        """[...,size] -> float32 [...,size].

        Args:
          x: of whose leading axes every entry counts, padding included.
          training: by the batch's statistics, and the running ones move.

        Raises:
          ValueError: in training there is a single number of each channel, which has no variance.
        """
        x = wide(x)
        if not training:
            return self._scaled(x - self.mean[...], self.var[...])
        axes = tuple(range(x.ndim - 1))
        number = x.size // x.shape[-1]
        if number < 2:
            raise ValueError("batch norm needs more than one number of each channel to train on")
        mean = x.mean(axes)
        centred = x - mean
        # Two passes: E[x^2] - E[x]^2 loses too many digits in float32.
        variance = jnp.square(centred).mean(axes)
        self._move(self.mean, mean)
        self._move(self.var, variance * (number / (number - 1)))
        return self._scaled(centred, variance)

    def _scaled(self, centred: jax.Array, variance: jax.Array) -> jax.Array:
        return centred * (jax.lax.rsqrt(variance + EPSILON) * self.scale[...]) + self.bias[...]

    def _move(self, running: nnx.Variable, batch: jax.Array) -> None:
        batch = jax.lax.stop_gradient(batch)
        running[...] = (1 - MOMENTUM) * running[...] + MOMENTUM * batch
