"""Tiny files in every layout that can be converted, written by the software that has it."""

import contextlib
import importlib.util
import io
import json
import shutil
import types
from pathlib import Path

import numpy as np
import pytest

from aavs_jax.convert.sizes import wanted

TORCH_AAVS = Path(__file__).parents[1] / "parity" / "torch_aavs.py"

SWIN = {
    "embed_dim": 8,
    "depths": [1, 1, 2, 1],
    "num_heads": [1, 1, 2, 2],
    "window_size": 3,
    "image_size": 96,
    "mlp_ratio": 2.0,
}
DECODERS = {
    "feature_size": 32,
    "mask_feature_size": 32,
    "hidden_dim": 32,
    "dim_feedforward": 16,
    "encoder_feedforward_dim": 16,
    "encoder_layers": 1,
    "decoder_layers": 3,
    "num_attention_heads": 2,
}
PVT = {
    "embed_dims": [8, 8, 10, 8],
    "depths": [1, 2, 1, 1],
    "mlp_ratios": [2, 2, 2, 2],
    "reductions": [4, 2, 2, 1],
}
RESNET = {"depths": [1, 1, 2, 1], "planes": [2, 2, 4, 4], "stem": 4}
SOUND = {"blocks": [[2], [3, 4]], "fully_connected": [5, 6]}
TOLD = {"task": "semantic", "num_classes": 5, "prior": True}
# Of each kind, or where they differ of each format, a network of next to nothing.
NETWORKS = {
    "aavs": {
        **TOLD,
        "backbone": {
            "embed_dim": 4,
            "depths": [1, 1, 1, 1],
            "num_heads": [1, 1, 2, 2],
            "window_size": 2,
            "mlp_ratio": 2.0,
        },
        "audio": SOUND,
    },
    "tpavi": {**TOLD, "backbone": "resnet", "resnet": RESNET, "audio": SOUND, "feature_size": 8},
    "avsegformer": {**TOLD, "backbone": "pvt", "pvt": PVT, "audio": SOUND, "feature_size": 32},
    "cavp": {
        **TOLD,
        "prior": False,
        "resnet": {**RESNET, "deep_stem": True},
        "audio": SOUND,
        "aspp_width": 4,
        "aspp_outputs": 4,
        "low_level": 4,
        "projector": 4,
        "head": 4,
    },
    "pvt": {"pvt": PVT},
    "resnet": {"resnet": RESNET},
    "deep_stem_resnet": {"resnet": {**RESNET, "deep_stem": True}},
    "vggish": {"audio": SOUND},
}
NETWORKS["mask2former"] = NETWORKS["swin"] = {"backbone": NETWORKS["aavs"]["backbone"]}
CLASSES = ("wall", "dog", "piano", "sky")


