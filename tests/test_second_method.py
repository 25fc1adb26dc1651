"""A method of one's own goes through the ordinary commands: nothing outside its file knows it."""

import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

import aavs_jax
from aavs_jax.errors import UserError
from aavs_jax.prediction import exporting
from aavs_jax.state.checkpoint import PhaseCheckpoints
from aavs_jax.weights import card
from data_pipelines.media.waveforms import to_int16

pytestmark = pytest.mark.slow
METHOD = "tests.second_method"
STATISTICS = ("norm/mean", "norm/var")


@pytest.fixture(scope="module")
def flags():
    return [
        "--config=tests/second_config.py",
        *("--config.data.clips=12", "--config.data.size=32", "--config.checkpoint_every=2"),
        *("--config.log_every=1", "--config.eval.examples=1"),
    ]


@pytest.fixture(scope="module")
def run(command, flags, tmp_path_factory):
    folder = tmp_path_factory.mktemp("second") / "run"
    command(*flags, f"--workdir={folder}")
    return folder


def rows_of(folder: Path) -> list[dict]:
    rows = json.loads((folder / "results.json").read_text())
    return [{key: value for key, value in row.items() if key != "weights"} for row in rows]


def parameters_of(phase: Path, step: int | None = None) -> dict[str, np.ndarray]:
    with PhaseCheckpoints(phase, reading=True) as checkpoints:
        return checkpoints.best_parameters()


def test_killed_and_started_again_the_same_to_the_last_bit(run, command, flags, tmp_path):
    """Running statistics are saved, restored and handed over."""
    shutil.copytree(run.parent / "data", tmp_path / "data")
    moment = r"^os\.rename \S* \S*/understand/all/checkpoints/2$"
    command(*flags, f"--workdir={tmp_path}/run", die_at=(moment, 1), code=-signal.SIGKILL)
    output = command(*flags, f"--workdir={tmp_path}/run")
    assert "[understand/all] " in output and "[localise] is complete" in output
    assert rows_of(tmp_path / "run") == rows_of(run)
    for phase in ("localise/all", "understand/all"):
        one, two = parameters_of(run / phase), parameters_of(tmp_path / "run" / phase)
        assert one.keys() == two.keys() and set(STATISTICS) <= one.keys()
        for path, value in one.items():
            np.testing.assert_array_equal(value, two[path], err_msg=path)


def test_statistics_move_and_go_to_the_next_stage(run):
    first = parameters_of(run / "localise" / "all")
    assert (first["norm/var"] > 0).all() and np.abs(first["norm/mean"]).max() > 1e-3
    output = (run / "metrics.jsonl").read_text().splitlines()
    progress = [row["progress"] for row in map(json.loads, output) if "progress" in row]
    assert progress[0] == 0 and max(progress) < 1 and sorted(progress[:4]) == progress[:4]
    assert (first["norm/mean"] != parameters_of(run / "understand" / "all")["norm/mean"]).any()


def test_evaluated_it_has_the_scores_of_the_run(run, command, flags, tmp_path):
    command(*flags, f"--evaluate={run}", f"--workdir={run.parent / 'evaluated'}")
    assert rows_of(run.parent / "evaluated") == [r for r in rows_of(run) if r["split"] == "test"]


def test_a_folder_of_its_weights_is_enough_to_predict(run, tmp_path, convert_in_process):
    found = card.read(run / "understand" / "all")
    assert found.kind == METHOD and found.network["width"] == 16
    convert_in_process(run / "understand" / "all", "--out", tmp_path / "weights")
    convert_in_process(
        tmp_path / "weights", "--out", tmp_path / "one.safetensors", "--to=safetensors"
    )
    convert_in_process(tmp_path / "one.safetensors", "--out", tmp_path / "again")
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (3, 40, 56, 3), np.uint8)
    sound = rng.normal(size=48000).astype(np.float32) * 0.1
    masks = [
        aavs_jax.load(folder, method=METHOD).predict(frames, sound).classes
        for folder in (run / "understand" / "all", tmp_path / "weights", tmp_path / "again")
    ]
    np.testing.assert_array_equal(masks[0], masks[1])
    np.testing.assert_array_equal(masks[0], masks[2])
    assert aavs_jax.load(run, method=METHOD)(frames, sound).shape == (3, 40, 56)
    # A card may come from a stranger, so its word is not enough to import a module.
    with pytest.raises(UserError, match="or name the module of its method"):
        aavs_jax.load(tmp_path / "weights")


@pytest.mark.parametrize("fps", [0.5, 1, 2])
def test_a_stream_gives_it_clips_of_seconds_that_look_at_each_other(run, tmp_path, fps):
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (12, 40, 56, 3), np.uint8)
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / f"{number}.png")
    # Loud and low by turns, so that seconds differ.
    sound = rng.normal(size=24 * 16000) * np.repeat(rng.uniform(0.001, 0.2, 24), 16000)
    sound = to_int16(sound.astype(np.float32)).astype(np.float32) / 32768
    soundfile.write(tmp_path / "sound.wav", sound, 16000)
    network = aavs_jax.load(run, method=METHOD)
    results = list(network.stream(tmp_path, fps=fps))
    assert len(results) == 12
    masks = np.stack([result.mask for result in results])
    if fps == 0.5:  # of which no second has one
        return
    if fps == 1:
        expected = [network(frames[:10], sound[:160000]), network(frames[10:], sound[160000:])]
        np.testing.assert_array_equal(masks, np.concatenate(expected))
        alone = [network(frame[None], sound[16000 * n :][:16000]) for n, frame in enumerate(frames)]
        assert (masks != np.concatenate(alone)).any()  # or else this would not say anything
    else:  # every other frame is a clip of its own, whose sound begins at the nearest 1/20 s
        np.testing.assert_array_equal(masks[1::2], network(frames[1::2], sound[800:]))


def test_exported_it_hears_by_its_own_front_end(run):
    network = aavs_jax.load(run / "understand" / "all", method=METHOD)
    parameters = {f"0/{path}": value for path, value in network.parameters.items()}
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (2, 32, 32, 3), np.uint8)
    seconds = rng.normal(size=(2, 16000)).astype(np.float32) * 0.1
    masks, confidence = exporting.exported(network).call(parameters, frames, seconds)
    for frame, second, mask in zip(frames, seconds, masks, strict=True):
        expected = network.predict(frame[None], second).classes[0, 0]
        np.testing.assert_array_equal(mask, expected)
    np.testing.assert_array_equal(confidence, np.ones((2, 32, 32)))  # it says nothing of that


@pytest.fixture
def convert_in_process():
    from aavs_jax.convert.__main__ import main

    def convert(*arguments):
        assert main([str(argument) for argument in arguments]) == 0

    return convert
