"""Sizes: told by shapes, held against config.json, written for transformers; tables resized."""

import copy
import json
import time
import types

import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file, save_file

from aavs_jax.convert import engine, sizes
from aavs_jax.convert.formats import FORMATS, KINDS
from aavs_jax.convert.naming import plan
from aavs_jax.convert.windows import resize_positions
from aavs_jax.errors import UserError
from aavs_jax.methods.aavs.config import AAVSConfig
from aavs_jax.methods.parts.key_tables import TENSORS
from aavs_jax.weights.card_faults import WIDEST

STAGES = ["stage1", "stage2", "stage3", "stage4"]
BACKBONE = {
    "embed_dim": 8,
    "depths": [1, 2, 1, 1],
    "num_heads": [1, 2, 2, 4],
    "window_size": 3,
    "patch_size": 4,
    "mlp_ratio": 2.0,
}
NETWORK = {
    "backbone": BACKBONE,
    "num_classes": 3,
    "num_queries": 5,
    "feature_size": 32,
    "num_heads": 4,
    "encoder_layers": 2,
    "encoder_ffn": 12,
    "decoder_layers": 4,
    "decoder_ffn": 20,
}
ADDED = {"task": "binary", "prior": False, "audio_hidden": 7}
SOUND = {"blocks": [[3], [4, 5], [6]], "fully_connected": [11, 9], "channels": 1}


def shapes_of(format: str, network) -> dict[str, tuple[int, ...]]:
    """Of the tensors in a file of this format; no numbers are made."""
    wanted = sizes.wanted(FORMATS[format].kind, network)
    shapes = {}
    for step in plan(FORMATS[format], wanted):
        parts = [np.broadcast_to(np.float32(0), wanted[path]) for path in step.ours]
        parts = [TENSORS[step.how][1](part).shape for part in parts]
        shapes[step.theirs] = (sum(part[0] for part in parts), *parts[0][1:])
    return shapes


def fake(value: np.ndarray) -> types.SimpleNamespace:
    """What the engine needs of a tensor in a file."""
    return types.SimpleNamespace(
        shape=value.shape, dtype=value.dtype, read=lambda: value, release=lambda: None
    )


# --------------------------------------------------------------------------------- from shapes


@pytest.mark.parametrize("format", ["swin_transformers", "swin_microsoft", "swin_timm"])
def test_swin(format):
    network = {"backbone": BACKBONE}
    assert sizes.network_of(FORMATS[format], shapes_of(format, network)) == network


def test_mask2former():
    assert sizes.network_of(FORMATS["mask2former"], shapes_of("mask2former", NETWORK)) == NETWORK


@pytest.mark.parametrize(
    "changed, task",
    [
        ({"num_classes": 2}, "binary"),
        ({"num_classes": 2, "prior": True}, "semantic"),
        ({"num_classes": 71}, "semantic"),
        ({"num_classes": 71, "prior": True}, "semantic"),
    ],
)
def test_aavs(changed, task):
    network = NETWORK | ADDED | changed | {"task": task}
    assert sizes.network_of(FORMATS["aavs"], shapes_of("aavs", network)) == network


def test_aavs_with_another_embedding():
    network = NETWORK | ADDED | {"num_classes": 2, "audio": {"fully_connected": [9]}}
    assert sizes.network_of(FORMATS["aavs"], shapes_of("aavs", network)) == network


@pytest.mark.parametrize("channels", [1, 2])
def test_vggish(channels):
    network = {"audio": SOUND | {"channels": channels}}
    assert sizes.network_of(FORMATS["vggish"], shapes_of("vggish", network)) == network


def test_the_defaults_are_the_papers():
    """Swin-B and the decoders of the full network, from nothing but their shapes."""
    network = sizes.network_of(FORMATS["aavs"], shapes_of("aavs", {}))
    assert AAVSConfig.from_dict(network) == AAVSConfig()


