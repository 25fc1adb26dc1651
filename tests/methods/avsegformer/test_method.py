"""AVSegFormer at sizes of nothing; what it computes is checked in tests/parity."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aavs_jax.errors import UserError
from aavs_jax.methods import make_method
from aavs_jax.methods.avsegformer.config import PAPER, AVSegFormerConfig, AVSegFormerLoss
from aavs_jax.methods.avsegformer.network import AVSegFormer
from aavs_jax.methods.avsegformer.objective import dice, losses
from aavs_jax.methods.avsegformer.weights import KINDS
from aavs_jax.methods.functional import functional
from aavs_jax.methods.parts.sizes import AudioConfig, PVTConfig, ResNetConfig

TINY = AVSegFormerConfig(
    num_queries=5,
    pvt=PVTConfig(
        embed_dims=(8, 8, 8, 8),
        num_heads=(1, 1, 2, 2),
        depths=(1, 1, 1, 1),
        mlp_ratios=(2, 2, 2, 2),
        reductions=(4, 2, 1, 1),
        drop_path_rate=0.5,
    ),
    resnet=ResNetConfig(block="basic", depths=(1, 1, 1, 1), planes=(4, 4, 8, 8), stem=4),
    audio=AudioConfig(blocks=((2,), (4,)), fully_connected=(8, 16)),
    feature_size=32,
    num_heads=4,
    encoder_layers=1,
    encoder_ffn=16,
    generator_layers=1,
    generator_ffn=16,
    decoder_layers=1,
    decoder_ffn=16,
    query_hidden=16,
    head_channels=(8, 8),
    dropout=0.3,
)
CLASSES = 6


def method_of(task: str, prior: bool = False, **sizes):
    values = dataclasses.asdict(dataclasses.replace(TINY, **sizes))
    stage = {
        "method": "avsegformer",
        "task": task,
        "model": {k: v for k, v in values.items() if k not in ("task", "num_classes", "prior")},
        "loss": {},
        "prior": {"train": "true" if prior else "none"},
        "data": {"image_size": 32, "label_size": 24, "drop_empty_clips": False, "max_targets": 9},
        "train": {"remat": "none"},
    }
    return make_method(stage, CLASSES)


def batch_of(prior: bool = False) -> dict:
    rng = np.random.default_rng(0)
    batch = {
        "frames": rng.integers(0, 256, (2, 3, 32, 32, 3), np.uint8),
        "audio": rng.normal(size=(2, 3, 96, 64)).astype(np.float32),
        "labels": rng.integers(0, CLASSES, (2, 3, 24, 24)).astype(np.uint8),
        "labelled": np.array([[True, False, False], [True, True, True]]),
        "valid": np.array([[True, True, True], [True, True, False]]),
    }
    return batch | ({"prior_mask": rng.random((2, 3, 24, 24), np.float32)} if prior else {})


@pytest.fixture(scope="module")
def semantic():
    """The semantic network that is told a prior: all that it says of a batch, compiled once."""
    method = method_of("semantic", prior=True)
    parameters = jax.tree.map(jnp.asarray, method.initial(0))
    loss = jax.jit(method.loss)
    return types.SimpleNamespace(method=method, parameters=parameters, loss=loss)


def seen(method, batch: dict) -> dict:
    return {name: batch[name] for name in method.entries if name not in ("labels", "labelled")}


def test_padding_is_background_and_changes_nothing(semantic):
    method, batch = semantic.method, batch_of(prior=True)
    other = {name: array.copy() for name, array in batch.items()}
    other["frames"][1, 2], other["audio"][1, 2], other["prior_mask"][1, 2] = 7, 3.0, 1.0
    found = [method.predict(semantic.parameters, seen(method, b)) for b in (batch, other)]
    np.testing.assert_array_equal(found[0].classes, found[1].classes)
    assert not found[0].classes[1, 2].any()
    key, progress = jax.random.key(0), jnp.float32(0)
    totals = [semantic.loss(semantic.parameters, b, key, progress)[0] for b in (batch, other)]
    assert totals[0] == totals[1]


def test_scores_are_what_is_predicted(semantic):
    method, batch = semantic.method, batch_of(prior=True)
    scores = method.scores(semantic.parameters, seen(method, batch))
    found = method.predict(semantic.parameters, seen(method, batch))
    assert scores.shape == (2, 3, 24, 24, CLASSES)
    np.testing.assert_array_equal(scores.argmax(-1), found.classes)
    np.testing.assert_allclose(scores.sum(-1), 1, atol=1e-5)
    np.testing.assert_array_equal(found.maps["confidence"], scores.max(-1))


def test_a_prior_counts_but_not_in_the_mix_term(semantic):
    batch = batch_of(prior=True)
    without = batch | {"prior_mask": np.zeros_like(batch["prior_mask"])}
    key, progress = jax.random.key(0), jnp.float32(0)
    told, untold = (
        semantic.loss(semantic.parameters, b, key, progress)[1].scalars for b in (batch, without)
    )
    assert told["loss/mix"] == untold["loss/mix"]
    assert abs(told["loss/cross_entropy"] - untold["loss/cross_entropy"]) > 1e-4


def test_views_of_a_prior_are_averaged(semantic):
    method, batch = semantic.method, seen(semantic.method, batch_of(prior=True))
    other = np.full_like(batch["prior_mask"], 0.5)
    each = [
        method.scores(semantic.parameters, batch | {"prior_mask": prior})
        for prior in (batch["prior_mask"], other)
    ]
    both = np.stack([batch["prior_mask"], other], axis=2)
    found = method.scores(semantic.parameters, batch | {"prior_mask": both})
    np.testing.assert_allclose(found, (each[0] + each[1]) / 2, atol=1e-6)


def test_dropout_draws_by_key(semantic):
    batch, progress = batch_of(prior=True), jnp.float32(0)
    totals = [
        semantic.loss(semantic.parameters, batch, jax.random.key(k), progress)[0] for k in (0, 0, 1)
    ]
    assert totals[0] == totals[1] != totals[2]


@pytest.mark.slow
def test_the_same_whether_layers_are_a_loop_or_computed_again():
    two = {f"{name}_layers": 2 for name in ("encoder", "generator", "decoder")}
    config = dataclasses.replace(TINY, **two)
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (2, 32, 32, 3), np.uint8)
    heard = rng.random((2, 16), np.float32)
    parameters, found = None, []
    for remat in (None, "none", "everything"):
        net = functional(lambda remat=remat: AVSegFormer(config, remat))
        parameters = parameters or jax.tree.map(jnp.asarray, net.initial(0))

        def run(parameters, keys, net=net):
            network = net.network(parameters)
            return network(frames, heard, training=True, keys=keys)["logits"]

        found.append(jax.jit(run)(parameters, jax.random.split(jax.random.key(0), 2)))
    np.testing.assert_allclose(found[1], found[0], atol=1e-5 * np.abs(found[0]).max())
    np.testing.assert_allclose(found[2], found[0], atol=1e-5 * np.abs(found[0]).max())


def test_the_loss_is_the_sum_of_its_slices(semantic):
    method, batch, key = semantic.method, batch_of(prior=True), jax.random.key(0)
    rows, shared = method.slices.split(batch, key)
    part = jax.jit(method.slices.loss)
    whole, aux = semantic.loss(semantic.parameters, batch, key, jnp.float32(0))
    found = [
        part(semantic.parameters, jax.tree.map(lambda a, n=n: a[n : n + 2], rows), shared, 0.0)
        for n in (0, 2, 4)
    ]
    np.testing.assert_allclose(sum(total for total, _ in found), whole, rtol=1e-5)
    for name, value in aux.scalars.items():
        np.testing.assert_allclose(sum(a.scalars[name] for _, a in found), value, rtol=1e-5)
    assert rows["counts"].tolist() == [True, False, False, True, True, False]


def test_the_binary_network_with_a_resnet(semantic):
    method, batch = method_of("binary", backbone="resnet"), batch_of()
    assert method.slices is None and method.num_classes == 2
    assert all(path.startswith("backbone/") for path in method.mutable) and method.mutable
    assert "resnet" in method.network and "pvt" not in method.network
    parameters = jax.tree.map(jnp.asarray, method.initial(0))
    _, aux = jax.jit(method.loss)(parameters, batch, jax.random.key(0), jnp.float32(0))
    assert set(aux.scalars) == {"loss/dice", "loss/mix"} and aux.mutable.keys() == method.mutable
    found = method.predict(parameters, seen(method, batch))
    np.testing.assert_array_equal(found.classes, found.maps["softmax"] > 0.5)
    np.testing.assert_array_equal(found.maps["softmax"], found.maps["foreground"])


def test_an_empty_target_costs_1_and_pulls_nowhere():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 4)), jnp.float32)
    truth = jnp.zeros((2, 4, 4)).at[1, :2].set(1)
    everything = jnp.ones((2, 4, 4))
    value, pull = jax.vjp(lambda logits: dice(logits, truth, everything), logits)
    share = np.asarray(jax.nn.sigmoid(logits[1]), np.float64)
    expected = 1 - 2 * share[:2].sum() / ((share**2).sum() + 8 + 0.002)
    np.testing.assert_allclose(value, [1, expected], rtol=1e-6)
    (gradient,) = pull(jnp.ones(2))
    assert not gradient[0].any() and gradient[1].all()


def test_ignored_pixels_count_for_nothing():
    rng = np.random.default_rng(0)
    outputs = {
        "logits": jnp.asarray(rng.normal(size=(1, 4, 4, 1)), jnp.float32),
        "mask_feature": jnp.asarray(rng.random((1, 4, 4, 3)), jnp.float32),
    }
    labels = np.array([[[0, 1, 255, 255]] * 4], np.uint8)
    left = jax.tree.map(lambda x: x[:, :, :2], outputs)
    for term, value in losses(outputs, labels, AVSegFormerLoss()).items():
        expected = losses(left, labels[:, :, :2], AVSegFormerLoss())[term]
        np.testing.assert_allclose(value, expected, rtol=1e-6, err_msg=term)


@pytest.mark.parametrize(
    ("backbone", "classes", "parameters"),
    [
        ("pvt", 2, 111_810_112),
        ("pvt", 71, 111_812_352),
        ("resnet", 2, 54_596_032),
        ("resnet", 71, 54_598_272),
    ],
)
def test_parameters_of_the_published_networks(backbone, classes, parameters):
    """Without VGGish, running statistics, and what the public network has and does not use."""
    task = "binary" if classes == 2 else "semantic"
    sizes = dataclasses.replace(PAPER, backbone=backbone, task=task, num_classes=classes)
    shapes = KINDS[0].parameters(dataclasses.asdict(sizes))
    counted = [
        np.prod(shape)
        for path, shape in shapes.items()
        if not path.startswith("audio_encoder/") and not path.endswith(("/mean", "/var"))
    ]
    assert sum(counted) == parameters


def test_first_values_follow_the_paper(semantic):
    first = semantic.method.initial(3)
    query = first["decoder/layers/0/self_attention/query/kernel"]
    assert np.abs(query).max() <= np.sqrt(6 / (4 * 32)) < 1.2 * np.abs(query).max()
    key = first["mixer/key/kernel"]  # stacked with the values only
    assert np.abs(key).max() <= np.sqrt(6 / (3 * 32)) < 1.2 * np.abs(key).max()
    assert not first["decoder/layers/0/self_attention/query/bias"].any()
    assert first["decoder/layers/0/ffn/hidden/bias"].any()
    assert not first["encoder/layers/0/attention/sampling_offsets/kernel"].any()
    assert 0.7 < first["encoder/level_embed"].std() < 1.3
    bound = 1 / np.sqrt(16)
    assert np.abs(first["audio_proj/kernel"]).max() <= bound
    assert 0 < np.abs(first["audio_proj/bias"]).max() <= bound


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"backbone": "swin"}, "backbone must be 'pvt' or 'resnet'"),
        ({"feature_size": 48}, "GroupNorm"),
        ({"head_channels": (8,)}, "head_channels"),
        ({"dropout": 1.0}, "dropout"),
        (
            {"pvt": dataclasses.replace(TINY.pvt, reductions=(16, 2, 1, 1))},
            "frames of 32 pixels have maps of 8 in stage 0",
        ),
    ],
)
def test_sizes_that_cannot_be(sizes, words):
    with pytest.raises((UserError, ValueError), match=words):
        method_of("binary", **sizes)


def test_it_is_traced_for_any_number_of_frames(semantic):
    """As exporting needs it: nothing may ask how many there are."""
    from jax import export

    (number,) = export.symbolic_shape("n")
    batch = {
        name: jax.ShapeDtypeStruct((number, 1, *array.shape[2:]), array.dtype)
        for name, array in seen(semantic.method, batch_of(prior=True)).items()
    }
    exported = export.export(jax.jit(semantic.method.predict))(semantic.parameters, batch)
    assert exported.out_avals[0].shape == (number, 1, 24, 24)
