"""Maps of a backbone that does not train, in place of frames: the same losses; when they can be."""

import dataclasses
import json
import types

import numpy as np
import pytest

import aavs_jax.train
from aavs_jax import checks, schedule
from aavs_jax.errors import UserError
from aavs_jax.inputs import features
from aavs_jax.inputs.batches import on_data, train_batches
from aavs_jax.methods import make_method
from aavs_jax.plan.stage import PhaseName, make_stage
from aavs_jax.plan.values import checked
from aavs_jax.run.logging_writer import LoggingWriter, read_metrics
from aavs_jax.state.sharding import make_mesh
from aavs_jax.state.tree import below
from configs import avss
from data_pipelines.loading.augment import CHANGES_OF_PICTURE

A, B = PhaseName("localise", "a"), PhaseName("localise", "b")
OUTSIDE = (r"decoder/.*", r"audio_proj/.*")


@pytest.fixture
def config(tiny_stage, data_dir):
    """The paper's two phases on S4's clips: five sounds to one labelled frame."""
    changes = {"data.augment.flip": 0.0, "data.sampling": "clip", "data.seconds": 5}
    stage = tiny_stage("localise", **changes, **{"data.subsets": ("v1s",), "data.batch_size": 2})
    phase = stage["phases"].pop("all") | {"trains": OUTSIDE, "epochs": 4.0}
    # Steps of next to nothing: what two compilations round otherwise is not to grow.
    phase["optimizer"] |= {"schedule": "constant", "warmup_steps": 0, "learning_rate": 1e-6}
    stage["order"] = ("a", "b")
    inside = (*OUTSIDE, "backbone/.*_adapter/.*")
    stage["phases"] = {"a": phase, "b": phase | {"start": "localise/a", "trains": inside}}
    config = avss.get_config().to_dict()
    config |= {"schedule": ("localise",), "stages": {"localise": stage}}
    config |= {"log_every": 1, "checkpoint_every": 2}
    config["data"] |= {"folder": str(data_dir), "embeddings": False}
    config["init"]["allow"] = (".*",)
    return json.loads(json.dumps(config))


def opened(config, data_dir, root, how="none"):
    config["stages"]["localise"]["data"]["features"] = how
    return on_data(make_stage(checked(config), "localise", root), data_dir, make_mesh())


class Interruption(Exception):
    pass


class Stopping:
    """Batches of a Grain iterator, as many as `left`."""

    def __init__(self, batches, left):
        self._batches, self._left = batches, left

    def __next__(self):
        if not self._left:
            raise Interruption
        self._left -= 1
        return next(self._batches)

    def get_state(self):
        return self._batches.get_state()

    def set_state(self, state):
        self._batches.set_state(state)

    async def save(self, directory):
        return await self._batches.save(directory)

    async def load(self, directory):
        return await self._batches.load(directory)


@pytest.fixture
def run_phase(config, data_dir, monkeypatch):
    """A function: folder, how features are kept, steps until it is killed -> losses by step."""
    steps = {}

    def once(stage, *arguments):
        """Compiling takes most of the time: a phase that resumes does without."""
        key = stage.keys["data"]["features"] == "none"
        step = steps[key] = steps.get(key) or make(stage, *arguments)
        return types.SimpleNamespace(lower=lambda *_: types.SimpleNamespace(compile=lambda: step))

    make = aavs_jax.train.make_train_step
    monkeypatch.setattr(aavs_jax.train, "make_train_step", once)

    def run(root, how, left=None):
        stage = opened(config, data_dir, root, how)
        stage = dataclasses.replace(stage, sources={"train": stage.sources["train"]})
        with pytest.MonkeyPatch.context() as patch, LoggingWriter(root) as writer:
            if left is not None:
                patch.setattr(
                    schedule, "train_batches", lambda *a: Stopping(train_batches(*a), left)
                )
                with pytest.raises(Interruption):
                    schedule._run_phase(stage, A, data_dir, "", writer)
            else:
                schedule._run_phase(stage, A, data_dir, "", writer)
        rows = read_metrics(root / "metrics.jsonl")
        return {row["step"]: row["loss"] for row in rows}

    return run


