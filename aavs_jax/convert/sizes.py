"""What sizes a network in somebody's file has, and what such a network's parameters are."""

import functools
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import nnx

from aavs_jax.convert.format import TENSORS, Format
from aavs_jax.convert.huggingface import check_config, classes_of, huggingface_config
from aavs_jax.convert.naming import inverse_plan
from aavs_jax.convert.recognising import normal_names
from aavs_jax.errors import UserError
from aavs_jax.methods.aavs.config import AAVSConfig
from aavs_jax.methods.aavs.network import abstract_model
from aavs_jax.methods.parts.deformable_attention import LEVELS, POINTS
from aavs_jax.methods.parts.swin import Swin
from aavs_jax.methods.parts.vggish import AudioEncoder
from aavs_jax.weights.card import fault_of

__all__ = ["classes_of", "huggingface_config", "network_of", "resize_positions", "wanted"]

Shapes = Mapping[str, tuple[int, ...]]

ADDED = ("adapter", "audio_proj", "silent_embed", "sounding_embed", "uncertain_embed")  # by AAVS


def network_of(
    format: Format, shapes: Shapes, hf_config: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The sizes, nested plain values: fields of AAVSConfig that the kind has (`Card.network`).

    Shapes tell all of them; a config.json is held against them, as it also says what no shape does.

    Args:
      format: from `engine.recognise`, with a kind.
      shapes: of the file's tensors, by the names in the file.
      hf_config: what config.json says, None if there is none.

    Raises:
      UserError: the file lacks what tells a size; a size that no network here has; a config.json
        that contradicts the file or asks for what the network here does not compute.
    """
    names = normal_names(format, shapes)
    normal = {names[name]: tuple(shape) for name, shape in shapes.items()}
    if format.kind == "vggish":
        return {"audio": _audio(normal)}
    ours = _Shapes(format, normal)
    network: dict[str, Any] = {"backbone": _backbone(ours)}
    if format.kind in ("mask2former", "aavs"):
        network |= _decoders(ours)
    if format.kind == "aavs":
        network |= _additions(ours, network["num_classes"])
    # Beside an AAVS file lies, if any, the config of the Mask2Former that it began as.
    if hf_config is not None and format.kind != "aavs":
        check_config(format.kind, network, hf_config)
    return network


def wanted(kind: str, network: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Path -> shape of each parameter that a file of this kind holds.

    Of 'aavs' all but the audio encoder, which is a file of its own; of 'mask2former' without what
    AAVS adds; of 'swin' the backbone without adapters, norms of the stages' outputs included.

    Args:
      kind: of `card.KINDS`.
      network: as from `network_of`; what it does not say is as in AAVSConfig.

    Raises:
      UserError: there can be no such network.
    """
    if fault := fault_of(network):
        raise UserError(f"a network of these sizes cannot be ({fault}): take weights of another")
    try:
        config = AAVSConfig.from_dict(network)
        if kind == "vggish":
            model, place = (
                nnx.eval_shape(lambda: AudioEncoder(config.audio, "float32")),
                "audio_encoder/",
            )
        elif kind == "swin":
            model, place = nnx.eval_shape(lambda: Swin(config.backbone, "float32")), "backbone/"
        else:
            model, place = abstract_model(config), ""
    # What sizes of 0 run into is not only the ValueErrors of the configurations.
    except (ValueError, TypeError, IndexError, ArithmeticError) as error:
        raise UserError(
            f"a network of these sizes cannot be ({error}): take weights of another"
        ) from error
    shapes = {
        place + "/".join(map(str, path)): tuple(variable.shape)
        for path, variable in nnx.to_flat_state(nnx.state(model, nnx.Param))
    }
    if kind == "aavs":
        return {path: s for path, s in shapes.items() if not path.startswith("audio_encoder/")}
    if kind == "vggish":
        return shapes
    kept = {path: s for path, s in shapes.items() if not path.startswith("audio_encoder/")}
    return {path: s for path, s in kept.items() if not any(part in path for part in ADDED)}


def resize_positions(table: np.ndarray, window: int) -> np.ndarray:
    """A table of relative position biases for another window, by bicubic interpolation.

    As PyTorch's `interpolate(mode='bicubic', align_corners=False)` does it, which is how the Swin
    authors carry a table from one window to another.

    Args:
      table: float32 [(2w-1)^2, heads], rows in the order of `swin.relative_position_index`.
      window: tokens per side of the new window, at least 1.

    Returns:
      float32 [(2 window - 1)^2, heads].
    """
    rows, heads = table.shape
    matrix = _bicubic_matrix(math.isqrt(rows), 2 * window - 1)
    square = table.astype(np.float64).reshape(math.isqrt(rows), math.isqrt(rows), heads)
    # Rows, then columns: all at once would be a sum over both for each number.
    resized = matrix @ np.tensordot(matrix, square, 1)
    return resized.reshape(-1, heads).astype(np.float32)


# -------------------------------------------------------------------------------- from shapes


class _Shapes:
    """Shapes of our parameters, as far as a file's names and shapes tell them."""

    def __init__(self, format: Format, normal: Shapes):
        self.title = format.title
        self.shapes: dict[str, tuple[int, ...]] = {}
        for step in inverse_plan(format, normal):
            to_ours, _ = TENSORS[step.how]
            try:
                # Without numbers behind it: only its shape is asked for.
                parts = np.split(
                    np.broadcast_to(np.float32(0), normal[step.theirs]), len(step.ours)
                )
                self.shapes |= {
                    path: to_ours(part).shape for path, part in zip(step.ours, parts, strict=True)
                }
            except (ValueError, IndexError, ArithmeticError):
                continue  # of a shape that cannot be: the engine says so, or what asks for it does

    def __contains__(self, path: str) -> bool:
        return path in self.shapes

    def size(self, path: str, axis: int) -> int:
        """One side of a parameter."""
        try:
            return int(self.shapes[path][axis])
        except (KeyError, IndexError):
            raise UserError(
                f"{self.title}: there is no tensor for {path}, or it has another form, so the "
                "network's sizes cannot be told: take the whole file"
            ) from None

    def count(self, place: str) -> int:
        """How many different things follow a place like 'decoder/layers/'."""
        return len(
            {path[len(place) :].split("/")[0] for path in self.shapes if path.startswith(place)}
        )


def _backbone(ours: _Shapes) -> dict[str, Any]:
    stages = ours.count("backbone/stages/")
    if stages != 4:
        raise UserError(f"{ours.title}: the backbone has {stages} stages; here it has four")
    size = ours.size("backbone/patch_norm/scale", 0)
    first = [f"backbone/stages/{stage}/blocks/0/" for stage in range(stages)]
    rows = {ours.size(block + "attention/relative_position_bias", 0) for block in first}
    sides = {math.isqrt(count) for count in rows}
    if len(rows) != 1 or any(side % 2 == 0 or side**2 not in rows for side in sides):
        raise UserError(
            f"{ours.title}: its tables of relative positions have {sorted(rows)} rows; one and the "
            "same window in all stages has an odd number's square"
        )
    hidden = [ours.size(block + "mlp_hidden/kernel", 1) for block in first]
    return {
        "embed_dim": size,
        "depths": [ours.count(f"backbone/stages/{stage}/blocks/") for stage in range(stages)],
        "num_heads": [ours.size(block + "attention/relative_position_bias", 1) for block in first],
        "window_size": (sides.pop() + 1) // 2,
        "patch_size": ours.size("backbone/patch_embedding/kernel", 0),
        "mlp_ratio": hidden[0] / max(size, 1),
    }


def _decoders(ours: _Shapes) -> dict[str, Any]:
    offsets = ours.size("pixel_decoder/layers/0/attention/sampling_offsets/bias", 0)
    heads, rest = divmod(offsets, 2 * LEVELS * POINTS)
    if rest:
        raise UserError(
            f"{ours.title}: {offsets} sampling offsets are not those of {LEVELS} levels and "
            f"{POINTS} points, which the pixel decoder here has"
        )
    return {
        "num_classes": ours.size("decoder/class_predictor/bias", 0) - 1,
        "num_queries": ours.size("decoder/query_positions", 0),
        "feature_size": ours.size("decoder/query_positions", 1),
        "num_heads": heads,
        "encoder_layers": ours.count("pixel_decoder/layers/"),
        "encoder_ffn": ours.size("pixel_decoder/layers/0/ffn/hidden/kernel", 1),
        "decoder_layers": ours.count("decoder/layers/"),
        "decoder_ffn": ours.size("decoder/layers/0/ffn/hidden/kernel", 1),
    }


def _additions(ours: _Shapes, num_classes: int) -> dict[str, Any]:
    prior = "decoder/sounding_embed" in ours
    sizes: dict[str, Any] = {
        "task": "binary" if num_classes == 2 and not prior else "semantic",
        "prior": prior,
    }
    # Without it the file is no whole one, which the engine says better.
    if "audio_proj/hidden/kernel" in ours:
        embedding, sizes["audio_hidden"] = ours.shapes["audio_proj/hidden/kernel"]
        if embedding != AAVSConfig().audio.fully_connected[-1]:
            # Of the encoder that belongs to it only its output is known.
            sizes["audio"] = {"fully_connected": [embedding]}
    return sizes


def _audio(normal: Shapes) -> dict[str, Any]:
    """The encoder's sizes: two places from convolution to convolution, three over a pooling."""
    places = sorted(_numbers(normal, "features."))
    blocks: list[list[int]] = []
    for place, before in zip(places, [-3, *places], strict=False):
        if place - before not in (2, 3):
            raise UserError(
                f"VGGish: features.{place} cannot follow features.{before}: here an encoder is "
                "convolutions, each with a ReLU, and poolings"
            )
        if place - before == 3:
            blocks.append([])
        blocks[-1].append(normal[f"features.{place}.weight"][0])
    layers = sorted(_numbers(normal, "embeddings."))
    first = normal["features.0.weight"]
    if len(first) != 4:
        raise UserError(
            f"VGGish: features.0.weight is {first}, no convolution: take the whole file"
        )
    return {
        "blocks": blocks,
        "fully_connected": [normal[f"embeddings.{layer}.weight"][0] for layer in layers],
        "channels": first[1],
    }


def _numbers(normal: Shapes, place: str) -> set[int]:
    """The N of all 'PLACE.N.weight' that have a side."""
    expression = re.compile(re.escape(place) + r"([0-9]{1,6})\.weight")
    found = {expression.fullmatch(name) for name, shape in normal.items() if shape}
    return {int(match[1]) for match in found if match}


@functools.cache
def _bicubic_matrix(size: int, new_size: int) -> np.ndarray:
    """float64 [new_size, size]: half-pixel centres, edges repeated, Keys' kernel with a = -0.75."""
    a = -0.75
    matrix = np.zeros((new_size, size))
    for row in range(new_size):
        centre = (row + 0.5) * size / new_size - 0.5
        for tap in range(math.floor(centre) - 1, math.floor(centre) + 3):
            x = abs(tap - centre)
            if x <= 1:
                weight = (a + 2) * x**3 - (a + 3) * x**2 + 1
            else:
                weight = a * (x**3 - 5 * x**2 + 8 * x - 4)
            matrix[row, min(max(tap, 0), size - 1)] += weight
    return matrix