def test_each_kind_has_its_parts():
    wanted = {
        kind: set(sizes.wanted(kind, NETWORK | {"prior": True}))
        for kind in ("aavs", "mask2former", "swin", "vggish")
    }
    assert wanted["swin"] < wanted["mask2former"] < wanted["aavs"]
    assert not wanted["vggish"] & wanted["aavs"]
    added = wanted["aavs"] - wanted["mask2former"]
    assert {path.split("/")[-1] for path in added if path.endswith("_embed")} == {
        "silent_embed",
        "sounding_embed",
        "uncertain_embed",
    }
    assert "decoder/level_embed" in wanted["mask2former"]
    assert not any("adapter" in path for path in wanted["mask2former"])


@pytest.mark.parametrize(
    "name, shape, message",
    [
        ("model.transformer_module.queries_embedder.weight", None, "query_positions"),
        ("class_predictor.bias", (), "class_predictor/bias"),
        (
            "model.pixel_level_module.decoder.encoder.layers.0.self_attn.sampling_offsets.bias",
            (100,),
            "100 sampling offsets",
        ),
        (
            "model.pixel_level_module.encoder.encoder.layers.1.blocks.0.attention.self."
            "relative_position_bias_table",
            (49, 2),
            r"\[25, 49\] rows",
        ),
        (
            "model.pixel_level_module.encoder.embeddings.patch_embeddings.projection.weight",
            (8, 3),
            "patch_embedding",
        ),
    ],
)
def test_shapes_that_tell_nothing(name, shape, message):
    shapes = shapes_of("mask2former", NETWORK)
    shapes.pop(name)
    if shape is not None:
        shapes[name] = shape
    with pytest.raises(UserError, match=message):
        sizes.network_of(FORMATS["mask2former"], shapes)


def test_numbers_beyond_all_bounds():
    """Names come from strangers: what is no number of a layer is no name of a layer."""
    shapes = shapes_of("mask2former", NETWORK)
    for digits in ("9" * 5000, "\N{ARABIC-INDIC DIGIT ONE}"):
        shapes[f"model.transformer_module.decoder.layers.{digits}.fc1.bias"] = (20,)
    assert sizes.network_of(FORMATS["mask2former"], shapes) == NETWORK
    shapes = shapes_of("vggish", {"audio": SOUND}) | {f"features.{'9' * 5000}.weight": (4, 4, 3, 3)}
    assert sizes.network_of(FORMATS["vggish"], shapes) == {"audio": SOUND}


def test_three_stages():
    shapes = {
        n: s
        for n, s in shapes_of("swin_timm", {"backbone": BACKBONE}).items()
        if not n.startswith("layers.3.")
    }
    with pytest.raises(UserError, match="3 stages"):
        sizes.network_of(FORMATS["swin_timm"], shapes)


def test_an_encoder_of_something_else():
    shapes = shapes_of("vggish", {"audio": SOUND})
    with pytest.raises(UserError, match="features.30 cannot follow features.8"):
        sizes.network_of(FORMATS["vggish"], shapes | {"features.30.weight": (4, 4, 3, 3)})
    with pytest.raises(UserError, match="no convolution"):
        sizes.network_of(FORMATS["vggish"], shapes | {"features.0.weight": (4,)})


@pytest.mark.parametrize(
    "network",
    [
        {"backbone": BACKBONE | {"patch_size": 2}},
        {"backbone": BACKBONE | {"num_heads": [3, 3, 3, 3]}},
        {"feature_size": 40},
        {"num_heads": 0},
        {"encoder_layers": 10**7},
        {"num_queries": 10**12},
        {"backbone": BACKBONE | {"depths": [10**7, 1, 1, 1]}},
        {"backbone": BACKBONE | {"mlp_ratio": 1e300}},
        {"backbone": BACKBONE | {"window_size": 1e9}},
        {"backbone": 5},
    ],
)
def test_networks_that_cannot_be(network):
    before = time.process_time()
    with pytest.raises(UserError, match="cannot be"):
        sizes.wanted("mask2former", network)
    assert time.process_time() - before < 5


def test_the_largest_networks_can_be_asked_for():
    """Up to the bounds of a card nothing overflows, as the engine asks for the tensors' shapes."""
    widest = {"embed_dim": WIDEST, "window_size": WIDEST, "mlp_ratio": float(WIDEST)}
    others = dict.fromkeys(("num_classes", "num_queries", "feature_size", "decoder_ffn"), WIDEST)
    wanted = sizes.wanted("mask2former", others | {"backbone": BACKBONE | widest})
    assert wanted["decoder/query_features"] == (WIDEST, WIDEST)
    assert all(np.broadcast_to(np.float32(0), shape).shape == shape for shape in wanted.values())


