"""The audio encoder's parameters under the names of VGGish for PyTorch (torchvggish)."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from flax import nnx

from aavs_jax.methods.parts.key_tables import (
    ByPath,
    Format,
    Kind,
    LeftOver,
    Row,
    count,
    shapes_of,
    side,
)
from aavs_jax.methods.parts.sizes import AudioConfig, from_dict
from aavs_jax.methods.parts.vggish import AudioEncoder

PCA = "of the post-processing to AudioSet's 8-bit embeddings, which no network here uses"


def place_among_theirs(numbers: Mapping[str, int], paths: Iterable[str]) -> int:
    """Where a convolution stands among theirs: each is followed by a ReLU, each block by a pool."""
    kernels = {path.rpartition("/")[0] for path in paths if path.startswith("audio_encoder/blocks")}
    blocks = [int(kernel.split("/")[2]) for kernel in kernels]
    before = sum(block < numbers["block"] for block in blocks)
    return 2 * (before + numbers["conv"]) + numbers["block"]


def audio_sizes(ours: ByPath, theirs: ByPath) -> dict[str, Any]:
    """{'audio': fields of AudioConfig}; `theirs` by the names of a file that holds nothing else.

    Two places from convolution to convolution, three over a pooling.

    Raises:
      ValueError: it is no such encoder.
    """
    weight = re.compile(r"features\.([0-9]{1,6})\.weight")
    found = (weight.fullmatch(name) for name, shape in theirs.items() if shape)
    places = sorted(int(match[1]) for match in found if match)
    blocks: list[list[int]] = []
    for place, before in zip(places, [-3, *places], strict=False):
        if place - before not in (2, 3):
            raise ValueError(
                f"features.{place} cannot follow features.{before}: here an encoder is "
                "convolutions, each with a ReLU, and poolings"
            )
        if place - before == 3:
            blocks.append([])
        blocks[-1].append(theirs[f"features.{place}.weight"][0])
    first = theirs.get("features.0.weight", ())
    if len(first) != 4:
        raise ValueError(f"features.0.weight is {first}, no convolution: take the whole file")
    layers = range(count(ours, "audio_encoder/fully_connected/"))
    paths = [f"audio_encoder/fully_connected/{layer}/bias" for layer in layers]
    widths = [side(ours, path, 0) for path in paths]
    return {"audio": {"blocks": blocks, "fully_connected": widths, "channels": first[1]}}


def _parameters(network: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    config = from_dict(AudioConfig, network.get("audio", {}))
    return shapes_of(nnx.eval_shape(lambda: AudioEncoder(config, "float32")), "audio_encoder/")


# Its first linear layer takes the map flattened in the order time, frequency, channel, as ours
# does: torchvggish moves the channels last before it flattens. A transpose is all there is to it.
ROWS = (
    Row("features.{place}", "audio_encoder/blocks/{block}/{conv}", "conv"),
    Row("embeddings.{layer*2}", "audio_encoder/fully_connected/{layer}", "dense"),
)
LEFT_OVER = (
    LeftOver("pproc.*", PCA),
    LeftOver("pca_eigen_vectors", PCA),
    LeftOver("pca_means", PCA),
)
FORMAT = Format(
    name="vggish",
    title="VGGish for PyTorch",
    kind="vggish",
    signature=(r"features\.0\.weight$", r"embeddings\.0\.weight$"),
    rows=ROWS,
    left_over=LEFT_OVER,
    derived={"place": place_among_theirs},
)
VGGISH = Kind("vggish", (FORMAT,), audio_sizes, _parameters)
