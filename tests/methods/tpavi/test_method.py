"""TPAVI at sizes of nothing; what it computes is checked in tests/parity."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from aavs_jax.errors import UserError
from aavs_jax.methods import make_method
from aavs_jax.methods.functional import functional
from aavs_jax.methods.objectives.dense import cross_entropy
from aavs_jax.methods.parts.sizes import AudioConfig, PVTConfig, ResNetConfig
from aavs_jax.methods.tpavi.config import PVT_B5, RESNET_50, TPAVIConfig, TPAVILoss
from aavs_jax.methods.tpavi.network import TPAVI
from aavs_jax.methods.tpavi.objective import average_pooled
from configs import base

TINY = TPAVIConfig(
    backbone="resnet",
    resnet=ResNetConfig(block="basic", depths=(1, 1, 1, 1), planes=(4, 4, 6, 8), stem=4),
    pvt=PVTConfig(embed_dims=(4, 4, 5, 8), depths=(1, 1, 1, 1)),
    audio=AudioConfig(blocks=((2,), (2,)), fully_connected=(8,)),
    feature_size=8,
    dilations=(1, 2),
    head=(8, 4),
)
SIDE = 32
CLASSES = 4


def stage(task: str, *, prior: str = "none", model: TPAVIConfig = TINY, **loss) -> dict:
    return {
        "method": "tpavi",
        "task": task,
        "model": base.keys(model).to_dict(),
        "loss": loss,
        "prior": {"train": prior},
        "data": {
            "image_size": SIDE,
            "label_size": 24,
            "max_targets": 4,
            "drop_empty_clips": False,
        },
    }


def batch_of(seconds: int, clips: int = 2, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "frames": rng.integers(0, 256, (clips, seconds, SIDE, SIDE, 3), np.uint8),
        "audio": rng.normal(size=(clips, seconds, 96, 64)).astype(np.float32),
        "labels": rng.integers(0, CLASSES, (clips, seconds, 24, 24)).astype(np.uint8),
        "labelled": np.ones((clips, seconds), bool),
        "valid": np.ones((clips, seconds), bool),
        "prior_mask": rng.random((clips, seconds, 24, 24)).astype(np.float32),
    }


def moved(method) -> dict[str, jax.Array]:
    """Parameters of which none is what it is at first, where TPAVI is switched off."""
    values, rng = method.initial(0), np.random.default_rng(1)
    for path, value in values.items():
        if path.endswith(("/scale", "/bias", "/mean")):
            values[path] = value + 0.3 * rng.normal(size=value.shape).astype(np.float32)
    return {path: jnp.asarray(value) for path, value in values.items()}


@pytest.fixture(scope="module")
def built():
    method = make_method(stage("semantic"), CLASSES)
    return method, moved(method)


def test_the_scores_are_what_is_predicted(built):
    method, parameters = built
    batch = batch_of(5)
    found = method.predict(parameters, batch)
    scores = np.asarray(method.scores(parameters, batch))
    assert scores.shape == (2, 5, 24, 24, method.num_classes)
    np.testing.assert_allclose(scores.sum(-1), 1, atol=1e-5)
    np.testing.assert_array_equal(found.classes, scores.argmax(-1))
    np.testing.assert_allclose(found.maps["confidence"], scores.max(-1), atol=1e-6)
    assert found.classes.dtype == np.uint8 and scores.std((0, 1, 2, 3)).min() > 1e-3


def test_windows_do_not_see_each_other_and_seconds_of_one_do(built):
    method, parameters = built
    batch = batch_of(10)
    other = {**batch, "audio": batch["audio"].copy()}
    other["audio"][:, 7] += 1
    before, after = (np.asarray(method.scores(parameters, each)) for each in (batch, other))
    np.testing.assert_array_equal(before[:, :5], after[:, :5])
    changed = np.abs(before - after).max((0, 2, 3, 4))[5:]
    assert (changed > 1e-5).all()


def test_padding_never_changes_a_result(built):
    method, parameters = built
    batch = batch_of(7)
    short = np.asarray(method.scores(parameters, batch))
    padded = {name: np.repeat(a[:, -1:], 10, 1) for name, a in batch.items()}
    for name, array in batch.items():
        padded[name][:, :7] = array
    padded["valid"] = np.tile(np.arange(10) < 7, (2, 1))
    long = np.asarray(method.scores(parameters, padded))
    np.testing.assert_allclose(long[:, :7], short, atol=1e-6)
    np.testing.assert_allclose(long[:, 7:], 1 / CLASSES, atol=1e-6)


@pytest.mark.slow
def test_the_binary_task_trains_all_there_is():
    """And moves all running statistics; of clips with one label, as S4's."""
    method = make_method(stage("binary"), CLASSES)
    parameters = moved(method)
    fixed = {path: value for path, value in parameters.items() if path in method.mutable}
    batch = {name: batch_of(5)[name] for name in method.entries}
    batch["labelled"][:, 1:] = False

    @jax.jit
    def step(trainable):
        def objective(trainable):
            return method.loss(trainable | fixed, batch, jax.random.key(0), jnp.zeros(()))

        return jax.value_and_grad(objective, has_aux=True)(trainable)

    trainable = {path: value for path, value in parameters.items() if path not in fixed}
    (total, aux), gradients = step(trainable)
    assert np.isfinite(total) and set(aux.scalars) == {"loss/cross_entropy", "loss/matching"}
    assert set(aux.mutable) == set(method.mutable)
    for path, value in aux.mutable.items():
        assert np.abs(value - fixed[path]).max() > 0, path
    for path, gradient in gradients.items():
        assert np.isfinite(gradient).all(), path
        # A batch norm follows, which takes out what is the same everywhere.
        if not path.startswith("interaction") or not path.endswith("output/bias"):
            assert np.abs(gradient).max() > 0, path


