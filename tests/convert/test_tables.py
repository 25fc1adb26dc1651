"""Every row of key tables, on small networks made and saved by the software they are about.

Of the tables whose software PyPI does not have, ELSEWHERE says which tests show their rows.
"""

import importlib.util
import pathlib
import types

import jax
import ml_dtypes
import numpy as np
import pytest
import torch
import transformers
from flax import nnx
from safetensors.numpy import load_file

from aavs_jax.convert import engine, sizes
from aavs_jax.convert.formats import FORMATS
from aavs_jax.convert.naming import pattern, plan, tensor_rows
from aavs_jax.convert.recognising import normal_names, recognise
from aavs_jax.methods.parts.key_tables import MODULES, TENSORS
from aavs_jax.methods.parts.sizes import AudioConfig, SwinConfig
from aavs_jax.methods.parts.swin import Swin
from aavs_jax.methods.parts.vggish import AudioEncoder

PARITY = pathlib.Path(__file__).parents[1] / "parity"
SWIN = {"embed_dim": 8, "depths": [1, 2, 1, 1], "num_heads": [1, 2, 2, 4], "window_size": 3}
# Format -> where every row of it is used.
ELSEWHERE = {
    "tpavi": "parity/golden_tpavi.py",
    "avsegformer": "convert/test_avsegformer_files.py",
    "cavp": "convert/test_cavp_files.py",
    "pvt_v2": "convert/test_avsegformer_files.py",
    "pvt_v2_transformers": "parity/test_pvt_transformers.py",
    "torchvision": "parity/test_resnet_transformers.py",
    "deep_stem_resnet": "parity/test_resnet_transformers.py",
}
STAGES = ["stage1", "stage2", "stage3", "stage4"]
SIZES = {
    "feature_size": 32,
    "mask_feature_size": 32,
    "hidden_dim": 32,
    "num_attention_heads": 4,
    "encoder_layers": 2,
    "encoder_feedforward_dim": 12,
    "decoder_layers": 4,
    "dim_feedforward": 20,
    "num_queries": 5,
}
BLOCKS, LINEAR = ((3,), (4, 5), (6,), (7, 8)), (11, 10, 9)


def fake(value: np.ndarray) -> types.SimpleNamespace:
    """What the engine needs of a tensor in a file."""
    return types.SimpleNamespace(
        shape=value.shape, dtype=value.dtype, read=lambda: value, release=lambda: None
    )


def shaken(model: torch.nn.Module) -> torch.nn.Module:
    """With no weight at zero or one, so that every one of them counts."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape)
    return model.eval()


def saved(model, folder) -> dict[str, np.ndarray]:
    model.save_pretrained(folder)
    return load_file(folder / "model.safetensors")


def fused(tensors: dict[str, np.ndarray], timm: bool) -> dict[str, np.ndarray]:
    """A SwinModel as Microsoft or timm name it; written by hand, without the tables."""
    out = {}
    for name, value in tensors.items():
        parts = name.split(".")
        leaf = parts[-1]
        if name.startswith("embeddings.patch_embeddings.projection."):
            out[f"patch_embed.proj.{leaf}"] = value
        elif name.startswith("embeddings.norm."):
            out[f"patch_embed.norm.{leaf}"] = value
        elif name.startswith("layernorm."):
            out[f"norm.{leaf}"] = value
        elif "downsample" in parts:
            out[f"layers.{int(parts[2]) + timm}.{'.'.join(parts[3:])}"] = value
        else:
            block, rest = f"layers.{parts[2]}.blocks.{parts[4]}.", ".".join(parts[5:])
            query = rest.replace("attention.self.query", "")
            if rest.startswith("attention.self.query."):
                stack = [tensors[name.replace("query", part)] for part in ("query", "key", "value")]
                out[f"{block}attn.qkv{query}"] = np.concatenate(stack)
            elif not rest.startswith(("attention.self.key.", "attention.self.value.")):
                for theirs, new in (
                    ("layernorm_before", "norm1"),
                    ("layernorm_after", "norm2"),
                    ("attention.self.relative", "attn.relative"),
                    ("attention.output.dense", "attn.proj"),
                    ("intermediate.dense", "mlp.fc1"),
                    ("output.dense", "mlp.fc2"),
                ):
                    if rest.startswith(theirs):
                        out[block + rest.replace(theirs, new)] = value
                        break
                out[block + "attn.relative_position_index"] = np.arange(81).reshape(9, 9)
                out[block + "attn_mask"] = np.full((4, 9, 9), -100, np.float32)
    head = "head.fc" if timm else "head"
    out[f"{head}.weight"] = np.ones((10, 64), np.float32)
    out[f"{head}.bias"] = np.ones(10, np.float32)
    return out


def as_older_versions_wrote(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """As versions before 5 of transformers did: the index of positions was a buffer."""
    out = {n.replace("encoder.swin.layernorm", "encoder.layernorm"): v for n, v in tensors.items()}
    for name in tensors:
        if name.endswith("relative_position_bias_table"):
            index = name.removesuffix("bias_table") + "index"
            out[index] = np.arange(81, dtype=np.int64).reshape(9, 9)
    return out


class VGGish(torch.nn.Module):
    """torchvggish's network, and smaller ones of its shape."""

    def __init__(self):
        super().__init__()
        layers, channels = [], 1
        for block in BLOCKS:
            for width in block:
                layers += [torch.nn.Conv2d(channels, width, 3, padding=1), torch.nn.ReLU()]
                channels = width
            layers.append(torch.nn.MaxPool2d(2))
        self.features = torch.nn.Sequential(*layers)
        layers, size = [], 6 * 4 * channels
        for width in LINEAR:
            layers += [torch.nn.Linear(size, width), torch.nn.ReLU()]
            size = width
        self.embeddings = torch.nn.Sequential(*layers)

    def forward(self, examples):
        x = self.features(examples[:, None])
        return self.embeddings(x.movedim(1, -1).flatten(1))  # channels last, as TensorFlow has it


