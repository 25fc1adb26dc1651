"""Where masks are compared: random or regular points, and bilinear samples there.

A point (x, y) in [0, 1] lies at pixel coordinate (x W - 1/2, y H - 1/2) of an image H x W; what is
outside the image is zero (PointRend, Kirillov et al. 2020, as Mask2Former uses it).
"""

import jax
import jax.numpy as jnp
import numpy as np

# The names under which random draws can be handed in; the order numbers their random streams.
DRAWS = ("matching", "candidates", "fresh")


def random_source(
    shape: tuple[int, int],
    key: jax.Array | None,
    draws: dict[str, jax.Array] | None,
    names: tuple[str, ...],
) -> dict[str, jax.Array]:
    """What `draw` draws from: arrays or keys, both with leading axes [D, N], of that shape.

    Args:
        shape: D and N.
        key: one for each of N frames, so that a frame draws the same wherever it stands and with
            whom; or one for all, of which each frame's is made by its place.
        draws: the random numbers themselves, in place of a key.
        names: of `DRAWS`, those wanted.

    Raises:
        ValueError: neither key nor draws is given.
    """
    if draws is not None:
        return {name: draws[name] for name in names}
    if key is None:
        raise ValueError("random points are drawn: give key or draws, or set LossConfig.grid")

    predictions, frames = (jnp.arange(size) for size in shape)
    keys = key if key.ndim else jax.vmap(lambda n: jax.random.fold_in(key, n))(frames)
    fold = jax.vmap(jax.random.fold_in, (0, None))
    return {"key": jax.vmap(lambda d: fold(keys, d))(predictions)}


def draw(source: dict[str, jax.Array], name: str, shape: tuple[int, ...]) -> jax.Array:
    """Uniform points of one frame, [P, 2] or [M, P, 2]; of the latter each row on its own."""
    if name in source:
        return source[name]
    key = jax.random.fold_in(source["key"], DRAWS.index(name))
    if len(shape) == 2:
        return jax.random.uniform(key, shape)
    keys = jax.vmap(lambda m: jax.random.fold_in(key, m))(jnp.arange(shape[0]))
    return jax.vmap(lambda k: jax.random.uniform(k, shape[1:]))(keys)


def _corners(points: jax.Array, height: int, width: int) -> list[tuple[jax.Array, jax.Array]]:
    """The four pixels around each point: (flat index int32, weight float32), each [..., P].

    (x, y) in [0, 1] lies at pixel coordinate (x W - 1/2, y H - 1/2); pixels outside weigh nothing.
    """
    x = points[..., 0] * width - 0.5
    y = points[..., 1] * height - 0.5
    left, top = jnp.floor(x), jnp.floor(y)
    corners = []
    for row, row_weight in ((top, top + 1 - y), (top + 1, y - top)):
        for column, column_weight in ((left, left + 1 - x), (left + 1, x - left)):
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            index = row.clip(0, height - 1) * width + column.clip(0, width - 1)
            corner_weight = jnp.where(inside, row_weight * column_weight, 0.0)
            corners.append((index.astype(jnp.int32), corner_weight))
    return corners


def sample_map(image: jax.Array, points: jax.Array) -> jax.Array:
    """Bilinear samples [P] of an image [h, w] at points [P, 2]."""
    flat = image.reshape(-1)
    return sum(flat[index] * weight for index, weight in _corners(points, *image.shape))


def sample_maps(images: jax.Array, points: jax.Array) -> jax.Array:
    """Bilinear samples [Q, P] of images [Q, h, w], all at the same points [P, 2]."""
    # pixel-major, so that each corner is one gather of whole rows
    rows = images.reshape(images.shape[0], -1).T
    corners = _corners(points, *images.shape[1:])
    return sum(rows[index] * weight[:, None] for index, weight in corners).T


def sample_equal(labels: jax.Array, classes: jax.Array, points: jax.Array) -> jax.Array:
    """Bilinear samples of the masks `labels == classes`, labels [H, W], at points [..., P, 2].

    `classes` broadcasts against [..., P]; what is gathered are labels, never masks.
    """
    flat = labels.reshape(-1)
    corners = _corners(points, *labels.shape)
    return sum((flat[index] == classes) * weight for index, weight in corners)


def share_equal(labels: jax.Array, value: int, points: jax.Array) -> jax.Array:
    """How much of what each point shows of labels [H, W] is `value`, float32 [..., P] in [0, 1].

    As `sample_equal`, but of a point at the border only what lies inside the image is looked at:
    where all of that is `value`, the share is 1.
    """
    flat = labels.reshape(-1)
    corners = _corners(points, *labels.shape)
    inside = sum(weight for _, weight in corners)
    return sum((flat[index] == value) * weight for index, weight in corners) / inside


def _grid_weights(size: int, grid: int) -> np.ndarray:
    """float32 [grid, size]: linear interpolation at the grid's half-pixel centres, zeros outside.

    A regular grid makes bilinear sampling separable, so two small matrix products stand in for
    gathers, which accelerators do slowly.
    """
    position = (np.arange(grid) + 0.5) * size / grid - 0.5
    weights = 1.0 - np.abs(position[:, None] - np.arange(size)[None, :])
    return np.maximum(weights, 0.0).astype(np.float32)


def to_grid(images: jax.Array, grid: int) -> jax.Array:
    """Samples [..., grid * grid] of images [..., h, w] at the regular grid's points."""
    height, width = images.shape[-2:]
    sampled = images
    if (height, width) != (grid, grid):
        rows, columns = _grid_weights(height, grid), _grid_weights(width, grid)
        exact = jax.lax.Precision.HIGHEST
        sampled = jnp.einsum("iy,...yx->...ix", rows, sampled, precision=exact)
        sampled = jnp.einsum("jx,...ix->...ij", columns, sampled, precision=exact)
    return sampled.reshape(*images.shape[:-2], grid * grid)
