"""TPAVI (Zhou et al., ECCV 2022): how the parts join. Read this file first.

    frames --> backbone --> neck --> TPAVI of each stage --> decoder --> head --> logits
    sound --> audio encoder --------------^

The seconds of a clip see and hear each other in TPAVI, temporal pixel-wise audio-visual
interaction: every pixel asks the sounds of its window, and gets of what is seen with them. The
numbers and shapes are those of the published code, its turns included: see `ResidualUnit`.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from aavs_jax.methods.parts.aligned import resize_aligned
from aavs_jax.methods.parts.batch_norm import BatchNorm
from aavs_jax.methods.parts.convolution import Convolution, as_torch
from aavs_jax.methods.parts.frames import normalised
from aavs_jax.methods.parts.initializers import FanInUniform, Normal, Zeros
from aavs_jax.methods.parts.layers import Conv, Dense, LayerNorm, resize_bilinear
from aavs_jax.methods.parts.pvt import PVT
from aavs_jax.methods.parts.resnet import ResNet
from aavs_jax.methods.parts.vggish import AudioEncoder
from aavs_jax.methods.tpavi.config import TPAVIConfig


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Outputs:
    """What the network gives of B clips of T seconds, clip by clip, N = B * T.

    Attributes:
      logits: float32 [N,H,W,1 or K], at the size of the frames.
      seen: what AVM looks at, four float32 [N,h,w,C] at strides 4, 8, 16, 32.
      heard: the sounds as each TPAVI has them, four float32 [N,C].
      taps: what lies between, by name, where it is asked for.
    """

    logits: jax.Array
    seen: list[jax.Array]
    heard: list[jax.Array]
    taps: dict[str, Any] = dataclasses.field(default_factory=dict)


class TPAVI(nnx.Module):
    """Frames and their sounds -> logits of every pixel.

    A new instance holds zeros; `functional.py` draws initial values.
    """

    def __init__(self, config: TPAVIConfig, remat: str | None = None):
        """`remat`: of config.train, for training; None for prediction. No value depends on it."""
        self.config = config
        self.audio_encoder = AudioEncoder(config.audio, config.dtype)
        if config.backbone == "pvt":
            self.backbone = PVT(config.pvt, config.dtype, remat and remat != "none")
        else:
            self.backbone = ResNet(config.resnet, config.dtype)
        size, dtype = config.feature_size, config.dtype
        self.neck = nnx.List([Neck(width, config) for width in config.widths])
        self.interaction = nnx.List([Interaction(config) for _ in config.widths])
        self.decoder = nnx.List(
            [Fusion(size, dtype, first=stage == 3) for stage in range(len(config.widths))]
        )
        self.head = Head(config)

    def __call__(
        self,
        frames: jax.Array,
        audio: jax.Array,
        valid: jax.Array,
        prior_mask: jax.Array | None = None,
        *,
        training: bool = False,
        keys: jax.Array | None = None,
        taps: bool = False,
    ) -> Outputs:
        """Seconds of a clip are seen in windows of `config.window`, the last one maybe shorter.

        Padding is a frame of ImageNet's mean colour without sound, which no frame of its own window
        sees; in training it has part in the statistics of batch norms, as in the public code.

        Args:
          frames: uint8 [B,T,H,W,3], or float, normalised already.
          audio: log-mel examples [B,T,96,64], or their embeddings [B,T,E].
          valid: bool [B,T], False for padding.
          prior_mask: float [B,T,G,G] in [0,1], where it sounds; needed if and only if the config
            has a prior. It is added to every channel of the map that the head reads.
          training: batch norms take the batch's statistics, and move their running ones.
          keys: random keys [B*T], of which drop-path draws. None: deterministic.
          taps: also return what lies between the parts.
        """
        clips, seconds = valid.shape
        exists = valid.reshape(-1, 1, 1, 1).astype(jnp.float32)

        def flat(x: jax.Array) -> jax.Array:
            return x.reshape(-1, *x.shape[2:])

        def by_clip(x: jax.Array) -> jax.Array:
            return x.reshape(clips, seconds, *x.shape[1:])

        embeddings = flat(audio) if audio.ndim == 3 else self.audio_encoder(flat(audio))
        embeddings = embeddings * exists[:, :, 0, 0]
        seen = normalised(flat(frames)) * exists
        if isinstance(self.backbone, PVT):
            maps = self.backbone(seen, keys)
        else:
            maps = self.backbone(seen, training)
        between: dict[str, Any] = {"backbone": maps, "dilated": [], "branch": [], "tpavi": []}

        visual, heard = [], []
        for neck, interaction, x in zip(self.neck, self.interaction, maps, strict=True):
            x = neck(x)
            between["dilated"].append(x)
            z, branch, sound = interaction(
                by_clip(x * exists), by_clip(embeddings), valid, training
            )
            between["branch"].append(flat(branch))
            between["tpavi"].append(flat(z))
            visual.append(flat(z) * exists)
            heard.append(flat(sound))

        paths, x = [], None
        for stage in (3, 2, 1, 0):
            below = visual[stage - 1].shape[1:3] if stage else None
            path = self.decoder[stage](visual[stage], x, below)
            paths.insert(0, path)
            x = path * exists
        if prior_mask is not None:
            # Decided here, as the paper of Stepping Stones only says that prior masks are "fused
            # with the mask feature": added to what the head reads, as in its own network.
            prior = resize_bilinear(flat(prior_mask), x.shape[1:3], axes=(1, 2))
            x = x + prior[..., None] * exists
        size = seen.shape[1:3]
        logits = self.head(x, size) * exists
        outputs = Outputs(logits, [jax.nn.relu(z) for z in visual], heard)
        if taps:
            outputs = dataclasses.replace(outputs, taps=between | {"path": paths})
        return outputs


class Neck(nnx.Module):
    """The sum of dilated 3x3 convolutions of one map."""

    def __init__(self, width: int, config: TPAVIConfig):
        self.convs = nnx.List(
            [
                Convolution(
                    width,
                    config.feature_size,
                    3,
                    kernel_init=Normal(0.01),
                    bias_init=FanInUniform(9 * width),
                    dilation=dilation,
                    dtype=config.dtype,
                )
                for dilation in config.dilations
            ]
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """[N,h,w,width] -> float32 [N,h,w,C]."""
        return sum(conv(x).astype(jnp.float32) for conv in self.convs)


class Interaction(nnx.Module):
    """TPAVI of one stage: what is seen, and what sounds meanwhile (section 3.2 of the paper).

    Each pixel's query is held against the sound of every second in its window; by how well they go
    together it gets what is seen in that second. There is no softmax: a sum over all pixels of the
    window, divided by their number. So the sum over pixels comes first, and no matrix of pixels
    against pixels is ever made.
    """

    def __init__(self, config: TPAVIConfig):
        size, half, sound = config.feature_size, config.feature_size // 2, config.audio
        self.window = config.window
        aligned = as_torch(sound.fully_connected[-1])
        if config.task == "semantic":  # the public code of AVSS has no bias here
            aligned["bias_init"] = None
        self.align = Dense(sound.fully_connected[-1], size, dtype=config.dtype, **aligned)
        self.query = Dense(size, half, dtype=config.dtype, **as_torch(size))
        self.key = Dense(size, half, dtype=config.dtype, **as_torch(size))
        self.value = Dense(size, half, dtype=config.dtype, **as_torch(size))
        self.output = Dense(half, size, dtype=config.dtype, **as_torch(half))
        # Zero at first, so that the module begins as its last norm alone.
        self.branch_norm = BatchNorm(size, scale_init=Zeros())
        self.norm = LayerNorm(size)

    def __call__(
        self, x: jax.Array, embeddings: jax.Array, valid: jax.Array, training: bool
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """What a second's pixels become, what was added to them, and the sound that was asked.

        Args:
          x: float32 [B,T,h,w,C].
          embeddings: [B,T,E].
          valid: bool [B,T]; padding is not seen, but by a window of nothing else.
          training: as `BatchNorm` has it.

        Returns:
          float32 [B,T,h,w,C], [B,T,h,w,C] and [B,T,C].
        """
        sound = self.align(embeddings)
        counts, pixels = self._windows(valid), x.shape[2] * x.shape[3]
        counts |= ~counts.any(2, keepdims=True)
        number = counts.sum(2) * pixels
        value = self.value(x).astype(jnp.float32).sum((2, 3))
        key = self._windows(self.key(sound).astype(jnp.float32))
        told = jnp.einsum("bwtk,bwtc,bwt->bwkc", key, self._windows(value), counts)
        told = told / number[..., None, None]
        told = jnp.repeat(told, self.window, axis=1)[:, : x.shape[1]]  # of each second's window
        query = self.query(x)
        y = jnp.einsum("btyxk,btkc->btyxc", query, told.astype(query.dtype))
        branch = self.branch_norm(self.output(y), training)
        return self.norm(x + branch), branch, sound.astype(jnp.float32)

    def _windows(self, x: jax.Array) -> jax.Array:
        """[B,T,...] -> [B,ceil(T/window),window,...], with zeros behind the last second."""
        short = -x.shape[1] % self.window
        x = jnp.pad(x, ((0, 0), (0, short), *((0, 0),) * (x.ndim - 2)))
        return x.reshape(x.shape[0], -1, self.window, *x.shape[2:])


class Fusion(nnx.Module):
    """A step of the decoder: a stage's map joins what comes from below, at twice the size."""

    def __init__(self, size: int, dtype: str, *, first: bool):
        """`first`: nothing comes from below, so there is nothing to join."""
        self.skip = None if first else ResidualUnit(size, dtype)
        self.output = ResidualUnit(size, dtype)

    def __call__(
        self, visual: jax.Array, x: jax.Array | None, size: tuple[int, int] | None
    ) -> jax.Array:
        """The map that the next step takes.

        Args:
          visual: float32 [N,h,w,C], of TPAVI.
          x: float32 [N,h,w,C], of the step before; None of the first.
          size: of the result; None: twice that of the map. They are the same where 32 divides the
            frames' size.

        Returns:
          float32 [N,h',w',C].
        """
        x = visual if x is None else x + self.skip(visual)
        size = size or (2 * x.shape[1], 2 * x.shape[2])
        return resize_aligned(self.output(x), size, axes=(1, 2))