@pytest.fixture(scope="module")
def models():
    torch.manual_seed(0)
    transformers.utils.logging.disable_progress_bar()
    swin = transformers.SwinConfig(**SWIN, out_features=STAGES)
    config = transformers.Mask2FormerConfig(**SIZES, num_labels=3, backbone_config=swin)
    return {
        "mask2former": shaken(transformers.Mask2FormerForUniversalSegmentation(config)),
        "model": shaken(transformers.SwinModel(swin)),
        "classifier": shaken(transformers.SwinForImageClassification(swin)),
        "masked": shaken(transformers.SwinForMaskedImageModeling(swin)),
        "backbone": shaken(transformers.SwinBackbone(swin)),
        "vggish": shaken(VGGish()),
    }


@pytest.fixture(scope="module")
def checkpoints(models, tmp_path_factory) -> dict[str, tuple[str, dict[str, np.ndarray]]]:
    """What the file is -> (its format, its tensors)."""

    def save(name):
        return saved(models[name], tmp_path_factory.mktemp(name))

    def memory(name):
        return {key: value.numpy() for key, value in models[name].state_dict().items()}

    spec = importlib.util.spec_from_file_location("torch_aavs", PARITY / "torch_aavs.py")
    torch_aavs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(torch_aavs)
    aavs = {}
    for task, classes in (("avs", 2), ("avss", 6)):
        network = {**SIZES, "swin": SWIN, "task": task, "num_classes": classes}
        aavs[task] = torch_aavs.TorchAAVS(network, seed=1, audio_hidden=7).checkpoint()

    mask2former, swin, classifier = save("mask2former"), save("model"), save("classifier")
    aavs_older = as_older_versions_wrote(aavs["avss"]) | {
        "model.criterion.empty_weight": np.ones(7, np.float32)
    }
    vggish = memory("vggish")
    means = np.ones((128, 1), np.float32)
    return {
        "mask2former": ("mask2former", mask2former),
        "mask2former, older": ("mask2former", as_older_versions_wrote(mask2former)),
        "mask2former, in half": (
            "mask2former",
            {name: value.astype(np.float16) for name, value in mask2former.items()},
        ),
        "mask2former, in bfloat16": (
            "mask2former",
            {name: value.astype(ml_dtypes.bfloat16) for name, value in mask2former.items()},
        ),
        "mask2former in memory": ("mask2former", memory("mask2former")),
        "mask2former in a wrapper": (
            "mask2former",
            {f"model.{name}": value for name, value in mask2former.items()},
        ),
        "aavs, binary": ("aavs", aavs["avs"]),
        "aavs, semantic": ("aavs", aavs["avss"]),
        "aavs, older": ("aavs", aavs_older),
        "aavs without its module": (
            "aavs",
            {name.removeprefix("model."): value for name, value in aavs_older.items()},
        ),
        "swin": ("swin_transformers", swin),
        "swin, classifier": ("swin_transformers", as_older_versions_wrote(classifier)),
        "swin, masked images": ("swin_transformers", save("masked")),
        "swin, backbone": ("swin_transformers", save("backbone")),
        "swin, backbone in memory": ("swin_transformers", memory("backbone")),
        "swin, microsoft": ("swin_microsoft", fused(swin, timm=False)),
        "swin, timm": ("swin_timm", fused(swin, timm=True)),
        "vggish": ("vggish", vggish),
        "vggish with pca": (
            "vggish",
            vggish | {"pproc.pca_matrix": means @ means.T, "pproc.pca_means": means},
        ),
        "vggish with bare pca": (
            "vggish",
            vggish | {"pca_eigen_vectors": means @ means.T, "pca_means": means},
        ),
        "golden, binary": ("aavs", golden("torch_avs.npz")),
        "golden, semantic": ("aavs", golden("torch_avss.npz")),
    }


