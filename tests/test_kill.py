"""kill -9 at any moment, the same command again: the figures of a run that nobody disturbed.

The moments at which things change hands lie fractions of a millisecond apart. To hit them the
process kills itself (`start` in conftest.py), with the signal that cannot be caught.
"""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from aavs_jax.weights.keeping import best_parameters

# What is under way -> the change to the file system before which the process dies, and which of
# several like it; in the order in which a run comes to them.
DATA = {
    "a clip is drawn": (r"^open \S*/\.raw\.partial/v1m/\S*\.jpg w", 3),
    "the drawn clips get their name": (r"^os\.rename \S*/\.raw\.partial \S*/raw$", 1),
    "array_record is written": (r"^open \S*/incomplete\.\S*/metadata\.json w", 1),
    "the prepared data get their name": (r"^os\.rename \S*/incomplete\.\S* ", 1),
}
PHASE = {
    "has begun": (r"^os\.mkdir \S*/STAGE/all/checkpoints ", 1),
    "names its first checkpoint": (r"^os\.rename \S* \S*/STAGE/all/checkpoints/9$", 1),
    "writes its second checkpoint": (r"^open \S*/STAGE/all/checkpoints/18\.\S*/_METADATA w", 1),
    "names its second checkpoint": (r"^os\.rename \S* \S*/STAGE/all/checkpoints/18$", 1),
    "drops its first checkpoint": (r"^shutil\.rmtree \S*/STAGE/all/checkpoints/9 ", 1),
    "names its last checkpoint": (r"^os\.rename \S* \S*/STAGE/all/checkpoints/36$", 1),
}
LOCALISE, UNDERSTAND = (
    {f"{stage} {what}": (at.replace("STAGE", stage), nth) for what, (at, nth) in PHASE.items()}
    for stage in ("localise", "understand")
)
HAND_OVER = {
    "the best of localise is read": (r"^open \S*/localise/all/checkpoints/\d+/metrics/\S* r", 1),
    "masks are written": (r"^open \S*/localise/masks\.partial/\S*\.png w", 25),
    "the masks get their name": (r"^os\.rename \S*/masks\.partial ", 1),
    "the masks have their name": (r"^open \S*/localise/\.results\.json\.partial w", 1),
    "the rows of localise get their name": (r"^os\.rename \S* \S*/localise/results\.json$", 1),
    "localise is complete": (r"^os\.mkdir \S*/localise_earlier", 1),
    "an earlier network writes masks": (
        r"^open \S*/localise_earlier/masks-soft\.partial/\S*g w",
        25,
    ),
    "the rows of that get their name": (r"^os\.rename \S* \S*/localise_earlier/results\.json$", 1),
    "all masks are there": (r"^os\.mkdir \S*/understand", 1),
}
END = {
    "half of the last figures are there": (r"^os\.rename \S* \S*/understand/examples/right-t", 1),
    "the report gets its name": (r"^os\.rename \S* \S*/report/index\.html$", 1),
    "the figures get their name": (r"^os\.rename \S* \S*/run/results\.json$", 1),
}
MOMENTS = DATA | LOCALISE | HAND_OVER | UNDERSTAND | END


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def assert_undisturbed(folder: Path, undisturbed: Path) -> None:
    for name in ("results.json", "metrics.jsonl"):
        assert (folder / name).read_bytes() == (undisturbed / name).read_bytes(), name
    for stage in ("localise", "localise_earlier"):  # of val and test, and of train
        for kind in ("masks", "masks-soft"):
            masks = files(folder / stage / kind)
            assert masks == files(undisturbed / stage / kind)
            assert len(masks) == 12 // 3 * (5 + 5 + 10) // 2
    for stage in ("localise", "understand"):
        ours, theirs = (best_parameters(f / stage / "all") for f in (folder, undisturbed))
        assert ours.keys() == theirs.keys()
        for path in ours:
            np.testing.assert_array_equal(ours[path], theirs[path], err_msg=path)
    assert (folder / "report/index.html").exists()
    # Beside the run's folder lie its data.
    leftovers = ("partial", "-tmp", "incomplete", "damaged")
    names = [str(path.relative_to(folder.parent)) for path in folder.parent.rglob("*")]
    assert not [name for name in names if any(word in name for word in leftovers)]
    json.loads((folder / "config.json").read_bytes())