@pytest.mark.slow
def test_a_phase_goes_as_one_that_looks_at_frames(run_phase, tmp_path, capsys):
    """Also where it is killed, and resumes with its maps from elsewhere."""
    frames = run_phase(tmp_path / "frames", "none")
    assert "maps of" not in capsys.readouterr().out
    assert len(frames) >= 4
    run_phase(tmp_path / "maps", "memory", left=3)
    assert "[localise/a] takes maps of" in capsys.readouterr().out
    found = run_phase(tmp_path / "maps", "disk")
    said = capsys.readouterr().out
    assert "[localise/a] resumes from step 2" in said and "features" in said
    assert found.keys() == frames.keys()
    np.testing.assert_allclose(list(found.values()), list(frames.values()), rtol=1e-5)


@pytest.fixture
def parameters(config):
    return make_method(config["stages"]["localise"], 2).initial(3)


def test_memory_and_disk_keep_the_same_and_disk_for_the_next(
    config, data_dir, parameters, tmp_path, monkeypatch
):
    stage = opened(config, data_dir, tmp_path, "memory")
    here = features.for_phase(stage, A, parameters, data_dir)
    stage = opened(config, data_dir, tmp_path, "disk")
    there = features.for_phase(stage, A, parameters, data_dir)
    for index, clip in enumerate(stage.sources["train"].clips):
        assert clip.labelled == (0,)
        for one, two in zip(here[index, 0], there[index, 0], strict=True):
            assert one.any()
            np.testing.assert_array_equal(one, two)

    def refuse(*_):
        raise AssertionError("computed again")

    monkeypatch.setattr(features, "make_encode", refuse)
    again = features.for_phase(stage, A, parameters, data_dir)
    assert again._path == there._path
    # Trained or zero, the backbone's adapters are a part of it; what is behind it is not.
    behind = {p: v if p.startswith("backbone/") else v + 1 for p, v in parameters.items()}
    assert features.for_phase(stage, A, behind, data_dir)._path == there._path
    adapter = next(path for path in parameters if "_adapter/" in path)
    with pytest.raises(AssertionError, match="computed again"):
        changed = parameters | {adapter: parameters[adapter] + 1}
        features.for_phase(stage, A, changed, data_dir)


def test_what_decides_the_maps_is_part_of_their_name(config):
    stage = config["stages"]["localise"]

    def settings(**model):
        changed = stage | {"model": stage["model"] | model}
        return make_method(changed, 2).frame_encoder.settings

    backbone = stage["model"]["backbone"]
    dropping = backbone | {"drop_path_rate": 0.3}
    assert settings() == settings(num_queries=5) == settings(backbone=dropping)
    windows = settings(backbone=backbone | {"window_size": 4})
    assert len({settings(), settings(dtype="bfloat16"), windows}) == 3


def test_maps_have_the_shapes_that_are_said_at_any_size(config, parameters):
    config["stages"]["localise"]["data"]["image_size"] = 50
    encoder = make_method(config["stages"]["localise"], 2).frame_encoder
    encode = features.make_encode(encoder, below(parameters, encoder.prefix))
    maps = encode(np.zeros((3, 50, 50, 3), np.uint8))
    assert [each.shape for each in maps] == [(3, *shape) for shape in encoder.shapes]
    assert all(each.dtype == np.float32 for each in maps)


def test_a_phase_that_trains_inside_the_backbone_looks_at_frames(
    config, data_dir, parameters, tmp_path, capsys
):
    stage = opened(config, data_dir, tmp_path, "memory")
    assert features.for_phase(stage, B, parameters, data_dir) is None
    said = capsys.readouterr().out
    assert said == ("[localise/b] trains inside the backbone: computes its maps at every step\n")
    # Nor is there any budget to keep where all phases do.
    keys = config["stages"]["localise"]
    keys["data"]["features_gib"] = 1e-9
    keys["phases"]["a"]["trains"] = [".*"]
    features.check_room(opened(config, data_dir, tmp_path, "memory"))


