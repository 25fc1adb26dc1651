"""The pixel decoder of Mask2Former: deformable attention over strides 32 to 8, then stride 4."""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from aavs_jax.methods.aavs.config import GROUPS, AAVSConfig
from aavs_jax.methods.parts.adapters import Adapter, attention_output
from aavs_jax.methods.parts.deformable_attention import LEVELS, DeformableAttention, Shapes
from aavs_jax.methods.parts.initializers import Normal, XavierUniform
from aavs_jax.methods.parts.layers import (
    Conv,
    Dense,
    GroupNorm,
    LayerNorm,
    Mlp,
    parameter,
    resize_bilinear,
    sine_positions,
)
from aavs_jax.methods.parts.scanned import scanned


class PixelDecoder(nnx.Module):
    """Backbone maps -> features at three strides for the decoder, and the mask features."""

    def __init__(self, config: AAVSConfig, remat: bool | None = None):
        """`remat`: whether layers keep their inputs only, and compute the rest again; None: nothing
        is differentiated.
        """
        self.remat = remat
        size, dtype = config.feature_size, config.dtype
        strides_4_to_32 = [config.backbone.embed_dim << stage for stage in range(4)]

        def projection(inputs: int, **options) -> Dense:
            return Dense(inputs, size, kernel_init=XavierUniform(), dtype=dtype, **options)

        self.input_projections = nnx.List(map(projection, strides_4_to_32[:0:-1]))
        self.input_norms = nnx.List([GroupNorm(size, GROUPS) for _ in range(LEVELS)])
        self.level_embed = parameter((LEVELS, size), Normal(1.0))
        self.layers = nnx.List([EncoderLayer(config) for _ in range(config.encoder_layers)])
        self.lateral = projection(strides_4_to_32[0], bias_init=None)
        self.lateral_norm = GroupNorm(size, GROUPS)
        self.fusion = Conv(size, size, kernel_init=XavierUniform(), bias_init=None, dtype=dtype)
        self.fusion_norm = GroupNorm(size, GROUPS)
        self.mask_projection = projection(size)

    def __call__(self, maps: list[jax.Array]) -> tuple[list[jax.Array], jax.Array]:
        """Decodes.

        Args:
          maps: the backbone's, [N,h,w,.] at strides 4, 8, 16, 32.

        Returns:
          float32 [N,h,w,C] at strides 32, 16, 8, and the mask features float32 [N,h,w,C] at
          stride 4.
        """
        stride_4, *deeper = maps
        levels = [
            norm(projection(x))
            for norm, projection, x in zip(
                self.input_norms, self.input_projections, reversed(deeper), strict=True
            )
        ]
        shapes: Shapes = tuple(level.shape[1:3] for level in levels)
        x = jnp.concatenate([_flatten(level) for level in levels], axis=1)
        positions = jnp.concatenate(
            [
                sine_positions(*shape, x.shape[-1]).reshape(-1, x.shape[-1]) + level_embed
                for shape, level_embed in zip(shapes, self.level_embed[...], strict=True)
            ]
        )
        if self.remat or (self.remat is not None and len(self.layers) > 1):

            def apply(layer, x):
                return layer(x, positions, shapes), None

            x, _ = scanned(self.layers, x, apply, remat=self.remat)
        else:
            for layer in self.layers:
                x = layer(x, positions, shapes)
        ends = [math.prod(shape) for shape in shapes]
        levels = [
            tokens.reshape(-1, *shape, x.shape[-1])
            for tokens, shape in zip(
                jnp.split(x, [ends[0], ends[0] + ends[1]], axis=1), shapes, strict=True
            )
        ]

        lateral = self.lateral_norm(self.lateral(stride_4))
        fused = lateral + resize_bilinear(levels[-1], lateral.shape[1:3], axes=(1, 2))
        fused = jax.nn.relu(self.fusion_norm(self.fusion(fused)))
        return levels, self.mask_projection(fused).astype(jnp.float32)


class EncoderLayer(nnx.Module):
    """Deformable self-attention and a feed-forward network, each normalised after its residual."""

    def __init__(self, config: AAVSConfig):
        size, dtype = config.feature_size, config.dtype
        self.attention = AdaptedAttention(size, config.num_heads, config.task, dtype)
        self.attention_norm = LayerNorm(size)
        self.ffn = Mlp(size, config.encoder_ffn, size, kernel_init=XavierUniform(), dtype=dtype)
        self.ffn_norm = LayerNorm(size)

    def __call__(self, x: jax.Array, positions: jax.Array, shapes: Shapes) -> jax.Array:
        """float32 [N,S,C] -> the same; `positions` [S,C]."""
        x = self.attention_norm(x + self.attention(x, positions, shapes))
        return self.ffn_norm(x + self.ffn(x))


class AdaptedAttention(DeformableAttention):
    """Deformable attention with an adapter at its end."""

    def __init__(self, size: int, heads: int, task: str, dtype: str):
        super().__init__(size, heads, dtype)
        self.task = task
        self.adapter = Adapter(size, dtype)

    def __call__(self, x: jax.Array, positions: jax.Array, shapes: Shapes) -> jax.Array:
        """As `DeformableAttention`."""
        sampled = self.sampled(x, positions, shapes)
        return attention_output(sampled, self.output, self.adapter, self.task)


def _flatten(x: jax.Array) -> jax.Array:
    """[N,h,w,C] -> [N,h w,C]."""
    return x.reshape(x.shape[0], -1, x.shape[-1])
