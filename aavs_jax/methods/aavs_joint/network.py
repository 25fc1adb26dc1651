"""Stepping Stones as one network: the part that says where it sounds tells the one that says what.

It tells its mask, as shades, in place of a prior mask; or what its queries hold; or both.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from aavs_jax.methods.aavs.network import AAVS
from aavs_jax.methods.aavs_joint.config import JointConfig
from aavs_jax.methods.objectives.mask_classification import class_scores
from aavs_jax.methods.parts.initializers import Zeros
from aavs_jax.methods.parts.layers import Dense

SHARED = ("backbone", "pixel_decoder", "audio_encoder")


class AAVSJoint(nnx.Module):
    """Two AAVS, of which the first tells the second; gradients pass between them."""

    def __init__(self, config: JointConfig, remat: str | None = None):
        """Arguments as those of AAVS."""
        self.shared, self.tells = config.shared, config.tells
        self.localise = AAVS(config.localise, remat)
        self.understand = AAVS(config.understand, remat)
        if config.shared:
            for part in SHARED:
                setattr(self.understand, part, getattr(self.localise, part))
            # Zero, so that the second network begins with its own queries.
            size = config.feature_size
            self.feed = Dense(size, size, kernel_init=Zeros(), dtype=config.dtype)

    def __call__(
        self,
        frames: jax.Array,
        audio: jax.Array,
        label_size: tuple[int, int],
        *,
        keys: jax.Array | None = None,
    ) -> dict[str, dict[str, Any]]:
        """What each network says of frames and their sounds.

        Args:
          frames: uint8 [N,H,W,3]; or of fewer frames, each of several sounds, see AAVS.
          audio: [N,96,64] or [N,E].
          label_size: height and width of the mask between the networks, as that of a hand-over;
            not used where none is told.
          keys: random keys, one for each frame, of which drop-path draws. None: deterministic.

        Returns:
          'localise' and 'understand': outputs as AAVS has them.
        """
        seen = self.localise.see(frames, keys)
        heard = audio if audio.ndim == 2 else self.localise.audio_encoder(audio)
        where = self.localise(seen, heard)
        told, content = None, None
        if self.tells:
            scores = class_scores(
                where["class_logits"][-1], where["mask_logits"][-1], frames.shape[1:3], label_size
            )
            silent, sounding = scores[..., 0], scores[..., 1]
            told = sounding / jnp.maximum(silent + sounding, 1e-6)
        if self.shared:
            certain = jax.nn.softmax(where["class_logits"][-1])[..., 1]
            shares = certain / jnp.maximum(certain.sum(-1, keepdims=True), 1e-6)
            content = self.feed(jnp.einsum("nq,nqc->nc", shares, where["queries"]))
        else:
            heard = audio if audio.ndim == 2 else self.understand.audio_encoder(audio)
            seen = self.understand.see(frames, keys)
        what = self.understand(seen, heard, told, content=content)
        return {"localise": where, "understand": what}
