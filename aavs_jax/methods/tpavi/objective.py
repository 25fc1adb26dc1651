"""TPAVI's loss: cross-entropy of the pixels, and audio-visual matching (section 3.3)."""

import jax
import jax.numpy as jnp
import numpy as np

from aavs_jax.methods.objectives.dense import cross_entropy, weighted_mean
from aavs_jax.methods.parts.layers import resize_bilinear
from aavs_jax.methods.tpavi.config import TPAVILoss
from aavs_jax.methods.tpavi.network import Outputs

EPSILON = 1e-6  # under the Euclidean distance, and beside a number of pixels


def loss(
    outputs: Outputs, labels: jax.Array, weights: jax.Array, config: TPAVILoss
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Cross-entropy over the frames that count, and AVM by its weight.

    Args:
      outputs: of N frames.
      labels: integer [N,G,G'].
      weights: float32 [N], 1 for frames that count, else 0: S4's clips have one.
      config: settings.

    Returns:
      The total, and its terms 'cross_entropy' and, where it has a weight, 'matching', unweighted.
    """
    logits = resize_bilinear(outputs.logits, labels.shape[1:], axes=(1, 2))
    terms = {"cross_entropy": weighted_mean(cross_entropy(logits, labels), weights)}
    total = terms["cross_entropy"]
    if config.avm_weight:
        terms["matching"] = matching(outputs, weights, config)
        total = total + config.avm_weight * terms["matching"]
    return total, terms


def matching(outputs: Outputs, weights: jax.Array, config: TPAVILoss) -> jax.Array:
    """AVM: what is seen where it sounds is to be distributed as what is heard.

    The mean over the four stages of a distance between two vectors of each frame: the sound, and
    the mean over pixels of what is seen there, weighted by what the network says of the pixel.

    Args:
      outputs: of N frames.
      weights: float32 [N], 1 for frames that count, else 0.
      config: settings.

    Returns:
      float32 scalar.
    """
    binary = outputs.logits.shape[-1] == 1
    terms = []
    for seen, heard in zip(outputs.seen, outputs.heard, strict=True):
        if binary:
            sounding = jax.nn.sigmoid(average_pooled(outputs.logits[..., 0], seen.shape[1:3]))
        else:
            classes = outputs.logits.argmax(-1)
            sounding = average_pooled((classes != 0).astype(jnp.float32), seen.shape[1:3])
        if binary and config.avm_thresholded:
            sounding = (sounding > 0.5).astype(jnp.float32)
            video = jnp.einsum("nyxc,nyx->nc", seen, sounding)
            video = video / (sounding.sum((1, 2)) + EPSILON)[:, None]
        else:
            video = (seen * sounding[..., None]).mean((1, 2))
        if config.avm_normalised:
            video, heard = _of_length_one(video), _of_length_one(heard)
        if config.avm_distance == "euclidean":
            distances = jnp.linalg.norm(heard - video + EPSILON, axis=-1)
        elif config.avm_distance == "nearest" and binary:
            distances = _divergence(video[_most_alike(heard)], video)
        else:  # the public code of AVSS compares with the sound in that case, too
            distances = _divergence(heard, video)
        summed = binary and config.avm_summed and config.avm_distance != "euclidean"
        terms.append((weights * distances).sum() if summed else weighted_mean(distances, weights))
    return sum(terms) / len(terms)


def _divergence(wanted: jax.Array, found: jax.Array) -> jax.Array:
    """KL(softmax(wanted) || softmax(found)): [N,C] twice -> [N]."""
    target, log_target = jax.nn.softmax(wanted), jax.nn.log_softmax(wanted)
    return (target * (log_target - jax.nn.log_softmax(found))).sum(-1)


def _of_length_one(x: jax.Array) -> jax.Array:
    squares = jnp.square(x).sum(-1, keepdims=True)
    # A vector of zeros, of padding, has no direction, and its root no gradient.
    return x / jnp.sqrt(jnp.maximum(squares, 1e-24))


def _most_alike(heard: jax.Array) -> jax.Array:
    """For each of N sounds the other that is nearest: [N,C] -> int [N]."""
    apart = jnp.square(heard[:, None] - heard[None]).sum(-1)
    return (apart + jnp.diag(jnp.full(len(heard), jnp.inf))).argmin(-1)


def average_pooled(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Means over a grid of cells, as torch's adaptive average pooling: [N,H,W] -> [N,*size]."""
    rows, columns = (_cells(old, new) for old, new in zip(x.shape[1:], size, strict=True))
    return jnp.einsum("nyx,hy,wx->nhw", x, rows, columns)


def _cells(size: int, cells: int) -> np.ndarray:
    """float32 [cells,size]: each row the mean over its cell; where they do not divide, cells
    overlap by a pixel."""
    matrix = np.zeros((cells, size), np.float32)
    for cell in range(cells):
        first, last = cell * size // cells, -(-(cell + 1) * size // cells)
        matrix[cell, first:last] = 1 / (last - first)
    return matrix
