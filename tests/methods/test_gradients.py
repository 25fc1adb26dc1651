"""Loss and gradient in passes: any number of frames at a time gives the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aavs_jax.methods import make_method
from aavs_jax.methods.aavs.config import AAVSConfig
from aavs_jax.methods.aavs.network import AAVS
from aavs_jax.methods.functional import functional
from aavs_jax.methods.gradients import compiler_options, suitable, value_and_gradient
from aavs_jax.state import tree

T = 5
SEEN = ("frames", "audio", "prior_mask")
# Loops and their remainder: of blocks, encoder layers, and decoder layers over the three levels.
DEEP = {
    "loss.grid": 0,
    "loss.num_points": 32,
    "model.backbone.depths": (1, 1, 3, 1),
    "model.backbone.drop_path_rate": 0.3,
    "model.encoder_layers": 2,
    "model.decoder_layers": 4,
    "data.image_size": 64,
}


@pytest.fixture(scope="module")
def description(tiny_stage):
    return tiny_stage("understand", **DEEP)


@pytest.fixture(scope="module")
def method(description):
    return make_method(description, 4)


@pytest.fixture(scope="module")
def batch():
    """Two clips, one of them with two seconds of padding and one without a label."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, (2, T, 4, 4)).repeat(8, 2).repeat(8, 3).astype(np.uint8)
    valid = np.ones((2, T), bool)
    valid[1, 3:] = False
    labelled = valid.copy()
    labelled[0, 1] = False
    return {
        "frames": rng.integers(0, 256, (2, T, 64, 64, 3), np.uint8),
        "audio": rng.normal(size=(2, T, 96, 64)).astype(np.float32),
        "prior_mask": (labels > 0).astype(np.float32),
        "labels": labels,
        "labelled": labelled,
        "valid": valid,
    }


STEPS = {}  # by method and frames of a pass: each is compiled once


def step_of(method, frames_per_pass):
    """(parameters that train, the others, batch) -> ((loss, aux), gradients)."""

    def run(trainable, rest, batch):
        key, options = jax.random.key(3), {"frames_per_pass": frames_per_pass}
        return value_and_gradient(method, trainable, rest, batch, key, jnp.float32(0), **options)

    return STEPS.setdefault((id(method), frames_per_pass), jax.jit(run))


def found(method, batch, frames_per_pass, step=None):
    """(loss and its parts, gradients of what phase b trains and of the rest of the backbone)."""
    # Initial adapters are next to nothing; made larger, what is behind them counts.
    parameters = {
        path: 10 * value if "adapter" in path else value
        for path, value in method.initial(1).items()
    }
    trainable, rest = tree.partition(parameters, [".*adapter.*", "backbone/.*", "audio_.*"], "test")

    step = step or step_of(method, frames_per_pass)
    (total, aux), gradients = jax.device_get(step(trainable, rest, batch))
    return {"loss": float(total)} | {k: float(v) for k, v in aux.scalars.items()}, gradients


def assert_same(ours, theirs):
    assert ours[0] == pytest.approx(theirs[0], rel=1e-5)
    assert ours[1].keys() == theirs[1].keys()
    # Keys are softmaxed: their biases have no gradient but rounding errors.
    floor = 1e-3 * max(np.abs(value).max() for value in theirs[1].values())
    for path, value in theirs[1].items():
        scale = max(np.abs(value).max(), floor)
        assert np.abs(ours[1][path] - value).max() < 1e-4 * scale, path


@pytest.fixture(scope="module")
def at_once(method, batch):
    return found(method, batch, 0)


# tests/test_devices.py compares passes of one frame with none in every test run.
@pytest.mark.slow
@pytest.mark.parametrize("frames", [4, 1])
def test_passes_add_up(method, batch, at_once, frames):
    """4 of 10 do not come out even, and 3 of 10 have no part."""
    assert at_once[0]["loss"] > 1
    assert_same(found(method, batch, frames), at_once)