def test_a_prior_mask_is_added_and_views_are_averaged():
    method = make_method(stage("semantic", prior="true"), CLASSES)
    parameters, batch = moved(method), batch_of(5)
    one = np.asarray(method.scores(parameters, batch))
    none = {**batch, "prior_mask": np.zeros_like(batch["prior_mask"])}
    two = np.asarray(method.scores(parameters, none))
    assert np.abs(one - two).max() > 1e-3
    views = {**batch, "prior_mask": np.stack([batch["prior_mask"], none["prior_mask"]], 2)}
    np.testing.assert_allclose(method.scores(parameters, views), (one + two) / 2, atol=1e-6)


def test_drop_path_draws_by_the_key():
    model = dataclasses.replace(
        TINY, backbone="pvt", pvt=dataclasses.replace(TINY.pvt, drop_path_rate=0.9)
    )
    method = make_method(stage("binary", model=model), CLASSES)
    parameters, batch = moved(method), batch_of(2, clips=1)
    batch = {name: batch[name] for name in method.entries}
    loss = jax.jit(lambda key: method.loss(parameters, batch, key, jnp.zeros(()))[0])
    assert loss(jax.random.key(0)) == loss(jax.random.key(0)) != loss(jax.random.key(1))


@pytest.mark.parametrize(
    ("sizes", "binary", "semantic"),
    [(PVT_B5, 100_140_417, 100_141_703), (RESNET_50, 68_157_697, 68_158_983)],
    ids=["pvt", "resnet"],
)
def test_numbers_of_parameters(sizes, binary, semantic):
    """Those of the published files, without what nothing there uses."""
    for task, classes, published in (("binary", 2, binary), ("semantic", 71, semantic)):
        config = dataclasses.replace(sizes, task=task, num_classes=classes)
        net = functional(lambda config=config: TPAVI(config))
        numbers = sum(
            leaf.size
            for path, leaf in net.shapes.items()
            if path not in net.mutable and not path.startswith("audio_encoder/")
        )
        assert numbers == published


def test_what_cannot_be_is_a_sentence():
    for model, words in (
        ({"backbone": "swin"}, "backbone must be 'pvt' or 'resnet'"),
        ({"feature_size": 7}, "feature_size must be even"),
        ({"head": (1,)}, "head must be two widths"),
    ):
        keys = stage("binary")
        keys["model"] |= model
        with pytest.raises(UserError, match=words):
            make_method(keys, CLASSES)
    with pytest.raises(ValueError, match="avm_distance must be one of"):
        TPAVILoss(avm_distance="cosine")


@pytest.mark.parametrize("size", [(12, 18), (7, 5)])
def test_average_pooling_is_torchs(size):
    x = np.random.default_rng(0).normal(size=(2, 24, 18)).astype(np.float32)
    theirs = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(x), size)
    np.testing.assert_allclose(average_pooled(jnp.asarray(x), size), theirs, atol=1e-6)


@pytest.mark.parametrize("classes", [1, 4])
def test_cross_entropy_is_torchs_and_leaves_out_ignored_pixels(classes):
    rng = np.random.default_rng(0)
    logits = 5 * rng.normal(size=(3, 6, 7, classes)).astype(np.float32)
    labels = rng.integers(0, 4, (3, 6, 7))
    labels[0, :2], labels[2] = 255, 255
    found = cross_entropy(jnp.asarray(logits), jnp.asarray(labels))
    assert found[2] == 0
    scores, truth = torch.from_numpy(logits), torch.from_numpy(labels)
    for frame in range(2):
        seen = truth[frame] != 255
        if classes == 1:
            yes = (truth[frame] > 0).float()
            loss = torch.nn.functional.binary_cross_entropy(
                torch.sigmoid(scores[frame, ..., 0])[seen], yes[seen]
            )
        else:
            loss = torch.nn.functional.cross_entropy(scores[frame][seen], truth[frame][seen])
        np.testing.assert_allclose(found[frame], loss, rtol=1e-5)


@pytest.mark.slow
def test_a_folder_of_it_is_exported(tmp_path):
    """As a program of its own it says what the folder's network says of single seconds."""
    import aavs_jax
    from aavs_jax.prediction import exporting
    from aavs_jax.state import tree
    from aavs_jax.state.parameter_folders import save_parameters
    from aavs_jax.weights import card

    method = make_method(stage("binary"), CLASSES)
    parameters = {path: np.asarray(value) for path, value in moved(method).items()}
    save_parameters(tmp_path / "weights", parameters, {})
    digest = tree.digest(parameters)
    written = card.Card("tpavi", method.network, image_size=SIDE, label_size=24, digest=digest)
    card.write(tmp_path / "weights", written)
    network = aavs_jax.load(tmp_path / "weights")
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (3, SIDE, SIDE, 3), np.uint8)
    sound = rng.normal(size=(3, 16000)).astype(np.float32) * 0.1
    program = exporting.exported(network)
    arguments = {f"0/{path}": value for path, value in network.parameters.items()}
    classes, confidence = program.call(arguments, frames, sound)
    assert classes.shape == confidence.shape == (3, 24, 24)
    for second in range(3):
        alone = network.predict(frames[second : second + 1], sound[second])
        agree = np.asarray(alone.classes)[0, 0] == np.asarray(classes[second])
        assert agree.mean() > 0.99


def test_frames_that_pvt_leaves_nothing_of():
    sizes = dataclasses.replace(TINY, backbone="pvt", pvt=PVTConfig())
    keys = stage("binary", model=sizes)
    with pytest.raises(UserError, match="give larger frames or less reduction"):
        make_method(keys | {"data": keys["data"] | {"image_size": 16}}, 2)
