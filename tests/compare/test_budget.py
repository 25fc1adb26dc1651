"""How long each run trains."""

import pytest

from aavs_jax.compare import budget
from aavs_jax.compare.systems import find
from aavs_jax.errors import UserError


def system(name, data, *overrides):
    return find([name], str(data), overrides)[0]


@pytest.mark.parametrize("text", ["frames=2000", "minutes=1.5", "recipe"])
def test_a_budget_is_read_as_it_is_written(text):
    assert str(budget.parse(text)) == text


@pytest.mark.parametrize(
    "text", ["frames", "frames=", "frames=0", "minutes=-1", "minutes=nan", "epochs=3", "recipe=1"]
)
def test_what_is_no_budget_is_refused(text):
    with pytest.raises(UserError, match=r"is no budget.*recipe, frames=N or minutes=M"):
        budget.parse(text)


def test_frames_of_a_recipe(data):
    # Six training clips: 24 and 40 epochs are 7.2 and 12 steps of 20 random seconds.
    parts = budget.parts(system("avss", data).values(), data)
    assert [(str(p.name), p.steps, p.frames) for p in parts] == [
        ("localise/all", 7, 20.0),
        ("understand/all", 12, 20.0),
    ]
    assert budget.frames(parts) == 380


def test_clips_that_are_seen_whole_count_by_their_seconds(data):
    # 5, 5 and 10 seconds in turn, of which 8 at most are seen.
    flags = ["--config.stages.understand.data.sampling=film"]
    flags += ["--config.stages.understand.data.seconds=8"]
    (part,) = budget.parts(system("tpavi", data, *flags).values(), data)
    assert part.frames == pytest.approx(20 * (5 + 5 + 8) / 3)


def test_networks_of_folds_are_trained_too(data):
    values = system("avss", data, "--config.stages.localise.folds=2").values()
    parts = budget.parts(values, data)
    names = [part.name.stage for part in parts]
    assert names == ["localise", "localise_fold1", "localise_fold2", "understand"]
    assert parts[1].steps + parts[2].steps == pytest.approx(parts[0].steps, abs=1)


@pytest.mark.parametrize("name", ["avss", "avss_end_to_end", "tpavi_stepping_stones", "cavp"])
def test_frames_are_equal_whatever_the_recipe(data, name):
    chosen = system(name, data)
    before = budget.parts(chosen.values(), data)
    factor = budget.factor(budget.parse("frames=8000"), before, {})
    after = budget.parts(chosen.values(*budget.overrides(chosen.values(), factor)), data)
    # Whole steps: half a batch off in each phase, at most.
    assert budget.frames(after) == pytest.approx(8000, abs=10 * len(after))
    shares = [part.unrounded / sum(p.unrounded for p in before) for part in before]
    assert [part.steps * part.frames / 8000 for part in after] == pytest.approx(shares, abs=0.01)


def test_there_are_as_many_validations_as_in_the_recipe(data):
    values = system("avss", data).values()
    flags = budget.overrides(values, 0.5)
    assert flags == [
        f"--config.stages.{stage}.phases.all.{key}"
        for stage, epochs in (("localise", 12), ("understand", 20))
        for key in (f"epochs={epochs}", "validate_every_epochs=4")
    ]
    assert budget.overrides(values, 1) == []


def test_minutes_are_shared_as_steps_are(data):
    parts = budget.parts(system("avss", data).values(), data)
    # 7.2 steps of 2 s and 12 of 3.8 s are a minute.
    seconds = {"localise/all": 2.0, "understand/all": 3.8}
    assert budget.factor(budget.parse("minutes=3"), parts, seconds) == pytest.approx(3)


def test_a_pilot_has_so_many_steps_in_each_phase(data):
    chosen = system("avss", data, "--config.stages.localise.phases.all.epochs=100")
    flags = budget.pilot(budget.parts(chosen.values(), data), chosen.values(), 60)
    values = chosen.values(*flags)
    assert [part.steps for part in budget.parts(values, data)] == [60, 60]
    assert values["eval"]["protocols"] == "stepping_stones"


def test_a_config_that_gives_epochs_of_all_stages_is_held_to_the_budget(data, tmp_path):
    path = tmp_path / "long.py"
    path.write_text(
        "from configs import avss\n\n\ndef get_config(argument=''):\n"
        "    config = avss.get_config(argument)\n    config.epochs = 64.0\n    return config\n"
    )
    chosen = system(str(path), data)
    values = chosen.values()
    parts = budget.parts(values, data)
    wanted = budget.parse("frames=400")
    flags = budget.overrides(values, budget.factor(wanted, parts, {}))
    assert budget.frames(budget.parts(chosen.values(*flags), data)) == pytest.approx(400, abs=20)
    timed = chosen.values(*budget.pilot(parts, values, 6))
    assert [part.steps for part in budget.parts(timed, data)] == [6, 6]
