"""Multi-scale deformable attention (Deformable DETR, ICLR 2021), written two ways.

Every token looks at a few points of every level, at places it computes itself. Gathering them is
right for large maps. For small ones it is faster, above all backwards, to write bilinear sampling
as a product with a mostly empty matrix: no scatter, only dense arithmetic. Both give the same
numbers; the size of the maps, known when tracing, decides.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from aavs_jax.methods.parts.adapters import Adapter, attention_output
from aavs_jax.methods.parts.initializers import OffsetStar, XavierUniform, Zeros
from aavs_jax.methods.parts.layers import Dense

# Up to so many tokens the dense form is used. On a CPU, forward and backward together, it takes
# half the time at 84 tokens (64 pixels), about the same at 189 (96 pixels) and twice at 336.
DENSE_TOKENS = 256

LEVELS = 3  # feature levels that are sampled: strides 32, 16, 8
POINTS = 4  # sampling points per head and level

Shapes = tuple[tuple[int, int], ...]  # height and width of each level


class DeformableAttention(nnx.Module):
    """Self-attention over the tokens of all levels, with an adapter at its end."""

    def __init__(self, size: int, heads: int, task: str, dtype: str):
        self.heads = heads
        self.task = task
        samples = heads * LEVELS * POINTS
        # Where to look and how much is computed in float32 whatever the compute type: at bfloat16
        # an offset of several pixels would be off by hundredths of a pixel.
        self.sampling_offsets = Dense(
            size, 2 * samples, kernel_init=Zeros(), bias_init=OffsetStar(heads, LEVELS, POINTS)
        )
        self.attention_weights = Dense(size, samples, kernel_init=Zeros())
        self.value = Dense(size, size, kernel_init=XavierUniform(), dtype=dtype)
        self.output = Dense(size, size, kernel_init=XavierUniform(), dtype=dtype)
        self.adapter = Adapter(size, dtype)

    def __call__(self, x: jax.Array, positions: jax.Array, shapes: Shapes) -> jax.Array:
        """One attention.

        Args:
          x: [N,S,C], the levels' tokens one after the other; S is the sum of the levels' h w.
          positions: [S,C], added to what asks, not to what is read.
          shapes: (h, w) per level.

        Returns:
          [N,S,C].
        """
        n, tokens, _ = x.shape
        query = x + positions
        offsets = self.sampling_offsets(query).reshape(n, tokens, self.heads, LEVELS, POINTS, 2)
        weights = self.attention_weights(query).reshape(n, tokens, self.heads, -1)
        weights = jax.nn.softmax(weights).reshape(offsets.shape[:-1])
        value = self.value(x).reshape(n, tokens, self.heads, -1)

        # Offsets are in pixels of the level sampled, so only the centre depends on its size.
        coordinates = offsets + reference_points(shapes)[:, None, :, None, :]
        coordinates, weights, value = (jnp.moveaxis(a, 2, 1) for a in (coordinates, weights, value))
        sample = sample_dense if tokens <= DENSE_TOKENS else sample_gather
        x = sample(value, coordinates, weights, shapes)
        x = jnp.moveaxis(x, 1, 2).reshape(x.shape[0], tokens, -1)
        return attention_output(x, self.output, self.adapter, self.task)


def reference_points(shapes: Shapes) -> np.ndarray:
    """Each token's pixel centre in pixel coordinates of every level: float32 [S,L,2], (x, y)."""
    centres = []
    for height, width in shapes:
        y, x = np.meshgrid(
            (np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width, indexing="ij"
        )
        centres.append(np.stack([x, y], axis=-1).reshape(-1, 2))
    sizes = np.array([(width, height) for height, width in shapes])
    return (np.concatenate(centres)[:, None] * sizes - 0.5).astype(np.float32)


def sample_dense(
    value: jax.Array, coordinates: jax.Array, weights: jax.Array, shapes: Shapes
) -> jax.Array:
    """Weighted bilinear samples, zeros outside, as one matrix product.

    The matrix [S,S] per head is the sum over points of (weight x taps of y) x (taps of x). It costs
    S^2 per head.

    Args:
      value: [N,heads,S,d].
      coordinates: float32 [N,heads,S,L,P,2], (x, y) in pixels of the level, first centre at 0.
      weights: float32 [N,heads,S,L,P].
      shapes: (h, w) per level.

    Returns:
      [N,heads,S,d] in `value`'s type.
    """
    matrices = []
    for level, (height, width) in enumerate(shapes):
        x, y = coordinates[:, :, :, level, :, 0], coordinates[:, :, :, level, :, 1]
        taps_x = _taps(x, width)
        taps_y = _taps(y, height) * weights[:, :, :, level, :, None]
        # Point by point, not as an einsum: the points are four and the products would be millions.
        matrix = sum(
            taps_y[:, :, :, point, :, None] * taps_x[:, :, :, point, None, :]
            for point in range(x.shape[-1])
        )
        matrices.append(matrix.reshape(*x.shape[:3], height * width))
    matrix = jnp.concatenate(matrices, axis=-1).astype(value.dtype)
    return jnp.einsum("nhqs,nhsd->nhqd", matrix, value)


def _taps(position: jax.Array, size: int) -> jax.Array:
    """The two-tap weights of positions [...] on a row of pixels: float32 [..., size]."""
    low = jax.lax.stop_gradient(jnp.floor(position))[..., None]
    upper = position[..., None] - low
    pixel = np.arange(size, dtype=np.float32)
    return jnp.where(pixel == low, 1 - upper, jnp.where(pixel == low + 1, upper, 0.0))


def sample_gather(
    value: jax.Array, coordinates: jax.Array, weights: jax.Array, shapes: Shapes
) -> jax.Array:
    """The same as `sample_dense` by gathering the four corners of every point.

    What it gathers (48 rows for every token and head) is not kept for the backward pass but
    gathered again: at full size it would be hundreds of megabytes per frame.
    """

    @jax.checkpoint
    def sample(value, coordinates, weights):
        sizes = np.array([(width, height) for height, width in shapes], np.float32)
        starts = np.cumsum([0] + [math.prod(shape) for shape in shapes[:-1]]).astype(np.int32)
        low = jax.lax.stop_gradient(jnp.floor(coordinates))
        upper = coordinates - low
        result = 0.0
        for corner in ((0, 0), (1, 0), (0, 1), (1, 1)):
            pixel = low + np.array(corner, np.float32)
            inside = ((pixel >= 0) & (pixel < sizes[:, None])).all(-1)
            share = jnp.where(np.array(corner, bool), upper, 1 - upper).prod(-1)
            share = jnp.where(inside, share, 0.0) * weights
            # Clipped before it becomes an integer: a wild offset may not fit one.
            pixel = jnp.clip(pixel, 0, sizes[:, None] - 1).astype(jnp.int32)
            index = pixel[..., 1] * sizes[:, :1].astype(np.int32) + pixel[..., 0] + starts[:, None]
            rows = jnp.take_along_axis(value, index.reshape(*value.shape[:2], -1, 1), axis=2)
            rows = rows.reshape(*index.shape, -1).astype(jnp.float32)
            result = result + (rows * share[..., None]).sum((3, 4))
        return result.astype(value.dtype)

    return sample(value, coordinates, weights)
