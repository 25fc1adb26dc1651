"""PVT-v2 block by block against the one of PyPI's transformers, at sizes nothing divides."""

import dataclasses

import jax
import numpy as np
import pytest
import torch
from transformers.models.pvt_v2 import modeling_pvt_v2 as pvt_v2

from aavs_jax.convert.naming import inverse_plan
from aavs_jax.methods.functional import functional
from aavs_jax.methods.parts.key_tables import TENSORS
from aavs_jax.methods.parts.pvt import PVT
from aavs_jax.methods.parts.pvt_weights import FORMATS, pvt_parameters, pvt_sizes
from aavs_jax.methods.parts.sizes import PVTConfig

SIZES = PVTConfig(
    embed_dims=(8, 16, 20, 32),
    num_heads=(1, 2, 5, 8),
    depths=(2, 1, 3, 1),
    mlp_ratios=(8, 8, 4, 4),
    reductions=(8, 4, 2, 1),
)
TOLERANCE = 1e-5  # of the largest value; a norm's epsilon ten times as large makes 1e-3


@pytest.fixture(scope="module")
def reference():
    torch.manual_seed(0)
    config = pvt_v2.PvtV2Config(
        hidden_sizes=list(SIZES.embed_dims),
        num_attention_heads=list(SIZES.num_heads),
        depths=list(SIZES.depths),
        mlp_ratios=list(SIZES.mlp_ratios),
        sr_ratios=list(SIZES.reductions),
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    model = pvt_v2.PvtV2Backbone(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter += 0.05 * torch.randn(parameter.shape)
            if "patch_embedding" in name or "spatial_reduction" in name:
                parameter *= 0.01  # so that variances before the norms are near their epsilons
    # transformers has one epsilon; the published code, and its weights, have two.
    for name, module in model.named_modules():
        if name.endswith(("patch_embedding.layer_norm", "attention.layer_norm")):
            module.eps = 1e-5
    return model


@pytest.fixture(scope="module")
def given(reference):
    """Its tensors as our parameters."""
    tensors = {
        name.removeprefix("pvt_v2."): tensor.numpy()
        for name, tensor in reference.state_dict().items()
    }
    parameters = {}
    for step in inverse_plan(FORMATS[1], tensors):
        to_ours, _ = TENSORS[step.how]
        parameters[step.ours[0]] = to_ours(tensors.pop(step.theirs))
    assert not tensors
    return parameters


@pytest.fixture(scope="module")
def ours(given):
    pvt = functional(lambda: PVT(SIZES, "float32"))
    values = {path.removeprefix("backbone/"): array for path, array in given.items()}
    return pvt, values


def test_sizes_are_told_by_shapes(given):
    shapes = {path: array.shape for path, array in given.items()}
    assert pvt_parameters(SIZES) == shapes
    told = pvt_sizes(shapes)
    assert PVTConfig(**{k: tuple(v) for k, v in told.items()}) == SIZES


# Maps of 21 x 13, 11 x 7, 6 x 4 and 3 x 2 tokens: no reduction divides one.
@pytest.fixture(scope="module")
def blocks(reference, ours):
    """(name, our array, theirs) of every block, patch embedding and stage, inputs theirs."""
    frames = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 3, 84, 50))).float()
    network = ours[0].network(ours[1])

    @jax.jit
    def apply(inputs):
        found = []
        for stage, of_stage in zip(network.stages, inputs, strict=True):
            found.append(stage.patch_embedding(of_stage["embed"]))
            for block, x in zip(stage.blocks, of_stage["blocks"], strict=True):
                found.append(x + (branch := block.attention(block.attention_norm(x))))
                found.append(branch)
                found.append(block(x))
            found.append(stage.output_norm(of_stage["norm"]))
        return found, network(of_stage_frames)

    inputs, names, theirs, x = [], [], [], frames
    of_stage_frames = frames.permute(0, 2, 3, 1).numpy()
    with torch.no_grad():
        for index, layer in enumerate(reference.encoder.layers):
            given = {"embed": _map(x), "blocks": []}
            x, height, width = layer.patch_embedding(x)

            def keep(name, tokens, h=height, w=width, index=index):
                names.append(f"{index}/{name}")
                theirs.append(tokens.reshape(len(tokens), h, w, -1).numpy())

            keep("patch embedding", x)
            for number, block in enumerate(layer.blocks):
                given["blocks"].append(x.reshape(len(x), height, width, -1).numpy())
                (branch,) = block.attention(block.layer_norm_1(x), height, width)
                keep(f"{number}/after attention", x + branch)
                keep(f"{number}/attention", branch)
                (x,) = block(x, height, width)
                keep(f"{number}/block", x)
            given["norm"] = x.reshape(len(x), height, width, -1).numpy()
            x = layer.layer_norm(x)
            keep("norm", x)
            inputs.append(given)
            x = x.reshape(len(x), height, width, -1).permute(0, 3, 1, 2)
        whole = [_map(x) for x in reference(frames).feature_maps]
    with jax.default_matmul_precision("highest"):
        found, maps = apply(inputs)
    pairs = [*zip(names, found, theirs, strict=True)]
    pairs += [(f"map {i}", a, b) for i, (a, b) in enumerate(zip(maps, whole, strict=True))]
    return pairs


def _map(x: torch.Tensor) -> np.ndarray:
    return x.permute(0, 2, 3, 1).numpy()


def test_every_block_equals_transformers(blocks):
    assert len(blocks) == 4 + 3 * 7 + 4 + 4
    far = {}
    for name, a, b in blocks:
        assert a.shape == b.shape
        error = np.abs(np.asarray(a) - b).max() / np.abs(b).max()
        if not error <= TOLERANCE:
            far[name] = error
    assert not far


def test_drop_path_rises_and_scales_by_frame(ours):
    pvt, values = ours
    frames = np.random.default_rng(0).normal(size=(6, 32, 32, 3)).astype(np.float32)
    always = functional(lambda: PVT(dataclasses.replace(SIZES, drop_path_rate=0.9), "float32"))
    rates = always.model.drop_path_rates
    assert rates[0] == 0 and rates[-1] == pytest.approx(0.9) and list(rates) == sorted(rates)
    keys = jax.random.split(jax.random.key(0), 6)
    run = jax.jit(lambda frames, keys: always.network(values)(frames, keys)[-1])
    dropped = run(frames, keys)
    # What a frame draws depends on its key alone.
    np.testing.assert_allclose(run(frames[::-1], keys[::-1])[::-1], dropped, atol=1e-5)
    plain = jax.jit(lambda frames: pvt.network(values)(frames)[-1])(frames)
    assert np.abs(plain - dropped).max() > 0.1
