"""AAVS's and Mask2Former's parameters under the names of their public checkpoints."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from aavs_jax.methods.aavs.config import AAVSConfig
from aavs_jax.methods.aavs.network import abstract_model
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
from aavs_jax.methods.parts.swin_weights import (
    BLOCK,
    COMPUTED,
    QKV,
    SPELLINGS,
    SWIN_TRANSFORMERS,
    backbone_sizes,
    first_bias,
    first_scale,
    swin_config,
)

# Mask2Former's parameters are all of AAVS's but for what has these in its path.
ADDED = ("adapter", "audio_proj", "silent_embed", "sounding_embed", "uncertain_embed")
PIXEL = "model.pixel_level_module."
MODULE = "model.transformer_module."

MASK2FORMER = (
    *under(PIXEL + "encoder.", "", *SWIN_TRANSFORMERS),
    *under(
        PIXEL + "decoder.",
        "pixel_decoder/",
        Row("level_embed", "level_embed", "same"),
        Row("input_projections.{level}.0", "input_projections/{level}", "pointwise"),
        Row("input_projections.{level}.1", "input_norms/{level}", "norm"),
        # Not an adapter in AAVS's sense: the feature pyramid's lateral step.
        Row("adapter_1.0", "lateral", "pointwise"),
        Row("adapter_1.1", "lateral_norm", "norm"),
        Row("layer_1.0", "fusion", "conv"),
        Row("layer_1.1", "fusion_norm", "norm"),
        Row("mask_projection", "mask_projection", "pointwise"),
    ),
    *under(
        PIXEL + "decoder.encoder.layers.{layer}.",
        "pixel_decoder/layers/{layer}/",
        Row("self_attn.sampling_offsets", "attention/sampling_offsets", "dense"),
        Row("self_attn.attention_weights", "attention/attention_weights", "dense"),
        Row("self_attn.value_proj", "attention/value", "dense"),
        Row("self_attn.output_proj", "attention/output", "dense"),
        Row("self_attn_layer_norm", "attention_norm", "norm"),
        Row("fc1", "ffn/hidden", "dense"),
        Row("fc2", "ffn/output", "dense"),
        Row("final_layer_norm", "ffn_norm", "norm"),
    ),
    *under(
        MODULE,
        "decoder/",
        Row("queries_embedder.weight", "query_positions", "same"),
        Row("queries_features.weight", "query_features", "same"),
        Row("level_embed.weight", "level_embed", "same"),
        Row("decoder.layernorm", "norm", "norm"),
        Row("decoder.mask_predictor.mask_embedder.{layer}.0", "mask_embedder/{layer}", "dense"),
    ),
    *under(
        MODULE + "decoder.layers.{layer}.",
        "decoder/layers/{layer}/",
        Row(
            "cross_attn.in_proj_weight",
            tuple(f"cross_attention/{part}/kernel" for part in QKV),
            "transposed",
        ),
        Row(
            "cross_attn.in_proj_bias",
            tuple(f"cross_attention/{part}/bias" for part in QKV),
            "same",
        ),
        Row("cross_attn.out_proj", "cross_attention/output", "dense"),
        Row("cross_attn_layer_norm", "cross_norm", "norm"),
        Row("self_attn.q_proj", "self_attention/query", "dense"),
        Row("self_attn.k_proj", "self_attention/key", "dense"),
        Row("self_attn.v_proj", "self_attention/value", "dense"),
        Row("self_attn.out_proj", "self_attention/output", "dense"),
        Row("self_attn_layer_norm", "self_norm", "norm"),
        Row("fc1", "ffn/hidden", "dense"),
        Row("fc2", "ffn/output", "dense"),
        Row("final_layer_norm", "ffn_norm", "norm"),
    ),
    Row("class_predictor", "decoder/class_predictor", "dense"),
)
UNUSED_NORM = "a final norm of the backbone that Mask2Former does not use"
EMPTY_WEIGHT = "the loss's weights of the classes; here they are the config's"
MASK2FORMER_LEFT_OVER = (
    LeftOver("criterion.empty_weight", EMPTY_WEIGHT, "class weights"),
    LeftOver(PIXEL + "encoder.swin.layernorm.*", UNUSED_NORM, "unused norm.*"),
    LeftOver(PIXEL + "encoder.layernorm.*", UNUSED_NORM, "unused norm.*"),
    LeftOver(PIXEL + "encoder.*.relative_position_index", COMPUTED),
)


def _class_weights(parameters: Mapping[str, np.ndarray]) -> np.ndarray:
    weights = np.ones_like(parameters["decoder/class_predictor/bias"])
    weights[-1] = 0.1  # "no object"; transformers' default, and the paper's
    return weights


# A Mask2Former inside a module, and AAVS's additions.
AAVS = (
    *under("model.", "", *MASK2FORMER),
    *under(
        f"model.{PIXEL}encoder.encoder.layers.{{stage}}.blocks.{{block}}.",
        BLOCK,
        Row("attention.output.swin_adapt_1.0", "attention_adapter/down", "dense"),
        Row("attention.output.swin_adapt_1.2", "attention_adapter/up", "dense"),
        Row("output.swin_adapt_3.0", "mlp_adapter/down", "dense"),
        Row("output.swin_adapt_3.2", "mlp_adapter/up", "dense"),
    ),
    *under(
        f"model.{PIXEL}decoder.encoder.layers.{{layer}}.self_attn.",
        "pixel_decoder/layers/{layer}/attention/",
        Row("avs_adapt.0", "adapter/down", "dense"),
        Row("avs_adapt.2", "adapter/up", "dense"),
    ),
    *under(
        f"model.{MODULE}",
        "decoder/",
        Row("decoder.layers.{layer}.self_attn.avs_adapt.0", "layers/{layer}/adapter/down", "dense"),
        Row("decoder.layers.{layer}.self_attn.avs_adapt.2", "layers/{layer}/adapter/up", "dense"),
        Row("silence_embed.weight", "silent_embed", "only row"),
        Row("audio_embed.weight", "sounding_embed", "only row"),
        Row("uncertain_embed.weight", "uncertain_embed", "only row"),
    ),
    Row("audio_proj.0", "audio_proj/hidden", "dense"),
    Row("audio_proj.2", "audio_proj/output", "dense"),
)


def _mask2former_sizes(ours: ByPath, theirs: ByPath) -> dict[str, Any]:
    offsets = side(ours, "pixel_decoder/layers/0/attention/sampling_offsets/bias", 0)
    heads, rest = divmod(offsets, 2 * LEVELS * POINTS)
    if rest:
        raise ValueError(
            f"{offsets} sampling offsets are not those of {LEVELS} levels and {POINTS} points, "
            "which the pixel decoder here has"
        )
    return {
        "backbone": backbone_sizes(ours),
        "num_classes": side(ours, "decoder/class_predictor/bias", 0) - 1,
        "num_queries": side(ours, "decoder/query_positions", 0),
        "feature_size": side(ours, "decoder/query_positions", 1),
        "num_heads": heads,
        "encoder_layers": count(ours, "pixel_decoder/layers/"),
        "encoder_ffn": side(ours, "pixel_decoder/layers/0/ffn/hidden/kernel", 1),
        "decoder_layers": count(ours, "decoder/layers/"),
        "decoder_ffn": side(ours, "decoder/layers/0/ffn/hidden/kernel", 1),
    }


def _aavs_sizes(ours: ByPath, theirs: ByPath) -> dict[str, Any]:
    network = _mask2former_sizes(ours, theirs)
    network["prior"] = "decoder/sounding_embed" in ours
    binary = network["num_classes"] == 2 and not network["prior"]
    network["task"] = "binary" if binary else "semantic"
    # Without it the file is no whole one, which is told better by what it lacks.
    if "audio_proj/hidden/kernel" in ours:
        embedding = side(ours, "audio_proj/hidden/kernel", 0)
        network["audio_hidden"] = side(ours, "audio_proj/hidden/kernel", 1)
        if embedding != AAVSConfig().audio.fully_connected[-1]:
            # Of the encoder that belongs to it only its output is known.
            network["audio"] = {"fully_connected": [embedding]}
    return network


@functools.lru_cache(8)
def whole_shapes(config: AAVSConfig) -> ByPath:
    """Path -> shape of every parameter of AAVS, its audio encoder included. Not to be changed."""
    return shapes_of(abstract_model(config))


def _aavs_parameters(network: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """All but the audio encoder, which is a file of its own."""
    shapes = whole_shapes(AAVSConfig.from_dict(network))
    return {path: s for path, s in shapes.items() if not path.startswith("audio_encoder/")}


def _mask2former_parameters(network: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    shapes = _aavs_parameters(network)
    return {path: s for path, s in shapes.items() if not any(part in path for part in ADDED)}


def _mask2former_config(network: Mapping[str, Any], classes: Sequence[str]) -> dict[str, Any]:
    config = AAVSConfig.from_dict(network)
    names = list(classes) or [f"LABEL_{index}" for index in range(config.num_classes)]
    return {
        "model_type": "mask2former",
        "architectures": ["Mask2FormerForUniversalSegmentation"],
        "activation_function": "relu",
        "pre_norm": False,
        "enforce_input_projection": False,
        "common_stride": 4,
        "feature_strides": [4, 8, 16, 32],
        "num_queries": config.num_queries,
        "feature_size": config.feature_size,
        "mask_feature_size": config.feature_size,
        "hidden_dim": config.feature_size,
        "num_attention_heads": config.num_heads,
        "encoder_layers": config.encoder_layers,
        "encoder_feedforward_dim": config.encoder_ffn,
        "decoder_layers": config.decoder_layers + 1,  # theirs counts the prediction before them
        "dim_feedforward": config.decoder_ffn,
        "id2label": {str(index): name for index, name in enumerate(names)},
        "label2id": {name: index for index, name in enumerate(names)},
        "backbone_config": swin_config(network.get("backbone", {})),
    }


AAVS_FORMAT = Format(
    name="aavs",
    title="AAVS",
    kind="aavs",
    signature=(
        r"(model\.)?model\.pixel_level_module\.",
        r"(model\.)?model\..*\.(swin_adapt_[13]|avs_adapt)\.",
    ),
    rows=AAVS,
    left_over=tuple(
        dataclasses.replace(known, theirs="model." + known.theirs)
        for known in MASK2FORMER_LEFT_OVER
    ),
    spellings=(
        (r"^(model\.(?:pixel_level_module|transformer_module)\.)", r"model.\1"),
        (r"^((?:class_predictor|criterion)\.)", r"model.\1"),
    ),
)
MASK2FORMER_FORMAT = Format(
    name="mask2former",
    title="Mask2Former of transformers",
    kind="mask2former",
    signature=(
        r"(model\.)?pixel_level_module\.encoder\.",
        r"(model\.)?transformer_module\.",
    ),
    rows=MASK2FORMER,
    left_over=MASK2FORMER_LEFT_OVER,
    spellings=(
        (r"^((?:pixel_level_module|transformer_module)\.)", r"model.\1"),
        (r"^(model\.pixel_level_module\.encoder)\.swin\.(embeddings|encoder)\.", r"\1.\2."),
        *SPELLINGS,
    ),
    fillers={
        "criterion.empty_weight": _class_weights,
        PIXEL + "encoder.swin.layernorm.weight": first_scale,
        PIXEL + "encoder.swin.layernorm.bias": first_bias,
    },
)
KINDS = (
    Kind("aavs", (AAVS_FORMAT,), _aavs_sizes, _aavs_parameters, hears=True),
    Kind(
        "mask2former",
        (MASK2FORMER_FORMAT,),
        _mask2former_sizes,
        _mask2former_parameters,
        _mask2former_config,
    ),
)
