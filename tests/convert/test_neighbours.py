"""TPAVI's files and those of backbones: recognised, accounted for, and back."""

import json
from pathlib import Path

import numpy as np
import pytest

import aavs_jax
from aavs_jax.convert import engine, sizes
from aavs_jax.convert.formats import FORMATS
from aavs_jax.state.parameter_folders import load_left_over
from aavs_jax.weights import card as cards

RESNET = {"depths": [1, 1, 2, 1], "planes": [2, 2, 3, 2], "stem": 4}
PVT = {"embed_dims": [2, 2, 5, 8], "depths": [1, 1, 2, 1]}
SOUND = {"blocks": [[2], [2]], "fully_connected": [6]}
BINARY = {"task": "binary", "backbone": "resnet", "resnet": RESNET}
SEMANTIC = {"task": "semantic", "num_classes": 5, "backbone": "pvt", "pvt": PVT}
NECK = {"feature_size": 4, "head": [6, 3], "audio": SOUND}
NETWORKS = {
    "tpavi_resnet": ("tpavi", BINARY | NECK),
    "tpavi_pvt": ("tpavi", SEMANTIC | NECK),
    "resnet": ("torchvision", {"resnet": RESNET}),
    "pvt": ("pvt_v2", {"pvt": PVT}),
}


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> dict[str, Path]:
    """Files under the names of their authors, with what these have besides."""
    import torch

    folder, rng = tmp_path_factory.mktemp("published"), np.random.default_rng(0)
    made = {}
    for name, (format, network) in NETWORKS.items():
        wanted = sizes.wanted(FORMATS[format].kind, network)
        ours = {path: rng.normal(size=s).astype(np.float32) for path, s in wanted.items()}
        tensors, _ = engine.to_theirs(FORMATS[format], ours, {}, {})
        if format == "tpavi":
            size = NECK["feature_size"]
            for conv in ("1", "2"):
                weight = rng.normal(size=(size, size, 3, 3)).astype(np.float32)
                tensors[f"path4.resConfUnit1.conv{conv}.weight"] = weight
            tensors["tpavi_b1.W_z.1.num_batches_tracked"] = np.array(7)
        if format == "torchvision":
            tensors["fc.weight"] = rng.normal(size=(3, 8)).astype(np.float32)
        if name == "tpavi_resnet":
            tensors["resnet.layer3_2.0.bn1.running_var"] = np.ones(3, np.float32)
        made[name] = folder / f"{name}.pth"
        torch.save({key: torch.from_numpy(v) for key, v in tensors.items()}, made[name])
    sound = {
        path: rng.normal(size=s) for path, s in sizes.wanted("vggish", {"audio": SOUND}).items()
    }
    sound = {path: value.astype(np.float32) for path, value in sound.items()}
    tensors, _ = engine.to_theirs(FORMATS["vggish"], sound, {}, {})
    made["vggish"] = folder / "vggish.pth"
    torch.save({key: torch.from_numpy(v) for key, v in tensors.items()}, made["vggish"])
    return made


@pytest.mark.parametrize("name", NETWORKS)
def test_there_and_back_bit_for_bit(name, published, convert, tensors_of, same, tmp_path):
    convert(published[name], "--out", tmp_path / "ours")
    kind = FORMATS[NETWORKS[name][0]].kind
    for to in ("origin", kind):
        convert(tmp_path / "ours", f"--to={to}", "--out", tmp_path / f"{to}.pth")
        same(tensors_of(tmp_path / f"{to}.pth"), tensors_of(published[name]))
    card = cards.read(tmp_path / "ours")
    assert card.kind == kind
    for key, value in NETWORKS[name][1].items():
        if not isinstance(value, dict):
            assert card.network[key] == value, key
        elif key != "audio":
            assert value.items() <= card.network[key].items()


def test_what_nothing_uses_is_told_and_kept(published, convert, tmp_path):
    report = tmp_path / "report.json"
    found = convert(published["tpavi_resnet"], "--out", tmp_path / "ours", "--report", report)
    assert "the binary network of TPAVI (2 classes), ResNet of depths 1/1/2/1" in found.out
    fates = {row["theirs"]: row for row in json.loads(report.read_text())["read"]}
    assert fates["path4.resConfUnit1.conv1.weight"]["what"] == "left over"
    assert "nothing" in fates["path4.resConfUnit1.conv1.weight"]["reason"]
    left = load_left_over(tmp_path / "ours")
    assert left["tpavi_b1.W_z.1.num_batches_tracked"] == 7 and len(left) == 4


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "tpavi_resnet",
            "tpavi.py:/data/avsbench,s4 --evaluate={} --config.init.vggish=DIR --config",
        ),
        ("tpavi_pvt", "tpavi.py:/data/avsbench --evaluate={} --config.init.vggish=DIR"),
        ("pvt", "tpavi.py:/data/avsbench --config.init.backbone={} --config.init.vggish=DIR"),
        ("resnet", "vggish=DIR --config.stages.understand.model.backbone=resnet"),
    ],
)
def test_what_to_type_next(name, words, published, convert, tmp_path):
    out = tmp_path / "ours"
    assert words.format(out) in convert(published[name], "--out", out).out


def test_with_its_audio_encoder_it_predicts(published, convert, tmp_path):
    convert(published["tpavi_pvt"], published["vggish"], "--out", tmp_path / "ours")
    network = aavs_jax.load(tmp_path / "ours")
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (2, 40, 56, 3), np.uint8)
    masks = network(frames, rng.normal(size=32000).astype(np.float32) * 0.1)
    assert masks.shape == (2, 40, 56) and masks.max() < 5
