"""AVSegFormer's parameters under the names of its public checkpoints, which have VGGish inside."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from aavs_jax.methods.avsegformer.config import AVSegFormerConfig
from aavs_jax.methods.avsegformer.network import AVSegFormer
from aavs_jax.methods.functional import functional
from aavs_jax.methods.parts.deformable_attention import LEVELS, POINTS
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
from aavs_jax.methods.parts.vggish_weights import LEFT_OVER as VGGISH_LEFT_OVER
from aavs_jax.methods.parts.vggish_weights import ROWS as VGGISH
from aavs_jax.methods.parts.vggish_weights import audio_sizes, place_among_theirs

SOUND = "vggish."  # before the names of the audio encoder inside
UNUSED = "of a part of the public network that it does not use"
QKV = ("query", "key", "value")  # stacked in this order


def _attention(theirs: str, ours: str, *, bias: bool) -> tuple[Row, ...]:
    """Rows of an attention whose three input projections are one matrix."""
    stacked = {leaf: tuple(f"{ours}/{part}/{leaf}" for part in QKV) for leaf in ("kernel", "bias")}
    if not bias:
        return (
            Row(f"{theirs}.in_proj_weight", stacked["kernel"], "transposed"),
            Row(f"{theirs}.out_proj.weight", f"{ours}/output/kernel", "transposed"),
        )
    return (
        Row(f"{theirs}.in_proj_weight", stacked["kernel"], "transposed"),
        Row(f"{theirs}.in_proj_bias", stacked["bias"], "same"),
        Row(f"{theirs}.out_proj", f"{ours}/output", "dense"),
    )


def _decoder_layer(ffn: tuple[str, str], *, bias: bool) -> tuple[Row, ...]:
    return (
        *_attention("self_attn", "self_attention", bias=bias),
        *_attention("cross_attn", "cross_attention", bias=bias),
        Row("norm1", "self_norm", "norm"),
        Row("norm2", "cross_norm", "norm"),
        Row("norm3", "ffn_norm", "norm"),
        Row(ffn[0], "ffn/hidden", "dense"),
        Row(ffn[1], "ffn/output", "dense"),
    )


HEAD = (
    Row("level_embed", "encoder/level_embed", "same"),
    Row("learnable_query.weight", "decoder_queries", "same"),
    Row("query_generator.query.weight", "query_generator/query", "same"),
    *under(
        "query_generator.layers.{layer}.",
        "query_generator/layers/{layer}/",
        *_decoder_layer(("ffn.0", "ffn.2"), bias=False),
    ),
    *under(
        "transformer.encoder.layers.{layer}.",
        "encoder/layers/{layer}/",
        Row("self_attn.sampling_offsets", "attention/sampling_offsets", "dense"),
        Row("self_attn.attention_weights", "attention/attention_weights", "dense"),
        Row("self_attn.value_proj", "attention/value", "dense"),
        Row("self_attn.output_proj", "attention/output", "dense"),
        Row("norm1", "attention_norm", "norm"),
        Row("linear1", "ffn/hidden", "dense"),
        Row("linear2", "ffn/output", "dense"),
        Row("norm2", "ffn_norm", "norm"),
    ),
    *under(
        "transformer.decoder.layers.{layer}.",
        "decoder/layers/{layer}/",
        *_decoder_layer(("linear1", "linear2"), bias=True),
    ),
    Row("in_proj.{level}.0", "input_projections/{level}", "pointwise"),
    Row("in_proj.{level}.1", "input_norms/{level}", "norm"),
    Row("lateral_conv.0", "lateral", "pointwise"),
    Row("lateral_conv.1", "lateral_norm", "norm"),
    Row("out_conv.0", "fusion", "conv"),
    Row("out_conv.1", "fusion_norm", "norm"),
    Row("fusion_block.q_proj.weight", "mixer/query/kernel", "transposed"),
    Row("fusion_block.kv_proj.weight", ("mixer/key/kernel", "mixer/value/kernel"), "transposed"),
    Row("fusion_block.proj", "mixer/output", "dense"),
    Row("mlp.layers.{layer}", "head/mlp/{layer}", "pointwise"),
    Row("fc.0", "head/coarse", "conv"),
    Row("fc.2", "head/fine", "conv"),
    Row("fc.4.weight", "head/classify/kernel", "1x1"),
)


def _sizes(ours: ByPath, theirs: ByPath) -> dict[str, Any]:
    heads, rest = divmod(
        side(ours, "encoder/layers/0/attention/sampling_offsets/bias", 0), 2 * LEVELS * POINTS
    )
    if rest:
        raise ValueError(f"its sampling offsets are not those of {LEVELS} levels, {POINTS} points")
    outputs = side(ours, "head/classify/kernel", 1)
    has_pvt = "backbone/stages/0/patch_embedding/conv/kernel" in ours
    heard = {name.removeprefix(SOUND): s for name, s in theirs.items() if name.startswith(SOUND)}
    return {
        "task": "binary" if outputs == 1 else "semantic",
        "num_classes": max(outputs, 2),
        "num_queries": side(ours, "decoder_queries", 0),
        "backbone": "pvt" if has_pvt else "resnet",
        **({"pvt": pvt_sizes(ours)} if has_pvt else {"resnet": resnet_sizes(ours)}),
        **audio_sizes(ours, heard),
        "feature_size": side(ours, "decoder_queries", 1),
        "num_heads": heads,
        "encoder_layers": count(ours, "encoder/layers/"),
        "encoder_ffn": side(ours, "encoder/layers/0/ffn/hidden/bias", 0),
        "generator_layers": count(ours, "query_generator/layers/"),
        "generator_ffn": side(ours, "query_generator/layers/0/ffn/hidden/bias", 0),
        "decoder_layers": count(ours, "decoder/layers/"),
        "decoder_ffn": side(ours, "decoder/layers/0/ffn/hidden/bias", 0),
        "head_channels": [side(ours, f"head/{layer}/bias", 0) for layer in ("coarse", "fine")],
        "query_hidden": side(ours, "head/mlp/0/bias", 0),
        "prior": False,
    }


def _parameters(network: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return shapes_of(functional(AVSegFormer, AVSegFormerConfig.from_dict(network)).model)


FORMAT = Format(
    name="avsegformer",
    title="AVSegFormer",
    kind="avsegformer",
    signature=(r"head\.query_generator\.query\.", r"backbone\.", r"audio_proj\."),
    rows=(
        *under("backbone.", "", *PVT_ROWS),
        *under("backbone.", "backbone/", *RESNET_DOUBLED),
        *under(SOUND, "", *VGGISH),
        Row("audio_proj", "audio_proj", "dense"),
        *under("head.", "", *HEAD),
    ),
    left_over=(
        LeftOver("head.fpn.*", UNUSED),
        LeftOver("head.attn_fc.*", UNUSED),
        *(LeftOver("backbone." + stage, SECOND) for stage in SECOND_STAGES),
        COUNTED,
        *(
            dataclasses.replace(known, theirs=SOUND + known.theirs, role="")
            for known in VGGISH_LEFT_OVER
        ),
    ),
    derived={"place": place_among_theirs},
)
KINDS = (Kind("avsegformer", (FORMAT,), _sizes, _parameters),)
