"""TPAVI's parameters under the names of its public checkpoints (AVSBench, 2022 and 2023)."""

from collections.abc import Mapping
from typing import Any

from aavs_jax.methods.functional import functional
from aavs_jax.methods.parts.key_tables import (
    ByPath,
    Format,
    Kind,
    LeftOver,
    Row,
    count,
    shapes_of,
    side,
    under,
)
from aavs_jax.methods.parts.pvt_weights import PVT_ROWS, pvt_sizes
from aavs_jax.methods.parts.resnet_weights import (
    COUNTED,
    RESNET_DOUBLED,
    SECOND,
    SECOND_STAGES,
    resnet_sizes,
)
from aavs_jax.methods.tpavi.config import TPAVIConfig
from aavs_jax.methods.tpavi.network import TPAVI

UNUSED_UNIT = "where the decoder begins there is nothing to join, so nothing uses it"

ROWS = (
    *under("encoder_backbone.", "", *PVT_ROWS),
    *under("resnet.", "backbone/", *RESNET_DOUBLED),
    Row("conv{stage+1}.conv2d_list.{conv}", "neck/{stage}/convs/{conv}", "conv"),
    *under(
        "tpavi_b{stage+1}.",
        "interaction/{stage}/",
        Row("align_channel", "align", "dense"),
        Row("theta", "query", "1x1x1 convolution"),
        Row("phi", "key", "1x1x1 convolution"),
        Row("g", "value", "1x1x1 convolution"),
        Row("W_z.0", "output", "1x1x1 convolution"),
        Row("W_z.1", "branch_norm", "batch norm"),
        Row("norm_layer", "norm", "norm"),
    ),
    *under(
        "path{stage+1}.",
        "decoder/{stage}/",
        Row("resConfUnit2.conv1", "output/first", "conv"),
        Row("resConfUnit2.conv2", "output/second", "conv"),
    ),
    *(
        Row(f"path{stage + 1}.resConfUnit1.conv{conv}", f"decoder/{stage}/skip/{name}", "conv")
        for stage in range(3)
        for conv, name in ((1, "first"), (2, "second"))
    ),
    Row("output_conv.0", "head/first", "conv"),
    Row("output_conv.2", "head/second", "conv"),
    Row("output_conv.4", "head/output", "pointwise"),
)


def _sizes(ours: ByPath, theirs: ByPath) -> dict[str, Any]:
    """All but what no shape tells: dilations, windows, and the heads of a PVT."""
    logits = side(ours, "head/output/bias", 0)
    network: dict[str, Any] = {
        "task": "binary" if logits == 1 else "semantic",
        "num_classes": max(2, logits),
        "prior": False,
        "feature_size": side(ours, "interaction/0/norm/scale", 0),
        "head": [side(ours, f"head/{layer}/bias", 0) for layer in ("first", "second")],
    }
    if count(ours, "neck/0/convs/") != len(TPAVIConfig().dilations):
        raise ValueError("the neck's convolutions are not the four that are published")
    if count(ours, "backbone/stem/"):
        network |= {"backbone": "resnet", "resnet": resnet_sizes(ours)}
    else:
        network |= {"backbone": "pvt", "pvt": pvt_sizes(ours)}
    embedding = side(ours, "interaction/0/align/kernel", 0)
    if embedding != TPAVIConfig().audio.fully_connected[-1]:
        network["audio"] = {"fully_connected": [embedding]}
    return network


def _parameters(network: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """All but the audio encoder, which is a file of its own."""
    shapes = shapes_of(functional(TPAVI, TPAVIConfig.from_dict(network)).model)
    return {path: s for path, s in shapes.items() if not path.startswith("audio_encoder/")}


TPAVI_FORMAT = Format(
    name="tpavi",
    title="TPAVI of AVSBench",
    kind="tpavi",
    signature=(r"tpavi_b1\.", r"conv1\.conv2d_list\.", r"output_conv\."),
    rows=ROWS,
    left_over=(
        COUNTED,
        *(LeftOver("resnet." + stage, SECOND) for stage in SECOND_STAGES),
        LeftOver("path4.resConfUnit1.*", UNUSED_UNIT),
    ),
)
KINDS = (Kind("tpavi", (TPAVI_FORMAT,), _sizes, _parameters, hears=True),)
