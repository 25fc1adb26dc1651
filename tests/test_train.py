"""One phase, with a network of three numbers: exact resumption, and losses that are not finite."""

import dataclasses
import functools
import json
import math
import os
import re
import signal
import types
from pathlib import Path

import grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import aavs_jax.train
from aavs_jax.errors import UserError
from aavs_jax.methods.method import Aux, Method
from aavs_jax.plan.stage import PhaseName, Stage
from aavs_jax.run.logging_writer import LoggingWriter, read_metrics
from aavs_jax.run.stopping import Stopped
from aavs_jax.state.checkpoint import SCORE, PhaseCheckpoints
from aavs_jax.state.optimizer import make_optimizer, make_schedule
from aavs_jax.state.parameter_folders import load_on_host
from aavs_jax.state.sharding import make_mesh, put_batch, put_state, state_shardings
from aavs_jax.state.train_state import TrainState
from aavs_jax.train import make_train_step, train_phase
from configs import base

CLIPS, BATCH = 24, 4
STEPS = 12
START = {
    "head/kernel": np.asarray([0.5, -1.0, 2.0], np.float32),
    "backbone/kernel": np.asarray([3.0, 4.0], np.float32),
}
PHASE = {
    "start": "nothing",
    "fresh": (),
    "zero": (),
    "trains": ("head/.*",),
    "epochs": STEPS * BATCH / CLIPS,
    "validate_every_epochs": 5 * BATCH / CLIPS,
    "optimizer": {
        **base.phase((), "nothing", 1, 0.1).optimizer,
        "schedule": "cosine",
        "warmup_steps": 2,
        "clip_norm": 1.0,
    },
}


class Interruption(Exception):
    pass


class Batches:
    """Training batches from Grain; raises before giving the batch of step `stop`."""

    def __init__(self, stop=None, poisoned=(), poison=np.nan):
        def element(index, rng):
            value = poison if index in poisoned else index / CLIPS + rng.normal()
            return {"x": np.float32(value), "ids": f"v1s/clip{index}"}

        numbers = grain.MapDataset.range(CLIPS).seed(5).shuffle().repeat().random_map(element)
        self._iterator = iter(numbers.batch(BATCH).to_iter_dataset())
        self._stop = stop
        self._given = 0

    def __next__(self):
        if self._given + 1 == self._stop:
            raise Interruption
        self._given += 1
        return next(self._iterator)

    def get_state(self):
        return self._iterator.get_state()

    def set_state(self, state):
        self._iterator.set_state(state)

    async def save(self, directory):
        return await self._iterator.save(directory)

    async def load(self, directory):
        return await self._iterator.load(directory)


def loss(parameters, batch, key, progress):
    noise = jax.random.normal(key, (3,))
    out = batch["x"][:, None] * parameters["head/kernel"] + noise
    total = jnp.mean((out - parameters["backbone/kernel"].sum()) ** 2)
    return total, Aux({"loss/fit": total, "progress": progress})


def infinite_gradient(parameters, batch, key, progress):
    """Finite, but not its gradient where the poison is."""
    total, aux = loss(parameters, {"x": jnp.zeros_like(batch["x"])}, key, progress)
    poisoned = jnp.isnan(batch["x"]).any()
    root = jnp.sqrt(jnp.where(poisoned, 0.0, 1.0) * parameters["head/kernel"][0] ** 2)
    return total + 0.0 * root, aux


def method_with(function, entries=("x",)) -> Method:
    return Method(
        task="binary",
        num_classes=2,
        network={},
        shapes={p: jax.ShapeDtypeStruct(v.shape, v.dtype) for p, v in START.items()},
        initial=lambda seed: START,
        loss=function,
        predict=None,
        entries=entries,
        front_end=None,
    )


