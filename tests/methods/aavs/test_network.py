"""The whole network at sizes of nothing; what it computes is checked in tests/parity."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from aavs_jax.methods.parts import layers
from aavs_jax.methods.parts.frames import MEAN, STD
from aavs_jax.methods.parts.swin import Swin

OUTPUT_PROJECTIONS = "pixel_decoder/.*/attention/output/.*|decoder/.*/self_attention/output/.*"


def largest(x) -> float:
    return float(np.abs(np.asarray(x, np.float64)).max())


def assert_close(ours, theirs, tolerance=1e-5):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert largest(np.asarray(a) - np.asarray(b)) <= tolerance * largest(b)


@pytest.mark.parametrize("height, width", [(64, 64), (50, 71), (33, 32), (20, 130)])
def test_shapes_at_any_size(network, inputs, height, width):
    net = network()
    outputs = jax.eval_shape(net.apply, net.values, *inputs(3, height, width))
    grids = [(-(-height // s), -(-width // s)) for s in (4, 8, 16, 32)]
    shapes = jax.tree.map(lambda x: x.shape, outputs)
    assert shapes["class_logits"] == (3, 3, 6, 6)
    assert shapes["mask_logits"] == (3, 3, 6, *grids[0])
    assert shapes["backbone"] == [(3, *g, 8 << i) for i, g in enumerate(grids)]
    assert shapes["multi_scale"] == [(3, *g, 32) for g in grids[:0:-1]]
    assert shapes["mask_features"] == (3, *grids[0], 32)
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(outputs))


def test_odd_size_runs(network, inputs):
    net = network()
    assert all(
        np.isfinite(x).all() for x in jax.tree.leaves(net.jitted(net.values, *inputs(1, 36, 52)))
    )


def test_frames_do_not_see_each_other(network, inputs):
    net = network()
    first, second = inputs(2, 64, 64), inputs(2, 64, 64, seed=1)
    mixed = [np.concatenate([a[:1], b[1:]]) for a, b in zip(first, second, strict=True)]
    alone, beside = net.jitted(net.values, *first), net.jitted(net.values, *mixed)
    for output in ("class_logits", "mask_logits"):
        assert_close(alone[output][:, 0], beside[output][:, 0])
        assert largest(alone[output][:, 1] - beside[output][:, 1]) > 1e-3


def test_every_input_counts(network, inputs):
    net = network()
    frames, audio, prior = inputs(2, 64, 64)
    class_logits = net.jitted(net.values, frames, audio, prior)["class_logits"][-1]
    for changed in (
        (frames // 2, audio, prior),
        (frames, -audio, prior),
        (frames, audio, 1 - prior),
    ):
        other = net.jitted(net.values, *changed)["class_logits"][-1]
        assert largest(class_logits - other) > 1e-4


def test_bytes_are_normalised_inside_and_embeddings_skip_the_encoder(network, inputs):
    net = network()
    frames, audio, prior = inputs(2, 64, 64)
    embeddings = nnx.merge(net.graphdef, net.values).audio_encoder(audio)
    normalised = ((frames / 255 - MEAN) / STD).astype(np.float32)
    assert_close(
        net.jitted(net.values, normalised, embeddings, prior),
        net.jitted(net.values, frames, audio, prior),
        1e-4,
    )


def test_drop_path(network, inputs):
    net = network()
    arguments = inputs(2, 64, 64)
    off = net.jitted(net.values, *arguments)
    dropped = [net.jitted(net.values, *arguments, key=jax.random.key(s)) for s in (0, 0, 1)]
    assert_close(off, net.jitted(net.values, *arguments), 0)
    assert_close(dropped[0], dropped[1], 0)
    assert largest(dropped[0]["mask_features"] - off["mask_features"]) > 1e-3
    assert largest(dropped[0]["mask_features"] - dropped[2]["mask_features"]) > 1e-3


def drop_path_factors(network, **changes) -> np.ndarray:
    """Of 5 blocks at the rate 0.5 and 20000 frames: [5, branches, 20000]."""
    config = dataclasses.replace(network().config.backbone, **changes)
    factors = Swin(config, "float32")._branch_factors(jax.random.split(jax.random.key(0), 20000))
    return np.asarray(factors)[..., 0, 0, 0]


def test_drop_path_has_one_rate_in_every_block_and_keeps_the_mean(network):
    factors = drop_path_factors(network)
    assert factors.shape == (5, 1, 20000)
    assert set(np.unique(factors)) == {0, 2}
    np.testing.assert_allclose((factors == 0).mean((1, 2)), 0.5, atol=0.02)
    np.testing.assert_allclose(factors.mean((1, 2)), 1, atol=0.04)
    # Neither blocks nor frames fall together: coins of their own agree half of the time.
    assert abs((factors[0] == factors[1]).mean() - 0.5) < 0.02
    assert abs((factors[..., 1:] == factors[..., :-1]).mean() - 0.5) < 0.02


def test_drop_path_of_rising_rates_and_of_both_branches(network):
    factors = drop_path_factors(network, drop_path_schedule="linear", drop_path_branches="both")
    assert factors.shape == (5, 2, 20000)
    dropped = (factors == 0).mean((1, 2))
    np.testing.assert_allclose(dropped, [0, 0.125, 0.25, 0.375, 0.5], atol=0.01)
    np.testing.assert_allclose(factors.mean((1, 2)), 1, atol=0.02)
    assert not np.array_equal(factors[4, 0], factors[4, 1]), "both branches fall together"


@pytest.mark.parametrize("branches", ["attention", "both"])
def test_drop_path_leaves_the_branches_out_that_it_names_frame_by_frame(network, branches):
    net = network()
    block = nnx.merge(net.graphdef, net.values).backbone.stages[0].blocks[0]
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 8)).astype(np.float32)
    factors = np.asarray([[0, 2], [0, 2]], np.float32)[: 2 if branches == "both" else 1]
    ours = block(x, 0, jnp.asarray(factors)[..., None, None, None])

    def mlp(x):
        hidden = layers.gelu(block.mlp_hidden(block.mlp_norm(x)))
        return block.mlp_adapter(block.mlp_output(hidden))

    attention = block.attention_adapter(block.attention(block.attention_norm(x), 0))
    mine = x + attention * np.asarray([0, 2], np.float32)[:, None, None, None]
    both = branches == "both"
    wanted = [
        mine[0] + (0 if both else 1) * mlp(mine)[0],
        mine[1] + (2 if both else 1) * mlp(mine)[1],
    ]
    assert_close([ours[0], ours[1]], wanted, 1e-5)


def test_no_gradient_through_the_attention_mask(network):
    # The mask embedder acts on the class logits through the attention masks alone.
    net = network(prior=False)
    rng = np.random.default_rng(0)
    levels = [rng.normal(size=(1, s, s, 32)).astype(np.float32) for s in (2, 4, 8)]
    mask_features = rng.normal(size=(1, 16, 16, 32)).astype(np.float32)

    def weighted(values, class_weight, mask_weight):
        decoder = nnx.merge(net.graphdef, net.values | {"decoder": values}).decoder
        class_logits, mask_logits, _ = decoder(levels, mask_features, jnp.ones((1, 32)))
        return class_weight * class_logits[-1].sum() + mask_weight * mask_logits[-1].std()

    gradient = jax.jit(jax.grad(weighted))
    through_classes = gradient(net.values["decoder"], 1.0, 0.0)
    through_masks = gradient(net.values["decoder"], 0.0, 1.0)
    assert not any(largest(x) for x in jax.tree.leaves(through_classes["mask_embedder"]))
    assert all(largest(x) for x in jax.tree.leaves(through_masks["mask_embedder"][2]))
    for part in ("query_features", "query_positions", "level_embed", "layers"):
        assert sum(map(largest, jax.tree.leaves(through_classes[part]))) > 0


def test_a_semantic_network_without_prior(network, inputs):
    net = network(prior=False)
    assert not {"silent_embed", "sounding_embed", "uncertain_embed"} & set(net.values["decoder"])
    frames, audio, prior = inputs(1, 64, 64)
    with pytest.raises(ValueError, match="takes no prior"):
        net.apply(net.values, frames, audio, prior)
    with pytest.raises(ValueError, match="needs a prior"):
        network().apply(network().values, frames, audio)


def test_a_prior_of_half_blocks_nothing(network, inputs):
    # 0.5 is not below 0.5: everything may be looked at, as if everything sounded.
    net = network()
    frames, audio, _ = inputs(1, 64, 64)
    decoder = nnx.merge(net.graphdef, net.values).decoder
    seen = []
    layer = type(decoder.layers[0])
    call = layer.__call__

    def spy(self, x, positions, keys, values, blocked):
        seen.append(np.asarray(blocked))
        return call(self, x, positions, keys, values, blocked)

    levels = [jnp.ones((1, s, s, 32)) for s in (2, 4, 8)]
    prior = np.full((1, 56, 56), 0.5, np.float32)
    prior[:, :, :28] = 0.4999
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layer, "__call__", spy)
        decoder(levels, jnp.ones((1, 16, 16, 32)), jnp.ones((1, 32)), jnp.asarray(prior))
    assert seen[0].shape[2] == 4
    assert (seen[0] == [True, False, True, False]).all()


@pytest.mark.slow
def test_linear_keys_are_the_steps_where_a_prior_is_sure(network, inputs):
    steps, linear = network(), network(prior_keys="linear")
    frames, audio, _ = inputs(2, 64, 64)
    known = jnp.array([[[0.0, 0.5], [1.0, 0.3]], [[0.7, 0.5], [0.0, 1.0]]])
    known = jnp.repeat(jnp.repeat(known, 32, 1), 32, 2)  # whole cells of every level

    def of(net, values, prior):
        return net.jitted(values, frames, audio, prior)["class_logits"]

    one, other = of(steps, steps.values, known), of(linear, steps.values, known)
    assert_close(one, other)
    between = 0.45 + 0.1 * (known > 0.5)  # what all keys have in common attention does not see
    assert largest(of(steps, steps.values, between) - of(linear, steps.values, between)) > 1e-4


@pytest.mark.parametrize("task, used", [("binary", False), ("semantic", True)])
def test_output_projections_are_used_by_the_semantic_network_only(network, inputs, task, used):
    net, arguments = network(task=task), inputs(2, 64, 64)
    before = net.jitted(net.values, *arguments)

    def doubled(path, x):
        name = "/".join(str(key.key) for key in path)
        return 2 * x if re.fullmatch(OUTPUT_PROJECTIONS, name) else x

    after = net.jitted(jax.tree_util.tree_map_with_path(doubled, net.values), *arguments)
    for output in ("mask_features", "class_logits"):
        change = largest(np.asarray(before[output])[-1] - np.asarray(after[output])[-1])
        assert (change > 0) == used


def test_bfloat16_stays_close(network, inputs):
    exact, fast = network(), network(dtype="bfloat16")
    arguments = inputs(2, 64, 64)
    wanted = exact.jitted(exact.values, *arguments)
    ours = fast.jitted(exact.values, *arguments)

    def error(a, b):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        return np.linalg.norm(a - b) / np.linalg.norm(b)

    for x in jax.tree.leaves(ours):
        assert x.dtype == jnp.float32
    errors = jax.tree.map(error, ours, wanted)
    print(errors)
    # bfloat16 has 8 bits: 0.4 % per rounding, somewhat more after a few layers.
    for part in ("backbone", "multi_scale", "mask_features"):
        assert max(jax.tree.leaves(errors[part])) < 0.03
    assert max(errors["class_logits"], errors["mask_logits"]) < 0.05
    assert errors["mask_features"] > 1e-5, "computed in float32 after all"


def test_structure_is_static_and_values_are_all_parameters(network):
    net = network()
    assert hash(net.graphdef) == hash(nnx.split(nnx.merge(net.graphdef, net.values))[0])
    assert all(isinstance(x, jax.Array) for x in jax.tree.leaves(net.values))
    variables = [v for _, v in nnx.to_flat_state(nnx.state(nnx.merge(net.graphdef, net.values)))]
    assert variables and all(isinstance(v, nnx.Param) for v in variables)