def test_one_picture_is_given_once_unless_as_published(config, data_dir, tmp_path):
    def shapes(stage):
        batch = next(train_batches(stage, 0))
        return {name: batch[name].shape[:2] for name in stage.method.entries}

    many = dict.fromkeys(("audio", "labels", "labelled", "valid"), (2, 5))
    stage = opened(config, data_dir, tmp_path)
    assert shapes(stage) == many | {"frames": (2, 1)}
    other = dataclasses.replace(stage.method, stills=False)
    assert shapes(dataclasses.replace(stage, method=other)) == many | {"frames": (2, 5)}
    config["as_published"] = True
    assert shapes(opened(config, data_dir, tmp_path)) == many | {"frames": (2, 5)}


# ---- what cannot be


def refused(config, data_dir, root, how="memory"):
    """The one sentence that is said before anything is computed."""
    with pytest.raises(UserError) as error:
        stage = opened(config, data_dir, root, how)
        checks.before_data([stage])
        checks.with_data([stage])
    said = str(error.value)
    assert "\n" not in said and "config.stages.localise.data" in said
    return said


def test_drop_path(config, data_dir, tmp_path):
    config["stages"]["localise"]["model"]["backbone"]["drop_path_rate"] = 0.3
    said = refused(config, data_dir, tmp_path)
    assert "--config.stages.localise.model.backbone.drop_path_rate=0.0" in said
    opened(config, data_dir, tmp_path, "none")


@pytest.mark.parametrize("name", CHANGES_OF_PICTURE)
def test_pictures_that_change(config, data_dir, tmp_path, name):
    augment = config["stages"]["localise"]["data"]["augment"]
    if name == "flip":
        augment["flip"] = 0.5
    else:
        augment[name]["probability"] = 0.5
    assert f"augment.{name} changes pictures" in refused(config, data_dir, tmp_path)


def test_a_method_without_maps(config, data_dir, tmp_path, monkeypatch):
    stage = opened(config, data_dir, tmp_path, "disk")
    stage = dataclasses.replace(stage, method=dataclasses.replace(stage.method, frame_encoder=None))
    with pytest.raises(UserError, match=r"the method aavs has no part .*data\.features=none"):
        checks.before_data([stage])


def test_each_worker_would_keep_its_own(config, data_dir, tmp_path):
    config["data"]["num_workers"] = 2
    assert "--config.data.num_workers=0" in refused(config, data_dir, tmp_path)
    checks.before_data([opened(config, data_dir, tmp_path, "disk")])


def test_more_than_the_budget(config, data_dir, tmp_path):
    stage = opened(config, data_dir, tmp_path, "disk")
    clips = len(stage.sources["train"])
    gib = clips * 4 * (8 * 8 * 8 + 4 * 4 * 16 + 2 * 2 * 32 + 64) / 2**30
    keys = config["stages"]["localise"]["data"]
    keys["features_gib"] = 0.999 * gib
    said = refused(config, data_dir, tmp_path, "disk")
    assert f"the maps of {clips} training frames take {gib:.3g} GiB" in said
    assert "--config.stages.localise.data.features_gib" in said
    keys["features_gib"] = 1.001 * gib
    checks.with_data([opened(config, data_dir, tmp_path, "disk")])


def test_no_room_on_the_disk_or_in_memory(config, data_dir, parameters, tmp_path, monkeypatch):
    monkeypatch.setattr(
        features.features.shutil, "disk_usage", lambda _: types.SimpleNamespace(free=9)
    )
    parameters = {path: value + 1 for path, value in parameters.items()}
    stage = opened(config, data_dir, tmp_path, "disk")
    with pytest.raises(UserError, match=r"cannot write .* \(No space left.*features=none$"):
        features.for_phase(stage, A, parameters, data_dir)

    def full(*_, **__):
        raise MemoryError

    monkeypatch.setattr(features.features, "in_memory", full)
    stage = opened(config, data_dir, tmp_path, "memory")
    with pytest.raises(UserError, match=r"not enough memory for .*data\.features=disk, or none"):
        features.for_phase(stage, A, parameters, data_dir)
