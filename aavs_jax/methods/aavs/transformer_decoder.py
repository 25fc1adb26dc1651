"""The masked-attention decoder of Mask2Former (CVPR 2022) with AAVS's audio queries.

And for the semantic network what AAVS adds to it: audio-aware keys and the prior as first mask.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from aavs_jax.methods.aavs.config import AAVSConfig
from aavs_jax.methods.parts.adapters import Adapter, attention_output
from aavs_jax.methods.parts.deformable_attention import LEVELS
from aavs_jax.methods.parts.initializers import Normal, XavierUniform
from aavs_jax.methods.parts.layers import (
    Dense,
    LayerNorm,
    Mlp,
    parameter,
    resize_bilinear,
    sine_positions,
)
from aavs_jax.methods.parts.scanned import scanned

# A prior at most / at least this is taken at its word; in the middle it says nothing.
SILENT, MIDDLE, SOUNDING = 0.4, 0.5, 0.6


class Decoder(nnx.Module):
    """Queries that gather from the frame what they think they mask, layer by layer."""

    def __init__(self, config: AAVSConfig, remat: bool | None = None):
        """`remat`: whether rounds of layers keep their inputs only, and compute the rest again;
        None: nothing is differentiated.
        """
        self.remat = remat
        self.prior_keys = config.prior_keys
        size, dtype = config.feature_size, config.dtype
        self.query_features = parameter((config.num_queries, size), Normal())
        self.query_positions = parameter((config.num_queries, size), Normal())
        self.level_embed = parameter((LEVELS, size), Normal(1.0))
        key_embed = (lambda: parameter((size,), Normal())) if config.prior else (lambda: None)
        self.silent_embed = key_embed()
        self.sounding_embed = key_embed()
        self.uncertain_embed = key_embed()
        self.layers = nnx.List([DecoderLayer(config) for _ in range(config.decoder_layers)])
        self.norm = LayerNorm(size)
        self.class_predictor = Dense(size, config.num_classes + 1, kernel_init=Normal())
        self.mask_embedder = nnx.List(
            [Dense(size, size, kernel_init=XavierUniform(), dtype=dtype) for _ in range(3)]
        )

    def __call__(
        self,
        levels: list[jax.Array],
        mask_features: jax.Array,
        audio: jax.Array,
        prior_mask: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """Decodes.

        Args:
          levels: [N,h,w,C] at strides 32, 16, 8.
          mask_features: [N,h,w,C] at stride 4.
          audio: [N,C], the projected audio embeddings.
          prior_mask: float32 [N,G,G'] in [0,1] where the configuration has a prior.

        Returns:
          float32 class logits [D,N,Q,K+1] and mask logits [D,N,Q,h,w], first the prediction made
          before layer 0, last the output.
        """
        positions = self.query_positions[...]
        x = self.audio_queries(audio)
        values = [
            _flatten(level) + embed
            for level, embed in zip(levels, self.level_embed[...], strict=True)
        ]
        keys = [
            value + self._key_positions(level.shape[1:3], prior_mask)
            for value, level in zip(values, levels, strict=True)
        ]

        def predict(x):
            queries = self.norm(x)
            return queries, self._mask_logits(queries, mask_features)

        def attend(layers, state):
            """Layers that look at the levels in turn, each where the mask before it says."""
            x, blocked = state
            predictions = []
            for index, layer in enumerate(layers):
                x = layer(x, positions, keys[index], values[index], blocked)
                predictions.append(predict(x))
                following = levels[(index + 1) % LEVELS].shape[1:3]
                blocked = _outside(predictions[-1][1], following)
            return (x, blocked), _stacked(predictions)

        predictions = [_stacked([predict(x)])]
        shape = levels[0].shape[1:3]
        if prior_mask is None:
            blocked = _outside(predictions[0][1][0], shape)
        else:
            blocked = _blocked(resize_bilinear(prior_mask, shape, axes=(1, 2))[:, None])
            blocked = jnp.broadcast_to(blocked, (*x.shape[:2], blocked.shape[2]))
        state, rest = (x, blocked), list(self.layers)
        if self.remat or (self.remat is not None and len(rest) > LEVELS):
            whole = len(rest) // LEVELS * LEVELS
            rounds = [nnx.List(rest[start : start + LEVELS]) for start in range(0, whole, LEVELS)]
            rest = rest[whole:]
            state, found = scanned(rounds, state, attend, remat=self.remat)
            predictions.append(jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), found))
        while rest:
            state, found = attend(rest[:LEVELS], state)
            predictions.append(found)
            rest = rest[LEVELS:]
        queries, masks = jax.tree.map(lambda *arrays: jnp.concatenate(arrays), *predictions)
        return self.class_predictor(queries), masks

    def audio_queries(self, audio: jax.Array) -> jax.Array:
        """Adaptive audio queries: [N,C] -> [N,Q,C] (Stepping Stones, audio query generator).

        Every query takes in as much of the frame's audio as its position embedding resembles it.
        """
        audio = audio.astype(jnp.float32)
        similarity = jnp.einsum("nc,qc->nq", _unit(audio), _unit(self.query_positions[...]))
        return self.query_features[...] + similarity[:, :, None] * audio[:, None, :]

    def _key_positions(self, shape: tuple[int, int], prior_mask: jax.Array | None) -> jax.Array:
        """Sine positions of one level's keys, made audio-aware by the prior: [N or 1,h w,C]."""
        positions = sine_positions(*shape, self.level_embed.shape[-1])[None]
        if prior_mask is not None:
            prior = resize_bilinear(prior_mask, shape, axes=(1, 2))[..., None]
            silent, sounding, uncertain = (
                self.silent_embed[...],
                self.sounding_embed[...],
                self.uncertain_embed[...],
            )
            if self.prior_keys == "linear":
                toward_silent = jnp.clip((MIDDLE - prior) / (MIDDLE - SILENT), 0, 1)
                toward_sounding = jnp.clip((prior - MIDDLE) / (SOUNDING - MIDDLE), 0, 1)
                between = 1 - toward_silent - toward_sounding
                told = toward_silent * silent + toward_sounding * sounding + between * uncertain
            else:
                told = jnp.where(prior >= SOUNDING, sounding, uncertain)
                told = jnp.where(prior <= SILENT, silent, told)
            positions = positions + told
        return _flatten(positions)

    def _mask_logits(self, queries: jax.Array, mask_features: jax.Array) -> jax.Array:
        """[N,Q,C], [N,h,w,C] -> float32 [N,Q,h,w]."""
        first, second, last = self.mask_embedder
        embedding = last(jax.nn.relu(second(jax.nn.relu(first(queries)))))
        return jnp.einsum(
            "nqc,nhwc->nqhw",
            embedding,
            mask_features.astype(embedding.dtype),
            preferred_element_type=jnp.float32,
        )


class DecoderLayer(nnx.Module):
    """Masked cross-attention, self-attention among queries, feed-forward network."""

    def __init__(self, config: AAVSConfig):
        size, dtype = config.feature_size, config.dtype
        self.task = config.task
        self.cross_attention = Attention(size, config.num_heads, dtype)
        self.cross_norm = LayerNorm(size)
        self.self_attention = Attention(size, config.num_heads, dtype)
        self.adapter = Adapter(size, dtype)
        self.self_norm = LayerNorm(size)
        self.ffn = Mlp(size, config.decoder_ffn, size, kernel_init=XavierUniform(), dtype=dtype)
        self.ffn_norm = LayerNorm(size)

    def __call__(
        self,
        x: jax.Array,
        positions: jax.Array,
        keys: jax.Array,
        values: jax.Array,
        blocked: jax.Array,
    ) -> jax.Array:
        """float32 [N,Q,C] -> the same.

        Args:
          x: [N,Q,C].
          positions: [Q,C], added to x wherever it asks or is compared with, never to values.
          keys: [N,S,C] of this layer's level.
          values: [N,S,C].
          blocked: bool [N,Q or 1,S], pixels a query may not look at.
        """
        cross = self.cross_attention
        x = self.cross_norm(x + cross.output(cross(x + positions, keys, values, blocked)))
        own = self.self_attention
        attended = own(x + positions, x + positions, x)
        attended = attention_output(attended, own.output, self.adapter, self.task)
        x = self.self_norm(x + attended)
        return self.ffn_norm(x + self.ffn(x))


class Attention(nnx.Module):
    """Multi-head attention up to its output projection, which the caller applies or replaces."""

    def __init__(self, size: int, heads: int, dtype: str):
        self.heads = heads
        self.query = Dense(size, size, kernel_init=XavierUniform(), dtype=dtype)
        self.key = Dense(size, size, kernel_init=XavierUniform(), dtype=dtype)
        self.value = Dense(size, size, kernel_init=XavierUniform(), dtype=dtype)
        self.output = Dense(size, size, kernel_init=XavierUniform(), dtype=dtype)

    def __call__(
        self,
        queries: jax.Array,
        keys: jax.Array,
        values: jax.Array,
        blocked: jax.Array | None = None,
    ) -> jax.Array:
        """[N,Q,C], [N,S,C], [N,S,C] -> [N,Q,C]; `blocked` bool [N,Q or 1,S]."""

        def per_head(x: jax.Array) -> jax.Array:
            return x.reshape(*x.shape[:2], self.heads, -1)

        query, key = per_head(self.query(queries)), per_head(self.key(keys))
        value = per_head(self.value(values))
        scores = jnp.einsum("nqhd,nshd->nhqs", query, key, preferred_element_type=jnp.float32)
        scores = scores * query.shape[-1] ** -0.5
        if blocked is not None:
            scores = jnp.where(blocked[:, None], jnp.finfo(jnp.float32).min, scores)
        weights = jax.nn.softmax(scores).astype(value.dtype)
        return jnp.einsum("nhqs,nshd->nqhd", weights, value).reshape(queries.shape)


def _blocked(probability: jax.Array) -> jax.Array:
    """[N,Q or 1,h,w] -> bool [N,Q or 1,h w]; a query blocked everywhere is free everywhere."""
    blocked = probability.reshape(*probability.shape[:2], -1) < 0.5
    return blocked & ~blocked.all(-1, keepdims=True)


def _outside(mask_logits: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """Where masks [N,Q,h,w] are not, at another size: bool [N,Q,.]; no gradient passes."""
    resized = resize_bilinear(jax.lax.stop_gradient(mask_logits), shape, axes=(2, 3))
    return _blocked(jax.nn.sigmoid(resized))


def _stacked(predictions: list[tuple[jax.Array, ...]]) -> tuple[jax.Array, ...]:
    return tuple(jnp.stack(arrays) for arrays in zip(*predictions, strict=True))


def _unit(x: jax.Array) -> jax.Array:
    # Floored under the root, so that a vector of zeros has a gradient, too.
    return x * jax.lax.rsqrt(jnp.maximum(jnp.square(x).sum(-1, keepdims=True), 1e-16))


def _flatten(x: jax.Array) -> jax.Array:
    """[N,h,w,C] -> [N,h w,C]."""
    return x.reshape(x.shape[0], -1, x.shape[-1])