def stage_with(root, method, phase=PHASE, mesh=None, earlier=0.0, **config) -> Stage:
    """A stage `localise` of one phase `a`, on 24 clips."""
    keys = {
        "task": "binary",
        "order": ("a",),
        "phases": {"a": phase},
        "data": {"batch_size": BATCH},
        "earlier": earlier,
    }
    train = {"frames_per_pass": 0, "remat": "none"}
    config = {"seed": 11, "log_every": 1, "train": train, "stages": {"localise": keys}} | config
    clips = types.SimpleNamespace(clips=[types.SimpleNamespace(labelled=(0,))] * CLIPS)
    return Stage("localise", config, root, method, {"train": clips}, mesh=mesh or make_mesh())


def norm(parameters):
    figure = float(jnp.abs(parameters["head/kernel"]).sum())
    return {"J": figure, SCORE: -figure}


COMPILED = {}  # steps by loss and phase: compiling them again would take most of the time


def train(
    root,
    batches,
    *,
    function=loss,
    checkpoint_every=2,
    log_every=1,
    phase=PHASE,
    validate=norm,
    entries=("x",),
    earlier=0.0,
):
    make = aavs_jax.train.make_train_step

    def make_once(*arguments):
        key = function, repr(phase), entries
        COMPILED[key] = COMPILED.get(key) or make(*arguments)
        return COMPILED[key]

    with LoggingWriter(root) as writer, pytest.MonkeyPatch.context() as patch:
        patch.setattr(aavs_jax.train, "make_train_step", make_once)
        steps = {"log_every": log_every, "checkpoint_every": checkpoint_every}
        train_phase(
            stage_with(root, method_with(function, entries), phase, earlier=earlier, **steps),
            PhaseName("localise", "a"),
            start=lambda: START,
            batches=lambda parameters: batches,
            validate=validate,
            writer=writer,
        )


def parameters_at_the_end(root) -> dict[str, np.ndarray]:
    # Also of those that are not the best.
    return load_on_host(root / "localise" / "a" / "checkpoints" / str(STEPS), "state")


def best(root):
    with PhaseCheckpoints(root / "localise" / "a") as checkpoints:
        return checkpoints.best().step, checkpoints.best_parameters()


def assert_same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    root = tmp_path_factory.mktemp("straight")
    train(root, Batches())
    return root


def test_it_logs_validates_and_trains_only_what_it_should(straight):
    rows = read_metrics(straight / "metrics.jsonl")
    assert [row["step"] for row in rows if row["kind"] == "train"] == list(range(1, STEPS + 1))
    assert [row["step"] for row in rows if row["kind"] == "val"] == [5, 10, 12]
    first = rows[0]
    assert [row["progress"] for row in rows[:3]] == pytest.approx([0, 1 / STEPS, 2 / STEPS])
    assert {"loss", "loss/fit", "gradient_norm", "learning_rate"} <= first.keys()
    assert first["learning_rate"] == 0 and rows[2]["learning_rate"] == pytest.approx(0.1)
    _, parameters = best(straight)
    np.testing.assert_array_equal(parameters["backbone/kernel"], START["backbone/kernel"])
    assert np.abs(parameters["head/kernel"] - START["head/kernel"]).max() > 0.05
    state = parameters_at_the_end(straight)
    assert sorted(state["trainable"]) == ["head/kernel"]
    assert int(state["step"]) == STEPS


def test_the_checkpoint_that_others_learn_from_stays(tmp_path):
    """Of a step in which no other is due, and though it is neither new nor the best."""
    train(tmp_path, Batches(), checkpoint_every=4, validate=None, earlier=3 / STEPS)
    folder = tmp_path / "localise" / "a" / "checkpoints"
    assert (folder / "3").is_dir() and not (folder / "4").exists()


