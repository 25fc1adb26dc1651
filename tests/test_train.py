"""One phase, with a network of three numbers: exact resumption, and losses that are not finite."""

import json

import grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import aavs_jax.train
from aavs_jax.checkpoint import SCORE, PhaseCheckpoints
from aavs_jax.errors import UserError
from aavs_jax.logging_writer import LoggingWriter, read_metrics
from aavs_jax.method import Method
from aavs_jax.sharding import make_mesh
from aavs_jax.train import count_steps, train_phase

CLIPS, BATCH = 24, 4
STEPS = 12
START = {
    "head/kernel": np.asarray([0.5, -1.0, 2.0], np.float32),
    "backbone/kernel": np.asarray([3.0, 4.0], np.float32),
}
PHASE = {
    "trains": ("head/.*",),
    "epochs": STEPS * BATCH / CLIPS,
    "validate_every_epochs": 5 * BATCH / CLIPS,
    "optimizer": {
        "learning_rate": 0.1,
        "schedule": "cosine",
        "warmup_steps": 2,
        "weight_decay": 0.05,
        "no_decay": (),
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


def loss(parameters, batch, key):
    noise = jax.random.normal(key, (3,))
    out = batch["x"][:, None] * parameters["head/kernel"] + noise
    total = jnp.mean((out - parameters["backbone/kernel"].sum()) ** 2)
    return total, {"loss/fit": total}


def infinite_gradient(parameters, batch, key):
    """Finite, but not its gradient where the poison is."""
    total, scalars = loss(parameters, {"x": jnp.zeros_like(batch["x"])}, key)
    poisoned = jnp.isnan(batch["x"]).any()
    root = jnp.sqrt(jnp.where(poisoned, 0.0, 1.0) * parameters["head/kernel"][0] ** 2)
    return total + 0.0 * root, scalars


def method_with(function) -> Method:
    return Method(
        task="binary",
        num_classes=2,
        network={},
        shapes={p: jax.ShapeDtypeStruct(v.shape, v.dtype) for p, v in START.items()},
        initial=lambda seed: START,
        loss=function,
        predict=None,
    )


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
):
    make = aavs_jax.train.make_train_step

    def make_once(*arguments):
        key = function, repr(phase)
        COMPILED[key] = COMPILED.get(key) or make(*arguments)
        return COMPILED[key]

    with LoggingWriter(root) as writer, pytest.MonkeyPatch.context() as patch:
        patch.setattr(aavs_jax.train, "make_train_step", make_once)
        train_phase(
            "localise/a",
            phase,
            method=method_with(function),
            start=lambda: START,
            batches=batches,
            steps_per_epoch=CLIPS / BATCH,
            validate=validate,
            mesh=make_mesh(),
            directory=root / "localise" / "a",
            writer=writer,
            seed=11,
            log_every=log_every,
            checkpoint_every=checkpoint_every,
        )


def parameters_at_the_end(root) -> dict[str, np.ndarray]:
    from aavs_jax.checkpoint import _load_on_host  # also of those that are not the best

    return _load_on_host(root / "localise" / "a" / "checkpoints" / str(STEPS), "state")


def best(root):
    with PhaseCheckpoints(root / "localise" / "a") as checkpoints:
        return checkpoints.best_step(), checkpoints.best_parameters()


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
    assert {"loss", "loss/fit", "gradient_norm", "learning_rate"} <= first.keys()
    assert first["learning_rate"] == 0 and rows[2]["learning_rate"] == pytest.approx(0.1)
    _, parameters = best(straight)
    np.testing.assert_array_equal(parameters["backbone/kernel"], START["backbone/kernel"])
    assert np.abs(parameters["head/kernel"] - START["head/kernel"]).max() > 0.05
    state = parameters_at_the_end(straight)
    assert sorted(state["trainable"]) == ["head/kernel"]
    assert int(state["step"]) == STEPS


def test_without_validation_the_last_is_the_best(straight, tmp_path):
    with pytest.raises(Interruption):
        train(tmp_path, Batches(stop=7), validate=None)
    train(tmp_path, Batches(), validate=None)
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["kind"] for row in rows] == ["train"] * STEPS
    assert_same(parameters_at_the_end(tmp_path), parameters_at_the_end(straight))
    step, parameters = best(tmp_path)
    assert step == STEPS
    last = parameters_at_the_end(tmp_path)["trainable"]["head/kernel"]
    np.testing.assert_array_equal(parameters["head/kernel"], last)


class Lengths(Batches):
    """Batches in turn of two lengths."""

    def __next__(self):
        batch = super().__next__()
        return batch | {"x": batch["x"][: 2 + 2 * (self._given % 2)]}


def test_batches_of_several_lengths(tmp_path):
    """The step is compiled for each, and what is logged and resumed is as with one."""
    train(tmp_path / "straight", Lengths())
    with pytest.raises(Interruption):
        train(tmp_path / "stopped", Lengths(stop=7))  # the checkpoint is of step 6: even, as 0
    train(tmp_path / "stopped", Lengths())
    ends = [parameters_at_the_end(tmp_path / name) for name in ("straight", "stopped")]
    assert_same(*ends)
    rows = read_metrics(tmp_path / "straight" / "metrics.jsonl")
    assert [row["step"] for row in rows if row["kind"] == "train"] == list(range(1, STEPS + 1))


# Before the first checkpoint; on one; after a validation; before the last step.
@pytest.mark.parametrize("stop", [2, 5, 6, 12])
def test_stopped_and_continued_it_is_the_same_to_the_last_bit(straight, tmp_path, stop):
    with pytest.raises(Interruption):
        train(tmp_path, Batches(stop=stop))
    train(tmp_path, Batches())
    assert_same(parameters_at_the_end(tmp_path), parameters_at_the_end(straight))
    assert_same(best(tmp_path), best(straight))
    lines = (tmp_path / "metrics.jsonl").read_bytes()
    assert lines == (straight / "metrics.jsonl").read_bytes()


def test_stopped_again_and_again_and_other_checkpoints_change_nothing(straight, tmp_path):
    # Lines are left behind that no checkpoint knows of: 1 to 3 first, 6 and 7 later.
    for stop in (5, 9, 4):
        with pytest.raises(Interruption):
            train(tmp_path, Batches(stop=stop), checkpoint_every=100)
    train(tmp_path, Batches(), checkpoint_every=3)
    assert_same(parameters_at_the_end(tmp_path), parameters_at_the_end(straight))
    lines = (tmp_path / "metrics.jsonl").read_bytes()
    assert lines == (straight / "metrics.jsonl").read_bytes()


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


def clips_by_step() -> dict[int, list[str]]:
    batches = Batches()
    return {step: [str(clip) for clip in next(batches)["ids"]] for step in range(1, 7)}


@pytest.mark.parametrize(("poison", "word"), [(np.nan, "nan"), (np.inf, "inf")])
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
    # What was good is still there: the checkpoint of step 2, and the run goes on from it.
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
    assert count_steps({"epochs": 32.0}, 391 / 20) == 626
    assert count_steps({"epochs": 0.001}, 2.0) == 1
