"""Multi-scale deformable attention (Deformable DETR, ICLR 2021), written two ways.

Every token looks at a few points of every level, at places it computes itself. Gathering them is
right for large maps. For small ones it is faster, above all backwards, to write bilinear sampling
as a product with a mostly empty matrix: no scatter, only dense arithmetic. Both give the same
numbers; the size of the maps, known when tracing, decides.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from aavs_jax.methods.parts.initializers import OffsetStar, XavierUniform, Zeros
from aavs_jax.methods.parts.layers import Dense

# Up to so many tokens the dense form is used. On a CPU, forward and backward together, it takes
# half the time at 84 tokens (64 pixels), about the same at 189 (96 pixels) and twice at 336.
DENSE_TOKENS = 256

LEVELS = 3  # feature levels that are sampled: strides 32, 16, 8
POINTS = 4  # sampling points per head and level

Shapes = tuple[tuple[int, int], ...]  # height and width of each level


class DeformableAttention(nnx.Module):
    """Self-attention over the tokens of all levels."""

    def __init__(self, size: int, heads: int, dtype: str):
        self.heads = heads
        samples = heads * LEVELS * POINTS
        # Where to look and how much is computed in float32 whatever the compute type: at bfloat16
        # an offset of several pixels would be off by hundredths of a pixel.
        self.sampling_offsets = Dense(
            size, 2 * samples, kernel_init=Zeros(), bias_init=OffsetStar(heads, LEVELS, POINTS)
        )
        self.attention_weights = Dense(size, samples, kernel_init=Zeros())
        self.value = Dense(size, size, kernel_init=XavierUniform(), dtype=dtype)
        self.output = Dense(size, size, kernel_init=XavierUniform(), dtype=dtype)

    def __call__(self, x: jax.Array, positions: jax.Array, shapes: Shapes) -> jax.Array:
        """One attention; arguments as `sampled` has them.

        Returns:
          [N,S,C].
        """
        return self.output(self.sampled(x, positions, shapes))

    def sampled(self, x: jax.Array, positions: jax.Array, shapes: Shapes) -> jax.Array:
        """An attention up to its output projection.

        Args:
          x: [N,S,C], the levels' tokens one after the other; S is the sum of the levels' h w.
          positions: [S,C], added to what asks, not to what is read.
          shapes: (h, w) per level.

        Returns:
          [N,S,C], the heads' results side by side.
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
        return jnp.moveaxis(x, 1, 2).reshape(x.shape[0], tokens, -1)


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


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def sample_gather(
    value: jax.Array, coordinates: jax.Array, weights: jax.Array, shapes: Shapes
) -> jax.Array:
    """The same as `sample_dense` by gathering what lies around every point.

    The four pixels around a point are laid side by side first, so that each point is one row to
    read, and in the backward pass one to add. What is gathered (12 rows of 4 d numbers for every
    token and head: at full size 150 MB a frame) is not kept but gathered again, and only as much
    of it exists at a time as suits the device: on a CPU one head's, which its cache holds, and
    which takes a fifth of the time of all at once; elsewhere one frame's.
    """
    inputs = [_heads_first(array) for array in (value, coordinates, weights)]
    sample = functools.partial(_sample_head, shapes)
    return _by_heads(sample, inputs, value.shape[1]).reshape(value.shape)


def _sample_forward(value, coordinates, weights, shapes):
    return sample_gather(value, coordinates, weights, shapes), (value, coordinates, weights)


def _sample_backward(shapes, inputs, cotangent):
    flat = [_heads_first(array) for array in (*inputs, cotangent)]
    gradients = _by_heads(functools.partial(_gradient_of_head, shapes), flat, cotangent.shape[1])
    return tuple(
        gradient.reshape(array.shape) for gradient, array in zip(gradients, inputs, strict=True)
    )


sample_gather.defvjp(_sample_forward, _sample_backward)


def _by_heads(function, inputs: list[jax.Array], heads: int):
    """A function of arrays without their first axis, N heads, of which it takes as many at a time
    as suit the device.
    """

    def at_once(size: int | None):
        return lambda *inputs: jax.lax.map(lambda each: function(*each), inputs, batch_size=size)

    return jax.lax.platform_dependent(*inputs, cpu=at_once(None), default=at_once(heads))


def _heads_first(array: jax.Array) -> jax.Array:
    """[N,heads,...] -> [N heads,...]."""
    return array.reshape(-1, *array.shape[2:])


