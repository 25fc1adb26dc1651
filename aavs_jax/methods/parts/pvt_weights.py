"""PVT-v2's parameters under the names of its authors' files, and of transformers."""

from collections.abc import Mapping
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
    under,
)
from aavs_jax.methods.parts.pvt import PVT
from aavs_jax.methods.parts.sizes import PVTConfig, from_dict

HEAD = "a classifier's, of which a backbone has none"
BACKBONE = "backbone/"
BLOCK = BACKBONE + "stages/{stage}/blocks/{block}/"

PVT_ROWS = (
    Row("patch_embed{stage+1}.proj", "backbone/stages/{stage}/patch_embedding/conv", "conv"),
    Row("patch_embed{stage+1}.norm", "backbone/stages/{stage}/patch_embedding/norm", "norm"),
    *under(
        "block{stage+1}.{block}.",
        BLOCK,
        Row("norm1", "attention_norm", "norm"),
        Row("attn.q", "attention/query", "dense"),
        Row("attn.kv", ("attention/key", "attention/value"), "dense"),
        Row("attn.proj", "attention/output", "dense"),
        Row("attn.sr", "attention/reduction", "conv"),
        Row("attn.norm", "attention/reduction/norm", "norm"),
        Row("norm2", "mlp_norm", "norm"),
        Row("mlp.fc1", "mlp/hidden", "dense"),
        Row("mlp.dwconv.dwconv", "mlp/depthwise", "conv"),
        Row("mlp.fc2", "mlp/output", "dense"),
    ),
    Row("norm{stage+1}", "backbone/stages/{stage}/output_norm", "norm"),
)


TRANSFORMERS_ROWS = (
    *under(
        "encoder.layers.{stage}.",
        BACKBONE + "stages/{stage}/",
        Row("patch_embedding.proj", "patch_embedding/conv", "conv"),
        Row("patch_embedding.layer_norm", "patch_embedding/norm", "norm"),
        Row("layer_norm", "output_norm", "norm"),
    ),
    *under(
        "encoder.layers.{stage}.blocks.{block}.",
        BLOCK,
        Row("layer_norm_1", "attention_norm", "norm"),
        Row("attention.query", "attention/query", "dense"),
        Row("attention.key", "attention/key", "dense"),
        Row("attention.value", "attention/value", "dense"),
        Row("attention.proj", "attention/output", "dense"),
        Row("attention.spatial_reduction", "attention/reduction", "conv"),
        Row("attention.layer_norm", "attention/reduction/norm", "norm"),
        Row("layer_norm_2", "mlp_norm", "norm"),
        Row("mlp.dense1", "mlp/hidden", "dense"),
        Row("mlp.dwconv.dwconv", "mlp/depthwise", "conv"),
        Row("mlp.dense2", "mlp/output", "dense"),
    ),
)


def pvt_sizes(ours: ByPath) -> dict[str, Any]:
    """Fields of PVTConfig but the heads, which no shape tells: all published ones have the same.

    Raises:
      ValueError: it is no such backbone.
    """
    stages = count(ours, BACKBONE + "stages/")
    if stages != 4:
        raise ValueError(f"the backbone has {stages} stages; here it has four")
    places = [f"{BACKBONE}stages/{stage}/" for stage in range(stages)]
    widths = [side(ours, place + "output_norm/scale", 0) for place in places]
    hidden = [side(ours, place + "blocks/0/mlp/hidden/bias", 0) for place in places]
    kernels = [place + "blocks/0/attention/reduction/kernel" for place in places]
    return {
        "embed_dims": widths,
        "depths": [count(ours, place + "blocks/") for place in places],
        "mlp_ratios": [wide // max(width, 1) for wide, width in zip(hidden, widths, strict=True)],
        "reductions": [side(ours, k, 0) if k in ours else 1 for k in kernels],
    }


def pvt_parameters(config: PVTConfig) -> dict[str, tuple[int, ...]]:
    """Path -> shape of every parameter of the backbone."""
    return shapes_of(nnx.eval_shape(lambda: PVT(config, "float32")), BACKBONE)


def _sizes(ours: ByPath, theirs: ByPath) -> dict[str, Any]:
    return {"pvt": pvt_sizes(ours)}


def _parameters(network: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return pvt_parameters(from_dict(PVTConfig, network.get("pvt", {})))


FORMATS = (
    Format(
        name="pvt_v2",
        title="PVT-v2",
        kind="pvt",
        signature=(r"patch_embed1\.proj\.", r"block1\.0\.attn\.kv\.", r"block1\.0\.mlp\.dwconv\."),
        rows=PVT_ROWS,
        left_over=(LeftOver("head.*", HEAD),),
    ),
    Format(
        name="pvt_v2_transformers",
        title="PVT-v2 of transformers",
        kind="pvt",
        signature=(
            r"encoder\.layers\.0\.patch_embedding\.proj\.",
            r"encoder\.layers\.0\.blocks\.0\.mlp\.dwconv\.",
        ),
        rows=TRANSFORMERS_ROWS,
        left_over=(LeftOver("classifier.*", HEAD),),
    ),
)
PVT_V2 = Kind("pvt", FORMATS, _sizes, _parameters)