@pytest.mark.slow
@pytest.mark.parametrize("remat", ["blocks", "everything"])
def test_what_is_computed_again_is_the_same(description, batch, at_once, remat):
    again = make_method({**description, "train": {"remat": remat}}, 4)
    assert_same(found(again, batch, 0 if remat == "blocks" else 4), at_once)


@pytest.mark.slow
def test_loops_give_what_straight_code_gives(description, batch):
    config = AAVSConfig.from_dict(
        {**description["model"], "task": "semantic", "num_classes": 4, "prior": True}
    )
    straight, loops = (functional(lambda r=r: AAVS(config, r)) for r in (None, "none"))
    flat = [batch[name].reshape(-1, *batch[name].shape[2:]) for name in SEEN]
    keys = jax.random.split(jax.random.key(0), len(flat[0]))
    values = {path: 2 * value for path, value in straight.initial(1).items()}
    assert straight.shapes.keys() == loops.shapes.keys()
    ours, theirs = (
        jax.jit(lambda values, made=made: made.network(values)(*flat, keys=keys))(values)
        for made in (loops, straight)
    )
    for name, wanted in theirs.items():
        scale = np.abs(wanted).max()
        np.testing.assert_allclose(ours[name], wanted, atol=1e-5 * scale, err_msg=name)


@pytest.mark.slow
def test_what_does_not_count_is_not_looked_at(method, batch, at_once):
    """3 of 10 frames have no part in the loss: two have a pass to themselves, which is left out."""
    spoilt = batch["frames"].copy()
    audio = batch["audio"].copy()
    out = ~batch["labelled"]
    spoilt[out], audio[out] = 255, 9
    assert_same(found(method, {**batch, "frames": spoilt, "audio": audio}, 4), at_once)


@pytest.mark.slow
def test_one_picture_of_several_seconds(tiny_stage, batch):
    """Without drop-path, of which a picture draws once, it is that picture in every second."""
    still = tiny_stage("understand", **{**DEEP, "model.backbone.drop_path_rate": 0.0})
    method = make_method(still, 4)
    still = {**batch, "frames": batch["frames"][:, :1]}
    repeated = {**batch, "frames": batch["frames"][:, :1].repeat(T, 1)}
    wanted = found(method, repeated, 0)
    assert_same(found(method, still, 0), wanted)
    assert_same(found(method, still, 1), wanted)


@pytest.mark.slow
def test_less_memory(method, batch):
    """That of one frame, and less where blocks are computed again."""

    def planned(frames_per_pass):
        shapes = {path: value for path, value in method.shapes.items()}

        def run(parameters, batch):
            return value_and_gradient(
                method,
                parameters,
                {},
                batch,
                jax.random.key(0),
                0.0,
                frames_per_pass=frames_per_pass,
            )

        compiled = jax.jit(run).lower(shapes, batch).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert planned(1) < 0.4 * planned(0)


@pytest.mark.slow
def test_how_it_is_compiled_changes_nothing_but_memory(method, batch, at_once):
    run = step_of(method, 0).__wrapped__
    ordered = jax.jit(run, compiler_options=compiler_options())
    ours = found(method, batch, 0, step=ordered)
    assert ours[0] == at_once[0]
    for path, value in at_once[1].items():
        np.testing.assert_array_equal(ours[1][path], value, err_msg=path)


def test_options_that_are_unknown_are_left_out(monkeypatch):
    assert compiler_options.__wrapped__()

    def unknown(*_, **__):
        raise jax.errors.JaxRuntimeError("No such compile option")

    monkeypatch.setattr(jax, "jit", unknown)
    assert compiler_options.__wrapped__() == {}


def test_what_suits_the_device():
    assert [suitable(n) for n in (0, 1, 7)] == [0, 1, 7]
    assert suitable(-1) == (1 if jax.default_backend() == "cpu" else 5)
