"""CAVP (Chen et al., CVPR 2024): how the parts join. Read this file first.

    frames --> ResNet --> ASPP ----+--> projector --> fusion --> head --> logits
                 |---> reduction --+                    |
    sound --> sound encoder ----------------------------+

Every pixel asks the one sound vector of its picture by itself. `look` and `prepare` know nothing of
the sound, so that a picture under two sounds goes through them once; `hear` knows nothing of it.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from aavs_jax.methods.cavp.config import HEADS, CAVPConfig
from aavs_jax.methods.parts.aligned import resize_aligned
from aavs_jax.methods.parts.batch_norm import BatchNorm
from aavs_jax.methods.parts.convolution import Convolution, as_torch
from aavs_jax.methods.parts.frames import normalised
from aavs_jax.methods.parts.initializers import FanInUniform
from aavs_jax.methods.parts.layers import Dense, LayerNorm, gelu, wide
from aavs_jax.methods.parts.resnet import ResNet
from aavs_jax.methods.parts.vggish import AudioEncoder

ATROUS = (6, 12, 18)  # dilations of ASPP's 3x3 branches
LEAK = 0.01  # slope of leaky ReLU below zero


class Asked(NamedTuple):
    """What pixels bring to the fusion: float [N,h w,D] and [N,h w,heads,D/heads]."""

    pixels: jax.Array
    queries: jax.Array


class CAVP(nnx.Module):
    """Frames and their sound -> logits of K classes at stride 4.

    A new instance holds zeros; `functional.py` draws initial values.
    """

    def __init__(self, config: CAVPConfig):
        dtype, low = config.dtype, config.resnet.widths[0]
        self.config = config
        self.audio_encoder = sound_encoder(config)
        self.backbone = ResNet(config.resnet, dtype)
        self.aspp = ASPP(config)
        self.reduction = _convolution(low, config.low_level, 1, dtype)
        self.reduction_norm = BatchNorm(config.low_level)
        self.projector = Mlp(config.width, config.projector, dtype)
        self.fusion = Fusion(config.width, dtype)
        self.head = Head(config)

    def __call__(self, frames: jax.Array, sounds: jax.Array, training: bool) -> jax.Array:
        """One prediction for each frame and its sound.

        Args:
          frames: uint8 [N,H,W,3], or float, normalised already.
          sounds: rows of `PowerMel` [N,F,64], or of two channels [N,F,64,2].
          training: batch norms take the batch's statistics, and move their running ones.

        Returns:
          float32 [N,h,w,K], h and w a quarter of H and W.
        """
        seen = self.look(frames, training)
        fused = self.fusion(self.prepare(seen), self.hear(sounds, training))
        return self.head(fused.reshape(seen.shape), training)

    def look(self, frames: jax.Array, training: bool) -> jax.Array:
        """[N,H,W,3] as above -> what is seen, [N,h,w,D] at stride 4."""
        maps = self.backbone(normalised(frames), training)
        low = jax.nn.relu(self.reduction_norm(self.reduction(maps[0]), training))
        high = resize_aligned(self.aspp(maps[-1], training), low.shape[1:3], axes=(1, 2))
        return jnp.concatenate([high, low], axis=-1)

    def hear(self, sounds: jax.Array, training: bool) -> jax.Array:
        """Rows of the front end [N,F,64] or [N,F,64,2] -> [N,D]."""
        if isinstance(self.audio_encoder, AudioEncoder):
            return self.audio_encoder(sounds)
        return self.audio_encoder(sounds, training)

    def prepare(self, seen: jax.Array) -> Asked:
        """What is seen [N,h,w,D], as the fusion takes it."""
        pixels = seen.reshape(seen.shape[0], -1, seen.shape[-1])
        return self.fusion.ask(self.projector(pixels))


def sound_encoder(config: CAVPConfig) -> nnx.Module:
    """The encoder of 1 s, of VGGish's shape, or of 3 s, a ResNet; its output is D wide."""
    if config.heard == 1:
        widths = (*config.audio.fully_connected, config.width)
        return AudioEncoder(dataclasses.replace(config.audio, fully_connected=widths), config.dtype)
    return SoundResNet(config)


class SoundResNet(nnx.Module):
    """A ResNet over time and bands, the greatest of each channel, and a linear layer."""

    def __init__(self, config: CAVPConfig):
        self.channels = config.audio.channels
        sizes = dataclasses.replace(config.sound_resnet, input_channels=self.channels)
        self.resnet = ResNet(sizes, config.dtype)
        self.output = _linear(sizes.widths[-1], config.width, config.dtype)

    def __call__(self, sounds: jax.Array, training: bool) -> jax.Array:
        """[N,F,64] or, of two channels, [N,F,64,2] -> [N,D]."""
        x = sounds if self.channels == 2 else sounds[..., None]
        x = self.resnet(x, training)[-1]
        x = x.reshape(x.shape[0], -1, x.shape[-1])
        # By its place, not by `max`, whose gradient compares: where XLA computes x a second time,
        # rounded otherwise, nothing is the greatest, and the gradient is infinite.
        greatest = jnp.take_along_axis(x, x.argmax(1, keepdims=True), axis=1)[:, 0]
        return self.output(greatest)