def _sample_head(
    shapes: Shapes, value: jax.Array, coordinates: jax.Array, weights: jax.Array
) -> jax.Array:
    """[S,d], [S,L,P,2], [S,L,P] -> [S,d] in `value`'s type."""
    index, x, y, near = _around(coordinates, shapes)
    shares = _bilinear(x, y) * jnp.where(near, weights, 0.0)[..., None]
    rows = _neighbours(value, shapes).at[index].get(mode="promise_in_bounds")
    rows = rows.reshape(len(value), -1, value.shape[-1]).astype(jnp.float32)
    return jnp.einsum("sk,skd->sd", shares.reshape(len(value), -1), rows).astype(value.dtype)


def _gradient_of_head(
    shapes: Shapes,
    value: jax.Array,
    coordinates: jax.Array,
    weights: jax.Array,
    cotangent: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The gradients of value, coordinates and weights for a cotangent [S,d]."""
    cotangent = cotangent.astype(jnp.float32)
    packed, unpack = jax.vjp(lambda value: _neighbours(value, shapes), value)
    index, x, y, near = _around(coordinates, shapes)
    counted = jnp.where(near, weights, 0.0)
    rows = packed.at[index].get(mode="promise_in_bounds").astype(jnp.float32)
    rows = rows.reshape(len(value), -1, value.shape[-1])
    # How much of the cotangent each of the four pixels around a point gives, by where it lies.
    pixels = jnp.einsum("skd,sd->sk", rows, cotangent).reshape(*x.shape, 4)
    a, b, c, d = (pixels[..., pixel] for pixel in range(4))
    right, down = (b - a) * (1 - y) + (d - c) * y, (c - a) * (1 - x) + (d - b) * x
    taps = _bilinear(x, y)
    shares = (taps * counted[..., None]).reshape(len(value), -1, 1)
    pulled = (shares * cotangent[:, None]).reshape(len(index), -1)
    pulled = jnp.zeros(packed.shape, jnp.float32).at[index].add(pulled, mode="promise_in_bounds")
    return (
        unpack(pulled.astype(packed.dtype))[0],
        jnp.stack([right, down], axis=-1) * counted[..., None],
        jnp.where(near, jnp.sum(pixels * taps, axis=-1), 0.0),
    )


def _neighbours(value: jax.Array, shapes: Shapes) -> jax.Array:
    """Every 2x2 pixels of every level side by side, zeros around it: [S,d] -> [., 4 d]."""
    packed, start = [], 0
    for height, width in shapes:
        pixels = value[start : start + height * width].reshape(height, width, -1)
        start += height * width
        pixels = jnp.pad(pixels, ((1, 1), (1, 1), (0, 0)))
        rows = [pixels[:-1, :-1], pixels[:-1, 1:], pixels[1:, :-1], pixels[1:, 1:]]
        packed.append(jnp.concatenate(rows, axis=-1).reshape((height + 1) * (width + 1), -1))
    return jnp.concatenate(packed)


def _around(
    coordinates: jax.Array, shapes: Shapes
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Where points [S,L,P,2] lie among the pixels.

    Returns:
      int32 [S L P], the row in `_neighbours` of the four pixels around each; float32 [S,L,P], how
      far it lies from the first of them, to the right and down; whether they have a pixel at all.
    """
    sizes = np.array([(width, height) for height, width in shapes], np.float32)[:, None]
    starts = np.cumsum([0] + [(h + 1) * (w + 1) for h, w in shapes[:-1]]).astype(np.int32)
    low = jnp.floor(coordinates)
    beyond = coordinates - low
    near = ((low >= -1) & (low <= sizes - 1)).all(-1)
    # Wild offsets, and those that are no numbers, read the first pixel, which then has no weight:
    # so every row is there, which reading and adding may rely on.
    corner = (jnp.where(near[..., None], low, 0.0) + 1).astype(jnp.int32)
    index = corner[..., 1] * (sizes[..., 0] + 1).astype(np.int32) + corner[..., 0]
    return (index + starts[:, None]).reshape(-1), beyond[..., 0], beyond[..., 1], near


def _bilinear(x: jax.Array, y: jax.Array) -> jax.Array:
    """What each of four pixels counts at (x, y) from the first of them: [...] -> [...,4]."""
    return jnp.stack([(1 - x) * (1 - y), x * (1 - y), (1 - x) * y, x * y], axis=-1)