@pytest.mark.slow  # test_train.py resumes in every test run
def test_killed_again_and_again(command, tiny_run, tmp_path):
    """At some of the moments; `test_killed_at` tries every one."""
    undisturbed, flags, _ = tiny_run
    folder = tmp_path / "run"
    shutil.copytree(undisturbed.parent / "data", tmp_path / "data")
    flags = (*flags, f"--workdir={folder}")
    # Each start dies at the next moment; the one after says where it takes up the run again.
    says = None
    for moment, next_says in (
        ("localise writes its second checkpoint", "[localise/all] resumes from step 9"),
        ("masks are written", "[localise/all] is complete"),
        ("the figures get their name", "[understand] is complete"),
    ):
        output = command(*flags, die_at=MOMENTS[moment], code=-signal.SIGKILL)
        assert says is None or says in output, (moment, output)
        assert (folder / "localise/masks.partial").exists() == (moment == "masks are written")
        assert not (folder / "results.json").exists()
        says = next_says
    assert says in command(*flags)
    assert_undisturbed(folder, undisturbed)


# Where Ctrl-C comes, what is said then, and what the next command begins with.
CTRL_C = (
    pytest.param(
        "localise writes its second checkpoint",
        r"the same command resumes localise/all from step (\d+)",
        "[localise/all] resumes from step {}",
        id="training",
    ),
    pytest.param(
        "masks are written",
        "the same command computes the scores of localise again",
        "[localise/all] is complete",
        id="scoring",
    ),
)


@pytest.mark.slow  # test_train.py saves and resumes, test_main.py says it, in every test run
@pytest.mark.parametrize(("moment", "words", "next_says"), CTRL_C)
def test_ctrl_c_saves_first_and_says_what_is_next(
    moment, words, next_says, command, tiny_run, tmp_path
):
    undisturbed, flags, _ = tiny_run
    folder = tmp_path / "run"
    shutil.copytree(undisturbed.parent / "data", tmp_path / "data")
    flags = (*flags, f"--workdir={folder}")
    output = command(*flags, die_at=MOMENTS[moment], by=signal.SIGINT, code=130)
    assert "Traceback" not in output
    last = output.strip().splitlines()[-1]
    found = re.match(f"stopped: {words}", last)
    assert found, last
    if found.groups():
        # Saved where it stopped, not at the checkpoint before.
        assert (folder / "localise/all/checkpoints" / found[1]).is_dir()
        assert int(found[1]) >= 18
    # That the scores are those of an undisturbed run `test_killed_again_and_again` looks at.
    stop = MOMENTS["understand has begun"]
    assert next_says.format(*found.groups()) in command(*flags, die_at=stop, code=-signal.SIGKILL)


@pytest.mark.slow
def test_killed_from_outside(start, command, tiny_run, tmp_path):
    undisturbed, flags, _ = tiny_run
    folder = tmp_path / "run"
    flags = (*flags, f"--workdir={folder}")
    # Of 36 in each phase. A checkpoint, each ninth step, is written while training goes on, but the
    # second one waits for the first: 20 steps into understand that one is there for certain.
    for steps in (12, 56):
        with start(*flags) as process:
            seen = ""
            while seen.count('"kind": "train"') < steps and process.poll() is None:
                time.sleep(0.002)
                path = folder / "metrics.jsonl"
                seen = path.read_text() if path.exists() else ""
            os.kill(process.pid, signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        assert not (folder / "results.json").exists()
    assert "resumes from step" in command(*flags)
    assert_undisturbed(folder, undisturbed)


@pytest.mark.slower
@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_at(moment, command, tiny_run, tmp_path):
    undisturbed, flags, _ = tiny_run
    folder = tmp_path / "run"
    flags = (*flags, f"--workdir={folder}")
    command(*flags, die_at=MOMENTS[moment], code=-signal.SIGKILL)
    command(*flags)
    assert_undisturbed(folder, undisturbed)


@pytest.mark.slower
def test_killed_at_random_moments(start, command, tiny_run, tmp_path):
    undisturbed, flags, _ = tiny_run
    folder = tmp_path / "run"
    flags = (*flags, f"--workdir={folder}")
    draw = random.Random(3407)
    longest, kills = 4.0, 0
    while not (folder / "results.json").exists():
        with start(*flags) as process:
            try:
                process.wait(draw.uniform(0, longest))
            except subprocess.TimeoutExpired:
                process.kill()
                kills += 1
        longest *= 1.2  # or a slow machine would never come to its first checkpoint
    assert kills >= 3
    assert_undisturbed(folder, undisturbed)