class ResidualUnit(nnx.Module):
    """Two convolutions around which goes relu(x), not x.

    In the public code the first ReLU overwrites its input. So the shortcut carries what it left,
    and AVM, which looks at the same maps, sees that, too (`Outputs.seen`).
    """

    def __init__(self, size: int, dtype: str):
        self.first = Conv(size, size, dtype=dtype, **as_torch(size, 3))
        self.second = Conv(size, size, dtype=dtype, **as_torch(size, 3))

    def __call__(self, x: jax.Array) -> jax.Array:
        """float32 [N,h,w,C] -> the same."""
        x = jax.nn.relu(x)
        return x + self.second(jax.nn.relu(self.first(x))).astype(jnp.float32)


class Head(nnx.Module):
    """From the decoder's map at stride 2 to logits at the frames' size."""

    def __init__(self, config: TPAVIConfig):
        size, (wide, narrow), dtype = config.feature_size, config.head, config.dtype
        self.first = Conv(size, wide, dtype=dtype, **as_torch(size, 3))
        self.second = Conv(wide, narrow, dtype=dtype, **as_torch(wide, 3))
        self.output = Dense(narrow, config.logits, dtype=dtype, **as_torch(narrow))

    def __call__(self, x: jax.Array, size: tuple[int, int]) -> jax.Array:
        """[N,h,w,C] -> float32 [N,H,W,1 or K], `size` being (H, W)."""
        x = resize_bilinear(self.first(x), size, axes=(1, 2))
        return self.output(jax.nn.relu(self.second(x))).astype(jnp.float32)
