"""Which clips a network does not see, and the stages that this makes."""

import pytest

from aavs_jax.plan.folds import fold_names, part_of, split_by, with_writers
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
    config.stages.localise.folds = 2
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
    config.stages.localise.earlier = 16.0
    config.stages.understand.prior.train = "earlier"
    full = with_writers(checked(config))
    assert full["schedule"] == ("localise", "localise_earlier", "understand")
    stage = full["stages"]["localise_earlier"]
    assert stage["order"] == () and stage["writes_for"] == "localise" and "fold" not in stage
