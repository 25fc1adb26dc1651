"""The audio encoder: VGGish, and smaller networks of its shape (Hershey et al., ICASSP 2017)."""

import jax
import jax.numpy as jnp
from flax import nnx

from aavs_jax.methods.parts.initializers import HeUniform
from aavs_jax.methods.parts.layers import Conv, Dense
from aavs_jax.methods.parts.sizes import AudioConfig

EXAMPLE_SHAPE = (96, 64)  # frames of 10 ms, mel bands


class AudioEncoder(nnx.Module):
    """Blocks of 3x3 convolutions with ReLU, each halved by max pooling, then linear layers."""

    def __init__(self, config: AudioConfig, dtype: str):
        self.stereo = config.channels == 2
        self.blocks = nnx.List()
        channels = config.channels
        for widths in config.blocks:
            block = nnx.List()
            for width in widths:
                block.append(Conv(channels, width, kernel_init=HeUniform(), dtype=dtype))
                channels = width
            self.blocks.append(block)
        halvings = len(config.blocks)
        size = (EXAMPLE_SHAPE[0] >> halvings) * (EXAMPLE_SHAPE[1] >> halvings) * channels
        self.fully_connected = nnx.List()
        for width in config.fully_connected:
            layer = Dense(size, width, kernel_init=HeUniform(), dtype=dtype)
            self.fully_connected.append(layer)
            size = width

    def __call__(self, examples: jax.Array) -> jax.Array:
        """Log-mel examples -> embeddings [N, last width], not negative.

        Args:
          examples: [N,96,64], or [N,96,64,2] (left and right) with two channels.
        """
        x = examples if self.stereo else examples[..., None]
        for block in self.blocks:
            for conv in block:
                x = jax.nn.relu(conv(x))
            x = _halve(x)
        x = x.reshape(x.shape[0], -1)  # in the order time, frequency, channel
        for layer in self.fully_connected:
            x = jax.nn.relu(layer(x))
        return x


def _halve(x: jax.Array) -> jax.Array:
    """Max pooling of 2x2; an odd last row or column is dropped."""
    # Maxima of two, for their gradients: a pooling primitive's is a slow window scatter on CPU, and
    # that of a maximum over axes counts how many are equal first, as slow as the convolutions.
    n, height, width, channels = x.shape
    x = x[:, : height // 2 * 2, : width // 2 * 2]
    x = x.reshape(n, height // 2, 2, width // 2, 2, channels)
    x = jnp.maximum(x[:, :, 0], x[:, :, 1])
    return jnp.maximum(x[:, :, :, 0], x[:, :, :, 1])