class ASPP(nnx.Module):
    """Atrous spatial pyramid pooling: a point, three dilations, and the mean of the picture."""

    def __init__(self, config: CAVPConfig):
        inputs, dtype = config.resnet.widths[-1], config.dtype
        hidden, outputs = config.aspp_width, config.aspp_outputs
        self.branches = nnx.List([_convolution(inputs, hidden, 1, dtype)])
        for dilation in ATROUS:
            self.branches.append(_convolution(inputs, hidden, 3, dtype, dilation))
        self.branches_norm = BatchNorm(4 * hidden)
        self.reduction = _convolution(4 * hidden, outputs, 1, dtype)
        self.mean = _convolution(inputs, hidden, 1, dtype)
        self.mean_norm = BatchNorm(hidden)
        self.mean_reduction = _convolution(hidden, outputs, 1, dtype)
        self.norm = BatchNorm(outputs)

    def __call__(self, x: jax.Array, training: bool) -> jax.Array:
        """[N,h,w,C] -> [N,h,w,outputs]."""
        y = jnp.concatenate([branch(x) for branch in self.branches], axis=-1)
        y = self.reduction(_leaky(self.branches_norm(y, training)))
        mean = self.mean(x.mean((1, 2), keepdims=True))
        y = y + self.mean_reduction(_leaky(self.mean_norm(mean, training)))
        return _leaky(self.norm(y, training))


class Fusion(nnx.Module):
    """One block of attention from pixels to a sound; how much of it a pixel takes is a sigmoid."""

    def __init__(self, width: int, dtype: str):
        self.pixels = _linear(width, width, dtype)
        self.sound = _linear(width, width, dtype)
        self.norm = LayerNorm(width)  # of pixels and of sounds
        self.query, self.key, self.value = (
            Dense(width, width, kernel_init=FanInUniform(width), bias_init=None, dtype=dtype)
            for _ in range(3)
        )
        self.output = _linear(width, width, dtype)
        self.mlp_norm = LayerNorm(width)
        self.mlp = Mlp(width, 4 * width, dtype)
        self.last_norm = LayerNorm(width)

    def ask(self, pixels: jax.Array) -> Asked:
        """Projected pixels [N,h w,D] as they ask any sound."""
        pixels = self.norm(self.pixels(pixels))
        return Asked(pixels, _by_head(self.query(pixels)))

    def weights(self, asked: Asked, sounds: jax.Array) -> jax.Array:
        """How much each pixel takes of its sound [N,D]: [N,h w,heads], between 0 and 1."""
        keys = _by_head(self.key(self.norm(self.sound(sounds))))
        similar = jnp.einsum("nphd,nhd->nph", asked.queries, keys)
        return jax.nn.sigmoid(wide(similar) * keys.shape[-1] ** -0.5)

    def __call__(self, asked: Asked, sounds: jax.Array) -> jax.Array:
        """Fused features [N,h w,D].

        Args:
          asked: of N pictures.
          sounds: [N,D], one for each.
        """
        values = _by_head(self.value(self.norm(self.sound(sounds))))
        taken = self.weights(asked, sounds)[..., None].astype(values.dtype) * values[:, None]
        # The residual starts from the normalised pixels.
        x = asked.pixels + self.output(taken.reshape(asked.pixels.shape))
        return self.last_norm(x + self.mlp(self.mlp_norm(x)))


class Head(nnx.Module):
    """Two 3x3 convolutions and a classifier."""

    def __init__(self, config: CAVPConfig):
        inputs, size, dtype = config.width, config.head, config.dtype
        self.convolutions, self.norms = nnx.List(), nnx.List()
        for width in (inputs, size):
            self.convolutions.append(_convolution(width, size, 3, dtype))
            self.norms.append(BatchNorm(size))
        self.classifier = _linear(size, config.num_classes, dtype)

    def __call__(self, x: jax.Array, training: bool) -> jax.Array:
        """[N,h,w,D] -> float32 logits [N,h,w,K]."""
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = jax.nn.relu(norm(convolution(x), training))
        return wide(self.classifier(x))


class Mlp(nnx.Module):
    """Two linear layers with GELU between, back to the width it comes from."""

    def __init__(self, width: int, hidden: int, dtype: str):
        self.hidden = _linear(width, hidden, dtype)
        self.output = _linear(hidden, width, dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[...,width] -> [...,width]."""
        return self.output(gelu(self.hidden(x)))


def _linear(inputs: int, outputs: int, dtype: str) -> Dense:
    return Dense(inputs, outputs, dtype=dtype, **as_torch(inputs))


def _convolution(inputs: int, outputs: int, window: int, dtype: str, dilation: int = 1):
    init = as_torch(inputs, window) | {"bias_init": None}
    return Convolution(inputs, outputs, window, dilation=dilation, dtype=dtype, **init)


def _by_head(x: jax.Array) -> jax.Array:
    return x.reshape(*x.shape[:-1], HEADS, -1)


def _leaky(x: jax.Array) -> jax.Array:
    return jax.nn.leaky_relu(x, LEAK)
