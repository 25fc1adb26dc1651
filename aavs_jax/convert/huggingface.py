"""config.json of transformers: read, held against the weights, and written."""

from collections.abc import Mapping, Sequence
from typing import Any

from aavs_jax.errors import UserError, shown
from aavs_jax.methods.aavs.config import AAVSConfig

# What a config may ask for and the networks here do not compute otherwise. A field that is not
# there has this value: transformers leaves out what equals its defaults.
FIXED = {
    "mask2former": {
        "model_type": "mask2former",
        "activation_function": "relu",
        "pre_norm": False,
        "enforce_input_projection": False,
        "common_stride": 4,
        "feature_strides": [4, 8, 16, 32],
        "num_feature_levels": 3,
        "use_timm_backbone": False,
    },
    "swin": {
        "model_type": "swin",
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
        "num_channels": 3,
        "qkv_bias": True,
        "use_absolute_embeddings": False,
    },
}
# Their field -> ours, of the backbone and of the rest.
BACKBONE = {
    "embed_dim": "embed_dim",
    "depths": "depths",
    "num_heads": "num_heads",
    "window_size": "window_size",
    "patch_size": "patch_size",
    "mlp_ratio": "mlp_ratio",
}
SIZES = {
    "num_queries": "num_queries",
    "feature_size": "feature_size",
    "mask_feature_size": "feature_size",
    "hidden_dim": "feature_size",
    "num_attention_heads": "num_heads",
    "encoder_layers": "encoder_layers",
    "encoder_feedforward_dim": "encoder_ffn",
    "decoder_layers": "decoder_layers",
    "dim_feedforward": "decoder_ffn",
}
NOT_WRITTEN = ("num_feature_levels", "use_timm_backbone")  # no fields of transformers' own
STAGES = ["stage1", "stage2", "stage3", "stage4"]


def check_config(kind: str, network: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Holds a config.json against the sizes that the weights have.

    Args:
      kind: 'mask2former' or 'swin'.
      network: the sizes, from the weights.
      config: what the file says.

    Raises:
      UserError: it contradicts the weights, or asks for what is not built here; names the field.
    """
    backbone, place = config, ""
    if kind != "swin":
        _check_fixed("mask2former", config, "")
        for field, ours in SIZES.items():
            # Theirs counts the prediction before the first layer.
            extra = 1 if field == "decoder_layers" else 0
            _check(field, config.get(field), network[ours] + extra)
        if "id2label" in config:
            labels = config["id2label"]
            count = len(labels) if isinstance(labels, Mapping) else labels
            _check("id2label", count, network["num_classes"], "classes")
        _check("num_labels", config.get("num_labels"), network["num_classes"])
        backbone, place = config.get("backbone_config") or {}, "backbone_config."
        if not isinstance(backbone, Mapping):
            raise UserError(
                "config.json's backbone_config holds no sizes: take the file that belongs to the "
                "weights"
            )
        out = backbone.get("out_features")
        if out is not None and _plain(out) != STAGES:
            raise UserError(
                f"config.json's {place}out_features is {shown(out)}, but the network here "
                "uses all four stages: take other weights"
            )
    _check_fixed("swin", backbone, place)
    for field, ours in BACKBONE.items():
        _check(place + field, backbone.get(field), network["backbone"][ours])


def classes_of(config: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Class names by id from a config.json, () if it has none, or only 'LABEL_0' and so on."""
    labels = (config or {}).get("id2label")
    if not isinstance(labels, Mapping):
        return ()
    names = tuple(labels.get(str(index)) for index in range(len(labels)))
    if any(not isinstance(name, str) for name in names):
        return ()
    if all(name == f"LABEL_{index}" for index, name in enumerate(names)):
        return ()
    return names


def huggingface_config(network: Mapping[str, Any], classes: Sequence[str] = ()) -> dict[str, Any]:
    """A config.json with which transformers loads the export: of a Mask2Former, or of Swin alone.

    Args:
      network: `Card.network`; of Swin alone it has nothing but a backbone.
      classes: names by class id, as many as the network has classes; () numbers them.

    Returns:
      Plain values for JSON.
    """
    config = AAVSConfig.from_dict(network)
    backbone: dict[str, Any] = {
        "model_type": "swin",
        "architectures": ["SwinModel"],
        # Only a hint, as any size goes in: what one window of the last stage covers.
        "image_size": 32 * config.backbone.window_size,
        "drop_path_rate": config.backbone.drop_path_rate,
        "out_features": STAGES,
        **{field: _plain(getattr(config.backbone, ours)) for field, ours in BACKBONE.items()},
        **FIXED["swin"],
    }
    if set(network) <= {"backbone"}:
        return backbone
    names = list(classes) or [f"LABEL_{index}" for index in range(config.num_classes)]
    sizes = {field: getattr(config, ours) for field, ours in SIZES.items()}
    fixed = {k: v for k, v in FIXED["mask2former"].items() if k not in NOT_WRITTEN}
    return {
        **fixed,
        "architectures": ["Mask2FormerForUniversalSegmentation"],
        **sizes,
        "decoder_layers": config.decoder_layers + 1,
        "id2label": {str(index): name for index, name in enumerate(names)},
        "label2id": {name: index for index, name in enumerate(names)},
        "backbone_config": {k: v for k, v in backbone.items() if k != "architectures"},
    }


def _check_fixed(kind: str, config: Mapping[str, Any], place: str) -> None:
    for field, value in FIXED[kind].items():
        given = config.get(field)
        if given is not None and _plain(given) != value:
            raise UserError(
                f"config.json's {place}{field} is {shown(given)}, but the network here is "
                f"built with {value!r}: take other weights"
            )


def _check(field: str, given: Any, size: Any, what: str = "") -> None:
    given, size = _plain(given), _plain(size)
    if given is not None and given != size:
        words = f"{shown(given)} {what}".strip()
        raise UserError(
            f"config.json's {field} says {words}, but the weights have {size!r}: take the "
            "config.json that belongs to them"
        )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
