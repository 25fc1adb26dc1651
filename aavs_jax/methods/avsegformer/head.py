"""From queries and mask feature to logits, and the mixer before it."""

import jax
import jax.numpy as jnp
from flax import nnx

from aavs_jax.methods.avsegformer.attention import xavier
from aavs_jax.methods.avsegformer.config import MIXER_HEADS, AVSegFormerConfig
from aavs_jax.methods.parts.initializers import FanInUniform, XavierUniform
from aavs_jax.methods.parts.layers import Conv, Dense, resize_bilinear

ENLARGED = 4  # times, in the head: from stride 4 to the frame's size


class Mixer(nnx.Module):
    """Which channels matter to a sound: a gate, by attention of the sound to the pixels."""

    def __init__(self, size: int, dtype: str):
        def dense(stacked: int) -> Dense:
            init = XavierUniform(stacked=stacked)
            return Dense(size, size, kernel_init=init, bias_init=None, dtype=dtype)

        self.query = dense(1)
        self.key, self.value = dense(2), dense(2)
        self.output = xavier(size, size, dtype)

    def __call__(self, heard: jax.Array, features: jax.Array) -> jax.Array:
        """Audio tokens [N,C] and pixels [N,h,w,C] -> float32 [N,C] in (0,1)."""
        n, *_, size = features.shape
        pixels = features.reshape(n, -1, size)

        def per_head(x: jax.Array) -> jax.Array:
            return x.reshape(*x.shape[:-1], MIXER_HEADS, -1)

        query, key = per_head(self.query(heard)), per_head(self.key(pixels))
        scores = jnp.einsum("nhd,nshd->nhs", query, key, preferred_element_type=jnp.float32)
        weights = jax.nn.softmax(scores * query.shape[-1] ** -0.5)
        value = per_head(self.value(pixels))
        mixed = jnp.einsum("nhs,nshd->nhd", weights.astype(value.dtype), value)
        return jax.nn.sigmoid(self.output(mixed.reshape(n, size)).astype(jnp.float32))


class Head(nnx.Module):
    """The queries' maps, mixed by an MLP, and convolutions that make logits of them.

    Each query is a channel of the MLP: queries have an order.
    """

    def __init__(self, config: AVSegFormerConfig):
        size, hidden, dtype = config.feature_size, config.query_hidden, config.dtype
        self.dtype = dtype
        widths = (config.num_queries, hidden, hidden, size)
        self.mlp = nnx.List(
            [xavier(a, b, dtype) for a, b in zip(widths[:-1], widths[1:], strict=True)]
        )
        wide, narrow = config.head_channels
        self.coarse = conv(size, wide, dtype)
        self.fine = conv(wide, narrow, dtype)
        self.classify = Dense(
            narrow, config.outputs, kernel_init=XavierUniform(), bias_init=None, dtype=dtype
        )

    def features(self, queries: jax.Array, mask_feature: jax.Array) -> jax.Array:
        """[N,Q,C], [N,h,w,C] -> [N,h,w,C]."""
        first, second, last = self.mlp
        queries, pixels = queries.astype(self.dtype), mask_feature.astype(self.dtype)
        likeness = jnp.einsum("nqc,nhwc->nhwq", queries, pixels)
        hidden = jax.nn.relu(second(jax.nn.relu(first(likeness))))
        return last(hidden)

    def logits(self, features: jax.Array) -> jax.Array:
        """[N,h,w,C] -> float32 [N,4h,4w,1 or K]."""
        x = self.coarse(features)
        size = (ENLARGED * x.shape[1], ENLARGED * x.shape[2])
        # Nothing is between the first convolution and the enlargement, as in the public code.
        x = resize_bilinear(x, size, axes=(1, 2))
        return self.classify(jax.nn.relu(self.fine(x))).astype(jnp.float32)


def conv(inputs: int, outputs: int, dtype: str) -> Conv:
    """A 3x3 convolution with a kernel as Xavier's, and a bias as PyTorch's default."""
    return Conv(
        inputs,
        outputs,
        kernel_init=XavierUniform(),
        bias_init=FanInUniform(9 * inputs),
        dtype=dtype,
    )
