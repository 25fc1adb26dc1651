"""Golden files: where they are, and how an AAVS checkpoint's names map to our parameter paths."""

import importlib.util
import pathlib
import re
import types
import zipfile

import numpy as np
import pytest

HERE = pathlib.Path(__file__).parent
FOLDERS = (HERE.parents[2] / "shared" / "golden", HERE / "fixtures")

# ---------------------------------------------------------------------------- checkpoint names

_SWIN = r"model\.model\.pixel_level_module\.encoder\."
_BLOCK = _SWIN + r"encoder\.layers\.(\d+)\.blocks\.(\d+)\."
_PIXEL = r"model\.model\.pixel_level_module\.decoder\."
_ENCODER = _PIXEL + r"encoder\.layers\.(\d+)\."
_MODULE = r"model\.model\.transformer_module\."
_DECODER = _MODULE + r"decoder\.layers\.(\d+)\."
_OUR_BLOCK = r"backbone/stages/\1/blocks/\2/"
_OUR_ENCODER = r"pixel_decoder/layers/\1/"
_OUR_DECODER = r"decoder/layers/\1/"
_QKV = ("query", "key", "value")

# (name of a module or tensor, our path, transform). Modules ("dense", "pointwise", "conv", "norm")
# stand for their weight and bias; the others for one tensor. Several paths: the tensor is stacked
# along its first axis.
RULES = [
    (_SWIN + r"embeddings\.patch_embeddings\.projection", "backbone/patch_embedding", "conv"),
    (_SWIN + r"embeddings\.norm", "backbone/patch_norm", "norm"),
    (_BLOCK + r"layernorm_before", _OUR_BLOCK + "attention_norm", "norm"),
    (
        _BLOCK + r"attention\.self\.relative_position_bias_table",
        _OUR_BLOCK + "attention/relative_position_bias",
        "same",
    ),
    (_BLOCK + r"attention\.self\.(query|key|value)", _OUR_BLOCK + r"attention/\3", "dense"),
    (_BLOCK + r"attention\.output\.dense", _OUR_BLOCK + "attention/output", "dense"),
    (
        _BLOCK + r"attention\.output\.swin_adapt_1\.0",
        _OUR_BLOCK + "attention_adapter/down",
        "dense",
    ),
    (_BLOCK + r"attention\.output\.swin_adapt_1\.2", _OUR_BLOCK + "attention_adapter/up", "dense"),
    (_BLOCK + r"layernorm_after", _OUR_BLOCK + "mlp_norm", "norm"),
    (_BLOCK + r"intermediate\.dense", _OUR_BLOCK + "mlp_hidden", "dense"),
    (_BLOCK + r"output\.dense", _OUR_BLOCK + "mlp_output", "dense"),
    (_BLOCK + r"output\.swin_adapt_3\.0", _OUR_BLOCK + "mlp_adapter/down", "dense"),
    (_BLOCK + r"output\.swin_adapt_3\.2", _OUR_BLOCK + "mlp_adapter/up", "dense"),
    (
        _SWIN + r"encoder\.layers\.(\d+)\.downsample\.norm",
        r"backbone/stages/\1/merge/norm",
        "norm",
    ),
    (
        _SWIN + r"encoder\.layers\.(\d+)\.downsample\.reduction",
        r"backbone/stages/\1/merge/reduction",
        "dense",
    ),
    # Their stages count from 1.
    *(
        (
            _SWIN + rf"hidden_states_norms\.stage{stage + 1}",
            f"backbone/stages/{stage}/output_norm",
            "norm",
        )
        for stage in range(4)
    ),
    (_PIXEL + r"level_embed", "pixel_decoder/level_embed", "same"),
    (_PIXEL + r"input_projections\.(\d)\.0", r"pixel_decoder/input_projections/\1", "pointwise"),
    (_PIXEL + r"input_projections\.(\d)\.1", r"pixel_decoder/input_norms/\1", "norm"),
    (
        _ENCODER + r"self_attn\.(sampling_offsets|attention_weights)",
        _OUR_ENCODER + r"attention/\2",
        "dense",
    ),
    (
        _ENCODER + r"self_attn\.(value|output)_proj",
        _OUR_ENCODER + r"attention/\2",
        "dense",
    ),
    (_ENCODER + r"self_attn\.avs_adapt\.0", _OUR_ENCODER + "attention/adapter/down", "dense"),
    (_ENCODER + r"self_attn\.avs_adapt\.2", _OUR_ENCODER + "attention/adapter/up", "dense"),
    (_ENCODER + r"self_attn_layer_norm", _OUR_ENCODER + "attention_norm", "norm"),
    (_ENCODER + r"fc1", _OUR_ENCODER + "ffn/hidden", "dense"),
    (_ENCODER + r"fc2", _OUR_ENCODER + "ffn/output", "dense"),
    (_ENCODER + r"final_layer_norm", _OUR_ENCODER + "ffn_norm", "norm"),
    # Not an adapter in AAVS's sense: the FPN's lateral step.
    (_PIXEL + r"adapter_1\.0", "pixel_decoder/lateral", "pointwise"),
    (_PIXEL + r"adapter_1\.1", "pixel_decoder/lateral_norm", "norm"),
    (_PIXEL + r"layer_1\.0", "pixel_decoder/fusion", "conv"),
    (_PIXEL + r"layer_1\.1", "pixel_decoder/fusion_norm", "norm"),
    (_PIXEL + r"mask_projection", "pixel_decoder/mask_projection", "pointwise"),
    (_MODULE + r"queries_embedder\.weight", "decoder/query_positions", "same"),
    (_MODULE + r"queries_features\.weight", "decoder/query_features", "same"),
    (_MODULE + r"level_embed\.weight", "decoder/level_embed", "same"),
    (_MODULE + r"silence_embed\.weight", "decoder/silent_embed", "only_row"),
    (_MODULE + r"audio_embed\.weight", "decoder/sounding_embed", "only_row"),
    (_MODULE + r"uncertain_embed\.weight", "decoder/uncertain_embed", "only_row"),
    (
        _DECODER + r"cross_attn\.in_proj_weight",
        tuple(_OUR_DECODER + f"cross_attention/{part}/kernel" for part in _QKV),
        "transposed",
    ),
    (
        _DECODER + r"cross_attn\.in_proj_bias",
        tuple(_OUR_DECODER + f"cross_attention/{part}/bias" for part in _QKV),
        "same",
    ),
    (_DECODER + r"cross_attn\.out_proj", _OUR_DECODER + "cross_attention/output", "dense"),
    (_DECODER + r"cross_attn_layer_norm", _OUR_DECODER + "cross_norm", "norm"),
    (_DECODER + r"self_attn\.q_proj", _OUR_DECODER + "self_attention/query", "dense"),
    (_DECODER + r"self_attn\.k_proj", _OUR_DECODER + "self_attention/key", "dense"),
    (_DECODER + r"self_attn\.v_proj", _OUR_DECODER + "self_attention/value", "dense"),
    (_DECODER + r"self_attn\.out_proj", _OUR_DECODER + "self_attention/output", "dense"),
    (_DECODER + r"self_attn\.avs_adapt\.0", _OUR_DECODER + "adapter/down", "dense"),
    (_DECODER + r"self_attn\.avs_adapt\.2", _OUR_DECODER + "adapter/up", "dense"),
    (_DECODER + r"self_attn_layer_norm", _OUR_DECODER + "self_norm", "norm"),
    (_DECODER + r"fc1", _OUR_DECODER + "ffn/hidden", "dense"),
    (_DECODER + r"fc2", _OUR_DECODER + "ffn/output", "dense"),
    (_DECODER + r"final_layer_norm", _OUR_DECODER + "ffn_norm", "norm"),
    (_MODULE + r"decoder\.layernorm", "decoder/norm", "norm"),
    (
        _MODULE + r"decoder\.mask_predictor\.mask_embedder\.(\d)\.0",
        r"decoder/mask_embedder/\1",
        "dense",
    ),
    (r"model\.class_predictor", "decoder/class_predictor", "dense"),
    (r"audio_proj\.0", "audio_proj/hidden", "dense"),
    (r"audio_proj\.2", "audio_proj/output", "dense"),
]