CHECKPOINTS = (
    *("mask2former", "mask2former, older", "mask2former, in half", "mask2former, in bfloat16"),
    *("mask2former in memory", "mask2former in a wrapper", "aavs, binary", "aavs, semantic"),
    *("aavs, older", "aavs without its module"),
    *("swin", "swin, classifier", "swin, masked images", "swin, backbone"),
    *("swin, backbone in memory", "swin, microsoft", "swin, timm"),
    *("vggish", "vggish with pca", "vggish with bare pca", "golden, binary", "golden, semantic"),
)


def golden(name: str) -> dict[str, np.ndarray]:
    """A golden file's weights, whose names are those of a checkpoint."""
    with np.load(PARITY / "fixtures" / name) as arrays:
        return {n[6:]: arrays[n].astype(np.float32) for n in arrays.files if n.startswith("param/")}


def converted(tensors):
    """Format, network, and what `to_ours` gives."""
    format = recognise(tensors)
    network = sizes.network_of(format, {name: value.shape for name, value in tensors.items()})
    wanted = sizes.wanted(format.kind, network)
    fakes = {name: fake(value) for name, value in tensors.items()}
    return format, wanted, *engine.to_ours(format, fakes, wanted)


def assert_same(ours, theirs):
    assert set(ours) == set(theirs)
    for name, value in theirs.items():
        assert ours[name].dtype == value.dtype, name
        assert ours[name].tobytes() == value.tobytes() and ours[name].shape == value.shape, name


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_both_ways(checkpoints, name):
    expected, tensors = checkpoints[name]
    format, wanted, parameters, left_over, fates = converted(tensors)
    assert format.name == expected

    # Every parameter and every tensor is accounted for, once.
    assert all(value.dtype == np.float32 for value in parameters.values())
    assert {path: value.shape for path, value in parameters.items()}.items() <= wanted.items()
    new = [path for fate in fates if fate.what == "new" for path in fate.ours]
    assert sorted([*parameters, *new]) == sorted(wanted)
    assert sorted(fate.theirs for fate in fates if fate.theirs) == sorted(tensors)
    assert all(fate.reason for fate in fates if fate.what != "mapped")

    normal = normal_names(format, tensors)
    stored_as = {normal[f.theirs]: f.dtype for f in fates if f.theirs and f.what == "mapped"}
    back, _ = engine.to_theirs(format, parameters, left_over, stored_as)
    assert_same(back, {normal[n]: value for n, value in tensors.items()})

    again = engine.to_ours(format, {n: fake(v) for n, v in back.items()}, wanted)
    assert_same(again[0], parameters)
    assert_same(again[1], left_over)


def test_every_row_is_used(checkpoints):
    assert set(CHECKPOINTS) == set(checkpoints)
    names = {format.name: set() for format in FORMATS.values()}
    for name, tensors in checkpoints.values():
        names[name] |= set(normal_names(FORMATS[name], tensors).values())
    assert {name for name in FORMATS if not names[name]} == {"aavs_jax", *ELSEWHERE}
    assert all((PARITY.parent / place).exists() for place in ELSEWHERE.values())
    for format in FORMATS.values():
        if not names[format.name]:
            continue
        templates = [known.theirs for known in format.left_over]
        for row in format.rows:
            leaves = [f"{row.theirs}.{leaf}" for leaf in MODULES.get(row.how, ())]
            templates.append("|".join(leaves) or row.theirs)
        for template in templates:
            expressions = [pattern(each) for each in template.split("|")]
            used = any(e.fullmatch(n) for e in expressions for n in names[format.name])
            assert used, (format.name, template)


def test_no_two_rows_give_the_same(wanted_of):
    for format in FORMATS.values():
        wanted = wanted_of(format)
        steps = plan(format, wanted)
        theirs = [step.theirs for step in steps]
        ours = [path for step in steps for path in step.ours]
        assert len(set(theirs)) == len(theirs) and len(set(ours)) == len(ours)
        assert not any(
            pattern(k.theirs).fullmatch(name) for k in format.left_over for name in theirs
        )
        # Each parameter has a place, but for those that the table says a file lacks.
        absent = [pattern(template) for template, _ in format.absent]
        assert all(any(e.fullmatch(p) for e in absent) for p in set(wanted) - set(ours))


