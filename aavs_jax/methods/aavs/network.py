"""AAVS, the network of Stepping Stones (ECCV 2024): how the parts join. Read this file first.

    frames --> backbone --> pixel decoder --> levels, mask features --+
                                                                      +--> decoder --> predictions
    sound --> audio encoder --> audio MLP ----------------------------+

The pixels never hear: sound enters as the content of the queries, and the decoder's queries find in
the frame what matches. The semantic network is also told by a prior mask where it sounds.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from aavs_jax.methods.aavs.config import AAVSConfig
from aavs_jax.methods.aavs.pixel_decoder import PixelDecoder
from aavs_jax.methods.aavs.transformer_decoder import Decoder
from aavs_jax.methods.functional import functional
from aavs_jax.methods.parts.frames import normalised
from aavs_jax.methods.parts.initializers import FanInUniform
from aavs_jax.methods.parts.layers import Dense, resize_bilinear
from aavs_jax.methods.parts.swin import Swin
from aavs_jax.methods.parts.vggish import AudioEncoder


class Seen(NamedTuple):
    """What a network sees in frames before it hears anything."""

    maps: list[jax.Array]  # [N,h,w,.] of the backbone, strides 4, 8, 16, 32
    levels: list[jax.Array]  # [N,h,w,C] of the pixel decoder, strides 32, 16, 8
    mask_features: jax.Array  # [N,h,w,C], stride 4


class AAVS(nnx.Module):
    """Frames and their sound -> Q class distributions and Q masks for each frame.

    A new instance holds zeros; `functional.py` draws initial values.
    """

    def __init__(self, config: AAVSConfig, remat: str | None = None):
        """The same values come of any `remat`.

        Args:
          config: its sizes.
          remat: of config.train, for training: layers of one shape are then the body of a loop,
            which halves what there is to compile. None: straight code, which spares predictions
            copies of the layers' parameters.
        """
        self.config = config
        self.audio_encoder = AudioEncoder(config.audio, config.dtype)
        self.audio_proj = AudioProjection(config)
        self.backbone = Swin(config.backbone, config.dtype, remat and remat != "none")
        self.pixel_decoder = PixelDecoder(config, remat and remat == "everything")
        self.decoder = Decoder(config, remat and remat == "everything")

    def __call__(
        self,
        frames: jax.Array | Sequence[jax.Array] | Seen,
        audio: jax.Array,
        prior_mask: jax.Array | None = None,
        *,
        keys: jax.Array | None = None,
        content: jax.Array | None = None,
        taps: bool = False,
    ) -> dict[str, Any]:
        """One prediction for each sound and the frame it belongs to.

        Args:
          frames: uint8 [N,H,W,3], or float, normalised already; or the backbone's maps of them, or
            what `see` gives. Of fewer frames, N / R of them, each belongs to R sounds that follow
            one another.
          audio: log-mel examples [N,96,64], one per frame (of two channels [N,96,64,2]), or their
            embeddings [N,E].
          prior_mask: float [N,G,G'] in [0,1], any size: where it sounds. Needed if and only if the
            configuration has a prior.
          keys: random keys, one for each frame, of which drop-path draws. None: deterministic.
          content: [N,C], what another network adds to every query.
          taps: also return what lies between the parts.

        Returns:
          class_logits float32 [D,N,Q,K+1], last class "no object"; mask_logits float32 [D,N,Q,h,w]
          at stride 4. D predictions, one before each decoder layer and the output, which is last.
          queries float32 [N,Q,C], those of the output.
          With taps also backbone (strides 4, 8, 16, 32), multi_scale (32, 16, 8) and mask_features
          (4, before the prior is added), all float32 [N,h,w,.].

        Raises:
          ValueError: if the prior mask is missing, or given to a network that has no use for it.
        """
        if (prior_mask is not None) != self.config.prior:
            raise ValueError(
                "this network needs a prior mask (config.prior is True)"
                if self.config.prior
                else "this network takes no prior mask (config.prior is False)"
            )
        embeddings = audio if audio.ndim == 2 else self.audio_encoder(audio)
        maps, levels, mask_features = frames if isinstance(frames, Seen) else self.see(frames, keys)
        if (sounds := audio.shape[0] // mask_features.shape[0]) > 1:
            levels = [jnp.repeat(level, sounds, axis=0) for level in levels]
            mask_features = jnp.repeat(mask_features, sounds, axis=0)
        fused = mask_features
        if prior_mask is not None:
            prior_mask = prior_mask.astype(jnp.float32)
            prior = resize_bilinear(prior_mask, mask_features.shape[1:3], axes=(1, 2))
            fused = mask_features + prior[..., None]
        class_logits, mask_logits, queries = self.decoder(
            levels, fused, self.audio_proj(embeddings), prior_mask, content
        )

        outputs = {"class_logits": class_logits, "mask_logits": mask_logits, "queries": queries}
        if taps:
            outputs |= {"backbone": maps, "multi_scale": levels, "mask_features": mask_features}
        return outputs

    def see(self, frames: jax.Array | Sequence[jax.Array], keys: jax.Array | None = None) -> Seen:
        """What is seen of frames, or of the backbone's maps of them; arguments as above."""
        maps = frames if isinstance(frames, list | tuple) else self.look(frames, keys)
        return Seen(maps, *self.pixel_decoder(maps))

    def look(self, frames: jax.Array, keys: jax.Array | None = None) -> list[jax.Array]:
        """The backbone's maps at strides 4, 8, 16, 32; arguments as above."""
        return self.backbone(normalised(frames), keys=keys)


class AudioProjection(nnx.Module):
    """The audio MLP: from the audio embedding to the width of the queries."""

    def __init__(self, config: AAVSConfig):
        inputs, hidden = config.audio.fully_connected[-1], config.audio_hidden

        def layer(size: int, outputs: int) -> Dense:
            fan_in = FanInUniform(size)
            return Dense(size, outputs, kernel_init=fan_in, bias_init=fan_in, dtype=config.dtype)

        self.hidden = layer(inputs, hidden)
        self.output = layer(hidden, config.feature_size)

    def __call__(self, embeddings: jax.Array) -> jax.Array:
        """[N,E] -> [N,C]."""
        return self.output(jax.nn.relu(self.hidden(embeddings)))


def abstract_model(config: AAVSConfig) -> AAVS:
    """The network with shapes in place of values: its structure, without its memory."""
    return functional(AAVS, config).model