@pytest.mark.slow
def test_without_validation_the_last_is_the_best(straight, tmp_path):
    with pytest.raises(Interruption):
        train(tmp_path, Batches(stop=7), validate=None)
    train(tmp_path, Batches(), validate=None)
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["kind"] for row in rows] == ["train"] * STEPS
    assert_same(parameters_at_the_end(tmp_path), parameters_at_the_end(straight))
    step, parameters = best(tmp_path)
    assert step == STEPS
    with PhaseCheckpoints(tmp_path / "localise" / "a") as checkpoints:
        assert math.isnan(checkpoints.best().score)  # so no other phase is worse
    last = parameters_at_the_end(tmp_path)["trainable"]["head/kernel"]
    np.testing.assert_array_equal(parameters["head/kernel"], last)


@pytest.mark.parametrize("step", [pytest.param(7, marks=pytest.mark.slow), STEPS])
def test_ctrl_c_ends_the_step_saves_it_and_stops(step, straight, tmp_path, monkeypatch):
    """Also in the last step: what would come after it takes minutes."""
    asked = iter(range(1, STEPS + 1))
    batches = Batches()
    following = Batches.__next__

    def interrupted(self):
        if next(asked) == step:
            os.kill(os.getpid(), signal.SIGINT)
        return following(self)

    with monkeypatch.context() as patch:
        patch.setattr(Batches, "__next__", interrupted)
        with pytest.raises(
            Stopped, match=f"^the same command resumes localise/a from step {step}$"
        ):
            train(tmp_path, batches)
    train(tmp_path, Batches())
    assert_same(parameters_at_the_end(tmp_path), parameters_at_the_end(straight))


@pytest.mark.slow
def test_scores_that_are_not_numbers(tmp_path, capsys):
    """They are logged and said, and are never the best."""

    def validate(parameters):
        seen.append(norm(parameters))
        return seen[-1] if len(seen) == 2 else {"J": math.nan, SCORE: math.nan}

    seen: list[dict] = []
    train(tmp_path, Batches(), validate=validate)
    assert best(tmp_path)[0] == 10
    said = capsys.readouterr().out
    assert "[localise/a] step 5: validation J nan\n" in said
    for step, has_none in ((5, True), (10, False), (12, True)):
        assert (f"step {step} has no score, so it cannot be the best" in said) == has_none
    rows = [row for row in read_metrics(tmp_path / "metrics.jsonl") if row["kind"] == "val"]
    assert [math.isnan(row["J"]) for row in rows] == [True, False, True]
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert all(json.loads(line, parse_constant=lambda text: pytest.fail(text)) for line in lines)


class Lengths(Batches):
    """Batches in turn of two lengths."""

    def __next__(self):
        batch = super().__next__()
        clips = 2 + 2 * (self._given % 2)
        return batch | {"x": batch["x"][:clips], "valid": np.ones((clips, 3), bool)}


@pytest.mark.slow
def test_batches_of_several_lengths(tmp_path, capsys):
    """The step is compiled for each, said so, and what is logged and resumed is as with one."""
    lengths = {"entries": ("x", "valid")}
    train(tmp_path / "straight", Lengths(), **lengths)
    said = [line for line in capsys.readouterr().out.splitlines() if "compil" in line]
    assert len(said) == 4
    for line, clips in zip(said[::2], (4, 2), strict=True):
        words = f"compiling the training step for batches of {clips} clips of 3 s"
        assert line == f"[localise/a] {words}"
    assert all(re.fullmatch(r"\[localise/a\] compiled in \d+\.\d s", s) for s in said[1::2])
    with pytest.raises(Interruption):
        train(
            tmp_path / "stopped", Lengths(stop=7), **lengths
        )  # the checkpoint is of step 6: even, as 0
    train(tmp_path / "stopped", Lengths(), **lengths)
    ends = [parameters_at_the_end(tmp_path / name) for name in ("straight", "stopped")]
    assert_same(*ends)
    rows = read_metrics(tmp_path / "straight" / "metrics.jsonl")
    assert [row["step"] for row in rows if row["kind"] == "train"] == list(range(1, STEPS + 1))


# Before the first checkpoint; on one; after a validation; before the last step.
SLOW = pytest.mark.slow


