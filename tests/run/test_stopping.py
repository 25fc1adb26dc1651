"""Ctrl-C in commands that do not train, and what a training loop is told of it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aavs_jax.run.stopping import SoftStop, Stopped, what_is_next
from data_pipelines.making import audible_shapes

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "command",
    [pytest.param("data_pipelines.make shapes", marks=pytest.mark.slow), "data_pipelines.prepare"],
)
def test_ctrl_c_is_one_line_and_nothing_half_made(command, tmp_path):
    out = tmp_path / "out"
    if command.endswith("prepare"):
        raw = audible_shapes.make(tmp_path / "raw", clips=80, size=32, progress=False)
        arguments, began = [str(raw), "--out", str(out)], "out/*"
        says = "the same command resumes where it was"
    else:
        # A clip is there: the bar, too, which complains where it is stopped half made.
        arguments, began = ["--out", str(out), "--clips", "5000"], ".out.partial/*/*/frames/*.jpg"
        says = "nothing was written; the same command starts again"
    with subprocess.Popen(
        [sys.executable, "-m", *command.split(), *arguments],
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        deadline = time.monotonic() + 60
        while not any(tmp_path.glob(began)) and time.monotonic() < deadline:
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does it: to workers, too
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert f"stopped: {says}" in said.strip().splitlines()[-1]
    assert not list(out.rglob("metadata.json"))
    assert command.endswith("prepare") or not list(tmp_path.iterdir())


def test_a_first_ctrl_c_waits_for_the_step_and_a_second_does_not(capsys):
    before = signal.getsignal(signal.SIGINT)
    with SoftStop() as stop:
        assert not stop.asked
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.asked
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
    assert "stopping after this step; Ctrl-C again stops at once" in capsys.readouterr().err


def test_where_nothing_is_lost_it_stops_at_once():
    with SoftStop() as stop:
        with stop.at_once(), pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        assert not stop.asked


def test_the_innermost_knows_best_what_is_next():
    with pytest.raises(Stopped, match="^inner$"), what_is_next("outer"), what_is_next("inner"):
        raise KeyboardInterrupt
