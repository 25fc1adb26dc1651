"""What may change in the config of a run that is taken up again."""

import json

import pytest

from aavs_jax.errors import UserError
from aavs_jax.run.resuming import compare, forget_scores
from aavs_jax.run.workdir import Workdir
from configs import avss, avss_end_to_end, binary


@pytest.fixture
def before():
    return changed(None)


def changed(before, **changes):
    config = avss.get_config()
    config.stages.understand.prior.train = "predicted"
    config.update_from_flattened_dict(changes)
    return json.loads(json.dumps(config.to_dict()))


@pytest.fixture
def run(tmp_path):
    """A run that is complete."""
    for stage in ("localise", "understand"):
        (tmp_path / stage / "all" / "checkpoints" / "7").mkdir(parents=True)
        (tmp_path / stage / "masks").mkdir()
        (tmp_path / stage / "results.json").write_text("[]")
    (tmp_path / "results.json").write_text("[]")
    return tmp_path


def left(root):
    return {str(path.relative_to(root)) for path in root.rglob("results.json")}


def test_nothing_has_changed(before, run):
    changes = compare(before, before, run)
    assert not changes.refused and not changes.said and not changes.anew


@pytest.mark.parametrize(
    "change",
    [
        {"data.cache": False},
        {"data.num_workers": 3},
        {"checkpoint_every": 3},
        {"log_every": 3},
        {"stages.localise.data.features_gib": 30.0},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_changes_no_score_is_not_worth_a_word(change, before, run):
    changes = compare(before, changed(before, **change), run)
    assert not changes.refused and not changes.said


def test_maps_of_frames_may_be_kept_elsewhere(before, run):
    """As where the disk was found to be too small."""
    changes = compare(before, changed(before, **{"stages.localise.data.features": "disk"}), run)
    assert not changes.refused and not changes.anew
    assert changes.said[0].startswith("stages.localise.data.features was 'none', is 'disk': ")


def test_protocols_change_scores_alone(before, run):
    changes = compare(before, changed(before, **{"eval.protocols": "all"}), run)
    assert "eval.protocols was 'stepping_stones', is 'all': scores are computed" in changes.said[0]
    assert (changes.stages, changes.rewritten) == ({"localise", "understand"}, set())
    forget_scores(run, changes)
    assert not left(run) and (run / "localise" / "masks").is_dir()


EPOCHS = "stages.{}.phases.all.epochs"


def test_the_last_phase_gets_more_epochs(before, run):
    changes = compare(before, changed(before, **{EPOCHS.format("understand"): 48.0}), run)
    assert "understand/all resumes from its last state, with the learning rates of 48" in str(
        changes
    )
    forget_scores(run, changes)
    assert left(run) == {"localise/results.json"}
    assert (run / "localise" / "masks").is_dir() and not (run / "understand" / "masks").exists()


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({EPOCHS.format("localise"): 40.0}, "localise.phases.all.epochs"),  # handed on already
        ({EPOCHS.format("understand"): 30.0}, "understand.phases.all.epochs"),  # taken already
        ({"seed": 1}, "seed was 3407, is 1"),
        ({"stages.localise.phases.all.optimizer.learning_rate": 0.1}, "learning_rate"),
        ({"stages.localise.data.max_targets": 3}, "max_targets"),
        ({"data.folder": "/x", "seed": 1}, "data.folder was '', is '/x' and 1 more"),
        ({"schedule": ("understand",)}, "schedule"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_was_trained_cannot_change(before, run, changes, word):
    assert word in compare(before, changed(before, **changes), run).refused


def test_a_stage_whose_earlier_network_writes_masks_has_its_epochs(before, tmp_path):
    (tmp_path / "localise" / "all").mkdir(parents=True)
    longer = {EPOCHS.format("localise"): 48.0}
    taken = {"stages.understand.prior.train": "earlier"}
    found = compare(changed(before, **taken), changed(before, **taken, **longer), tmp_path)
    assert "phases.all.epochs was 24" in found.refused
    # Where nobody takes them it may go on: here none does, and there none is in the schedule.
    alone = {**taken, "schedule": ("localise",)}
    for keys in ({}, alone):
        now = changed(before, **keys, **longer)
        assert not compare(changed(before, **keys), now, tmp_path).refused


def test_max_targets_may_grow(before, run):
    changes = compare(before, changed(before, **{"stages.localise.data.max_targets": 10}), run)
    assert not changes.refused and not changes.stages


def test_what_has_not_begun_may_change(before, tmp_path):
    (tmp_path / "localise" / "all").mkdir(parents=True)
    key = "stages.{}.phases.all.optimizer.learning_rate"
    assert not compare(before, changed(before, **{key.format("understand"): 0.1}), tmp_path).refused
    assert compare(before, changed(before, **{key.format("localise"): 0.1}), tmp_path).refused
    # And what is being trained may train for longer.
    longer = compare(before, changed(before, **{EPOCHS.format("localise"): 40.0}), tmp_path)
    assert not longer.refused and longer.stages == {"localise"}


def test_a_stage_may_be_added(before, run):
    first = changed(before, schedule=("localise",))
    changes = compare(first, before, run)
    assert not changes.refused and changes.anew and not changes.stages


def test_the_folder_of_a_run_does_as_is_said(before, run, capsys):
    (run / "config.json").write_text(json.dumps({"config": before, "versions": {}, "processes": 1}))
    with Workdir(run, changed(before, **{"eval.protocols": "cavp"}), "avss") as workdir:
        assert workdir.record["config"]["eval"]["protocols"] == "cavp"
    assert "scores are computed again" in capsys.readouterr().out
    assert not left(run)
    assert json.loads((run / "config.json").read_text())["config"]["eval"]["protocols"] == "cavp"
    with pytest.raises(UserError, match="what was trained with it cannot change: choose another"):
        with Workdir(run, changed(before, seed=1), "avss"):
            pass


def test_another_config_is_refused(before, run):
    """Keys that only one of them has have no order."""
    for other in (avss_end_to_end, binary):
        config = json.loads(json.dumps(other.get_config().to_dict()))
        assert compare(before, config, run).refused and compare(config, before, run).refused
    more = changed(before)
    more["stages"]["understand"]["phases"]["more"] = more["stages"]["understand"]["phases"]["all"]
    assert compare(before, more, run).refused


def test_networks_that_only_write_masks_are_stages_of_a_run(before, tmp_path):
    """Their phases have the epochs of the stage that they write for; they have scores, too."""
    folds = {"stages.localise.folds": 2}
    before = changed(before, **folds)
    longer = changed(before, **folds, **{EPOCHS.format("localise"): 40.0})
    (tmp_path / "localise" / "all").mkdir(parents=True)
    assert not compare(before, longer, tmp_path).refused
    (tmp_path / "localise_fold1").mkdir()
    (tmp_path / "localise_fold1" / "results.json").write_text("[]")
    assert EPOCHS.format("localise") in compare(before, longer, tmp_path).refused
    scored = compare(before, changed(before, **folds, **{"eval.protocols": "all"}), tmp_path)
    assert scored.stages == {"localise_fold1"}
