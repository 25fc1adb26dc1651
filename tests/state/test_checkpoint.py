"""Checkpoints: exact round trips, what is kept, and what happens to damaged ones."""

import contextlib
import dataclasses
import logging
import math
import shutil
import subprocess
import threading
import time

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from aavs_jax.errors import UserError
from aavs_jax.state.checkpoint import SCORE, PhaseCheckpoints
from aavs_jax.state.parameter_folders import load_parameters, save_parameters
from aavs_jax.state.train_state import TrainState

OPTIMIZER = optax.adamw(1e-2)
# Figures of the validations; at step 5 there was none. 2 and 3 are equal, 2 came first.
FIGURES = {1: 0.5, 2: 0.9, 3: 0.9, 4: 0.1, 5: None, 6: 0.2}


def state_at(step: int) -> TrainState:
    """Values that no other step has, moments included."""
    rng = np.random.default_rng(step)
    parameters = {
        "a/kernel": jnp.asarray(rng.normal(size=(30, 40)), jnp.float32),
        "a/bias": jnp.asarray(rng.normal(size=40), jnp.float32),
    }
    state = TrainState.create(parameters, {"frozen": jnp.arange(5.0)}, OPTIMIZER)
    gradients = jax.tree.map(lambda x: x * 0.3, parameters)
    state = state.apply_gradients(gradients, OPTIMIZER)
    return dataclasses.replace(state, step=jnp.asarray(step, jnp.int32))


def data_after(batches: int) -> grain.DatasetIterator:
    numbers = grain.MapDataset.range(100).seed(1).shuffle().repeat().to_iter_dataset()
    iterator = iter(numbers)
    for _ in range(batches):
        next(iterator)
    return iterator


def assert_same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for left, right in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right)


def steps_in(folder) -> list[int]:
    return sorted(int(path.name) for path in folder.iterdir()) if folder.exists() else []


def everything_in(folder) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    directory = tmp_path_factory.mktemp("written") / "phase"
    with PhaseCheckpoints(directory) as checkpoints:
        checkpoints.save_frozen(state_at(0).frozen)
        for step, figure in FIGURES.items():
            figures = None if figure is None else {SCORE: figure, "J": figure / 2}
            checkpoints.save(state_at(step), data_after(step), figures)
    return directory


@pytest.fixture
def phase(written, tmp_path):
    """A copy to be damaged."""
    return shutil.copytree(written, tmp_path / "phase")


def test_the_newest_two_and_the_best_are_kept(written):
    assert steps_in(written / "checkpoints") == [2, 5, 6]


def test_a_step_that_is_asked_for_stays(tmp_path):
    with PhaseCheckpoints(tmp_path / "phase", keep=2) as checkpoints:
        for step in range(1, 6):
            checkpoints.save(state_at(step), data_after(step), None)
    assert steps_in(tmp_path / "phase" / "checkpoints") == [2, 4, 5]


def test_the_newest_comes_back_exactly_and_so_does_the_iterator(phase):
    data = data_after(0)
    with PhaseCheckpoints(phase) as checkpoints:
        assert checkpoints.latest_step == 6
        assert_same(checkpoints.restore_latest(state_at(0), data), state_at(6))
    reference = data_after(6)
    assert [next(data) for _ in range(120)] == [next(reference) for _ in range(120)]


def test_the_best_is_the_earliest_of_equals_and_all_its_parameters_are_handed_over(phase):
    with PhaseCheckpoints(phase) as checkpoints:
        assert checkpoints.best().step == 2
        parameters = checkpoints.best_parameters()
    assert_same(parameters, jax.tree.map(np.asarray, state_at(2).parameters))
    assert all(isinstance(value, np.ndarray) for value in parameters.values())


