"""The small parts everything is built of, each doing exactly what PyTorch's does.

Mixed precision: products (`Dense`, `Conv`, attention) take their inputs in the compute type; norms,
softmax and with them the residual streams stay float32. No layer asks for a matmul precision of its
own except `resize_bilinear`, so `jax.default_matmul_precision` decides.

Linear layers and convolutions are flax's. Its norms round otherwise than torch's, the scale going
into the reciprocal deviation first, so these are written here.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from aavs_jax.methods.parts.initializers import Ones, Zeros

EPSILON = 1e-5  # of norms that do not say another
ZEROS = Zeros()


def parameter(shape: tuple[int, ...], initializer: Any) -> nnx.Param:
    """A float32 parameter that knows how it wants to be drawn (`functional.py` draws it)."""
    return nnx.Param(jnp.zeros(shape, jnp.float32), initializer=initializer)


class _NoKeys:
    """Stands in for the `nnx.Rngs` of which flax's layers would draw: `functional.py` draws."""

    def params(self) -> None:
        return None


def _undrawn(kernel_init: Any, bias_init: Any) -> dict[str, Any]:
    """Arguments by which a layer of flax makes its parameters as `parameter` does."""
    return {
        "rngs": _NoKeys(),
        "kernel_init": _zeros,
        "bias_init": _zeros,
        "use_bias": bias_init is not None,
        "kernel_metadata": {"initializer": kernel_init},
        "bias_metadata": {"initializer": bias_init},
    }