# ----------------------------------------------------------------------------------- config.json


@pytest.fixture(scope="module")
def published():
    """A Mask2Former's config.json, written by transformers."""
    config = KINDS["mask2former"].config(NETWORK, ["sky", "sea", "sand"])
    return json.loads(transformers.Mask2FormerConfig(**config).to_json_string(use_diff=False))


@pytest.fixture(scope="module")
def mask2former():
    return shapes_of("mask2former", NETWORK)


def changed(config, field, value):
    config = copy.deepcopy(config)
    *places, last = field.split(".")
    inner = config
    for place in places:
        inner = inner[place]
    inner[last] = value
    return config


def test_a_config_that_fits(published, mask2former):
    assert sizes.network_of(FORMATS["mask2former"], mask2former, published) == NETWORK
    assert sizes.classes_of(published) == ("sky", "sea", "sand")
    # Fields that equal their defaults may be left out, and the backbone's with them.
    less = {k: v for k, v in published.items() if k in ("num_queries", "model_type")}
    assert sizes.network_of(FORMATS["mask2former"], mask2former, less) == NETWORK


@pytest.mark.parametrize(
    "field, value",
    [
        ("num_queries", 6),
        ("hidden_dim", 64),
        ("feature_size", 64),
        ("mask_feature_size", 64),
        ("num_attention_heads", 8),
        ("encoder_layers", 3),
        ("encoder_feedforward_dim", 13),
        ("decoder_layers", 4),
        ("dim_feedforward", 21),
        ("id2label", {"0": "a"}),
        ("id2label", "garbage"),
        ("backbone_config.embed_dim", 16),
        ("backbone_config.depths", [1, 1, 1, 1]),
        ("backbone_config.num_heads", [1, 2, 2, 2]),
        ("backbone_config.window_size", 7),
        ("backbone_config.mlp_ratio", 4.0),
    ],
)
def test_a_config_of_other_weights(published, mask2former, field, value):
    with pytest.raises(UserError, match=f"config.json's {field} is .* but the weights, and"):
        sizes.network_of(FORMATS["mask2former"], mask2former, changed(published, field, value))


@pytest.mark.parametrize(
    "field, value",
    [
        ("model_type", "maskformer"),
        ("activation_function", "gelu"),
        ("feature_strides", [4, 8, 16]),
        ("common_stride", 8),
        ("enforce_input_projection", True),
        ("pre_norm", True),
        ("backbone_config.model_type", "resnet"),
        ("backbone_config.use_absolute_embeddings", True),
        ("backbone_config.qkv_bias", False),
        ("backbone_config.hidden_act", "relu"),
        ("backbone_config.layer_norm_eps", 1e-6),
    ],
)
def test_a_config_of_another_network(published, mask2former, field, value):
    with pytest.raises(UserError, match=f"config.json's {field} is .* but the weights, and"):
        sizes.network_of(FORMATS["mask2former"], mask2former, changed(published, field, value))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model_type", "x" * 100_000),
        ("num_queries", list(range(100_000))),
        ("id2label", "x" * 100_000),
        ("backbone_config.depths", {str(i): [[[[i]]]] for i in range(10_000)}),
    ],
)
def test_what_a_config_says_is_shown_in_a_line(published, mask2former, field, value):
    with pytest.raises(UserError, match=f"config.json's {field} ") as error:
        sizes.network_of(FORMATS["mask2former"], mask2former, changed(published, field, value))
    assert len(str(error.value)) < 700


def test_a_config_beside_swin():
    network = {"backbone": BACKBONE}
    format, shapes = FORMATS["swin_transformers"], shapes_of("swin_transformers", network)
    config = KINDS["swin"].config(network, ())
    assert sizes.network_of(format, shapes, config) == network
    with pytest.raises(UserError, match="config.json's depths is"):
        sizes.network_of(format, shapes, config | {"depths": [2, 2, 6, 2]})
    with pytest.raises(UserError, match="backbone_config is 'swin'"):
        sizes.network_of(
            FORMATS["mask2former"],
            shapes_of("mask2former", NETWORK),
            {"model_type": "mask2former", "backbone_config": "swin"},
        )


