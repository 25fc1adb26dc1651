"""Which of their names is which of our parameters, format by format. Data; `engine.py` applies it.

A row reads: their name <-> our path, and how one becomes the other.

    Row("embeddings.norm", "backbone/patch_norm", "norm")

`{stage}` stands for a number, the same on both sides; `{stage+1}` and `{layer*2}` for one counted
otherwise there; `*` for whatever is left of the name. Rows of modules ('dense', 'conv', ...) stand
for a weight and its bias. Where a row has several of our paths, their tensor holds them stacked
along its first axis. Adding a format is adding a table to FORMATS.
"""

import dataclasses
from collections.abc import Iterable, Mapping

import numpy as np

from aavs_jax.convert.format import Filler, Format, LeftOver, Row, under

QKV = ("query", "key", "value")  # stacked in this order everywhere
BLOCK = "backbone/stages/{stage}/blocks/{block}/"
STAGE = "backbone/stages/{stage}/"

COMPUTED = "computed from the window's size, not learned"
HEAD = "a classifier's, of which a backbone has none"
MASKED_IMAGES = "of pretraining by masked images, which is over"
FINAL_NORM = "the norm before a classifier; the four stages' outputs have norms of their own"
NO_OUTPUT_NORMS = "a Swin alone need not have norms of its stages' outputs: drawn when training"
NO_NORMS = tuple((STAGE + f"output_norm/{leaf}", NO_OUTPUT_NORMS) for leaf in ("scale", "bias"))


LAST_NORM = "backbone/stages/3/output_norm/scale"


def _first_scale(parameters: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.ones_like(parameters["backbone/stages/3/blocks/0/mlp_norm/scale"])


def _first_bias(parameters: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.zeros_like(parameters["backbone/stages/3/blocks/0/mlp_norm/bias"])


def _unless_backbone(make: Filler) -> Filler:
    """Only for a SwinModel: a SwinBackbone has norms of its stages' outputs instead."""
    return lambda parameters: None if LAST_NORM in parameters else make(parameters)


# ------------------------------------------------------------------- Swin, in three namings

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
SWIN_BLOCK_FUSED = (
    Row("norm1", "attention_norm", "norm"),
    Row("attn.qkv", tuple(f"attention/{part}" for part in QKV), "dense"),
    Row("attn.relative_position_bias_table", "attention/relative_position_bias", "same"),
    Row("attn.proj", "attention/output", "dense"),
    Row("norm2", "mlp_norm", "norm"),
    Row("mlp.fc1", "mlp_hidden", "dense"),
    Row("mlp.fc2", "mlp_output", "dense"),
)
SWIN_MICROSOFT = (
    Row("patch_embed.proj", "backbone/patch_embedding", "conv"),
    Row("patch_embed.norm", "backbone/patch_norm", "norm"),
    *under("layers.{stage}.blocks.{block}.", BLOCK, *SWIN_BLOCK_FUSED),
    Row("layers.{stage}.downsample.norm", STAGE + "merge/norm", "norm"),
    Row("layers.{stage}.downsample.reduction", STAGE + "merge/reduction", "dense"),
)
# The same, but a stage begins with the merging that ends the one before there.
SWIN_TIMM = (
    *SWIN_MICROSOFT[:-2],
    Row("layers.{stage+1}.downsample.norm", STAGE + "merge/norm", "norm"),
    Row("layers.{stage+1}.downsample.reduction", STAGE + "merge/reduction", "dense"),
)
LEFT_OVER_FUSED = (
    LeftOver("layers.{stage}.blocks.{block}.attn.relative_position_index", COMPUTED),
    LeftOver("layers.{stage}.blocks.{block}.attn_mask", COMPUTED),
    LeftOver("norm.*", FINAL_NORM, "final norm.*"),
)
# transformers 5 has other names in memory, which end up in files that torch.save wrote.
SWIN_SPELLINGS = (
    (r"(blocks\.\d+\.attention)\.q_proj\.", r"\1.self.query."),
    (r"(blocks\.\d+\.attention)\.k_proj\.", r"\1.self.key."),
    (r"(blocks\.\d+\.attention)\.v_proj\.", r"\1.self.value."),
    (r"(blocks\.\d+\.attention)\.o_proj\.", r"\1.output.dense."),
    (r"(blocks\.\d+\.attention)\.relative_position_bias\.", r"\1.self."),
    (r"(encoder\.layers\.\d+\.blocks\.\d+)\.mlp\.fc1\.", r"\1.intermediate.dense."),
    (r"(encoder\.layers\.\d+\.blocks\.\d+)\.mlp\.fc2\.", r"\1.output.dense."),
)

# --------------------------------------------------- Mask2Former, as transformers saves it

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


# ---------------------------------------- AAVS: a Mask2Former inside a module, and its additions

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

# ------------------------------------------------------------------------ VGGish for PyTorch

# Its first linear layer takes the map flattened in the order time, frequency, channel, as ours
# does: torchvggish moves the channels last before it flattens. A transpose is all there is to it.
VGGISH = (
    Row("features.{place}", "audio_encoder/blocks/{block}/{conv}", "conv"),
    Row("embeddings.{layer*2}", "audio_encoder/fully_connected/{layer}", "dense"),
)
PCA = "of the post-processing to AudioSet's 8-bit embeddings, which no network here uses"


def _place(numbers: Mapping[str, int], paths: Iterable[str]) -> int:
    """Where a convolution stands among theirs: each is followed by a ReLU, each block by a pool."""
    kernels = {path.rpartition("/")[0] for path in paths if path.startswith("audio_encoder/blocks")}
    blocks = [int(kernel.split("/")[2]) for kernel in kernels]
    before = sum(block < numbers["block"] for block in blocks)
    return 2 * (before + numbers["conv"]) + numbers["block"]


# -------------------------------------------------------------------------------- all of them

FORMATS: tuple[Format, ...] = (
    Format(
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
    ),
    Format(
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
            *SWIN_SPELLINGS,
        ),
        fillers={
            "criterion.empty_weight": _class_weights,
            PIXEL + "encoder.swin.layernorm.weight": _first_scale,
            PIXEL + "encoder.swin.layernorm.bias": _first_bias,
        },
    ),
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
        spellings=SWIN_SPELLINGS,
        fillers={
            "layernorm.weight": _unless_backbone(_first_scale),
            "layernorm.bias": _unless_backbone(_first_bias),
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
        rows=SWIN_TIMM,
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
        rows=SWIN_MICROSOFT,
        left_over=(*LEFT_OVER_FUSED, LeftOver("head.*", HEAD)),
        absent=NO_NORMS,
    ),
    Format(
        name="vggish",
        title="VGGish for PyTorch",
        kind="vggish",
        signature=(r"features\.0\.weight$", r"embeddings\.0\.weight$"),
        rows=VGGISH,
        left_over=(
            LeftOver("pproc.*", PCA),
            LeftOver("pca_eigen_vectors", PCA),
            LeftOver("pca_means", PCA),
        ),
        derived={"place": _place},
    ),
    Format(
        name="aavs_jax",
        title="weights under the names of aavs_jax",
        kind="",
        signature=(r"(backbone/|audio_encoder/|decoder/|pixel_decoder/|audio_proj/)",),
        rows=(Row("*", "*", "same"),),
    ),
)
BY_NAME = {format.name: format for format in FORMATS}
