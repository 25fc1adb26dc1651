"""A network from its folder of weights alone: `load(folder)` needs no config."""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from aavs_jax.errors import UserError
from aavs_jax.methods.method import Method, Prediction
from aavs_jax.weights import card as cards
from aavs_jax.weights.beside import beside
from aavs_jax.weights.card import Card
from aavs_jax.weights.card_method import SIDE, method_of
from aavs_jax.weights.given_weights import check_whole
from aavs_jax.weights.keeping import kept_phases


@dataclasses.dataclass(frozen=True)
class Network:
    """A network with its parameters, to be called on NumPy arrays.

    Attributes:
      card: what its folder says of it, classes among it.
      method: what it computes, see `methods.method.Method`.
      parameters: by path.
      before: the network whose masks tell this one where it sounds; None where it needs none, or
        none was found.
    """

    card: Card
    method: Method
    parameters: Mapping[str, jax.Array]
    before: "Network | None" = None

    def __call__(
        self, frames: np.ndarray, waveform: np.ndarray, prior_mask: np.ndarray | None = None
    ) -> np.ndarray:
        """What sounds in a clip, and where.

        Args:
          frames: uint8 [T,H,W,3], RGB, of any size, one a second.
          waveform: the clip's sound at 16 kHz, float [S], or [S,channels], samples in [-1,1]; S is
            16000 T, what lacks is silence.
          prior_mask: float [T,h,w] in [0,1], of any size, where it sounds, for a network that is
            told so; None: as the network before says.

        Returns:
          uint8 [T,H,W], class ids, named by `card.classes`; of the binary task 1 where it sounds.

        Raises:
          UserError: arrays of other shapes; a prior mask is needed, and none is there.
        """
        classes = np.asarray(self.predict(frames, waveform, prior_mask).classes[0])
        size = np.shape(frames)[2], np.shape(frames)[1]
        masks = [Image.fromarray(mask).resize(size, Image.Resampling.NEAREST) for mask in classes]
        return np.stack([np.asarray(mask) for mask in masks])

    def predict(
        self, frames: np.ndarray, waveform: np.ndarray, prior_mask: np.ndarray | None = None
    ) -> Prediction:
        """The same at the size G that the network is scored at, as its method gives it.

        In float32 with exact products, whatever the device would round. Arguments and errors are
        those of a call.

        Returns:
          With B = 1: classes uint8 [1,T,G,G], maps float32 [1,T,G,G].
        """
        frames = np.asarray(frames)
        if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not frames.size:
            raise UserError(
                f"frames are {frames.dtype} {list(frames.shape)}: give uint8 [T,H,W,3], one a "
                "second"
            )
        side = self.card.image_size or SIDE
        seconds = len(frames)
        shown = [
            Image.fromarray(frame).resize((side, side), Image.Resampling.BILINEAR)
            for frame in frames
        ]
        batch = {
            "frames": np.stack([np.asarray(picture) for picture in shown])[None],
            "audio": self.method.front_end(_channels(waveform, self.method), seconds)[None],
            "valid": np.ones((1, seconds), bool),
        }
        if self.card.network.get("prior"):
            if prior_mask is None and self.before is None:
                raise UserError(
                    f"{self.card.describe()} is told where it sounds: give prior_mask, or load the "
                    "run that has both stages"
                )
            if prior_mask is None:
                prior_mask = self.before.predict(frames, waveform).classes[0]
            batch["prior_mask"] = np.asarray(prior_mask, np.float32)[None]
        wanted = {name: batch[name] for name in self.method.entries if name in batch}
        with jax.default_matmul_precision("highest"):
            return self.method.predict(self.parameters, wanted)


def load(folder: str | os.PathLike[str], *, method: str | None = None) -> Network:
    """A network from its folder; no config is needed.

        network = aavs_jax.load("runs/avss")
        masks = network(frames, waveform)  # uint8 [T,H,W]

    Args:
      folder: a run, of which what its last stage keeps is taken, with the stage before where it is
        told where it sounds; `<run>/<stage>/<phase>`; or what `aavs_jax.convert` wrote.
      method: of a folder by a method of one's own, the name of its module.

    Raises:
      UserError: no weights there, not of a whole network, or damaged.
    """
    folder = Path(folder)
    network = None
    for phase in kept_phases(folder) if (folder / "config.json").exists() else [folder]:
        parameters, card = cards.weights(phase)
        made = method_of(card, method)
        for key, part in made.pretrained.items():
            if part.lacking and not any(path.startswith(part.prefix) for path in parameters):
                others, sizes = beside(phase, key, part)
                parameters |= others
                made = method_of(dataclasses.replace(card, network=card.network | sizes), method)
        check_whole(phase, parameters, made)
        before = network if card.network.get("prior") else None
        network = Network(card, made, jax.device_put(parameters), before)
    return network


def _channels(waveform: np.ndarray, method: Method) -> np.ndarray:
    """float32 [S,channels] as the method hears: mono is the mean, and one channel is both sides."""
    waveform, wanted = np.asarray(waveform, np.float32), method.front_end.channels
    waveform = waveform[:, None] if waveform.ndim == 1 else waveform
    if waveform.ndim != 2 or waveform.shape[1] not in (1, 2):
        raise UserError(
            f"a waveform of shape {list(waveform.shape)} is no sound: give [S] or [S,2], 16 kHz"
        )
    if wanted == 1:
        return waveform.mean(1, keepdims=True)
    return np.repeat(waveform, 2, axis=1) if waveform.shape[1] == 1 else waveform
