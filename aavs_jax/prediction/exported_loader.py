"""Loads what `python -m aavs_jax.export` wrote; needs jax, numpy and flatbuffers, nothing else.

model = load(folder)
masks = model(frames, waveform)  # uint8 [N,G,G], class ids, named by model.card["classes"]
"""

import hashlib
import json
from pathlib import Path

import jax
import numpy as np
from jax import export


def load(folder):
    """The exported network; ValueError where the folder is damaged or of another time."""
    folder = Path(folder)
    try:
        card = json.loads((folder / "export.json").read_text())
        for name, digest in card["sha256"].items():
            if hashlib.sha256((folder / name).read_bytes()).hexdigest() != digest:
                raise ValueError(f"{name} is not as it was written")
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder} is damaged ({error}): copy or export it once more") from error
    try:
        program = export.deserialize(bytearray((folder / "program.jaxexport").read_bytes()))
    except ImportError:
        raise  # jax says that flatbuffers is to be installed
    except Exception as error:  # what a later jax raises on an old program, nobody promises
        raise ValueError(
            f"jax {jax.__version__} cannot load {folder}, which jax {card['jax']} wrote on "
            f"{card['exported']} for what is released until {card['loads_until']}: export it anew"
        ) from error
    with np.load(folder / "weights.npz") as weights:
        return Model(card, program, jax.device_put(dict(weights)))


class Model:
    """Frames, each with its second of sound -> class ids; the first call of a size compiles."""

    def __init__(self, card, program, weights):
        self.card, self._weights, self._call = card, weights, jax.jit(program.call)

    def __call__(self, frames, waveform):
        """uint8 [N,S,S,3] and float32 [N,16000], 16 kHz, in [-1,1] -> uint8 [N,G,G]."""
        return self.predict(frames, waveform)[0]

    def predict(self, frames, waveform):
        """The same, with the share of the chosen class in all scores, float32 [N,G,G]."""
        frames, waveform = np.asarray(frames), np.asarray(waveform)
        for array, kind, key in ((frames, "u1", "frames"), (waveform, "f4", "waveform")):
            if array.dtype != kind or array.shape != (len(frames), *self.card[key]):
                wanted = f"{np.dtype(kind)} [{', '.join(map(str, ('N', *self.card[key])))}]"
                found = f"{array.dtype} {list(array.shape)}"
                raise ValueError(f"{key} is {found}, of {len(frames)} frames: give {wanted}")
        return tuple(map(np.asarray, self._call(self._weights, frames, waveform)))