def _zeros(key: None, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    return jnp.zeros(shape, dtype)


class Dense(nnx.Linear):
    """A linear layer on the last axis; also what a 1x1 convolution is when channels come last."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        kernel_init: Any,
        bias_init: Any = ZEROS,
        dtype: str = "float32",
    ):
        """`bias_init=None`: no bias. `dtype`: compute and output type."""
        super().__init__(inputs, outputs, dtype=dtype, **_undrawn(kernel_init, bias_init))

    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., inputs] -> [..., outputs]."""
        # As rows: of more axes XLA for CPUs makes transposed copies for the kernel's gradient.
        rows = super().__call__(x.reshape(-1, x.shape[-1]))
        return rows.reshape(*x.shape[:-1], -1)


class Conv(nnx.Conv):
    """A 3x3 convolution, stride 1, zero padding 1."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        kernel_init: Any,
        bias_init: Any = ZEROS,
        dtype: str = "float32",
    ):
        """`bias_init=None`: no bias. `dtype`: compute and output type."""
        undrawn = _undrawn(kernel_init, bias_init)
        options = {"padding": 1, "dtype": dtype, "conv_general_dilated": _as_flax_calls_it}
        super().__init__(inputs, outputs, (3, 3), **options, **undrawn)


def _as_flax_calls_it(x: jax.Array, kernel: jax.Array, *_, precision=None, **__) -> jax.Array:
    return _convolution(x, kernel, precision)


def _convolved(x: jax.Array, kernel: jax.Array, precision: Any) -> jax.Array:
    """[N,h,w,I], [3,3,I,O] -> [N,h,w,O]."""
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=layout, precision=precision
    )


_convolution = jax.custom_vjp(_convolved, nondiff_argnums=(2,))


def _convolution_forward(x, kernel, precision):
    return _convolved(x, kernel, precision), (x, kernel)


def _convolution_backward(precision, inputs, cotangent):
    x, kernel = inputs
    # The gradient of what comes in is a convolution of the same kind. As it is derived, its kernel
    # lies otherwise, and inside a loop XLA for CPUs then takes six times as long.
    back = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)
    of_kernel = jax.vjp(lambda kernel: _convolved(x, kernel, precision), kernel)[1]
    return _convolved(cotangent, back, precision), of_kernel(cotangent)[0]


_convolution.defvjp(_convolution_forward, _convolution_backward)


class LayerNorm(nnx.Module):
    """Normalises the last axis; float32 inside and out."""

    def __init__(self, size: int, epsilon: float = EPSILON):
        self.epsilon = epsilon
        self.scale = parameter((size,), Ones())
        self.bias = parameter((size,), Zeros())

    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., size] -> float32 [..., size]."""
        normal = _normalise(wide(x), (-1,), self.epsilon)
        return normal * self.scale[...] + self.bias[...]


class GroupNorm(nnx.Module):
    """Normalises groups of neighbouring channels over the whole map; float32 inside and out."""

    def __init__(self, size: int, groups: int):
        self.groups = groups
        self.scale = parameter((size,), Ones())
        self.bias = parameter((size,), Zeros())

    def __call__(self, x: jax.Array) -> jax.Array:
        """[N,H,W,size] -> float32 [N,H,W,size]."""
        grouped = wide(x).reshape(*x.shape[:3], self.groups, -1)
        return _normalise(grouped, (1, 2, 4)).reshape(x.shape) * self.scale[...] + self.bias[...]


def wide(x: jax.Array) -> jax.Array:
    """As float32, which norms and softmax compute in; float64, of parity tests, stays."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _normalise(x: jax.Array, axes: tuple[int, ...], epsilon: float = EPSILON) -> jax.Array:
    # Two passes: E[x^2] - E[x]^2 loses too many digits in float32.
    centred = x - x.mean(axes, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.square(centred).mean(axes, keepdims=True) + epsilon)


class Mlp(nnx.Module):
    """Two linear layers with ReLU between: the feed-forward network of both transformers."""

    def __init__(
        self,
        size: int,
        hidden: int,
        outputs: int,
        *,
        kernel_init: Any,
        dtype: str,
    ):
        self.hidden = Dense(size, hidden, kernel_init=kernel_init, dtype=dtype)
        self.output = Dense(hidden, outputs, kernel_init=kernel_init, dtype=dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., size] -> [..., outputs]."""
        return self.output(jax.nn.relu(self.hidden(x)))


@jax.custom_vjp
def gelu(x: jax.Array) -> jax.Array:
    """The exact GELU, with erf; float32 inside.

    Its gradient is written out: derived, it would keep several arrays of the size of `x`.
    """
    exact = wide(x)
    return (exact * _normal_cdf(exact)).astype(x.dtype)


def _gelu_forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    return gelu(x), x


def _gelu_backward(x: jax.Array, cotangent: jax.Array) -> tuple[jax.Array]:
    exact = wide(x)
    density = jnp.exp(-0.5 * exact * exact) * np.float32(1 / np.sqrt(2 * np.pi))
    slope = _normal_cdf(exact) + exact * density
    return ((wide(cotangent) * slope).astype(x.dtype),)


gelu.defvjp(_gelu_forward, _gelu_backward)


def _normal_cdf(x: jax.Array) -> jax.Array:
    # By erf, not by erfc, which is more exact far below zero, where x times it vanishes, but takes
    # three times as long.
    return 0.5 * (1 + jax.lax.erf(x * np.float32(np.sqrt(0.5))))


def resize_matrix(size: int, new_size: int) -> np.ndarray:
    """The two-tap linear interpolation of one axis as a float32 matrix [new_size, size].

    Half-pixel centres, edges repeated, no antialiasing when shrinking. The arithmetic is torch's:
    its scale, size / new_size, is a float32, which moves the taps of 384 -> 224 by 1.5e-5 of a
    pixel. The position scale * (i + 1/2) - 1/2 is rounded to float32 once, as a fused
    multiply-add does it; torch's builds for CPUs without that instruction round twice.
    """
    scale = np.float32(size) / np.float32(new_size)
    centres = np.arange(new_size) + 0.5
    # In float64 this product of two float32 numbers is exact.
    position = np.maximum(np.float64(scale) * centres - 0.5, 0.0).astype(np.float32)
    # A scale that was rounded up may point behind the last pixel.
    low = np.minimum(position.astype(np.int64), size - 1)
    high = np.minimum(low + 1, size - 1)
    upper = np.clip(position - low.astype(np.float32), 0.0, 1.0)
    matrix = np.zeros((new_size, size), np.float32)
    np.add.at(matrix, (np.arange(new_size), low), 1 - upper)
    np.add.at(matrix, (np.arange(new_size), high), upper)
    return matrix


def resize_bilinear(x: jax.Array, size: tuple[int, int], axes: tuple[int, int]) -> jax.Array:
    """Resizes two axes, as torch's `interpolate` does with `align_corners=False`.

    Values up to 1 agree to 5e-7.

    As two products with constant matrices: unlike gathers these differentiate fast everywhere. They
    ask for full precision, because thresholds lie behind them: masks hit exactly 0.5.

    Args:
      x: float array.
      size: new height and width.
      axes: which axes of `x` are height and width.

    Returns:
      float32, `x`'s shape but for the two axes.
    """
    x = wide(x)
    for axis, new_size in zip(axes, size, strict=True):
        if x.shape[axis] != new_size:
            matrix = jnp.asarray(resize_matrix(x.shape[axis], new_size))
            product = jnp.tensordot(x, matrix, axes=(axis, 1), precision=jax.lax.Precision.HIGHEST)
            x = jnp.moveaxis(product, -1, axis)
    return x


def sine_positions(height: int, width: int, size: int, *, scaled: bool = True) -> jax.Array:
    """Sine position embedding float32 [height,width,size]: y's features first, then x's.

    Positions count from 1 and, where they are `scaled`, go up to 2 pi (DETR's, in its normalised
    form); features alternate sin and cos at temperature 10000.
    """
    half = size // 2
    frequency = 10000.0 ** (2 * (np.arange(half) // 2) / half)

    def axis_features(length: int) -> np.ndarray:
        position = np.arange(1, length + 1)
        if scaled:
            position = position / (length + 1e-6) * 2 * np.pi
        angle = position[:, None] / frequency
        return np.where(np.arange(half) % 2, np.cos(angle), np.sin(angle)).astype(np.float32)

    y = jnp.broadcast_to(axis_features(height)[:, None], (height, width, half))
    x = jnp.broadcast_to(axis_features(width)[None], (height, width, half))
    return jnp.concatenate([y, x], axis=-1)
