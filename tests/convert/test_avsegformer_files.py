"""AVSegFormer's checkpoints, VGGish inside: recognised, accounted for, and back bit for bit."""

import dataclasses

import numpy as np
import pytest

from aavs_jax.convert import engine
from aavs_jax.convert.naming import pattern
from aavs_jax.errors import UserError
from aavs_jax.methods.avsegformer.config import AVSegFormerConfig
from aavs_jax.methods.avsegformer.network import AVSegFormer
from aavs_jax.methods.avsegformer.weights import FORMAT
from aavs_jax.methods.functional import functional
from aavs_jax.methods.parts.key_tables import MODULES
from aavs_jax.methods.parts.sizes import AudioConfig, PVTConfig, ResNetConfig
from aavs_jax.plan import values
from aavs_jax.plan.stage import make_stages
from aavs_jax.state.parameter_folders import load_left_over
from aavs_jax.weights import card as cards
from aavs_jax.weights import starting
from configs import avsegformer, base

C = 32
SIZES = AVSegFormerConfig(
    num_queries=3,
    pvt=PVTConfig((8, 8, 10, 8), (1, 2, 5, 8), (1, 1, 2, 1), (2, 2, 2, 2), (4, 2, 2, 1)),
    resnet=ResNetConfig(depths=(1, 1, 2, 1), planes=(2, 2, 4, 4), stem=4),
    audio=AudioConfig(blocks=((2,), (2, 4)), fully_connected=(8, 16)),
    feature_size=C,
    num_heads=4,
    encoder_layers=1,
    encoder_ffn=16,
    generator_layers=2,
    generator_ffn=8,
    decoder_layers=1,
    decoder_ffn=24,
    query_hidden=12,
    head_channels=(8, 4),
)
KINDS_OF_FILE = {
    "s4_pvt": SIZES,
    "avss_resnet": dataclasses.replace(SIZES, backbone="resnet", task="semantic", num_classes=7),
}
UNUSED = {
    **{
        f"head.fpn.up{i}.1.{leaf}": s
        for i in (1, 2, 3)
        for leaf, s in (("weight", (C, C, 3, 3)), ("bias", (C,)))
    },
    "head.attn_fc.0.weight": (8, C, 3, 3),
    "head.attn_fc.0.bias": (8,),
    "head.attn_fc.4.weight": (1, 4, 1, 1),
}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """name -> a .pth as the public code saves it."""
    import torch

    folder, rng = tmp_path_factory.mktemp("avsegformer"), np.random.default_rng(0)
    for name, sizes in KINDS_OF_FILE.items():
        shapes = functional(lambda sizes=sizes: AVSegFormer(sizes)).shapes
        ours = {path: rng.random(leaf.shape, np.float32) for path, leaf in shapes.items()}
        tensors, fates = engine.to_theirs(FORMAT, ours, {}, {})
        assert {fate.what for fate in fates} == {"mapped"}
        tensors |= {unused: rng.random(shape, np.float32) for unused, shape in UNUSED.items()}
        if sizes.backbone == "resnet":
            for first in [n for n in tensors if "layer3_1" in n or "layer4_1" in n]:
                second = first.replace("_1.", "_2.", 1)
                tensors[second] = rng.random(tensors[first].shape, np.float32)
            for mean in [n for n in tensors if n.endswith("running_mean")]:
                counted = mean.replace("running_mean", "num_batches_tracked")
                tensors[counted] = np.array(17, np.int64)
        state = {n: torch.from_numpy(np.array(a)) for n, a in tensors.items()}
        torch.save(state, folder / f"{name}.pth")
    return {name: folder / f"{name}.pth" for name in KINDS_OF_FILE}


def test_every_row_is_used(published, tensors_of):
    names = {name for path in published.values() for name in tensors_of(path)}
    for row in FORMAT.rows:
        leaves = [f"{row.theirs}.{leaf}" for leaf in MODULES.get(row.how, ())] or [row.theirs]
        expressions = [pattern(leaf) for leaf in leaves]
        assert any(e.fullmatch(name) for e in expressions for name in names), row


