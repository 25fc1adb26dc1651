"""Parts of a network as functions of host arrays, whose outputs can be kept."""

import functools
from collections.abc import Callable, Hashable, Mapping

import jax
import numpy as np
from flax import nnx

from aavs_jax.methods.functional import functional
from aavs_jax.methods.method import Pretrained, SoundEncoder
from aavs_jax.methods.parts.sizes import AudioConfig
from aavs_jax.methods.parts.vggish import AudioEncoder

SOUND = "audio_encoder/"  # beginning of the audio encoder's paths, in every method
# The published files of backbones that are trained on ImageNet.
BACKBONE_FILES = {"pvt": "pvt_v2_b5.pth", "resnet": "resnet50-19c8e357.pth"}


def pretrained(backbone: str, kind: str, lacking: str = "") -> dict[str, Pretrained]:
    """What a method with such a backbone and VGGish starts from, by key of config.init.

    Args:
      backbone: of BACKBONE_FILES.
      kind: of the whole network's cards, which has a backbone, too.
      lacking: the published files of the whole network that do without VGGish; '': none do.
    """
    file = BACKBONE_FILES[backbone]
    command = f"python -m aavs_jax.convert {file} --out weights/{file.partition('.')[0]}"
    return {
        "backbone": Pretrained((backbone, kind), file, command),
        "vggish": vggish(lacking),
    }


def vggish(lacking: str) -> Pretrained:
    """The audio encoder as it is published; `lacking` as above."""
    return Pretrained(
        ("vggish",),
        "vggish-10086976.pth",
        "python -m aavs_jax.convert vggish-10086976.pth --out weights/vggish",
        SOUND,
        "audio.",
        "audio encoder",
        lacking,
    )


def on_host(
    make: Callable[..., nnx.Module],
    sizes: tuple[Hashable, ...],
    call: Callable,
    parameters: Mapping[str, np.ndarray],
) -> Callable:
    """A part of a network as a function of host arrays, compiled once for each shape.

    Args:
      make: the part's module.
      sizes: what it is called with.
      call: (module, arrays) -> arrays.
      parameters: the part's, by path within it; taken as float32.

    Returns:
      Arrays -> what `call` gives of them, as NumPy arrays.
    """
    part = functional(make, *sizes)
    values = jax.device_put({p: np.asarray(parameters[p], np.float32) for p in part.shapes})
    apply = jax.jit(lambda values, inputs: call(part.network(values), inputs))
    return lambda inputs: jax.tree.map(np.asarray, apply(values, inputs))


def sound_encoder(config: AudioConfig) -> SoundEncoder | None:
    """The audio encoder of a method, in float32; None where its output cannot be kept.

    Left and right of stereo sound are not one row of the front end but two.
    """
    if config.channels != 1:
        return None
    return SoundEncoder(
        SOUND,
        functools.partial(on_host, AudioEncoder, (config, "float32"), _hear),
    )


def _hear(encoder: AudioEncoder, rows: jax.Array) -> jax.Array:
    return encoder(rows)
