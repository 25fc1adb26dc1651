"""What is said of data before training: no second stage for one class, few clips, other subsets."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from aavs_jax import checks
from aavs_jax.compare import budget
from aavs_jax.errors import UserError
from aavs_jax.inputs.batches import on_data
from aavs_jax.plan.folds import with_writers
from aavs_jax.plan.questions import without_repeated_question
from aavs_jax.plan.stage import make_stages
from aavs_jax.schedule import _without_repeated_question
from aavs_jax.state.sharding import make_mesh
from configs import avss, avss_end_to_end, s4
from data_pipelines.prepare import prepare
from data_pipelines.prepared.source import fingerprint


@pytest.fixture(scope="module")
def one_class(tmp_path_factory):
    """A prepared folder of someone's own, whose labels are black and white: three clips."""
    root = tmp_path_factory.mktemp("own") / "mine"
    rng = np.random.default_rng(0)
    for name in "abc":
        for folder in ("frames", "labels"):
            (root / name / folder).mkdir(parents=True)
        for second in range(2):
            frame = rng.integers(0, 256, (16, 16, 3), np.uint8)
            Image.fromarray(frame).save(root / name / "frames" / f"{second}.jpg")
            label = np.zeros((16, 16), np.uint8)
            label[4:9, 4:9] = 255
            Image.fromarray(label).save(root / name / "labels" / f"{second}.png")
        soundfile.write(root / name / "audio.wav", rng.normal(size=32000) * 0.1, 16000)
    out = root.parent / "prepared"
    prepare(root, out, progress=False)
    return out


def stages_of(module, data_dir, **keys):
    config = module.get_config(f"{data_dir},small")
    config.update_from_flattened_dict(keys)
    stages = make_stages(with_writers(config.to_dict()), Path("unused"))
    return [on_data(stage, data_dir, make_mesh()) for stage in stages]


def test_one_class_is_one_question(one_class, capsys):
    stages = stages_of(avss, one_class)
    (kept,) = _without_repeated_question(stages)
    assert kept.name == "localise" and kept.config["schedule"] == ("localise",)
    said = capsys.readouterr().out
    assert "[understand] is left out: the labels tell one class besides background" in said
    # Asked alone, it is asked.
    stages = stages_of(avss_end_to_end, one_class)
    assert [stage.name for stage in _without_repeated_question(stages)] == ["understand"]


def test_what_only_writes_masks_for_a_stage_that_is_left_out_is_left_out(one_class):
    earlier = {"stages.localise.earlier": 0.5, "stages.understand.prior.train": "earlier"}
    stages = stages_of(avss, one_class, **earlier)
    assert [s.name for s in stages] == ["localise", "localise_earlier", "understand"]
    assert [s.name for s in without_repeated_question(stages)] == ["localise"]
    # Nor does it count as training.
    values = avss.get_config(f"{one_class},small").to_dict()
    assert [part.name.stage for part in budget.parts(values, one_class)] == ["localise"]


def test_few_clips_and_batches_larger_than_the_data_are_remarked_on(one_class):
    stage = stages_of(avss, one_class)[0]
    few, large = checks.remarks(stage)
    clips = len(stage.sources["train"])
    assert f"trains on {clips} clip" in few
    assert f"a batch of 20 is larger than the training split of {clips}" in large


def test_subsets_that_are_not_there_are_explained(one_class):
    with pytest.raises(UserError) as error:
        stages_of(s4, one_class)
    for word in (
        "clips of v1s (AVSBench's S4) only",
        "has clips",
        "--config=configs/binary.py:FOL",
    ):
        assert word in str(error.value)


def test_the_fingerprint_is_of_the_content_and_not_of_the_place(one_class, tmp_path):
    moved = shutil.copytree(one_class, tmp_path / "moved")
    assert fingerprint(moved) == fingerprint(one_class)
    # A label that changed, which no table tells.
    raw = shutil.copytree(one_class.parent / "mine", tmp_path / "mine")
    prepare(raw, tmp_path / "same", progress=False)
    label = raw / "a" / "labels" / "0.png"
    Image.fromarray(np.asarray(Image.open(label))[::-1]).save(label)
    prepare(raw, tmp_path / "other", progress=False)
    prints = [fingerprint(tmp_path / name) for name in ("same", "other")]
    assert len(set(prints)) == 2
