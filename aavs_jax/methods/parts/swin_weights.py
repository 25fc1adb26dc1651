"""Swin's parameters under the names of others: transformers, timm and Microsoft's release."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from flax import nnx

from aavs_jax.methods.parts.key_tables import (
    ByPath,
    Filler,
    Format,
    Kind,
    LeftOver,
    Row,
    count,
    shapes_of,
    side,
    under,
)
from aavs_jax.methods.parts.sizes import SwinConfig, from_dict
from aavs_jax.methods.parts.swin import Swin

QKV = ("query", "key", "value")  # stacked in this order everywhere
BLOCK = "backbone/stages/{stage}/blocks/{block}/"
STAGE = "backbone/stages/{stage}/"
LAST_NORM = "backbone/stages/3/output_norm/scale"

COMPUTED = "computed from the window's size, not learned"
HEAD = "a classifier's, of which a backbone has none"
MASKED_IMAGES = "of pretraining by masked images, which is over"
FINAL_NORM = "the norm before a classifier; the four stages' outputs have norms of their own"
NO_OUTPUT_NORMS = "a Swin alone need not have norms of its stages' outputs: drawn when training"
NO_NORMS = tuple((STAGE + f"output_norm/{leaf}", NO_OUTPUT_NORMS) for leaf in ("scale", "bias"))

SWIN_TRANSFORMERS = (
    Row("embeddings.patch_embeddings.projection", "backbone/patch_embedding", "conv"),
    Row("embeddings.norm", "backbone/patch_norm", "norm"),
    *under(
        "encoder.layers.{stage}.blocks.{block}.",
        BLOCK,
        Row("layernorm_before", "attention_norm", "norm"),
        Row("attention.self.query", "attention/query", "dense"),
        Row("attention.self.key", "attention/key", "dense"),
        Row("attention.self.value", "attention/value", "dense"),
        Row(
            "attention.self.relative_position_bias_table",
            "attention/relative_position_bias",
            "same",
        ),
        Row("attention.output.dense", "attention/output", "dense"),
        Row("layernorm_after", "mlp_norm", "norm"),
        Row("intermediate.dense", "mlp_hidden", "dense"),
        Row("output.dense", "mlp_output", "dense"),
    ),
    Row("encoder.layers.{stage}.downsample.norm", STAGE + "merge/norm", "norm"),
    Row("encoder.layers.{stage}.downsample.reduction", STAGE + "merge/reduction", "dense"),
    Row("hidden_states_norms.stage{stage+1}", STAGE + "output_norm", "norm"),
)
# transformers 5 has other names in memory, which end up in files that torch.save wrote.
SPELLINGS = (
    (r"(blocks\.\d+\.attention)\.q_proj\.", r"\1.self.query."),
    (r"(blocks\.\d+\.attention)\.k_proj\.", r"\1.self.key."),
    (r"(blocks\.\d+\.attention)\.v_proj\.", r"\1.self.value."),
    (r"(blocks\.\d+\.attention)\.o_proj\.", r"\1.output.dense."),
    (r"(blocks\.\d+\.attention)\.relative_position_bias\.", r"\1.self."),
    (r"(encoder\.layers\.\d+\.blocks\.\d+)\.mlp\.fc1\.", r"\1.intermediate.dense."),
    (r"(encoder\.layers\.\d+\.blocks\.\d+)\.mlp\.fc2\.", r"\1.output.dense."),
)
FUSED = (
    Row("patch_embed.proj", "backbone/patch_embedding", "conv"),
    Row("patch_embed.norm", "backbone/patch_norm", "norm"),
    *under(
        "layers.{stage}.blocks.{block}.",
        BLOCK,
        Row("norm1", "attention_norm", "norm"),
        Row("attn.qkv", tuple(f"attention/{part}" for part in QKV), "dense"),
        Row("attn.relative_position_bias_table", "attention/relative_position_bias", "same"),
        Row("attn.proj", "attention/output", "dense"),
        Row("norm2", "mlp_norm", "norm"),
        Row("mlp.fc1", "mlp_hidden", "dense"),
        Row("mlp.fc2", "mlp_output", "dense"),
    ),
)
MERGING = (
    Row("norm", STAGE + "merge/norm", "norm"),
    Row("reduction", STAGE + "merge/reduction", "dense"),
)
LEFT_OVER_FUSED = (
    LeftOver("layers.{stage}.blocks.{block}.attn.relative_position_index", COMPUTED),
    LeftOver("layers.{stage}.blocks.{block}.attn_mask", COMPUTED),
    LeftOver("norm.*", FINAL_NORM, "final norm.*"),
)


def first_scale(parameters: Mapping[str, np.ndarray]) -> np.ndarray:
    """The scale of a final norm that was never trained."""
    return np.ones_like(parameters["backbone/stages/3/blocks/0/mlp_norm/scale"])


def first_bias(parameters: Mapping[str, np.ndarray]) -> np.ndarray:
    """The bias of a final norm that was never trained."""
    return np.zeros_like(parameters["backbone/stages/3/blocks/0/mlp_norm/bias"])


def _unless_backbone(make: Filler) -> Filler:
    """Only for a SwinModel: a SwinBackbone has norms of its stages' outputs instead."""
    return lambda parameters: None if LAST_NORM in parameters else make(parameters)


