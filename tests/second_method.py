"""A method that has nothing of AAVS: what it takes to bring one's own, in one file.

A small convolutional network with batch norm looks at each frame and hears each second's spectrum;
the seconds of a clip attend to each other; a dense cross-entropy trains it. It is run by the
ordinary commands with `--config=tests/second_config.py`.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from aavs_jax.methods.functional import functional
from aavs_jax.methods.method import Aux, Method, Prediction


@dataclasses.dataclass(frozen=True)
class SIZES:
    width: int = 16


@dataclasses.dataclass(frozen=True)
class LOSS:
    sharpness: float = 1.0  # of the logits, which grows to this over the phase


PRETRAINED = {}


@dataclasses.dataclass(frozen=True)
class Spectrum:
    """A second's spectrum in 32 bands."""

    channels: int = 1

    def __call__(self, waveform: np.ndarray, seconds: int, xp=np) -> np.ndarray:
        heard = waveform[: seconds * 16000, 0]
        samples = xp.pad(heard, (0, seconds * 16000 - len(heard)))
        power = xp.abs(xp.fft.rfft(samples.reshape(seconds, 16000)))[:, :8000]
        return xp.log1p(power.reshape(seconds, 32, 250).mean(-1)).astype(np.float32)


class Network(nnx.Module):
    def __init__(self, width: int, classes: int):
        rngs = nnx.Rngs(0)  # what is drawn here is only a shape
        self.look = nnx.Conv(3, width, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(width, rngs=rngs)
        self.listen = nnx.Linear(32, width, rngs=rngs)
        self.classify = nnx.Conv(width, classes, (3, 3), rngs=rngs)

    def __call__(self, frames: jax.Array, sound: jax.Array, training: bool) -> jax.Array:
        """[B,T,H,W,3] and [B,T,32] -> logits [B,T,H,W,K]."""
        seen = self.look(frames.reshape(-1, *frames.shape[2:]) / 255.0)
        seen = nnx.relu(self.norm(seen, use_running_average=not training))
        heard = self.listen(sound)
        alike = jax.nn.softmax(jnp.einsum("btc,bsc->bts", heard, heard))
        heard = jnp.einsum("bts,bsc->btc", alike, heard).reshape(-1, 1, 1, heard.shape[-1])
        return self.classify(seen * heard).reshape(*frames.shape[:-1], -1)


def make(stage, num_classes: int, ignores: bool) -> Method:
    width, sharpness = stage["model"].get("width", 16), stage["loss"].get("sharpness", 1.0)
    net = functional(lambda: Network(width, num_classes))
    size = stage["data"]["label_size"]

    def logits(network, batch, training):
        found = network(batch["frames"].astype(jnp.float32), batch["audio"], training)
        return jax.image.resize(found, (*found.shape[:2], size, size, num_classes), "bilinear")

    def loss(parameters, batch, key, progress):
        network = net.network(parameters)
        scale = 1 + (sharpness - 1) * progress
        likely = jax.nn.log_softmax(scale * logits(network, batch, training=True))
        truth = jnp.take_along_axis(likely, batch["labels"][..., None].astype(int), -1)[..., 0]
        weight = (batch["labelled"] & batch["valid"])[..., None, None]
        total = -(truth * weight).sum() / jnp.maximum(weight.sum() * size**2, 1)
        return total, Aux({"loss/dense": total, "progress": progress}, net.statistics(network))

    @jax.jit
    def predict(parameters, batch):
        scores = jax.nn.softmax(logits(net.network(parameters), batch, training=False))
        classes = scores.argmax(-1).astype(jnp.uint8)
        maps = {"foreground": scores[..., 1], "softmax": scores[..., 1]}
        return Prediction(classes, maps if stage["task"] == "binary" else {})

    return Method(
        task=stage["task"],
        num_classes=num_classes,
        network={"width": width},
        shapes=net.shapes,
        mutable=net.mutable,
        initial=net.initial,
        loss=loss,
        predict=predict,
        entries=("frames", "audio", "labels", "labelled", "valid"),
        front_end=Spectrum(),
        over_time=True,
    )
