"""Cross-entropy of every pixel, for networks that give a logit for each class."""

import jax
import jax.numpy as jnp

from aavs_jax.methods.objectives.targets import IGNORED

LEAST = -100.0  # of a logarithm of a probability, as PyTorch bounds it in the binary loss


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """The mean over each frame's pixels that are not IGNORED.

    Args:
        logits: float [N,G,G',K]; of K = 1 that of sounding against not, and any class but
            background sounds.
        labels: integer [N,G,G'].

    Returns:
        float32 [N]; 0 of a frame that is IGNORED throughout.
    """
    counts = labels != IGNORED
    if logits.shape[-1] == 1:
        yes, no = jax.nn.log_sigmoid(logits[..., 0]), jax.nn.log_sigmoid(-logits[..., 0])
        likely = jnp.where(labels > 0, yes, no)
        likely = jnp.maximum(likely, LEAST)
    else:
        classes = jnp.where(counts, labels, 0).astype(jnp.int32)
        likely = jax.nn.log_softmax(logits)
        likely = jnp.take_along_axis(likely, classes[..., None], -1)[..., 0]
    summed = (likely * counts).sum((1, 2))
    return -summed / jnp.maximum(counts.sum((1, 2)), 1)


def weighted_mean(values: jax.Array, weights: jax.Array) -> jax.Array:
    """sum(weights x values) / sum(weights), both [N]; 0 where all weights are."""
    return (weights * values).sum() / jnp.maximum(weights.sum(), 1)