@pytest.fixture(scope="session")
def published(tmp_path_factory) -> dict[str, Path]:
    """name -> file or folder as people download it. Must not be changed."""
    import torch
    import transformers
    from safetensors.torch import load_file, save_file

    transformers.utils.logging.disable_progress_bar()
    folder = tmp_path_factory.mktemp("published")
    torch.manual_seed(3)

    def noisy(module):
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.copy_(torch.randn(parameter.shape) * 0.1)
        return module

    backbone = transformers.SwinConfig(**SWIN, out_features=[f"stage{i}" for i in range(1, 5)])
    config = transformers.Mask2FormerConfig(
        **DECODERS,
        num_queries=6,
        backbone_config=backbone,
        id2label=dict(enumerate(CLASSES)),
        label2id={name: index for index, name in enumerate(CLASSES)},
    )
    network = noisy(transformers.Mask2FormerForUniversalSegmentation(config))
    network.save_pretrained(folder / "mask2former")
    network.save_pretrained(folder / "mask2former_shards", max_shard_size="100KB")
    tensors = load_file(folder / "mask2former" / "model.safetensors")

    def beside_config(name: str) -> Path:
        (folder / name).mkdir()
        shutil.copy(folder / "mask2former" / "config.json", folder / name)
        return folder / name

    # As transformers before 4.34 wrote it: the table of positions of every block was kept, too.
    old = {
        name.replace("relative_position_bias_table", "relative_position_index"): torch.arange(81)
        for name in tensors
        if name.endswith("relative_position_bias_table")
    }
    torch.save(tensors | old, beside_config("mask2former_bin") / "pytorch_model.bin")
    half = {
        name: value.half() if value.is_floating_point() else value
        for name, value in tensors.items()
    }
    save_file(half, beside_config("mask2former_half") / "model.safetensors", {"format": "pt"})

    swin = noisy(transformers.SwinModel(transformers.SwinConfig(**SWIN), add_pooling_layer=False))
    swin.save_pretrained(folder / "swin")
    for kind, name in (("ImageClassification", "swin_head"), ("MaskedImageModeling", "swin_mim")):
        config = transformers.SwinConfig(**SWIN, encoder_stride=32)
        noisy(getattr(transformers, f"SwinFor{kind}")(config)).save_pretrained(folder / name)
    torch.save({"model": _torch(_fused_swin(merge_first=False))}, folder / "swin_microsoft.pth")
    save_file(_torch(_fused_swin(merge_first=True)), folder / "swin_timm.safetensors")

    spec = importlib.util.spec_from_file_location("torch_aavs", TORCH_AAVS)
    torch_aavs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(torch_aavs)
    for name, task, sizes in (
        ("aavs_s4", "avs", {"num_classes": 2, "num_queries": 5}),
        ("aavs_avss", "avss", {"num_classes": 7, "num_queries": 6}),
    ):
        sizes = {**DECODERS, **sizes, "swin": {**SWIN, "layer_norm_eps": 1e-5}, "task": task}
        state = torch_aavs.TorchAAVS(sizes, seed=4, dtype=torch.float32).published()
        torch.save(state, folder / f"{name}.pth")
    state = torch.load(folder / "aavs_s4.pth", weights_only=True)
    wrapped = {"module." + name: value for name, value in state.items()}
    torch.save(
        {"state_dict": wrapped, "epoch": 30, "best": 0.8}, folder / "aavs_s4_wrapped.pth.tar"
    )

    vggish = _torch(_vggish())
    torch.save(vggish, folder / "vggish.pth")
    pca = {
        "pproc.pca_eigen_vectors": torch.randn(128, 128),
        "pproc.pca_means": torch.randn(128, 1),
    }
    torch.save(vggish | pca, folder / "vggish_pca.pth")
    return {path.name.split(".")[0]: path for path in folder.iterdir()}


@pytest.fixture(scope="session")
def wanted_of():
    """A function: format -> path -> shape of every parameter of a tiny network of its kind."""

    def of_format(format):
        kind = format.kind or "aavs"
        return wanted(kind, NETWORKS.get(format.name, NETWORKS[kind]))

    return of_format


@pytest.fixture(scope="session")
def tensors_of():
    """A function: file or folder -> its tensors as NumPy arrays, read by their own software."""

    def read(path: Path) -> dict[str, np.ndarray]:
        import torch
        from safetensors.numpy import load_file

        if path.is_dir():
            found = [p for p in sorted(path.iterdir()) if p.suffix in (".safetensors", ".bin")]
            return {name: array for file in found for name, array in read(file).items()}
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, weights_only=True)
        content = content.get("state_dict", content.get("model", content))
        return {name.removeprefix("module."): value.numpy() for name, value in content.items()}

    return read


