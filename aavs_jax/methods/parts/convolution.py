"""Convolutions of any window, stride and dilation, as PyTorch's; `layers.Conv` is the plain 3x3."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from aavs_jax.methods.parts.initializers import FanInUniform, Normal
from aavs_jax.methods.parts.layers import ZEROS, parameter


class Convolution(nnx.Module):
    """A square convolution, zero-padded so that stride 1 keeps the map's size."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        window: int,
        *,
        kernel_init: Any,
        bias_init: Any = ZEROS,
        stride: int = 1,
        dilation: int = 1,
        dtype: str = "float32",
    ):
        """`window`: pixels per side, odd. `bias_init=None`: no bias."""
        self.stride, self.dilation, self.dtype = stride, dilation, dtype
        self.kernel = parameter((window, window, inputs, outputs), kernel_init)
        self.bias = None if bias_init is None else parameter((outputs,), bias_init)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[N,h,w,inputs] -> [N,ceil(h/stride),ceil(w/stride),outputs]."""
        x, kernel = x.astype(self.dtype), self.kernel[...].astype(self.dtype)
        window = kernel.shape[0]
        if window == 1:  # a product of matrices, which CPUs compute faster as such
            x = x[:, :: self.stride, :: self.stride]
            rows = jnp.dot(x.reshape(-1, x.shape[-1]), kernel[0, 0])
            x = rows.reshape(*x.shape[:-1], -1)
        else:
            padding = self.dilation * (window // 2)
            x = jax.lax.conv_general_dilated(
                x,
                kernel,
                (self.stride, self.stride),
                ((padding, padding), (padding, padding)),
                rhs_dilation=(self.dilation, self.dilation),
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )
        return x if self.bias is None else x + self.bias[...].astype(self.dtype)


def he_fan_out(window: int, outputs: int) -> Normal:
    """Gaussian of variance 2 / fan-out, for convolutions before ReLU (He et al., 2015)."""
    return Normal(math.sqrt(2 / (window * window * outputs)))


def as_torch(inputs: int, window: int = 1) -> dict[str, Any]:
    """Arguments that draw a layer's kernel and bias as PyTorch does by default."""
    uniform = FanInUniform(inputs * window * window)
    return {"kernel_init": uniform, "bias_init": uniform}


def max_pool(x: jax.Array) -> jax.Array:
    """The greatest of 3x3 pixels, stride 2, padding 1: [N,h,w,C] -> [N,ceil(h/2),ceil(w/2),C].

    As maxima of slices, which differentiate fast on CPUs. Of equals the first has the gradient, row
    by row, as in torch: `jnp.maximum` would share it out.
    """
    for axis in (2, 1):
        size = x.shape[axis]
        widths = [(0, 0)] * x.ndim
        widths[axis] = (1, 1)
        padded = jnp.pad(x, widths, constant_values=-jnp.inf)
        first, *others = (jax.lax.slice_in_dim(padded, d, d + size, 2, axis) for d in range(3))
        for other in others:
            first = jnp.where(first >= other, first, other)
        x = first
    return x
