"""AVSegFormer's encoder: deformable attention over strides 8, 16 and 32."""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from aavs_jax.methods.avsegformer.attention import FeedForward, dropout, split_keys, through
from aavs_jax.methods.avsegformer.config import AVSegFormerConfig
from aavs_jax.methods.parts.deformable_attention import LEVELS, DeformableAttention, Shapes
from aavs_jax.methods.parts.initializers import Normal
from aavs_jax.methods.parts.layers import LayerNorm, parameter, sine_positions


class Encoder(nnx.Module):
    """The tokens of three levels look at a few points of all of them."""

    def __init__(self, config: AVSegFormerConfig, remat: bool | None = None):
        self.remat = remat
        self.level_embed = parameter((LEVELS, config.feature_size), Normal(1.0))
        self.layers = nnx.List([EncoderLayer(config) for _ in range(config.encoder_layers)])

    def __call__(
        self, levels: list[jax.Array], keys: jax.Array | None = None
    ) -> tuple[list[jax.Array], Shapes]:
        """Encodes.

        Args:
          levels: [N,h,w,C] at strides 8, 16, 32.
          keys: random keys [N], of which dropout draws. None: deterministic.

        Returns:
          What the layers give, the last one last, see `through`: float32 [N,S,C], all tokens of
          stride 8 first, row by row; and the levels' heights and widths.
        """
        shapes: Shapes = tuple(level.shape[1:3] for level in levels)
        size = levels[0].shape[-1]
        positions = [
            sine_positions(*shape, size, scaled=False).reshape(-1, size) + embed
            for shape, embed in zip(shapes, self.level_embed[...], strict=True)
        ]
        positions = jnp.concatenate(positions)
        tokens = [level.reshape(level.shape[0], -1, size) for level in levels]
        found = through(
            self.layers,
            jnp.concatenate(tokens, axis=1),
            lambda layer, x, keys: layer(x, positions, shapes, keys),
            keys,
            self.remat,
        )
        return found, shapes


class EncoderLayer(nnx.Module):
    """Deformable self-attention and a feed-forward network, each normalised after its residual."""

    def __init__(self, config: AVSegFormerConfig):
        size, dtype = config.feature_size, config.dtype
        self.dropout = config.dropout
        self.attention = DeformableAttention(size, config.num_heads, dtype)
        self.attention_norm = LayerNorm(size)
        self.ffn = FeedForward(size, config.encoder_ffn, dropout=config.dropout, dtype=dtype)
        self.ffn_norm = LayerNorm(size)

    def __call__(
        self,
        x: jax.Array,
        positions: jax.Array,
        shapes: Shapes,
        keys: jax.Array | None = None,
    ) -> jax.Array:
        """float32 [N,S,C] -> the same; `positions` [S,C], `keys` [N], of which dropout draws."""
        attention, ffn = split_keys(keys, 2)
        attended = self.attention(x, positions, shapes)
        x = self.attention_norm(x + dropout(attended, self.dropout, attention))
        return self.ffn_norm(x + self.ffn(x, ffn))


def finest(tokens: jax.Array, shapes: Shapes) -> jax.Array:
    """The part of the encoder's tokens [N,S,C] that is of stride 8, as a map [N,h,w,C]."""
    return tokens[:, : math.prod(shapes[0])].reshape(-1, *shapes[0], tokens.shape[-1])