# What a checkpoint may hold besides: a buffer of the loss, a norm nothing uses, and an index
# that is computed.
IGNORED = [
    r"model\.criterion\.empty_weight",
    _SWIN + r"(swin\.)?layernorm\.(weight|bias)",
    r".*\.relative_position_index",
]

# Module kinds: {their tensor: (our tensor, transform)}.
MODULES = {
    "dense": {"weight": ("kernel", "transposed"), "bias": ("bias", "same")},
    "pointwise": {"weight": ("kernel", "pointwise"), "bias": ("bias", "same")},
    "conv": {"weight": ("kernel", "window_first"), "bias": ("bias", "same")},
    "norm": {"weight": ("scale", "same"), "bias": ("bias", "same")},
}

# Transforms and their inverses: outputs come first there, last here.
TRANSFORMS = {
    "same": (lambda a: a, lambda a: a),
    "transposed": (np.transpose, np.transpose),
    "only_row": (lambda a: a[0], lambda a: a[None]),
    "pointwise": (lambda a: a[:, :, 0, 0].T, lambda a: a.T[:, :, None, None]),
    "window_first": (lambda a: a.transpose(2, 3, 1, 0), lambda a: a.transpose(3, 2, 0, 1)),
}


def checkpoint_rule(name: str) -> tuple[tuple[str, ...], str] | None:
    """Our paths and the transform of a checkpoint's tensor; None for one that is ignored.

    Raises:
      KeyError: if it is neither known nor ignored, or known twice.
    """
    found = [None for pattern in IGNORED if re.fullmatch(pattern, name)]
    for pattern, templates, transform in RULES:
        tensors = {"": (None, transform)}
        if transform in MODULES:
            tensors = {"." + theirs: ours for theirs, ours in MODULES[transform].items()}
        for suffix, (leaf, tensor_transform) in tensors.items():
            match = re.fullmatch(f"(?:{pattern}){re.escape(suffix)}", name)
            if match:
                templates = (templates,) if isinstance(templates, str) else templates
                paths = (match.expand(template) for template in templates)
                paths = tuple(f"{path}/{leaf}" if leaf else path for path in paths)
                found.append((paths, tensor_transform))
    if len(found) != 1:
        raise KeyError(f"{name} fits {len(found)} rules")
    return found[0]


