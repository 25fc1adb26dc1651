"""Frames as backbones that were trained on ImageNet take them."""

import jax
import jax.numpy as jnp
import numpy as np

MEAN = np.array([0.485, 0.456, 0.406], np.float32)  # of ImageNet's red, green and blue
STD = np.array([0.229, 0.224, 0.225], np.float32)


def normalised(frames: jax.Array) -> jax.Array:
    """Frames [...,3]: uint8 as ImageNet's float32, others, which are that already, as they are."""
    if frames.dtype != jnp.uint8:
        return frames
    return (frames.astype(jnp.float32) / 255 - MEAN) / STD