@pytest.mark.parametrize(
    ("scores", "kept", "best"),
    [
        # Not first, not in the middle, and not last.
        ({1: math.nan, 2: 0.3, 3: 0.1, 4: 0.1}, [2, 3, 4], 2),
        ({1: 0.3, 2: math.nan, 3: 0.1, 4: 0.1}, [1, 3, 4], 1),
        ({1: 0.3, 2: 0.1, 3: 0.1, 4: math.nan}, [1, 3, 4], 1),
        ({1: math.nan, 2: 0.0, 3: math.inf, 4: math.nan}, [2, 3, 4], 2),
        # The last that was validated, where none has a score.
        ({1: math.nan, 2: math.nan, 3: math.nan, 4: math.nan}, [3, 4], 4),
        ({1: math.nan, 2: math.nan, 3: None, 4: None}, [2, 3, 4], 2),
    ],
)
def test_a_score_that_is_not_a_number_is_never_the_best(tmp_path, scores, kept, best):
    with PhaseCheckpoints(tmp_path) as checkpoints:
        for step, score in scores.items():
            figures = None if score is None else {SCORE: score, "J": score}
            checkpoints.save(state_at(step), data_after(step), figures)
    assert steps_in(tmp_path / "checkpoints") == kept
    with PhaseCheckpoints(tmp_path) as checkpoints:  # as the next start reads them
        found = checkpoints.best()
        assert found.step == best
        assert found.score == scores[best] or math.isnan(scores[best])
        parameters = checkpoints.best_parameters()
    assert_same(parameters, jax.tree.map(np.asarray, state_at(best).trainable))


def test_nothing_there_is_nothing_to_continue_from(tmp_path):
    data = data_after(3)
    with PhaseCheckpoints(tmp_path / "new") as checkpoints:
        assert checkpoints.latest_step == -1
        assert checkpoints.restore_latest(state_at(0), data) is None
        with pytest.raises(UserError, match="no readable checkpoint in .*: delete the folder"):
            checkpoints.best_parameters()
    assert next(data) == next(data_after(3))


def truncate_arrays(folder):
    for path in (folder / "state").rglob("d/*"):
        path.write_bytes(path.read_bytes()[:10])