@pytest.mark.parametrize(
    "labels", [None, [], {}, {"0": "LABEL_0", "1": "LABEL_1"}, {"1": "a"}, {"0": 3}]
)
def test_no_names_of_classes(labels):
    assert sizes.classes_of({"id2label": labels}) == ()
    assert sizes.classes_of(None) == ()


def load(model, format, parameters, left_over, network, folder):
    tensors, _ = engine.to_theirs(FORMATS[format], parameters, left_over, {}, complete=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = KINDS[FORMATS[format].kind].config(network, ["sky", "sea", "sand"])
    (folder / "config.json").write_text(json.dumps(config))
    loaded, info = model.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values()), info
    return loaded, tensors


def random(wanted):
    rng = np.random.default_rng(0)
    return {path: rng.normal(size=shape).astype(np.float32) for path, shape in wanted.items()}


def test_transformers_loads_a_mask2former(tmp_path):
    parameters = random(sizes.wanted("mask2former", NETWORK))
    model, tensors = load(
        transformers.Mask2FormerForUniversalSegmentation,
        "mask2former",
        parameters,
        {},
        NETWORK,
        tmp_path,
    )
    assert model.config.id2label == {0: "sky", 1: "sea", 2: "sand"}
    model.save_pretrained(tmp_path / "again")
    again = load_file(tmp_path / "again" / "model.safetensors")
    assert set(again) == set(tensors)
    assert all(np.array_equal(again[name], value) for name, value in tensors.items())
    written = json.loads((tmp_path / "again" / "config.json").read_text())
    shapes = {name: value.shape for name, value in again.items()}
    assert sizes.network_of(FORMATS["mask2former"], shapes, written) == NETWORK


@pytest.mark.parametrize("model, norms", [("SwinModel", False), ("SwinBackbone", True)])
def test_transformers_loads_a_swin(tmp_path, model, norms):
    network = {"backbone": BACKBONE}
    parameters = random(sizes.wanted("swin", network))
    parameters = {p: v for p, v in parameters.items() if norms or "output_norm" not in p}
    load(getattr(transformers, model), "swin_transformers", parameters, {}, network, tmp_path)


def test_transformers_loads_microsofts_swin(tmp_path):
    network = {"backbone": BACKBONE}
    wanted = sizes.wanted("swin", network)
    tensors, _ = engine.to_theirs(FORMATS["swin_microsoft"], random(wanted), {}, {})
    tensors |= {"norm.weight": np.full(64, 2, np.float32), "norm.bias": np.zeros(64, np.float32)}
    fakes = {name: fake(value) for name, value in tensors.items()}
    parameters, left_over, _ = engine.to_ours(FORMATS["swin_microsoft"], fakes, wanted)
    model, _ = load(
        transformers.SwinModel, "swin_transformers", parameters, left_over, network, tmp_path
    )
    assert model.layernorm.weight[0] == 2


# ------------------------------------------------------------------------------------- windows


@pytest.mark.parametrize("window, new", [(7, 12), (12, 7), (7, 8), (2, 5), (7, 7), (1, 3)])
def test_positions_are_resized_as_torch_does(window, new):
    table = np.random.default_rng(0).normal(size=((2 * window - 1) ** 2, 3)).astype(np.float32)
    square = torch.from_numpy(table.T.reshape(1, 3, 2 * window - 1, 2 * window - 1))
    size = (2 * new - 1,) * 2
    theirs = torch.nn.functional.interpolate(square, size=size, mode="bicubic", align_corners=False)
    ours = resize_positions(table, new)
    assert ours.dtype == np.float32 and ours.shape == ((2 * new - 1) ** 2, 3)
    np.testing.assert_allclose(ours, theirs[0].flatten(1).T.numpy(), atol=1e-5)
    if window == new:
        np.testing.assert_array_equal(ours, table)