def test_transforms_are_each_others_inverse():
    used = {row.how for format in FORMATS.values() for row in tensor_rows(format.rows)}
    assert used == set(TENSORS)
    shapes = {"only row": (1, 4), "1x1": (5, 4, 1, 1), "window first": (5, 4, 3, 3)}
    shapes["1x1x1"] = (5, 4, 1, 1, 1)
    for name, (to_ours, to_theirs) in TENSORS.items():
        theirs = np.random.default_rng(0).normal(size=shapes.get(name, (5, 4)))
        np.testing.assert_array_equal(to_theirs(to_ours(theirs)), theirs)


def test_full_size_vggish_is_the_default():
    widths = ((64, 1), (128, 64), (256, 128), (256, 256), (512, 256), (512, 512))
    places = (0, 3, 6, 8, 11, 13)
    shapes = {f"features.{p}.weight": (*w, 3, 3) for p, w in zip(places, widths, strict=True)}
    shapes |= {f"features.{p}.bias": w[:1] for p, w in zip(places, widths, strict=True)}
    for place, shape in ((0, (4096, 12288)), (2, (4096, 4096)), (4, (128, 4096))):
        shapes |= {f"embeddings.{place}.weight": shape, f"embeddings.{place}.bias": shape[:1]}
    network = sizes.network_of(recognise(shapes), shapes)
    assert sizes.wanted("vggish", network) == sizes.wanted("vggish", {})
    assert {step.theirs for step in plan(FORMATS["vggish"], sizes.wanted("vggish", {}))} == set(
        shapes
    )


# --------------------------------------------------------------------------- what they compute


def with_values(model, parameters, prefix):
    """The network's function of its inputs; parameters that are not given are zero."""
    graphdef, state = nnx.split(nnx.eval_shape(model))
    flat, structure = jax.tree_util.tree_flatten_with_path(nnx.to_pure_dict(state))
    values = []
    for path, leaf in flat:
        name = "/".join([prefix, *(str(key.key) for key in path)])
        values.append(parameters.get(name, np.zeros(leaf.shape, np.float32)))
    return lambda x: nnx.merge(graphdef, jax.tree.unflatten(structure, values))(x)


def test_each_naming_of_swin_is_of_the_same_parameters(checkpoints):
    _, _, parameters, _, _ = converted(checkpoints["swin"][1])
    for name in ("swin, microsoft", "swin, timm"):
        assert_same(converted(checkpoints[name][1])[2], parameters)


@pytest.mark.slow
def test_swin_computes_the_same(checkpoints, models):
    """As a part of Mask2Former it is compared in tests/parity, too."""
    _, _, parameters, left_over, _ = converted(checkpoints["swin"][1])
    final = {key.split(".")[-1]: v for key, v in left_over.items() if "norm." in key}
    # What a classifier would normalise last: here it stands in for the last stage's own norm.
    parameters["backbone/stages/3/output_norm/scale"] = final["weight"]
    parameters["backbone/stages/3/output_norm/bias"] = final["bias"]
    config = SwinConfig(**{k: tuple(v) if isinstance(v, list) else v for k, v in SWIN.items()})
    frames = np.random.default_rng(0).normal(size=(2, 96, 96, 3)).astype(np.float32)
    with torch.no_grad():
        theirs = models["model"](torch.from_numpy(frames).movedim(-1, 1)).last_hidden_state.numpy()
    with jax.default_matmul_precision("highest"):
        ours = with_values(lambda: Swin(config, "float32"), parameters, "backbone")(frames)[-1]
    np.testing.assert_allclose(
        np.asarray(ours).reshape(theirs.shape), theirs, atol=1e-4 * np.abs(theirs).max()
    )


def test_vggish_flattens_as_we_do(checkpoints, models):
    _, _, parameters, _, _ = converted(checkpoints["vggish"][1])
    examples = np.random.default_rng(0).normal(size=(2, 96, 64)).astype(np.float32)
    with torch.no_grad():
        theirs = models["vggish"](torch.from_numpy(examples)).numpy()
    config = AudioConfig(blocks=BLOCKS, fully_connected=LINEAR)
    with jax.default_matmul_precision("highest"):
        ours = with_values(lambda: AudioEncoder(config, "float32"), parameters, "audio_encoder")(
            examples
        )
    assert theirs.max() > 0
    np.testing.assert_allclose(ours, theirs, atol=1e-4 * theirs.max())
