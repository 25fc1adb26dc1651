"""CAVP through the seam: what a step reads and remembers, and what is said of a clip."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aavs_jax.errors import UserError
from aavs_jax.methods import make_method
from aavs_jax.methods.cavp import method as cavp
from aavs_jax.methods.parts.resnet_weights import RESNETS
from aavs_jax.methods.parts.sizes import AudioConfig
from aavs_jax.methods.parts.vggish_weights import VGGISH
from aavs_jax.plan.stage import PhaseName, make_stage
from aavs_jax.plan.values import checked
from aavs_jax.weights import pretrained
from aavs_jax.weights.size_keys import flat_sizes
from aavs_jax.weights.starting import plan_start
from configs import base
from configs.cavp import AVSBENCH, SMALL, CAVPLoss, get_config, paper_phase

COMPILER = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
TINY = {
    "resnet": {
        "deep_stem": True,
        "stem": 4,
        "planes": [3, 3, 4, 4],
        "depths": [1, 1, 1, 1],
        "strides": [1, 2, 1, 1],
        "dilations": [[1], [1], [2], [2]],
    },
    "audio": {"blocks": [[2], [4], [4]], "fully_connected": [6]},
    "sound_resnet": {"block": "basic", "planes": [2, 2, 2, 3], "depths": [1, 1, 1, 1], "stem": 2},
    "aspp_width": 5,
    "aspp_outputs": 8,
    "low_level": 4,
    "projector": 6,
    "head": 7,
}
STEPS = {}  # by the loss, compiled
K, CLIPS, SECONDS, SIDE = 4, 5, 2, 32


def stage(task="semantic", loss=None, channels=1, heard=1):
    """Keys of a stage whose only phase has 4 epochs."""
    found = base.stage("cavp", task, small=True).to_dict()
    found["model"] = TINY | {"audio": TINY["audio"] | {"channels": channels}, "heard": heard}
    found["loss"] = {"views": 8} | (loss or {})
    found["data"] |= {"image_size": SIDE, "label_size": SIDE, "batch_size": 2}
    found["phases"] = {"all": {"epochs": 4.0, "optimizer": paper_phase("avss").optimizer.to_dict()}}
    return found


@pytest.fixture(scope="module")
def batch():
    """Five clips of two seconds: of one class each but the last, which is padding at its end."""
    rng = np.random.default_rng(0)
    labels = np.zeros((CLIPS, SECONDS, SIDE, SIDE), np.uint8)
    objects = np.zeros((CLIPS, K), bool)
    objects[:, 0] = True
    for clip, name in enumerate((1, 2, 1, 3, 2)):
        labels[clip, :, 8:24, 4 * clip : 4 * clip + 12] = name
        objects[clip, name] = True
    labels[:, :, 0] = 255
    valid = np.ones((CLIPS, SECONDS), bool)
    valid[-1, 1] = False
    return {
        "frames": rng.integers(0, 256, (CLIPS, SECONDS, SIDE, SIDE, 3), np.uint8),
        "audio": rng.uniform(-1, 0, (CLIPS, SECONDS, 96, 64)).astype(np.float32),
        "labels": labels,
        "labelled": valid,
        "valid": valid,
        "objects": objects,
    }


def taken(method, batch, progress, memory=None, parameters=None):
    """(total, Aux) and gradients of a step; everything begins as the method says."""
    parameters = parameters or {
        path: jnp.asarray(value) for path, value in method.initial(0).items()
    }
    remembered = jax.tree.map(jnp.asarray, dict(method.memory)) | (memory or {})
    trains = {p: v for p, v in parameters.items() if p not in method.mutable}
    rest = {p: parameters[p] for p in method.mutable} | remembered

    if method.loss not in STEPS:
        gradient = jax.value_and_grad(_loss_of(method), has_aux=True)
        STEPS[method.loss] = jax.jit(gradient, compiler_options=COMPILER)
    return STEPS[method.loss](trains, rest, method.trains_on(batch), jnp.float32(progress))


def _loss_of(method):
    return lambda trains, rest, batch, progress: method.loss(
        trains | rest, batch, jax.random.key(3), progress
    )


@pytest.fixture(scope="module")
def semantic(batch):
    """A method, and a step of its second epoch."""
    method = make_method(stage(), K)
    return method, taken(method, batch, 0.25)


def test_a_step(semantic):
    method, ((total, aux), gradients) = semantic
    terms = {name.removeprefix("loss/"): float(v) for name, v in aux.scalars.items()}
    assert float(total) == pytest.approx(terms["cross_entropy"] + terms["contrastive"], rel=1e-6)
    assert terms["contrastive"] > 0
    assert set(aux.mutable) == method.mutable and set(aux.memory) == set(method.memory)
    assert not method.mutable & set(gradients)
    for path, gradient in gradients.items():
        assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0, path


def test_what_it_remembers(semantic, batch):
    """Two places of each class, batches having two clips: the last two of each are kept."""
    method, ((_, aux), _) = semantic
    kept, seen = aux.memory["queue/sounds"], aux.memory["queue/seen"]
    assert kept.shape == (K, 2, 96, 64)
    # Class 2 has one second less, and so the padding is of no class.
    np.testing.assert_array_equal(seen, [0, 4, 3, 2])
    np.testing.assert_array_equal(kept[1], batch["audio"][2])
    np.testing.assert_array_equal(kept[2, 0], batch["audio"][4, 0])
    np.testing.assert_array_equal(kept[2, 1], batch["audio"][1, 1])
    assert (kept[0] == -1).all()


def test_sounds_are_replaced_from_the_second_epoch_on(semantic, batch):
    method, ((_, fresh), _) = semantic
    assert float(fresh.scalars["pairs/replaced"]) == 0  # the queue was empty
    full = {path: jnp.asarray(value) for path, value in fresh.memory.items()}
    scalars = {
        progress: taken(method, batch, progress, full)[0][1].scalars for progress in (0.2, 0.25)
    }
    assert float(scalars[0.2]["pairs/replaced"]) == 0
    assert 0 < float(scalars[0.25]["pairs/replaced"]) <= 0.5
    gained = float(scalars[0.25]["pairs/matching"] - scalars[0.2]["pairs/matching"])
    assert gained == pytest.approx(float(scalars[0.25]["pairs/replaced"]))


def test_without_the_contrastive_loss_no_sound_is_remembered(batch):
    method = make_method(stage(loss={"contrastive_weight": 0.0}), K)
    (total, aux), _ = taken(method, batch, 0.25)
    assert not method.memory and list(aux.scalars) == ["loss/cross_entropy"]
    assert float(total) == float(aux.scalars["loss/cross_entropy"])


def test_the_binary_task_knows_classes_by_the_table(batch):
    method = make_method(stage("binary"), K)
    labels = batch | {"labels": np.where(batch["labels"] == 255, 255, batch["labels"] > 0)}
    (_, aux), _ = taken(method, labels, 0.25)
    assert not method.memory and method.num_classes == 2
    # All label maps show the same, and yet not all pairs match.
    assert float(aux.scalars["pairs/matching"]) < 1
    alike = labels | {"objects": np.ones_like(batch["objects"])}
    assert float(taken(method, alike, 0.25)[0][1].scalars["pairs/matching"]) == 1


@pytest.mark.slow
@pytest.mark.parametrize("pairs", ["sounds", "features"])
def test_three_seconds_of_stereo(batch, pairs):
    """Of sounds batch norm of the encoder sees both halves, of features the first."""
    method = make_method(stage(loss={"pairs": pairs}, channels=2, heard=3), K)
    shape = (CLIPS, SECONDS, 300, 64, 2)
    loud = batch | {"audio": np.random.default_rng(1).uniform(-1, 0, shape).astype(np.float32)}
    (total, aux), gradients = taken(method, loud, 0.25)
    assert np.isfinite(total) and bool(method.memory) == (pairs == "sounds")
    assert np.abs(gradients["audio_encoder/resnet/stem/0/conv/kernel"]).max() > 0
    assert (float(aux.scalars["pairs/replaced"]) > 0) == (pairs == "features")


def test_padding_and_unlabelled_frames_have_no_labels(batch):
    labelled = np.ones((CLIPS, SECONDS), bool)  # the last one is padding all the same
    labelled[2, 0] = False
    given = jax.tree.map(jnp.asarray, batch | {"labelled": labelled})
    pictures = cavp._pictures(given, K, by_label=True)
    nothing = (pictures.labels == 255).all((1, 2))
    np.testing.assert_array_equal(np.flatnonzero(nothing), [2 * SECONDS, CLIPS * SECONDS - 1])
    assert not pictures.classes[nothing].any()
    np.testing.assert_array_equal(pictures.classes[:4, 1:].argmax(1), [0, 0, 1, 1])


@pytest.mark.parametrize("task", ["semantic", "binary"])
def test_predictions(batch, task):
    method = make_method(stage(task), K)
    parameters = {path: jnp.asarray(value) for path, value in method.initial(0).items()}
    scores = np.asarray(method.scores(parameters, batch))
    said = method.predict(parameters, batch)
    assert scores.shape == (CLIPS, SECONDS, SIDE, SIDE, method.num_classes)
    np.testing.assert_allclose(scores.sum(-1), 1, rtol=1e-5)
    np.testing.assert_array_equal(said.classes, scores.argmax(-1))
    assert set(said.maps) == {
        "confidence",
        *(("foreground", "softmax") if task == "binary" else ()),
    }


def test_as_published():
    """Each quirk is a key; a recipe without multipliers keeps none."""
    found = cavp.as_published(stage())
    assert found["model"]["published_excerpts"] and found["loss"]["silence_in_queue"]
    assert "pairs" not in found["loss"]
    factors = found["phases"]["all"]["optimizer"]["multipliers"]
    assert factors == cavp.PUBLISHED_SEMANTIC
    plain = cavp.as_published(stage("binary"))["phases"]["all"]["optimizer"]["multipliers"]
    assert plain == paper_phase("s4").optimizer.multipliers
    assert cavp.as_published(stage(channels=2))["loss"]["pairs"] == "features"
    stage_without = stage()
    stage_without["phases"]["all"]["optimizer"]["multipliers"] = ()
    found = cavp.as_published(stage_without)["phases"]["all"]["optimizer"]["multipliers"]
    assert found == ()


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"heard": 2}, "heard must be 1 or 3"),
        ({"low_level": 3}, "attention heads, 4 must divide the fused width 67"),
        ({"prior": True}, "no prior mask"),
    ],
)
def test_sizes_that_cannot_be(sizes, message):
    with pytest.raises(ValueError, match=message):
        cavp.CAVPConfig(**{"aspp_outputs": 64} | sizes)


@pytest.mark.parametrize("loss", [{"pairs": "x"}, {"views": 0}, {"replaced_share": 2.0}])
def test_losses_that_cannot_be(loss):
    with pytest.raises(ValueError, match=next(iter(loss))):
        CAVPLoss(**loss)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"batch_size": 1, "seconds": 1}, "at least two frames: set batch_size"),
        ({"drop_empty_clips": True}, "set drop_empty_clips to False"),
    ],
)
def test_data_that_it_cannot_learn_from(data, message):
    keys = stage()
    with pytest.raises(UserError, match=message):
        make_method(keys | {"data": keys["data"] | data}, K)


def test_of_three_seconds_no_sound_encoder_is_published():
    of_one, of_three = (make_method(stage(heard=seconds), K) for seconds in (1, 3))
    assert of_one.pretrained.keys() == {"backbone", "vggish"}
    assert of_three.pretrained.keys() == {"backbone"}
    assert "resnet101" in of_three.pretrained["backbone"].command


def test_the_recipe_starts_from_a_deep_stem_resnet_and_vggish():
    """What fits is taken; of VGGish all but the last layer, which is of another width."""
    config = checked(get_config("/x,avss"))
    method = make_stage(config, "understand", Path("unused")).method
    name, phase = PhaseName("understand", "all"), config["stages"]["understand"]["phases"]["all"]
    resnet = dataclasses.asdict(AVSBENCH.resnet)
    audio = {"audio": dataclasses.asdict(AudioConfig())}
    given = {}
    for kind, network in ((RESNETS, {"resnet": resnet}), (VGGISH, audio)):
        shapes = kind.parameters(network)
        told = kind.sizes(shapes, {}) if kind is RESNETS else audio
        sizes = pretrained.decisive_sizes(told, shapes, method.pretrained, method.may_differ)
        ours = flat_sizes(method.network)
        assert sizes and all(ours[key] == value for key, value in sizes.items())
        given |= shapes
    start = plan_start(method, given, phase, name)
    last = {f"audio_encoder/fully_connected/2/{leaf}" for leaf in ("kernel", "bias")}
    assert {start.drawn[path] for path in last} == {"304 channels, not 128"}
    assert start.taken == set(given) - last and not start.homeless


def test_the_small_network_is_small():
    method = make_method(stage() | {"model": base.keys(SMALL).to_dict()}, 6)
    assert sum(int(np.prod(leaf.shape)) for leaf in method.shapes.values()) < 1_500_000
