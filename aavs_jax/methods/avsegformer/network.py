"""AVSegFormer (AAAI 2024): how the parts join. Read this file first.

    frames --> backbone --> encoder ------------+--> mask feature --> mixer --+
                               |                                     ^        +--> prediction
    sound --> audio encoder ---|-----------------+-------------------+        |
                               v                 v                            |
                            decoder <--- query generator                      |
                               +--> queries ----------------------------------+

Sound enters twice: it makes the queries, and in the mixer it opens and closes channels of the mask
feature. Every frame is handled by itself. It is the network of the public code since August 2023.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from aavs_jax.methods.avsegformer.attention import DecoderLayer, split_keys, through, xavier
from aavs_jax.methods.avsegformer.config import GROUPS, AVSegFormerConfig
from aavs_jax.methods.avsegformer.encoder import Encoder, finest
from aavs_jax.methods.avsegformer.head import Head, Mixer, conv
from aavs_jax.methods.parts.convolution import as_torch
from aavs_jax.methods.parts.frames import normalised
from aavs_jax.methods.parts.initializers import XavierUniform
from aavs_jax.methods.parts.layers import Dense, GroupNorm, parameter, resize_bilinear
from aavs_jax.methods.parts.pvt import PVT
from aavs_jax.methods.parts.resnet import ResNet
from aavs_jax.methods.parts.vggish import AudioEncoder


class AVSegFormer(nnx.Module):
    """Frames and their sound -> logits for each frame.

    A new instance holds zeros; `functional.py` draws initial values.
    """

    def __init__(self, config: AVSegFormerConfig, remat: str | None = None):
        """The same values come of any `remat`: of config.train, for training; None: for prediction,
        whose layers are straight code.
        """
        self.config = config
        size, dtype = config.feature_size, config.dtype
        embedding = config.audio.fully_connected[-1]
        self.audio_encoder = AudioEncoder(config.audio, dtype)
        self.audio_proj = Dense(embedding, size, **as_torch(embedding), dtype=dtype)
        if config.backbone == "pvt":
            self.backbone = PVT(config.pvt, dtype, remat and remat != "none")
        else:
            self.backbone = ResNet(config.resnet, dtype)
        self.input_projections = nnx.List([xavier(width, size, dtype) for width in config.widths])
        self.input_norms = nnx.List([GroupNorm(size, GROUPS) for _ in config.widths])
        again = remat and remat == "everything"
        self.encoder = Encoder(config, again)
        self.query_generator = QueryGenerator(config, again)
        self.decoder_queries = parameter((config.num_queries, size), XavierUniform())
        self.decoder = Decoder(config, again)
        self.lateral = xavier(size, size, dtype)
        self.lateral_norm = GroupNorm(size, GROUPS)
        self.fusion = conv(size, size, dtype)
        self.fusion_norm = GroupNorm(size, GROUPS)
        self.mixer = Mixer(size, dtype)
        self.head = Head(config)

    def __call__(
        self,
        frames: jax.Array,
        audio: jax.Array,
        prior_mask: jax.Array | None = None,
        *,
        valid: jax.Array | None = None,
        training: bool = False,
        keys: jax.Array | None = None,
        taps: bool = False,
    ) -> dict[str, Any]:
        """One prediction for each frame.

        Args:
          frames: uint8 [N,H,W,3], or float, normalised already.
          audio: log-mel examples [N,96,64], one per frame (of two channels [N,96,64,2]), or their
            embeddings [N,E].
          prior_mask: float [N,G,G'] in [0,1], any size: where it sounds. Needed if and only if the
            configuration has a prior. [N,V,G,G']: V of them for each frame, which then has V
            predictions, one after the other.
          valid: bool or float [N]: of other frames, which are padding, frame, maps and what is
            returned are zeros, as the public code has it for clips of AVSS. None: all are.
          training: whether a ResNet's batch norms take, and keep, the batch's statistics.
          keys: random keys, one for each frame, of which dropout and drop-path draw. None:
            deterministic.
          taps: also return what lies between the parts.

        Returns:
          logits float32 [N,4h,4w,1 or K] and mask_feature float32 [N,h,w,C] at stride 4: what the
          mixer gives, before a prior is added. With taps lists of all layers' results, too, of the
          names below.

        Raises:
          ValueError: if the prior mask is missing, or given to a network that has no use for it.
        """
        if (prior_mask is not None) != self.config.prior:
            raise ValueError(
                "this network needs a prior mask (config.prior is True)"
                if self.config.prior
                else "this network takes no prior mask (config.prior is False)"
            )
        of_backbone, of_encoder, of_decoder = split_keys(keys, 3)
        embeddings = audio if audio.ndim == 2 else self.audio_encoder(audio)
        heard = self.audio_proj(embeddings)[:, None]

        seen = self._look(_kept(normalised(frames), valid), training, of_backbone)
        maps = [_kept(x, valid) for x in seen]
        projected = [
            norm(projection(x))
            for norm, projection, x in zip(
                self.input_norms, self.input_projections, maps, strict=True
            )
        ]
        encoded, shapes = self.encoder(projected[1:], of_encoder)
        generated = self.query_generator(heard)
        decoded = self.decoder(generated[-1] + self.decoder_queries[...], encoded[-1], of_decoder)

        lateral = self.lateral_norm(self.lateral(projected[0]))
        fused = lateral + resize_bilinear(
            finest(encoded[-1], shapes), lateral.shape[1:3], axes=(1, 2)
        )
        unmixed = jax.nn.relu(self.fusion_norm(self.fusion(fused)))
        gate = self.mixer(heard[:, 0], unmixed)
        mask_feature = gate[:, None, None] * unmixed

        told, queries, counts = mask_feature, decoded[-1], valid
        if prior_mask is not None:
            if prior_mask.ndim == 4:
                views = prior_mask.shape[1]
                prior_mask = prior_mask.reshape(-1, *prior_mask.shape[2:])
                told, queries = jnp.repeat(told, views, 0), jnp.repeat(queries, views, 0)
                counts = None if valid is None else jnp.repeat(valid, views)
            prior = resize_bilinear(prior_mask, told.shape[1:3], axes=(1, 2))
            told = told + _kept(prior, counts)[..., None]
        answer = self.head.features(queries, told)
        outputs = {
            "logits": _kept(self.head.logits(answer + told), counts),
            "mask_feature": _kept(mask_feature, valid),
        }
        if taps:
            outputs |= {
                "backbone": seen,
                "projected": projected,
                "encoder": encoded,
                "query_generator": generated,
                "decoder_input": generated[-1] + self.decoder_queries[...],
                "decoder": decoded,
                "lateral": lateral,
                "mask_feature_unmixed": unmixed,
                "gate": gate,
                "pred_feature": answer,
            }
        return outputs

    def _look(self, frames: jax.Array, training: bool, keys: jax.Array | None) -> list[jax.Array]:
        """The backbone's maps at strides 4, 8, 16, 32."""
        if self.config.backbone == "pvt":
            return self.backbone(frames, keys)
        return self.backbone(frames, training)


class QueryGenerator(nnx.Module):
    """Learned queries, the same for every frame, that take in its sound.

    With a single token to look at, attention adds the same vector to every query.
    """

    def __init__(self, config: AVSegFormerConfig, remat: bool | None = None):
        self.remat = remat
        size = config.feature_size
        self.query = parameter((config.num_queries, size), XavierUniform())
        options = {"bias": False, "dropout": 0.0, "dtype": config.dtype}
        self.layers = nnx.List(
            [
                DecoderLayer(size, config.num_heads, config.generator_ffn, **options)
                for _ in range(config.generator_layers)
            ]
        )

    def __call__(self, heard: jax.Array) -> list[jax.Array]:
        """The audio tokens [N,1,C] -> what the layers give, float32 [N,Q,C], see `through`."""
        x = jnp.broadcast_to(self.query[...], (heard.shape[0], *self.query.shape))
        return through(self.layers, x, lambda layer, x, _: layer(x, heard), None, self.remat)


class Decoder(nnx.Module):
    """Queries look at each other and at the encoder's tokens."""

    def __init__(self, config: AVSegFormerConfig, remat: bool | None = None):
        self.remat = remat
        options = {"bias": True, "dropout": config.dropout, "dtype": config.dtype}
        self.layers = nnx.List(
            [
                DecoderLayer(config.feature_size, config.num_heads, config.decoder_ffn, **options)
                for _ in range(config.decoder_layers)
            ]
        )

    def __call__(
        self, queries: jax.Array, tokens: jax.Array, keys: jax.Array | None = None
    ) -> list[jax.Array]:
        """[N,Q,C], the encoder's tokens [N,S,C] -> what the layers give, see `through`."""

        def apply(layer, x, keys):
            return layer(x, tokens, keys)

        return through(self.layers, queries, apply, keys, self.remat)


def _kept(x: jax.Array, valid: jax.Array | None) -> jax.Array:
    """[N,...] with zeros for what is not valid [N]."""
    if valid is None:
        return x
    return x * valid.astype(x.dtype).reshape(-1, *(1,) * (x.ndim - 1))
