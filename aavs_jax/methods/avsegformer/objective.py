"""AVSegFormer's loss (section 3.6 of the paper): of the logits, and of the mixed mask feature.

Dice of the binary task, cross-entropy of the semantic one; and, a tenth of it, dice between the
foreground and the mean over the channels of what the mixer gives. That mean is nowhere negative,
being that of a gated ReLU, so its sigmoid is at least 0.5: outside the object this term cannot
come down to 0.
"""

import jax
import jax.numpy as jnp

from aavs_jax.methods.avsegformer.config import AVSegFormerLoss
from aavs_jax.methods.objectives.dense import cross_entropy
from aavs_jax.methods.objectives.targets import IGNORED
from aavs_jax.methods.parts.layers import resize_bilinear

SMOOTH = 0.002  # in the denominator of dice only: an empty target gives 1, and no gradient


def losses(
    outputs: dict[str, jax.Array], labels: jax.Array, config: AVSegFormerLoss
) -> dict[str, jax.Array]:
    """The terms of each frame, weighted; their sum is its loss.

    Args:
      outputs: of the network: logits [N,h,w,1 or K] and mask_feature [N,.,.,C].
      labels: integer [N,G,G'], class ids; 0 is background, and of the binary task all others are
        foreground; IGNORED pixels count for nothing. Logits are resized to them.
      config: settings.

    Returns:
      Name -> float32 [N]: 'dice' or, of more than one map of logits, 'cross_entropy'; and 'mix'.
    """
    size = labels.shape[1:]
    counted = labels != IGNORED
    foreground = ((labels > 0) & counted).astype(jnp.float32)
    counted = counted.astype(jnp.float32)
    logits = resize_bilinear(outputs["logits"], size, axes=(1, 2))
    if logits.shape[-1] == 1:
        terms = {"dice": dice(logits[..., 0], foreground, counted)}
    else:
        terms = {"cross_entropy": cross_entropy(logits, labels)}
    mean = outputs["mask_feature"].astype(jnp.float32).mean(-1)
    mixed = resize_bilinear(mean, size, axes=(1, 2))
    return terms | {"mix": config.mix_weight * dice(mixed, foreground, counted)}


def dice(logits: jax.Array, truth: jax.Array, counted: jax.Array) -> jax.Array:
    """1 - 2 sum(p g) / (sum p^2 + sum g^2) of each frame, of the pixels that count.

    Args:
      logits: float [N,G,G'].
      truth: float32 [N,G,G'], 1 or 0; 0 where a pixel does not count.
      counted: float32 [N,G,G'], 1 or 0.

    Returns:
      float32 [N].
    """
    share = jax.nn.sigmoid(logits) * counted
    both = (share * truth).sum((1, 2))
    return 1 - 2 * both / (jnp.square(share).sum((1, 2)) + truth.sum((1, 2)) + SMOOTH)
