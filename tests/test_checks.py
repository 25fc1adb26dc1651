"""What is said of data before training: no second stage for one class, few clips, other subsets."""

import shutil

import numpy as np
import pytest
import soundfile
from PIL import Image

from aavs_jax import checks
from aavs_jax.errors import UserError
from aavs_jax.inputs.batches import open_split
from configs import avss, avss_end_to_end, s4
from data_pipelines.prepare import prepare
from data_pipelines.prepared.source import fingerprint, open_source


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


def test_one_class_is_one_question(one_class, capsys):
    config = avss.get_config(f"{one_class},small").to_dict()
    assert checks.without_repeated_question(config, one_class)["schedule"] == ("localise",)
    said = capsys.readouterr().out
    assert "[understand] is left out: the labels tell one class besides background" in said
    # Asked alone, it is asked.
    config = avss_end_to_end.get_config(f"{one_class},small").to_dict()
    assert checks.without_repeated_question(config, one_class)["schedule"] == ("understand",)


def test_few_clips_and_batches_larger_than_the_data_are_remarked_on(one_class):
    stage = avss.get_config().stages.localise.to_dict()
    train = open_source(one_class, "train")
    few, large = checks.remarks(stage, train)
    clips = len(train)
    assert f"trains on {clips} clip" in few
    assert f"a batch of 20 is larger than the training split of {clips}" in large


def test_subsets_that_are_not_there_are_explained(one_class):
    stage = s4.get_config(f"{one_class},small").stages.localise.to_dict()
    with pytest.raises(UserError) as error:
        open_split(one_class, "train", stage)
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
