"""Which clips a network does not see, and the stages that this makes."""

import types
from pathlib import Path

import pytest

from aavs_jax.plan.folds import fold_names, part_of, split_by, with_writers
from aavs_jax.plan.stage import PhaseName, Stage
from aavs_jax.plan.values import checked
from configs import avss
from data_pipelines.prepared.source import Clip


def clip(uid: str) -> Clip:
    return Clip("v2", uid, 10, (0,), (1,))


def test_every_clip_is_unseen_by_one_network():
    clips = [clip(f"{number:011}_0_10000") for number in range(200)]
    parts = [split_by(clips, fold, 4) for fold in (1, 2, 3, 4)]
    names = sorted(name for _, unseen in parts for name in unseen)
    assert names == sorted(each.name for each in clips)
    for seen, unseen in parts:
        assert seen | unseen == set(names) and not seen & unseen
        assert 30 < len(unseen) < 70  # four standard deviations


@pytest.mark.parametrize(
    "uids",
    [
        ("abcdefghijk_0_5000", "abcdefghijk_5000_10000", "abcdefghijk_0"),
        ("a_1_2_3_4_5_16000_26000", "a_1_2_3_4_5_0_10000"),  # of 11 characters, digits among them
    ],
)
def test_videos_are_never_split(uids):
    for folds in range(2, 12):
        assert len({part_of(clip(uid), folds) for uid in uids}) == 1


def test_other_names_are_taken_whole():
    assert len({part_of(clip(f"dog_{number}"), 50) for number in range(50)}) > 10


def test_stages_of_the_parts():
    config = avss.get_config()
    config.stages.localise.folds, config.stages.localise.earlier = 2, 0.0
    config.stages.understand.prior.train = "crossfit"
    config.stages.localise.order = ("all", "more")
    config.stages.localise.phases.more = (
        config.stages.localise.phases.all.copy_and_resolve_references()
    )
    config.stages.localise.phases.more.start = "localise/all"
    config.stages.understand.phases.all.start = "localise/more"
    plain = checked(config)
    full = with_writers(plain)
    assert full["schedule"] == ("localise", "localise_fold1", "localise_fold2", "understand")
    assert fold_names(plain, "localise") == full["schedule"][1:3]
    for number, name in enumerate(full["schedule"][1:3], 1):
        stage = full["stages"][name]
        assert stage["fold"] == number and stage["writes_for"] == "localise"
        assert stage["phases"]["all"]["start"] == "nothing"
        assert stage["phases"]["more"]["start"] == f"{name}/all"  # of its own, not of the whole
        same = {**stage, "phases": None, "fold": None, "writes_for": None}
        whole = {**plain["stages"]["localise"], "phases": None, "fold": None, "writes_for": None}
        assert same == whole
    assert full["stages"]["understand"] == plain["stages"]["understand"]
    assert with_writers({**plain, "schedule": ("understand",)})["schedule"] == ("understand",)


def test_an_earlier_checkpoint_is_a_stage_that_trains_nothing():
    config = avss.get_config()
    full = with_writers(checked(config))
    assert full["schedule"] == ("localise", "localise_earlier", "understand")
    keys = full["stages"]["localise_earlier"]
    assert keys["order"] == () and keys["writes_for"] == "localise" and "fold" not in keys
    root = Path("run")
    localise, writer, understand = (Stage(n, full, root, None) for n in full["schedule"])
    assert not localise.writes_for and writer.writes_for == "localise" and writer.soft_is_wanted
    # Of new clips the whole network tells where it sounds.
    assert understand.prior_in_training == "predicted"
    assert understand.training_masks(None) == root / "localise_earlier" / "masks-soft"
    assert understand.masks_from == root / "localise" / "masks-soft"
    # Where nobody trains on its masks, nobody writes them.
    config.stages.understand.prior.train = "predicted"
    assert with_writers(checked(config))["schedule"] == ("localise", "understand")


@pytest.mark.parametrize(("earlier", "step"), [(0.0, 0), (0.01, 1), (0.5, 12), (1.0, 24)])
def test_the_step_that_is_kept_is_one_of_the_last_phase(earlier, step):
    phases = {name: {"epochs": 4.0} for name in ("a", "b")}
    keys = {"earlier": earlier, "order": ("a", "b"), "phases": phases, "data": {"batch_size": 4}}
    clips = types.SimpleNamespace(clips=[clip(str(number)) for number in range(24)])
    stage = Stage("x", {"stages": {"x": keys}}, Path("run"), None, {"train": clips})
    assert stage.earlier_step(PhaseName("x", "a")) == 0
    assert stage.earlier_step(PhaseName("x", "b")) == step


def test_the_networks_of_the_parts_keep_no_earlier_checkpoint():
    config = avss.get_config()
    config.stages.localise.folds, config.stages.localise.earlier = 2, 0.5
    stages = with_writers(checked(config))["stages"]
    assert [stages[f"localise{end}"]["earlier"] for end in ("", "_fold1", "_fold2")] == [0.5, 0, 0]
