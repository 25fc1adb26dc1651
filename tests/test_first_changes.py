"""docs/first_changes.md, executed from top to bottom as a reader would."""

import importlib.util
import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

from aavs_jax.methods.objectives import set_prediction
from aavs_jax.run.logging_writer import read_metrics

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
# A file with its name before it; a change; a command.
STEPS = re.compile(
    r"`(?P<name>\w+\.py)`:\n\n```python\n(?P<file>.*?)```"
    r"|```diff\n(?P<change>.*?)```"
    r"|^    python -m aavs_jax\.main (?P<command>[^\n]*)$",
    re.DOTALL | re.MULTILINE,
)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory, command, tiny_flags):
    """A copy of the packages, the page followed."""
    text = (ROOT / "docs/first_changes.md").read_text()
    sizes = tiny_flags(("localise",), epochs=3.0)
    folder = tmp_path_factory.mktemp("first_changes")
    for package in ("aavs_jax", "configs", "data_pipelines"):
        shutil.copytree(ROOT / package, folder / package)
    done = []
    for step in STEPS.finditer(text):
        done += [key for key in ("name", "change", "command") if step[key]]
        if step["name"]:
            (folder / step["name"]).write_text(step["file"])
        elif step["change"]:
            replace(folder / "aavs_jax/methods/objectives/set_prediction.py", step["change"])
        else:
            words = shlex.split(step["command"])
            mine = "my_network" in step["command"]  # whose sizes and loss are its own
            flags = [f for f in sizes if not (mine and (".model." in f or ".loss." in f))]
            command(*words, *flags, cwd=folder)
    assert done == [
        *("name", "command", "change", "command"),
        *("name", "name", "command", "command"),
    ]
    return folder


def replace(path: Path, change: str) -> None:
    """Applies a change of - and + lines, which has to fit in one place."""
    old, new = (
        "".join(line[1:] for line in change.splitlines(True) if line[0] == sign) for sign in "-+"
    )
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


def test_a_config_of_ones_own(checkout):
    config = json.loads((checkout / "runs/network/config.json").read_text())["config"]
    stage = config["stages"]["localise"]
    assert config["schedule"] == ["localise"] and stage["data"]["augment"]["flip"] == 0
    assert stage["phases"]["all"]["optimizer"]["learning_rate"] == 5e-4


def test_a_new_loss(checkout):
    """Of what is wrong about as much is left, and of what is right next to nothing."""
    spec = importlib.util.spec_from_file_location(
        "changed", checkout / "aavs_jax/methods/objectives/set_prediction.py"
    )
    changed = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(changed)
    logits, truth = np.float32([[3.0] * 4, [-3.0] * 4]), np.float32([1.0] * 4)
    (right, wrong), dice = changed._pair_losses(logits, truth, None)
    (plain_right, plain_wrong), plain_dice = set_prediction._pair_losses(logits, truth, None)
    assert 0 < right < 0.01 * plain_right and 0.9 * plain_wrong < wrong < plain_wrong
    np.testing.assert_array_equal(dice, plain_dice)


def test_a_new_network(checkout):
    run = checkout / "runs/network"
    lines = [line for line in read_metrics(run / "metrics.jsonl") if line["kind"] == "train"]
    assert lines and all(line["loss"] == line["loss/pixels"] > 0 for line in lines)
    rows = json.loads((run / "results.json").read_text())
    assert {row["sound"] for row in rows} == {"right", "other", "silence"}
    assert {row["metric"] for row in rows} == {"J", "F", "J&F"}
    assert (run / "report/index.html").exists()


def test_every_command(checkout):
    runs = checkout / "runs"
    for name in ("mine", "focal", "network"):
        assert (runs / name / "report/index.html").exists()
    plain, focal = (read_metrics(runs / name / "metrics.jsonl")[0] for name in ("mine", "focal"))
    assert 0 < focal["loss/mask"] < plain["loss/mask"]
    for term in ("loss/class", "loss/dice"):  # before the first step the same
        assert focal[term] == pytest.approx(plain[term], rel=1e-5)