@pytest.mark.parametrize("stop", [6, *(pytest.param(n, marks=SLOW) for n in (2, 5, 12))])
def test_stopped_and_continued_it_is_the_same_to_the_last_bit(straight, tmp_path, stop):
    with pytest.raises(Interruption):
        train(tmp_path, Batches(stop=stop))
    train(tmp_path, Batches())
    assert_same(parameters_at_the_end(tmp_path), parameters_at_the_end(straight))
    assert_same(best(tmp_path), best(straight))
    lines = (tmp_path / "metrics.jsonl").read_bytes()
    assert lines == (straight / "metrics.jsonl").read_bytes()


@pytest.mark.slow
def test_stopped_again_and_again_and_other_checkpoints_change_nothing(straight, tmp_path):
    # Lines are left behind that no checkpoint knows of: 1 to 3 first, 6 and 7 later.
    for stop in (5, 9, 4):
        with pytest.raises(Interruption):
            train(tmp_path, Batches(stop=stop), checkpoint_every=100)
    train(tmp_path, Batches(), checkpoint_every=3)
    assert_same(parameters_at_the_end(tmp_path), parameters_at_the_end(straight))
    lines = (tmp_path / "metrics.jsonl").read_bytes()
    assert lines == (straight / "metrics.jsonl").read_bytes()


@pytest.mark.slow
def test_a_damaged_newest_checkpoint_changes_no_figure(straight, tmp_path, caplog):
    with pytest.raises(Interruption):
        train(tmp_path, Batches(stop=10))
    newest = tmp_path / "localise" / "a" / "checkpoints" / "8"
    for file in (newest / "state").rglob("d/*"):
        file.write_bytes(b"")
    train(tmp_path, Batches())
    assert "checkpoints/8 cannot be read" in caplog.text
    assert (tmp_path / "localise" / "a" / "damaged" / "8").is_dir()
    assert_same(parameters_at_the_end(tmp_path), parameters_at_the_end(straight))
    lines = (tmp_path / "metrics.jsonl").read_bytes()
    assert lines == (straight / "metrics.jsonl").read_bytes()


def test_a_complete_phase_does_nothing(straight, capsys):
    before = (straight / "metrics.jsonl").read_bytes()
    train(straight, Batches(stop=1))
    assert "[localise/a] is complete: 12 steps" in capsys.readouterr().out
    assert (straight / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize("clip_norm", [0.0, 1.0])
def test_a_batch_that_counts_for_nothing_is_no_step_of_the_optimiser(clip_norm):
    """Parameters, moments, counts and learning rates are those of a run without such batches,
    although what they give has a gradient here, and weights decay.
    """
    empty = np.zeros(BATCH, np.float32)
    others = np.random.default_rng(0).normal(size=(3, BATCH)).astype(np.float32)
    description = PHASE["optimizer"] | {"clip_norm": clip_norm, "warmup_steps": 1}

    def loss(parameters, batch, key, progress):
        out = (1 + batch["x"][:, None]) * parameters["head/kernel"]
        total = jnp.mean((out - parameters["backbone/kernel"].sum()) ** 2)
        return total, Aux({})

    def trained(batches, counts):
        method = dataclasses.replace(method_with(loss), counts=counts)
        optimizer = make_optimizer(description, STEPS, ["head/kernel"], "localise/a")
        schedule = make_schedule(description, STEPS, "localise/a")
        trainable, frozen = ({p: START[p]} for p in START)
        stage = stage_with(Path("unused"), method)
        mesh, name = stage.mesh, PhaseName("localise", "a")
        state = put_state(TrainState.create(trainable, frozen, optimizer), mesh)
        moving, frozen = state.apart()
        shardings = state_shardings(moving, mesh)
        step = make_train_step(stage, name, optimizer, schedule, shardings)
        rates, made = [], []
        for x in batches:
            moving, scalars = step(moving, frozen, put_batch({"x": x}, mesh))
            rates.append(float(scalars["learning_rate"]))
            made.append(int(scalars.get("optimizer_steps", -1)))
        return jax.device_get(moving.beside(frozen)), rates, made

    def counts(batch):
        return (batch["x"] != 0).any()

    wanted, rates, _ = trained(others, counts)
    plain, plain_rates, _ = trained(others, None)
    assert plain_rates == rates
    # Another program, which may round otherwise.
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-6), plain.trainable, wanted.trainable
    )
    batches = [empty, others[0], empty, empty, others[1], others[2], empty]
    state, same_rates, made = trained(batches, counts)
    assert (int(state.step), int(wanted.step)) == (7, 3)
    assert_same(state.trainable, wanted.trainable)
    assert_same(state.opt_state, wanted.opt_state)
    assert made == [0, 1, 1, 1, 2, 3, 3]
    assert [same_rates[i] for i in (1, 4, 5)] == rates and rates[1] == np.float32(0.1)
    # Without the rule they are steps like all others.
    state, _, made = trained(batches, None)
    assert np.abs(state.trainable["head/kernel"] - wanted.trainable["head/kernel"]).min() > 1e-3
    assert made == [-1] * 7


