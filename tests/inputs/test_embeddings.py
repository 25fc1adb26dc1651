"""Embeddings in place of log-mel examples: the same network, the same outputs."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from aavs_jax import schedule
from aavs_jax.errors import UserError
from aavs_jax.inputs import embeddings
from aavs_jax.inputs.batches import eval_batches, on_data
from aavs_jax.methods import make_method
from aavs_jax.plan.stage import make_stage
from aavs_jax.state.parameter_folders import save_parameters
from aavs_jax.state.sharding import make_mesh
from aavs_jax.weights import card
from configs import avss
from data_pipelines.loading.front_ends import LOG_MEL
from data_pipelines.prepared.embeddings import folder_of

FROZEN = (r"decoder/.*", r"audio_proj/.*")


@pytest.fixture(scope="module")
def stage(tiny_stage):
    """Trains all but the encoder, from pretrained parameters, in two phases."""
    stage = tiny_stage("localise")
    phase = stage["phases"].pop("all") | {"trains": FROZEN, "start": "pretrained"}
    stage["order"] = ("a", "b")
    stage["phases"] = {"a": phase, "b": phase | {"start": "localise/a"}}
    return stage


@pytest.fixture(scope="module")
def method(stage):
    return make_method(stage, 2)


@pytest.fixture(scope="module")
def parameters(method):
    return method.initial(5)


def encoder_of(parameters):
    return {
        path.removeprefix("audio_encoder/"): value
        for path, value in parameters.items()
        if path.startswith("audio_encoder/")
    }


@pytest.fixture
def config(stage, parameters, tmp_path):
    """A config whose stage can do with embeddings; tests take away what it needs."""
    config = avss.get_config().to_dict()
    config["schedule"] = ("localise",)
    config["stages"] = {"localise": json.loads(json.dumps(stage))}
    config["data"]["embeddings"] = True
    sound = {path: v for path, v in parameters.items() if path.startswith("audio_encoder/")}
    leave_folder(tmp_path / "vggish", sound, "vggish", {"audio": stage["model"]["audio"]})
    config["init"] |= {"mask2former": "", "vggish": str(tmp_path / "vggish")}
    return config


def leave_folder(folder, parameters, kind, network):
    """A folder of weights, as `aavs_jax.convert` leaves it."""
    save_parameters(folder, parameters)
    card.write(folder, card.Card(kind, network))


def test_the_network_says_the_same_of_embeddings_and_of_sounds(
    config, data_dir, parameters, tmp_path
):
    stage = opened(config, data_dir, tmp_path)
    heard = embeddings.compute(stage, encoder_of(parameters), data_dir)
    embedded = dataclasses.replace(stage, heard=heard)
    outputs = {}
    for sound in ("right", "silence"):
        for how, each in (("sound", stage), ("embeddings", embedded)):
            (batch, *_) = eval_batches(each, "test", prior="none", sound=sound)
            batch = {name: batch[name] for name in stage.method.entries}
            assert batch["audio"].ndim == (4 if how == "sound" else 3)
            with jax.default_matmul_precision("highest"):
                outputs[sound, how] = stage.method.predict(parameters, batch).maps["foreground"]
        # Sums of a few dozen float32 numbers, in two compilations.
        one, two = outputs[sound, "sound"], outputs[sound, "embeddings"]
        np.testing.assert_allclose(one, two, atol=1e-5)
    # What is compared does depend on the sound.
    right, silence = outputs["right", "sound"], outputs["silence", "sound"]
    assert np.abs(right - silence).max() > 1e-3


def opened(config, data_dir, root):
    return on_data(make_stage(config, "localise", root), data_dir, make_mesh())


def folder_for(config, data_dir, root):
    """Of the embeddings that a stage can take; None where it has to hear."""
    heard = embeddings.for_training(opened(config, data_dir, root), data_dir)
    assert not heard or heard.keys() == {"train", "val", "test"}
    return heard["train"]._path.parent if heard else None


def test_a_stage_with_a_frozen_encoder_hears_embeddings(
    config, method, parameters, data_dir, tmp_path, capsys
):
    folder = folder_for(config, data_dir, tmp_path)
    assert folder == folder_of(data_dir, embeddings.digest(encoder_of(parameters)), LOG_MEL)
    assert "[localise] hears embeddings" in capsys.readouterr().out


def test_who_only_writes_masks_with_an_earlier_checkpoint_hears_sounds(config, data_dir, tmp_path):
    config["stages"]["localise"] |= {"order": (), "writes_for": "localise"}
    assert folder_for(config, data_dir, tmp_path) is None


def test_what_a_phase_started_from_counts_and_not_what_lies_there_now(
    config, method, parameters, data_dir, tmp_path
):
    before = {path: value + 1 for path, value in parameters.items()}
    save_parameters(tmp_path / "localise" / "a" / "frozen", before)
    folder = folder_for(config, data_dir, tmp_path)
    assert folder == folder_of(data_dir, embeddings.digest(encoder_of(before)), LOG_MEL)
    # And of a run that has begun, config.init may be gone.
    shutil.rmtree(tmp_path / "vggish")
    assert folder_for(config, data_dir, tmp_path) == folder


def test_phases_of_two_encoders_have_no_embeddings_that_are_right_for_both(
    config, method, parameters, data_dir, tmp_path
):
    before = {path: value + 1 for path, value in parameters.items()}
    save_parameters(tmp_path / "localise" / "a" / "frozen", before)
    config["stages"]["localise"]["phases"]["b"]["start"] = "pretrained"
    assert folder_for(config, data_dir, tmp_path) is None


def test_the_encoder_of_a_whole_network_is_one_too(
    config, method, parameters, data_dir, tmp_path, capsys
):
    leave_folder(tmp_path / "whole", parameters, "aavs", method.network)
    config["init"] |= {"mask2former": str(tmp_path / "whole"), "vggish": ""}
    folder = folder_for(config, data_dir, tmp_path)
    assert folder == folder_of(data_dir, embeddings.digest(encoder_of(parameters)), LOG_MEL)
    # Of two the one given as such.
    louder = {
        path: value + 1 for path, value in parameters.items() if path.startswith("audio_encoder/")
    }
    leave_folder(tmp_path / "other", louder, "vggish", {"audio": method.network["audio"]})
    config["init"]["vggish"] = str(tmp_path / "other")
    folder = folder_for(config, data_dir, tmp_path)
    assert folder == folder_of(data_dir, embeddings.digest(encoder_of(louder)), LOG_MEL)


def switch_off(config):
    config["data"]["embeddings"] = False


def give_no_encoder(config):
    config["init"]["vggish"] = ""


def train_the_encoder_in_the_end(config):
    config["stages"]["localise"]["phases"]["b"]["trains"] = (".*",)


def train_the_encoder_beside_the_way(config):
    phases = config["stages"]["localise"]["phases"]
    phases["a"]["trains"] = (*FROZEN, "audio_encoder/fully_connected/.*")
    phases["b"]["start"] = "pretrained"


def draw_it_afresh(config):
    config["stages"]["localise"]["phases"]["b"]["fresh"] = ("audio_encoder/.*bias",)


def set_it_to_zero(config):
    config["stages"]["localise"]["phases"]["a"]["zero"] = ("audio_encoder/.*",)


def start_from_nothing(config):
    config["stages"]["localise"]["phases"]["a"]["start"] = "nothing"


def start_from_an_earlier_run(config):
    config["stages"]["localise"]["phases"]["a"]["start"] = "pretraining/all"


def change_sounds(config):
    config["stages"]["localise"]["data"]["augment"]["sound_gain"]["probability"] = 0.5


@pytest.mark.parametrize(
    "change",
    [
        switch_off,
        give_no_encoder,
        train_the_encoder_in_the_end,
        train_the_encoder_beside_the_way,
        draw_it_afresh,
        set_it_to_zero,
        start_from_nothing,
        start_from_an_earlier_run,
        change_sounds,
    ],
)
def test_log_mel_where_the_encoder_or_its_input_is_another(
    config, method, data_dir, tmp_path, capsys, change
):
    change(config)
    assert folder_for(config, data_dir, tmp_path) is None
    said = capsys.readouterr().out
    if change is change_sounds:
        assert "data.augment.sound_gain changes sounds" in said and said.count("\n") == 1
    else:
        assert not said


def test_log_mel_where_the_given_encoder_does_not_fit(
    config, method, parameters, data_dir, tmp_path
):
    sound = {path: v for path, v in parameters.items() if path.startswith("audio_encoder/")}
    last = "audio_encoder/fully_connected/0/bias"
    for name, changed in (
        ("shape", sound | {last: np.zeros(9, np.float32)}),
        ("missing", {path: value for path, value in sound.items() if path != last}),
    ):
        leave_folder(tmp_path / name, changed, "vggish", {"audio": method.network["audio"]})
        config["init"]["vggish"] = str(tmp_path / name)
        assert folder_for(config, data_dir, tmp_path) is None


def test_a_digest_tells_weights_apart_and_nothing_else():
    weights = {"b": np.arange(6, dtype=np.float32), "a": np.ones((2, 3), np.float32)}
    digest = embeddings.digest(weights)
    assert embeddings.digest(dict(sorted(weights.items()))) == digest
    assert embeddings.digest({path: jax.numpy.asarray(v) for path, v in weights.items()}) == digest
    for changed in (
        weights | {"a": np.nextafter(weights["a"], 2, dtype=np.float32)},
        weights | {"a": weights["a"].reshape(3, 2)},
        {"b": weights["b"], "c": weights["a"]},
        {"b": weights["b"]},
    ):
        assert embeddings.digest(changed) != digest


def test_a_folder_that_cannot_be_written_is_one_sentence(
    config, data_dir, parameters, tmp_path, monkeypatch
):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(embeddings.embeddings, "_write_all", full)
    with pytest.raises(UserError, match=r"No space left.*--config\.data\.embeddings=False"):
        stage = opened(config, data_dir, tmp_path)
        embeddings.compute(stage, encoder_of(parameters) | {"other": np.ones(1)}, data_dir)


@pytest.mark.slow
def test_a_run_with_embeddings_goes_as_one_without(
    config, method, parameters, data_dir, tmp_path, monkeypatch
):
    """Two phases, checkpoints, validation and all sounds.

    The two differ in their last bits. Classes far apart and steps of next to nothing keep that from
    growing, which it does otherwise, and differently on every CPU.
    """
    clear = {
        path: value * (10 if path.startswith("decoder/class_predictor/") else 1)
        for path, value in parameters.items()
    }
    leave_folder(tmp_path / "mask2former", clear, "aavs", method.network)
    config["init"]["mask2former"] = str(tmp_path / "mask2former")
    config["data"]["folder"] = str(data_dir)
    config["log_every"] = 1
    config["stages"]["localise"]["data"]["batch_size"] = 4
    for phase in config["stages"]["localise"]["phases"].values():
        phase |= {"epochs": 4.0, "validate_every_epochs": 1.0}
        phase["optimizer"] |= {"schedule": "constant", "warmup_steps": 0, "no_decay": ()}
        phase["optimizer"]["learning_rate"] = 1e-6
    rows, losses = {}, {}
    for used in (True, False):
        root = tmp_path / f"run-{used}"
        seen = []
        monkeypatch.setattr(schedule, "train_batches", spied(schedule.train_batches, seen))
        config["data"]["embeddings"] = used
        rows[used] = schedule.train_and_evaluate(config, root, "avss")
        monkeypatch.undo()
        assert seen == [used, used]
        lines = map(json.loads, (root / "metrics.jsonl").read_text().splitlines())
        losses[used] = [line["loss"] for line in lines if "loss" in line]
    assert len(losses[True]) > 3
    np.testing.assert_allclose(losses[True], losses[False], rtol=1e-3)
    assert {row["sound"] for row in rows[True]} == {"right", "other", "silence"}
    for one, two in zip(rows[True], rows[False], strict=True):
        # A mask's edge may fall to the other side of a threshold in some pixels.
        np.testing.assert_allclose(one.pop("value"), two.pop("value"), atol=0.01)
        assert one == two


def spied(train_batches, seen):
    def see(stage, *arguments):
        seen.append("train" in stage.heard)
        return train_batches(stage, *arguments)

    return see