@pytest.mark.parametrize("name", KINDS_OF_FILE)
def test_there_and_back(name, published, convert, tensors_of, same, tmp_path):
    said = convert(published[name], "--out", tmp_path / "ours", "--report")
    assert "AVSegFormer" in said.out
    parameters, card = cards.weights(tmp_path / "ours")
    sizes = KINDS_OF_FILE[name]
    other = "resnet" if sizes.backbone == "pvt" else "pvt"
    assert card.kind == "avsegformer" and not card.new
    network = AVSegFormerConfig.from_dict(card.network)
    assert dataclasses.replace(network, **{other: getattr(sizes, other)}) == sizes
    shapes = functional(lambda: AVSegFormer(sizes)).shapes
    assert {p: a.shape for p, a in parameters.items()} == {p: s.shape for p, s in shapes.items()}
    left_over = load_left_over(tmp_path / "ours")
    assert set(UNUSED) <= set(left_over)
    second = [n for n in left_over if n.startswith(("backbone.layer3_2", "backbone.layer4_2"))]
    assert bool(second) == (sizes.backbone == "resnet")
    for to in ("avsegformer", "origin"):
        convert(tmp_path / "ours", f"--to={to}", "--out", tmp_path / f"{to}.pth")
        same(tensors_of(tmp_path / f"{to}.pth"), tensors_of(published[name]))


@pytest.fixture(scope="module")
def parts(published, tmp_path_factory):
    """name -> the folder of weights made of a backbone's file, or of VGGish's."""
    import torch

    from aavs_jax.convert.__main__ import main

    folder = tmp_path_factory.mktemp("parts")
    state = torch.load(published["s4_pvt"], weights_only=True)
    for name, prefix in (("pvt_v2_b5", "backbone."), ("vggish", "vggish.")):
        own = {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
        if name == "pvt_v2_b5":
            own |= {"head.weight": torch.ones(1000, 8), "head.bias": torch.ones(1000)}
        torch.save(own, folder / f"{name}.pth")
        assert main([str(folder / f"{name}.pth"), f"--out={folder / name}"]) == 0
    return {name: folder / name for name in ("pvt_v2_b5", "vggish")}


def test_a_pvt_there_and_back(parts, convert, tensors_of, same, tmp_path):
    card = cards.read(parts["pvt_v2_b5"])
    assert card.kind == "pvt" and set(card.left_over) == {"head.weight", "head.bias"}
    assert card.network["pvt"]["reductions"] == [4, 2, 2, 1]
    for to in ("pvt", "origin"):
        convert(parts["pvt_v2_b5"], f"--to={to}", "--out", tmp_path / f"{to}.pth")
        file = parts["pvt_v2_b5"].with_suffix(".pth")
        same(tensors_of(tmp_path / f"{to}.pth"), tensors_of(file))


def test_the_recipe_starts_from_the_parts(parts, tmp_path):
    config = avsegformer.get_config("/x,s4").to_dict()
    sizes = base.keys(SIZES).to_dict()
    config["stages"]["localise"]["model"] = sizes
    config["init"] |= {"backbone": str(parts["pvt_v2_b5"]), "vggish": str(parts["vggish"])}
    (stage,) = make_stages(values.checked(config), tmp_path)
    starting.check_starts([stage])
    found = starting.starting_parameters(stage, stage.phases[0])
    for part in parts.values():
        for path, value in cards.weights(part)[0].items():
            np.testing.assert_array_equal(found[path], value, err_msg=path)
    config["init"]["vggish"] = ""
    (stage,) = make_stages(values.checked(config), tmp_path)
    with pytest.raises(UserError, match="--config.init.vggish"):
        starting.check_starts([stage])


def test_a_file_of_another_form_is_refused_in_a_sentence(published, convert, tmp_path):
    import torch

    state = torch.load(published["s4_pvt"], weights_only=True)
    del state["head.out_conv.0.weight"]
    torch.save(state, tmp_path / "lacking.pth")
    said = convert(tmp_path / "lacking.pth", "--out", tmp_path / "ours", code=2)
    assert "fusion/kernel" in said.err and "head.out_conv.0.weight" in said.err
    state = {n: t for n, t in state.items() if not n.startswith("vggish.features")}
    torch.save(state, tmp_path / "deaf.pth")
    said = convert(tmp_path / "deaf.pth", "--out", tmp_path / "ours", code=2)
    assert "features.0.weight" in said.err
