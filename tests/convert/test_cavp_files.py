"""CAVP's checkpoints: recognised, accounted for, and back bit for bit."""

import dataclasses
import math

import numpy as np
import pytest

from aavs_jax.convert import engine
from aavs_jax.methods.cavp.config import AVSBENCH, RESNET_50, RESNET_101, VPO, CAVPConfig
from aavs_jax.methods.cavp.network import CAVP
from aavs_jax.methods.cavp.weights import FORMAT, whole_shapes
from aavs_jax.methods.functional import functional
from aavs_jax.methods.parts.resnet_weights import DEEP_STEM, RESNETS
from aavs_jax.methods.parts.sizes import AudioConfig
from aavs_jax.state.parameter_folders import load_left_over
from aavs_jax.weights import card as cards

SMALL = {"planes": (2, 2, 3, 3), "stem": 4, "depths": (1, 1, 2, 1)}
SIZES = CAVPConfig(
    resnet=dataclasses.replace(RESNET_50, **SMALL),
    audio=AudioConfig(blocks=((2,), (2, 4)), fully_connected=(8, 6)),
    aspp_width=5,
    aspp_outputs=8,
    low_level=4,
    projector=6,
    head=7,
)
KINDS_OF_FILE = {
    "object": SIZES,
    "semantic": dataclasses.replace(SIZES, task="semantic", num_classes=5),
    "stereo": dataclasses.replace(
        SIZES,
        task="semantic",
        num_classes=4,
        heard=3,
        resnet=dataclasses.replace(RESNET_101, **SMALL),
        audio=dataclasses.replace(AVSBENCH.audio, channels=2),
        sound_resnet=dataclasses.replace(VPO.sound_resnet, planes=(2, 3, 3, 4), stem=2),
    ),
}


def unused(width: int, pixels: int) -> dict[str, tuple[int, ...]]:
    return {
        "cross_att.pos_embed_v": (1, pixels, width),
        "cross_att.pos_embed_a": (1, 1, width),
        "audio_backbone.cls_head.weight": (2, width),
        "audio_backbone.cls_head.bias": (2,),
    }


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """name -> a .pth as the public code saves it."""
    import torch

    folder, rng = tmp_path_factory.mktemp("cavp"), np.random.default_rng(0)
    for name, sizes in KINDS_OF_FILE.items():
        shapes = functional(lambda sizes=sizes: CAVP(sizes)).shapes
        ours = {path: rng.random(leaf.shape, np.float32) for path, leaf in shapes.items()}
        tensors, fates = engine.to_theirs(FORMAT, ours, {}, {})
        assert {fate.what for fate in fates} == {"mapped"}
        tensors |= {n: rng.random(s, np.float32) for n, s in unused(sizes.width, 9).items()}
        for mean in [n for n in tensors if n.endswith("running_mean")]:
            tensors[mean.replace("running_mean", "num_batches_tracked")] = np.array(17, np.int64)
        state = {f"module.{n}": torch.from_numpy(np.array(a)) for n, a in tensors.items()}
        file = {"model": state, "audio_optimizer": {}, "visual_optimizer": {}, "epoch": 3}
        torch.save(file, folder / f"{name}.pth")
    return {name: folder / f"{name}.pth" for name in KINDS_OF_FILE}


@pytest.mark.parametrize("name", KINDS_OF_FILE)
def test_there_and_back(name, published, convert, tensors_of, same, tmp_path):
    said = convert(published[name], "--out", tmp_path / "ours", "--report")
    assert "CAVP" in said.out
    parameters, card = cards.weights(tmp_path / "ours")
    sizes = KINDS_OF_FILE[name]
    assert card.kind == "cavp" and not card.new
    network = CAVPConfig.from_dict(card.network)
    # Of the sound encoder that a file has not nobody knows the sizes.
    other = ("sound_resnet",) if sizes.heard == 1 else ("audio",)
    assert dataclasses.replace(network, **{key: getattr(sizes, key) for key in other}) == sizes
    assert network.audio.channels == sizes.audio.channels
    shapes = functional(lambda: CAVP(sizes)).shapes
    assert {p: a.shape for p, a in parameters.items()} == {p: s.shape for p, s in shapes.items()}
    assert set(unused(1, 1)) <= set(load_left_over(tmp_path / "ours"))
    theirs = tensors_of(published[name])
    convert(tmp_path / "ours", "--to=cavp", "--out", tmp_path / "cavp.pth")
    found = tensors_of(tmp_path / "cavp.pth")
    same(found, {n.removeprefix("module."): value for n, value in theirs.items()})


# Of all parameters that train, those that are never used included: 16384 positions.
@pytest.mark.parametrize(
    ("config", "classes", "channels", "parameters", "tensors"),
    [
        (AVSBENCH, 2, 1, 119_769_268, 417),
        (AVSBENCH, 71, 1, 119_787_001, 417),
        (VPO, 22, 1, 77_230_472, None),
        (VPO, 22, 2, 77_233_608, 827),
    ],
)
def test_full_size(config, classes, channels, parameters, tensors):
    audio = dataclasses.replace(config.audio, channels=channels)
    config = dataclasses.replace(config, num_classes=classes, audio=audio)
    shapes = whole_shapes(config)
    statistics = [path for path in shapes if path.endswith(("/mean", "/var"))]
    left_over = [math.prod(shape) for shape in unused(config.width, 16384).values()]
    trained = sum(math.prod(shape) for path, shape in shapes.items() if path not in statistics)
    assert sum(left_over) == 4_981_650
    assert trained + sum(left_over) == parameters
    if tensors:
        # Each batch norm counts its batches.
        assert len(shapes) + len(statistics) // 2 + len(left_over) == tensors


def test_a_deep_stem_resnet_there_and_back(convert, tensors_of, same, tmp_path):
    """What the picture encoder starts from; its classifier is left over."""
    import torch

    # Wider than the stage before, or a stage that halves nothing would have no shortcut.
    sizes = dataclasses.replace(SIZES.resnet, planes=(2, 2, 3, 4))
    network = {"resnet": dataclasses.asdict(sizes)}
    rng = np.random.default_rng(0)
    ours = {p: rng.random(s, np.float32) for p, s in RESNETS.parameters(network).items()}
    tensors, _ = engine.to_theirs(DEEP_STEM, ours, {}, {})
    assert {"conv1.0.weight", "conv1.6.weight", "bn1.running_var"} <= set(tensors)
    tensors["fc.weight"] = rng.random((3, 16), np.float32)
    state = {name: torch.from_numpy(array) for name, array in tensors.items()}
    torch.save(state, tmp_path / "resnet50.pth")
    said = convert(tmp_path / "resnet50.pth", "--out", tmp_path / "ours")
    assert "deep stem" in said.out
    parameters, card = cards.weights(tmp_path / "ours")
    assert card.kind == "resnet" and card.network["resnet"]["deep_stem"]
    assert set(parameters) == set(ours) and set(load_left_over(tmp_path / "ours")) == {"fc.weight"}
    convert(tmp_path / "ours", "--to=origin", "--out", tmp_path / "back.pth")
    same(tensors_of(tmp_path / "back.pth"), tensors_of(tmp_path / "resnet50.pth"))