def backbone_sizes(ours: ByPath) -> dict[str, Any]:
    """Fields of SwinConfig; raises ValueError for what is no such backbone."""
    stages = count(ours, "backbone/stages/")
    if stages != 4:
        raise ValueError(f"the backbone has {stages} stages; here it has four")
    size = side(ours, "backbone/patch_norm/scale", 0)
    first = [f"backbone/stages/{stage}/blocks/0/" for stage in range(stages)]
    tables = [block + "attention/relative_position_bias" for block in first]
    rows = {side(ours, table, 0) for table in tables}
    sides = {math.isqrt(count) for count in rows}
    if len(rows) != 1 or any(side % 2 == 0 or side**2 not in rows for side in sides):
        raise ValueError(
            f"its tables of relative positions have {sorted(rows)} rows; one and the same window "
            "in all stages has an odd number's square"
        )
    return {
        "embed_dim": size,
        "depths": [count(ours, f"backbone/stages/{stage}/blocks/") for stage in range(stages)],
        "num_heads": [side(ours, table, 1) for table in tables],
        "window_size": (sides.pop() + 1) // 2,
        "patch_size": side(ours, "backbone/patch_embedding/kernel", 0),
        "mlp_ratio": side(ours, first[0] + "mlp_hidden/kernel", 1) / max(size, 1),
    }


def swin_config(backbone: Mapping[str, Any]) -> dict[str, Any]:
    """The config of transformers for a Swin: of a file of its own, or within another's."""
    config = from_dict(SwinConfig, backbone)
    return {
        "model_type": "swin",
        # Only a hint, as any size goes in: what one window of the last stage covers.
        "image_size": 32 * config.window_size,
        "drop_path_rate": config.drop_path_rate,
        "out_features": ["stage1", "stage2", "stage3", "stage4"],
        "embed_dim": config.embed_dim,
        "depths": list(config.depths),
        "num_heads": list(config.num_heads),
        "window_size": config.window_size,
        "patch_size": config.patch_size,
        "mlp_ratio": config.mlp_ratio,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
        "num_channels": 3,
        "qkv_bias": True,
        "use_absolute_embeddings": False,
    }


def _sizes(ours: ByPath, theirs: ByPath) -> dict[str, Any]:
    return {"backbone": backbone_sizes(ours)}


def _parameters(network: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    config = from_dict(SwinConfig, network.get("backbone", {}))
    shapes = shapes_of(nnx.eval_shape(lambda: Swin(config, "float32")), "backbone/")
    return {path: shape for path, shape in shapes.items() if "adapter" not in path}


def _whole_config(network: Mapping[str, Any], classes: Sequence[str]) -> dict[str, Any]:
    return {"architectures": ["SwinModel"], **swin_config(network["backbone"])}


FORMATS = (
    Format(
        name="swin_transformers",
        title="Swin of transformers",
        kind="swin",
        signature=(
            r"embeddings\.patch_embeddings\.projection\.",
            r"encoder\.layers\.0\.blocks\.0\.attention\.",
        ),
        rows=SWIN_TRANSFORMERS,
        left_over=(
            LeftOver("layernorm.*", FINAL_NORM, "final norm.*"),
            LeftOver("swin.layernorm.*", "a final norm that a backbone does not use"),
            LeftOver(
                "encoder.layers.{stage}.blocks.{block}.attention.self.relative_position_index",
                COMPUTED,
            ),
            LeftOver("classifier.*", HEAD),
            LeftOver("embeddings.mask_token", MASKED_IMAGES),
            LeftOver("decoder.0.*", MASKED_IMAGES),
        ),
        absent=NO_NORMS,
        spellings=SPELLINGS,
        fillers={
            "layernorm.weight": _unless_backbone(first_scale),
            "layernorm.bias": _unless_backbone(first_bias),
        },
    ),
    Format(
        name="swin_timm",
        title="Swin of timm",
        kind="swin",
        signature=(
            r"patch_embed\.proj\.",
            r"layers\.0\.blocks\.0\.attn\.qkv\.",
            r"layers\.3\.downsample\.",
        ),
        # A stage begins with the merging that elsewhere ends the one before.
        rows=(*FUSED, *under("layers.{stage+1}.downsample.", "", *MERGING)),
        left_over=(*LEFT_OVER_FUSED, LeftOver("head.fc.*", HEAD)),
        absent=NO_NORMS,
    ),
    Format(
        name="swin_microsoft",
        title="Swin in the naming of Microsoft's release",
        kind="swin",
        signature=(
            r"patch_embed\.proj\.",
            r"layers\.0\.blocks\.0\.attn\.qkv\.",
            r"layers\.0\.downsample\.",
        ),
        rows=(*FUSED, *under("layers.{stage}.downsample.", "", *MERGING)),
        left_over=(*LEFT_OVER_FUSED, LeftOver("head.*", HEAD)),
        absent=NO_NORMS,
    ),
)
SWIN = Kind("swin", FORMATS, _sizes, _parameters, _whole_config)
