"""From what one network says to what the next is told: prior masks and their views."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from aavs_jax.methods.method import Prediction

UNKNOWN = 0.5  # of a prior mask: neither silent nor sounding


def prior_mask(found: Prediction, kind: str) -> jax.Array:
    """Where it sounds, as a binary network's prediction says, float32 [B,T,G,G] in [0,1].

    Args:
      found: of the binary task.
      kind: 'hard', 0 or 1, or 'soft', s1 / (s0 + s1) of its two scores: 0.5 is just where hard
        masks change. It is not sigmoid(s1 - s0), which never leaves 0.27 to 0.73, as the scores
        are between 0 and 1. Of 256 levels, as masks are on the disk; without the level 1, since a
        picture with nothing above it could be one of 0 and 1.
    """
    hard = found.classes.astype(jnp.float32)
    if kind == "hard" or "confidence" not in found.maps:
        return hard
    sure = found.maps["confidence"]
    greys = jnp.round(255 * jnp.where(found.classes > 0, sure, 1 - sure))
    return jnp.where(greys == 1, 0, greys) / 255


def as_view(mask: jax.Array, view: str) -> jax.Array:
    """What a network is told by a mask.

    Args:
      mask: [B,T,G,G'].
      view: 'predicted', 'unknown', or 'both' of them.

    Returns:
      [B,T,G,G'], of two views [B,T,2,G,G'].
    """
    unknown = jnp.full_like(mask, UNKNOWN)
    if view == "both":
        return jnp.stack([mask, unknown], 2)
    return unknown if view == "unknown" else mask


def told(before: Prediction, how: Mapping[str, str]) -> jax.Array:
    """What a network is told by the one before, [B,T,G,G] or [B,T,2,G,G].

    Args:
      before: of the binary task.
      how: kind and view, as in `weights.card.Card.told`; {}: 'hard' and 'predicted'.
    """
    mask = prior_mask(before, how.get("kind", "hard"))
    return as_view(mask, how.get("view", "predicted"))