def overwrite_arrays(folder):
    for path in (folder / "state").rglob("d/*"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2 :] = b"\xff" * (len(content) - len(content) // 2)
        path.write_bytes(content)


def remove_array_metadata(folder):
    (folder / "state" / "_METADATA").unlink()


def empty_every_file(folder):
    for path in folder.rglob("*"):
        if path.is_file():
            path.write_bytes(b"")


def empty_figures(folder):
    (folder / "metrics" / "metrics").write_bytes(b"")


def empty_manifest(folder):
    (folder / "state" / "manifest.ocdbt").write_bytes(b"")


def wrong_metadata(folder):
    (folder / "_CHECKPOINT_METADATA").write_text("[]")


def empty_iterator(folder):
    (folder / "data" / "process_0-of-1.json").write_bytes(b"")


def remove_iterator(folder):
    shutil.rmtree(folder / "data")


def remove_metadata_and_state(folder):
    (folder / "_CHECKPOINT_METADATA").unlink()
    (folder / "commit_success.txt").unlink()
    shutil.rmtree(folder / "state")


def empty_folder(folder):
    shutil.rmtree(folder)
    folder.mkdir()


DAMAGES = [
    truncate_arrays,
    overwrite_arrays,
    remove_array_metadata,
    empty_every_file,
    empty_figures,
    empty_manifest,
    wrong_metadata,
    empty_iterator,
    remove_iterator,
    remove_metadata_and_state,
    empty_folder,
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda f: f.__name__)
def test_a_damaged_newest_one_falls_back_to_the_one_before(phase, damage, caplog):
    newest = phase / "checkpoints" / "6"
    damage(newest)
    damaged = everything_in(newest)
    kept = {step: everything_in(phase / "checkpoints" / step) for step in ("2", "5")}
    data = data_after(0)
    with caplog.at_level(logging.WARNING), PhaseCheckpoints(phase) as checkpoints:
        restored = checkpoints.restore_latest(state_at(0), data)
        assert_same(restored, state_at(5))
        assert next(data) == next(data_after(5))
        said = [r.getMessage() for r in caplog.records if "cannot be read" in r.getMessage()]
        assert len(said) == 1 and str(newest) in said[0] and "the one before it" in said[0]
        # Out of the way, whole as it was; the others untouched.
        assert everything_in(phase / "damaged" / "6") == damaged
        assert steps_in(phase / "checkpoints") == [2, 5]
        for step, files in kept.items():
            assert everything_in(phase / "checkpoints" / step) == files
        # And the run goes on over that step.
        checkpoints.save(state_at(6), data_after(6), {SCORE: 0.2})
        checkpoints.wait()
        assert checkpoints.latest_step == 6
    with PhaseCheckpoints(phase) as checkpoints:
        assert_same(checkpoints.restore_latest(state_at(0), data_after(0)), state_at(6))


@pytest.mark.parametrize("name", ["commit_success.txt", "_CHECKPOINT_METADATA"])
def test_a_lost_marker_alone_loses_no_step(phase, name):
    (phase / "checkpoints" / "6" / name).unlink()
    with PhaseCheckpoints(phase) as checkpoints:
        assert_same(checkpoints.restore_latest(state_at(0), data_after(0)), state_at(6))


def test_when_all_are_damaged_they_stay_where_they_are_and_nothing_starts_anew(phase):
    for step in ("2", "5", "6"):
        truncate_arrays(phase / "checkpoints" / step)
    before = everything_in(phase)
    data = data_after(0)
    with PhaseCheckpoints(phase) as checkpoints:
        with pytest.raises(UserError, match=f"can be read .*delete the folder {phase} "):
            checkpoints.restore_latest(state_at(0), data)
    assert next(data) == next(data_after(0))
    assert everything_in(phase) == before


@pytest.mark.parametrize("damage", [truncate_arrays, remove_array_metadata, empty_figures])
def test_a_damaged_best_falls_back_to_the_next_best(phase, damage, caplog):
    damage(phase / "checkpoints" / "2")
    with caplog.at_level(logging.WARNING), PhaseCheckpoints(phase) as checkpoints:
        parameters = checkpoints.best_parameters()
        assert checkpoints.best().step == 6
    assert_same(parameters, jax.tree.map(np.asarray, state_at(6).parameters))
    assert steps_in(phase / "damaged") == [2]
    assert "cannot be read" in caplog.text


def test_when_no_validated_one_is_readable_the_error_says_what_to_do(phase):
    for step in ("2", "6"):
        truncate_arrays(phase / "checkpoints" / step)
    with PhaseCheckpoints(phase) as checkpoints:
        with pytest.raises(UserError, match=f"delete the folder {phase} and start the command"):
            checkpoints.best_parameters()


def test_damaged_frozen_parameters_are_named(phase):
    shutil.rmtree(phase / "frozen")
    (phase / "frozen").mkdir()
    with PhaseCheckpoints(phase) as checkpoints:
        with pytest.raises(UserError, match=f"{phase}/frozen holds no readable parameters: delete"):
            checkpoints.best_parameters()


def test_who_only_reads_is_never_told_to_delete(tmp_path, phase):
    """Another process may be training there."""
    with PhaseCheckpoints(tmp_path / "new") as checkpoints:
        checkpoints.save(state_at(1), data_after(1), None)
    (tmp_path / "empty" / "checkpoints").mkdir(parents=True)
    shutil.rmtree(phase / "frozen")
    (phase / "frozen").mkdir()
    damaged = shutil.copytree(phase, tmp_path / "damaged")
    empty_figures(damaged / "checkpoints" / "2")
    for folder, words in (
        (damaged, "damaged/checkpoints/2 cannot be read .*: give another phase"),
        (tmp_path / "new", "no checkpoint of .*new has been validated yet: wait for its first"),
        (tmp_path / "empty", "no checkpoint of .*empty has been validated yet: wait"),
        (phase, "frozen holds no readable parameters: name another phase"),
    ):
        before = everything_in(folder)
        with pytest.raises(UserError, match=words) as error:
            with PhaseCheckpoints(folder, reading=True) as checkpoints:
                checkpoints.best_parameters()
        assert "delete" not in str(error.value)
        assert everything_in(folder) == before


def test_what_a_killed_process_was_writing_is_no_checkpoint(phase):
    temporary = phase / "checkpoints" / "7.orbax-checkpoint-tmp"
    shutil.copytree(phase / "checkpoints" / "6", temporary)
    with PhaseCheckpoints(phase) as checkpoints:
        assert checkpoints.latest_step == 6
        assert_same(checkpoints.restore_latest(state_at(0), data_after(0)), state_at(6))
        checkpoints.save(state_at(7), data_after(7), None)
    assert steps_in(phase / "checkpoints") == [2, 6, 7]


def test_frozen_parameters_are_written_if_there_are_any(tmp_path):
    with PhaseCheckpoints(tmp_path) as checkpoints:
        checkpoints.save_frozen({})
        assert not (tmp_path / "frozen").exists()
        assert checkpoints.load_frozen() == {}
        checkpoints.save_frozen({"a": jnp.ones(3)})
        assert checkpoints.load_frozen()["a"].tolist() == [1, 1, 1]


def test_parameters_come_back_by_path(tmp_path):
    values = {
        "backbone/stages/0/kernel": jnp.arange(6.0).reshape(2, 3),
        "b": jnp.asarray(7, jnp.int32),
        "c": jnp.asarray([1.5], jnp.bfloat16),
    }
    save_parameters(tmp_path / "p", values)
    assert_same(load_parameters(tmp_path / "p"), jax.tree.map(np.asarray, values))
    save_parameters(tmp_path / "p", {"b": jnp.zeros(2)})
    assert list(load_parameters(tmp_path / "p")) == ["b"]


def test_folders_that_hold_no_parameters_are_named(tmp_path, written):
    with pytest.raises(UserError, match=f"no folder of parameters at {tmp_path}/none"):
        load_parameters(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", written, written / "checkpoints" / "6"):
        with pytest.raises(UserError, match=f"{folder} holds no readable Orbax checkpoint"):
            load_parameters(folder)


def test_a_file_in_the_way_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    threads = set(threading.enumerate())
    with pytest.raises(UserError, match=r"cannot write a checkpoint to .*/file"):
        PhaseCheckpoints(tmp_path / "file" / "phase")
    with pytest.raises(UserError, match=r"cannot write a checkpoint to .*/file"):
        save_parameters(tmp_path / "file" / "p", {"a": jnp.ones(2)})
    assert (tmp_path / "file").read_text() == ""
    # Orbax's own default leaves threads that keep the process from ending for 20 minutes.
    left = [t for t in threading.enumerate() if t not in threads and not t.daemon]
    end = time.monotonic() + 5
    while any(thread.is_alive() for thread in left):
        assert time.monotonic() < end, left
        time.sleep(0.05)


@contextlib.contextmanager
def small_disk(folder, size: str):
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        allowed = subprocess.run(mount, capture_output=True).returncode == 0
    except OSError:
        allowed = False
    if not allowed:
        pytest.skip("mounting is not allowed here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_one_sentence_and_the_checkpoint_before_stays(tmp_path):
    with small_disk(tmp_path / "disk", "400k") as disk:
        filler = disk / "filler"
        with pytest.raises(UserError, match=r"cannot write a checkpoint .*free some space"):
            with PhaseCheckpoints(disk / "phase") as checkpoints:
                checkpoints.save(state_at(1), data_after(1), {SCORE: 0.1})
                checkpoints.wait()
                with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as file:
                    while file.write(b"x" * 4096):
                        pass
                checkpoints.save(state_at(2), data_after(2), {SCORE: 0.2})
        filler.unlink()
        # Threads of the write that failed may still be at it. A run ends there, and they with it.
        before = None
        while before != (now := sorted(disk.rglob("*"))):
            before = now
            time.sleep(0.5)
        data = data_after(0)
        with PhaseCheckpoints(disk / "phase") as checkpoints:
            assert_same(checkpoints.restore_latest(state_at(0), data), state_at(1))
            assert next(data) == next(data_after(1))
            checkpoints.save(state_at(2), data_after(2), {SCORE: 0.2})
            checkpoints.wait()
            assert checkpoints.latest_step == 2