def clips_by_step() -> dict[int, list[str]]:
    batches = Batches()
    return {step: [str(clip) for clip in next(batches)["ids"]] for step in range(1, 7)}


@pytest.mark.parametrize(
    ("poison", "word"), [(np.nan, "nan"), pytest.param(np.inf, "inf", marks=pytest.mark.slow)]
)
def test_a_loss_that_is_not_finite_stops_with_step_and_clips(tmp_path, poison, word):
    clips = clips_by_step()
    victim = int(clips[4][2].removeprefix("v1s/clip"))
    assert all(clips[4][2] not in clips[step] for step in (1, 2, 3))
    poisoned = Batches(poisoned={victim}, poison=poison)
    with pytest.raises(UserError) as error:
        train(tmp_path, poisoned)
    words = str(error.value)
    assert f"the loss of localise/a is {word} at step 4, on the clips" in words
    for clip in clips[4]:
        assert clip in words
    assert str(tmp_path / "localise" / "a" / "checkpoints") in words
    # What was good is still there: the checkpoint of step 2, and the run resumes from it.
    checkpoints = tmp_path / "localise" / "a" / "checkpoints"
    assert [path.name for path in checkpoints.iterdir()] == ["2"]
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3]
    train(tmp_path, Batches())
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "train"] == list(range(1, 13))


def test_a_gradient_that_is_not_finite_never_reaches_a_checkpoint(tmp_path):
    clips = clips_by_step()
    victim = int(clips[4][2].removeprefix("v1s/clip"))
    with pytest.raises(UserError, match="the gradient norm of localise/a is nan at step 4"):
        train(tmp_path, Batches(poisoned={victim}), function=infinite_gradient)
    checkpoints = tmp_path / "localise" / "a" / "checkpoints"
    assert [path.name for path in checkpoints.iterdir()] == ["2"]


def test_faults_of_the_phase_are_found_before_a_checkpoint_is_made(tmp_path):
    wrong = PHASE | {"trains": ("nothing_like_this",)}
    with pytest.raises(UserError, match="'nothing_like_this' of 'localise/a trains'"):
        train(tmp_path, Batches(), phase=wrong)
    wrong = PHASE | {"optimizer": PHASE["optimizer"] | {"schedule": "linear"}}
    with pytest.raises(UserError, match="schedule of localise/a is 'linear'"):
        train(tmp_path, Batches(), phase=wrong)
    assert not (tmp_path / "localise").exists()


def test_steps_are_rounded_and_never_none():
    name = PhaseName("localise", "a")
    for epochs, steps in ((32.0, 192), (0.35, 2), (0.001, 1)):
        stage = stage_with(Path("unused"), method_with(loss), PHASE | {"epochs": epochs})
        assert stage.steps(name) == steps
