"""Which configs are compared, and by which commands."""

import json
import shlex

import pytest

from aavs_jax.compare.systems import BUILT_IN, find, make_runs
from aavs_jax.errors import UserError


def test_built_in_data_need_no_argument():
    first, second = find(["avss", "avss_joint:,shared"], BUILT_IN, [])
    assert (first.name, first.config) == ("avss", "configs/avss.py")
    assert (second.name, second.config) == ("avss_joint-shared", "configs/avss_joint.py:,shared")
    assert second.values()["schedule"] == ("together",)


def test_a_folder_is_given_to_all_in_their_small_form():
    found = find(["avss", "tpavi:,ms3"], "/data/mine", [])
    assert [system.config for system in found] == [
        "configs/avss.py:/data/mine,small",
        "configs/tpavi.py:/data/mine,ms3,small",
    ]
    assert found[1].values()["data"]["folder"] == "/data/mine"


def test_a_file_of_ones_own(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("from configs import avss_end_to_end as f\nget_config = f.get_config\n")
    (system,) = find([str(path)], BUILT_IN, ["--config.data.clips=20"])
    assert system.name == "mine" and system.values()["data"]["clips"] == 20


@pytest.mark.parametrize(
    ("names", "overrides", "said"),
    [
        (["avs"], [], "--configs has avs, and there is no file .*avs.py: give names"),
        (["avss", "avss"], [], "two of the name avss"),
        (["avss:/data/x"], [], "with a data folder: give it with --data"),
        (["avss"], ["--config.sed=1"], "configs/avss.py: .*sed"),
        (["avss"], ["--config.log_every=0"], "configs/avss.py: config.log_every is 0"),
    ],
)
def test_mistakes(names, overrides, said):
    with pytest.raises(UserError, match=said):
        find(names, BUILT_IN, overrides)


def test_runs_are_ordinary_commands(tmp_path):
    systems = find(["avss", "tpavi"], BUILT_IN, ["--config.log_every=5"])
    runs = make_runs(systems, [1, 2], tmp_path, {"avss": [], "tpavi": ["--config.epochs=2"]})
    assert [run.name for run in runs] == [
        *("avss, seed 1", "tpavi, seed 1", "avss, seed 2", "tpavi, seed 2"),
    ]
    assert len({run.folder.parent for run in runs}) == 1  # so that they share their data
    words = shlex.split(runs[3].command)
    assert words[:3] == ["python", "-m", "aavs_jax.main"]
    assert words[3:] == [
        "--config=configs/tpavi.py",
        f"--workdir={tmp_path}/tpavi-seed2",
        "--config.eval.protocols=all",
        "--config.log_every=5",
        "--config.seed=2",
        "--config.epochs=2",
    ]
    assert runs[3].values["stages"]["understand"]["phases"]["all"]["epochs"] == 2


def test_a_run_is_complete_with_the_scores_of_its_own_config(tmp_path):
    systems = find(["avss"], BUILT_IN, [])
    (run,) = make_runs(systems, [1], tmp_path, {"avss": []})
    assert not run.is_complete
    run.folder.mkdir()
    (run.folder / "config.json").write_text(json.dumps({"config": run.values}))
    assert not run.is_complete
    (run.folder / "results.json").write_text("[]")
    assert run.is_complete
    (other,) = make_runs(systems, [1], tmp_path, {"avss": ["--config.epochs=2"]})
    assert not other.is_complete
