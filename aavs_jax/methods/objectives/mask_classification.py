"""From the network's output to scores, masks and class maps."""

import jax
import jax.numpy as jnp

from aavs_jax.methods.parts.layers import resize_bilinear


def class_scores(
    class_logits: jax.Array,
    mask_logits: jax.Array,
    frame_size: tuple[int, int],
    label_size: tuple[int, int],
) -> jax.Array:
    """Scores per class and pixel: every query's mask weighted by its class probabilities.

    Mask logits are resized to the frame first, the sum over queries then to the label size, both
    bilinearly without antialiasing, as the published scores were made.

    Args:
      class_logits: [N,Q,K+1]; the last class, "no object", has no score.
      mask_logits: [N,Q,h,w].
      frame_size: height and width of the frames the network saw.
      label_size: height and width of the result.

    Returns:
      float32 [N,G,G',K].
    """
    classes = jax.nn.softmax(class_logits.astype(jnp.float32))[..., :-1]
    masks = jax.nn.sigmoid(resize_bilinear(mask_logits, frame_size, axes=(2, 3)))
    scores = jnp.einsum("nqk,nqhw->nhwk", classes, masks)
    return resize_bilinear(scores, label_size, axes=(1, 2))


def binary_prediction(scores: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Scores [N,G,G',2] -> (mask uint8 [N,G,G'], map float32 [N,G,G'] for the F-score).

    The mask is the argmax; the map is sigmoid(2 s_1 - s_0).
    """
    background, sounding = scores[..., 0], scores[..., 1]
    return (sounding > background).astype(jnp.uint8), jax.nn.sigmoid(2 * sounding - background)


def softmax_map(scores: jax.Array) -> jax.Array:
    """Scores [N,G,G',2] -> float32 [N,G,G'], the softmax over them: sigmoid(s_1 - s_0).

    The map that code bases other than Stepping Stones lay thresholds on.
    """
    return jax.nn.sigmoid(scores[..., 1] - scores[..., 0])


def confidence(scores: jax.Array) -> jax.Array:
    """Scores [N,G,G',K] -> float32 [N,G,G'] in [0,1], the greatest one's share of their sum."""
    return scores.max(-1) / jnp.maximum(scores.sum(-1), jnp.finfo(scores.dtype).tiny)


def semantic_prediction(scores: jax.Array) -> jax.Array:
    """Scores [N,G,G',K] -> class ids uint8 [N,G,G']."""
    return scores.argmax(-1).astype(jnp.uint8)