@pytest.fixture(scope="session")
def same():
    """A function: fails unless two dicts hold the same arrays, bit by bit."""

    def compare(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> None:
        assert set(left) == set(right)
        for name, array in left.items():
            other = right[name]
            assert (array.dtype, array.shape) == (other.dtype, other.shape), name
            assert np.ascontiguousarray(array).tobytes() == np.ascontiguousarray(other).tobytes()

    return compare


@pytest.fixture
def convert():
    """A function: arguments of the command -> exit code, stdout, stderr; runs in this process."""
    from aavs_jax.convert.__main__ import main

    def run(*arguments, code: int = 0) -> types.SimpleNamespace:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            found = main([str(argument) for argument in arguments])
        assert found == code, (found, out.getvalue(), err.getvalue())
        if code:
            last = err.getvalue().strip().splitlines()[-1]
            assert last.startswith("error: ") and "Traceback" not in err.getvalue()
        return types.SimpleNamespace(out=out.getvalue(), err=err.getvalue())

    return run


@pytest.fixture
def changed(published, tmp_path):
    """A function: name of a file of `published`, change -> a copy with other tensors.

    `change` gets the tensors by name and changes them in place.
    """

    def make(name: str, change) -> Path:
        import torch

        state = torch.load(published[name], weights_only=True)
        change(state)
        path = tmp_path / f"changed_{name}.pth"
        torch.save(state, path)
        return path

    return make


@pytest.fixture(scope="session")
def read_json():
    """A function: path -> what the JSON file says."""
    return lambda path: json.loads(Path(path).read_text())


def _torch(arrays: dict[str, np.ndarray]):
    import torch

    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _fused_swin(*, merge_first: bool) -> dict[str, np.ndarray]:
    """In timm's naming, where stages begin with merging, or Microsoft's, where they end with it."""
    rng = np.random.default_rng(11)
    shapes = {
        "patch_embed.proj.weight": (8, 3, 4, 4),
        "patch_embed.proj.bias": (8,),
        "patch_embed.norm.weight": (8,),
        "patch_embed.norm.bias": (8,),
        "norm.weight": (64,),
        "norm.bias": (64,),
        ("head.fc" if merge_first else "head") + ".weight": (10, 64),
        ("head.fc" if merge_first else "head") + ".bias": (10,),
    }
    arrays = {}
    for stage, (depth, heads) in enumerate(zip(SWIN["depths"], SWIN["num_heads"], strict=True)):
        size = 8 << stage
        for block in range(depth):
            place = f"layers.{stage}.blocks.{block}."
            for name, inputs, outputs in (
                ("attn.qkv", size, 3 * size),
                ("attn.proj", size, size),
                ("mlp.fc1", size, 2 * size),
                ("mlp.fc2", 2 * size, size),
            ):
                shapes[f"{place}{name}.weight"] = (outputs, inputs)
                shapes[f"{place}{name}.bias"] = (outputs,)
            for name in ("norm1", "norm2"):
                shapes[f"{place}{name}.weight"] = shapes[f"{place}{name}.bias"] = (size,)
            shapes[f"{place}attn.relative_position_bias_table"] = (25, heads)
            if not merge_first:
                arrays[f"{place}attn.relative_position_index"] = np.arange(81).reshape(9, 9)
        if stage < 3:
            place = f"layers.{stage + merge_first}.downsample."
            shapes[place + "reduction.weight"] = (2 * size, 4 * size)
            shapes[place + "norm.weight"] = shapes[place + "norm.bias"] = (4 * size,)
    return arrays | {n: rng.standard_normal(shape, np.float32) for n, shape in shapes.items()}


def _vggish() -> dict[str, np.ndarray]:
    """VGGish's names; channels as few as can be, embeddings of 128 numbers."""
    rng = np.random.default_rng(12)
    shapes, channels = {}, 1
    for place, width in zip((0, 3, 6, 8, 11, 13), (2, 2, 3, 3, 2, 2), strict=True):
        shapes[f"features.{place}.weight"] = (width, channels, 3, 3)
        shapes[f"features.{place}.bias"] = (width,)
        channels = width
    inputs = 6 * 4 * channels
    for layer, width in ((0, 16), (2, 16), (4, 128)):
        shapes[f"embeddings.{layer}.weight"] = (width, inputs)
        shapes[f"embeddings.{layer}.bias"] = (width,)
        inputs = width
    return {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
