"""CAVP's parameters under the names of its public checkpoints."""

import functools
from collections.abc import Mapping
from typing import Any

from aavs_jax.methods.cavp.config import RESNET_50, RESNET_101, CAVPConfig
from aavs_jax.methods.cavp.network import CAVP
from aavs_jax.methods.functional import functional
from aavs_jax.methods.parts import vggish_weights
from aavs_jax.methods.parts.key_tables import (
    ByPath,
    Format,
    Kind,
    LeftOver,
    Row,
    shapes_of,
    side,
    under,
)
from aavs_jax.methods.parts.resnet_weights import COUNTED, RESNET, RESNET_DEEP_STEM, resnet_sizes

SOUND = "audio_backbone.backbone."
ROWS = (
    *under("backbone.backbone.", "backbone/", *RESNET_DEEP_STEM),
    *under(
        "segment.",
        "",
        Row("aspp.map_convs.{branch}", "aspp/branches/{branch}", "conv"),
        Row("aspp.map_bn", "aspp/branches_norm", "batch norm"),
        Row("aspp.red_conv", "aspp/reduction", "conv"),
        Row("aspp.global_pooling_conv", "aspp/mean", "conv"),
        Row("aspp.global_pooling_bn", "aspp/mean_norm", "batch norm"),
        Row("aspp.pool_red_conv", "aspp/mean_reduction", "conv"),
        Row("aspp.red_bn", "aspp/norm", "batch norm"),
        Row("reduce.0", "reduction", "conv"),
        Row("reduce.1", "reduction_norm", "batch norm"),
        Row("upsample.last_conv.{layer*3}", "head/convolutions/{layer}", "conv"),
        Row("upsample.last_conv.1", "head/norms/0", "batch norm"),
        Row("upsample.last_conv.4", "head/norms/1", "batch norm"),
        Row("upsample.classifier", "head/classifier", "pointwise"),
    ),
    Row("visual_projector.fc1", "projector/hidden", "dense"),
    Row("visual_projector.fc2", "projector/output", "dense"),
    Row("cross_att.patch_embed_v.proj", "fusion/pixels", "dense"),
    Row("cross_att.patch_embed_a.proj", "fusion/sound", "dense"),
    *under(
        "cross_att.blocks.0.",
        "fusion/",
        Row("norm1", "norm", "norm"),
        Row("attn.q", "query", "dense"),
        Row("attn.k", "key", "dense"),
        Row("attn.v", "value", "dense"),
        Row("attn.proj", "output", "dense"),
        Row("norm2", "mlp_norm", "norm"),
        Row("mlp.fc1", "mlp/hidden", "dense"),
        Row("mlp.fc2", "mlp/output", "dense"),
    ),
    Row("cross_att.norm", "fusion/last_norm", "norm"),
    # Of the two sound encoders a network has one.
    *under(SOUND, "", *vggish_weights.FORMAT.rows),
    *under(SOUND, "audio_encoder/resnet/", *RESNET),
    Row(SOUND + "fc", "audio_encoder/output", "dense"),
)
LEFT_OVER = (
    LeftOver("cross_att.pos_embed_*", "positions that are never added"),
    LeftOver("audio_backbone.cls_head.*", "a classifier of sounds that is never called"),
    COUNTED,
)


def _sizes(ours: ByPath, theirs: ByPath) -> dict[str, Any]:
    """Strides and dilations no shape tells: they are those that the public code gives each variant.

    One hears 1 s and halves the picture four times, the other hears 3 s and halves it three times.
    """
    classes = side(ours, "head/classifier/bias", 0)
    widths = side(ours, "aspp/reduction/kernel", 3), side(ours, "reduction/kernel", 3)
    network = {
        "task": "binary" if classes == 2 else "semantic",
        "num_classes": classes,
        "prior": False,
        "aspp_width": side(ours, "aspp/mean/kernel", 3),
        "aspp_outputs": widths[0],
        "low_level": widths[1],
        "projector": side(ours, "projector/hidden/bias", 0),
        "head": side(ours, "head/convolutions/0/kernel", 3),
    }
    if long := any(path.startswith("audio_encoder/resnet/") for path in ours):
        sound = resnet_sizes(ours, "audio_encoder/resnet/")
        network |= {
            "audio": {"channels": sound["input_channels"]},
            "sound_resnet": sound | {"input_channels": 1},
        }
    else:
        named = {name.removeprefix(SOUND): shape for name, shape in theirs.items()}
        network |= vggish_weights.VGGISH.sizes(ours, named)
        *hidden, _ = network["audio"]["fully_connected"]
        network["audio"]["fully_connected"] = hidden
    known = RESNET_101 if long else RESNET_50
    lies = {"strides": list(known.strides), "dilations": list(map(list, known.dilations))}
    return network | {"heard": 3 if long else 1, "resnet": resnet_sizes(ours) | lies}


@functools.lru_cache(8)
def whole_shapes(config: CAVPConfig) -> ByPath:
    """Path -> shape of every parameter and running statistic of CAVP. Not to be changed."""
    return shapes_of(functional(CAVP, config).model)


def _parameters(network: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return dict(whole_shapes(CAVPConfig.from_dict(network)))


FORMAT = Format(
    name="cavp",
    title="CAVP",
    kind="cavp",
    signature=(
        r"segment\.aspp\.map_convs\.",
        r"cross_att\.patch_embed_a\.",
        r"audio_backbone\.backbone\.",
    ),
    rows=ROWS,
    left_over=LEFT_OVER,
    derived=vggish_weights.FORMAT.derived,
)
KINDS = (Kind("cavp", (FORMAT,), _sizes, _parameters),)