def to_parameters(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A checkpoint's tensors as our parameters by path.

    Raises:
      KeyError: for a tensor without a rule, and for a parameter given twice.
    """
    parameters = {}
    for name, tensor in tensors.items():
        rule = checkpoint_rule(name)
        if rule is None:
            continue
        paths, transform = rule
        for path, part in zip(paths, np.split(tensor, len(paths)), strict=True):
            if path in parameters:
                raise KeyError(f"{path} is given twice, at last by {name}")
            parameters[path] = np.ascontiguousarray(TRANSFORMS[transform][0](part))
    return parameters


def to_checkpoint(parameters: dict[str, np.ndarray], names: list[str]) -> dict[str, np.ndarray]:
    """The inverse, for the names asked for."""
    tensors = {}
    for name in names:
        paths, transform = checkpoint_rule(name)
        parts = [TRANSFORMS[transform][1](np.asarray(parameters[path])) for path in paths]
        tensors[name] = np.concatenate(parts)
    return tensors


@pytest.fixture(scope="session")
def checkpoint_names():
    """The functions above, for tests."""
    return types.SimpleNamespace(
        rule=checkpoint_rule, to_parameters=to_parameters, to_checkpoint=to_checkpoint
    )


@pytest.fixture(scope="session")
def torch_aavs():
    """The module `torch_aavs.py`; imported here only, as PyTorch takes seconds to load."""
    spec = importlib.util.spec_from_file_location("torch_aavs", HERE / "torch_aavs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ------------------------------------------------------------------------------- golden files


def golden_kind(path: pathlib.Path) -> str:
    """'network_golden' or 'audio_golden', as the fixtures are called.

    The test run fails, saying so, if there is no such file or it is no golden file.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            names = set(arrays.files)
    except FileNotFoundError:
        pytest.fail(f"golden file not found: {path}", pytrace=False)
    except (ValueError, OSError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        pytest.fail(f"not a golden file (no readable .npz): {path}: {error}", pytrace=False)
    if {"config_json", "pixel_values", "class_logits", "loss", "grad_names"} <= names:
        return "network_golden"
    if {"audio/log_mel_examples", "binary/0/scores", "semantic/miou"} <= names:
        return "audio_golden"
    pytest.fail(f"not a golden file (no network, no audio and metrics): {path}", pytrace=False)


def pytest_generate_tests(metafunc):
    kinds = {"network_golden", "audio_golden"} & set(metafunc.fixturenames)
    if not kinds:
        return
    paths = [pathlib.Path(path) for path in metafunc.config.getoption("--golden")]
    if not paths:
        paths = [path for folder in FOLDERS for path in sorted(folder.glob("*.npz"))]
    for kind in kinds:
        ours = [path for path in paths if golden_kind(path) == kind]
        ids = [path.stem for path in ours]
        metafunc.parametrize(kind, ours, ids=ids, indirect=True, scope="module")


@pytest.fixture(scope="module")
def network_golden(request) -> dict[str, np.ndarray]:
    """A golden file of a network, loaded."""
    return dict(np.load(request.param, allow_pickle=False))


@pytest.fixture(scope="module")
def audio_golden(request) -> dict[str, np.ndarray]:
    """A golden file of audio and metrics, loaded."""
    return dict(np.load(request.param, allow_pickle=False))
