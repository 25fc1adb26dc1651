"""Two tiny networks, truly trained, stopped in the middle and resumed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from aavs_jax.scoring.metrics import PROTOCOLS

REPOSITORY = Path(__file__).parents[2]
OTHER = """
from configs import avss_end_to_end

def get_config(argument=""):
    config = avss_end_to_end.get_config(argument)
    config.stages.understand.phases.all.optimizer.learning_rate = 3e-3
    return config
"""


@pytest.mark.slow
def test_it_trains_is_stopped_and_resumes(tmp_path, tiny_flags):
    (tmp_path / "faster.py").write_text(OTHER)
    out = tmp_path / "out"
    program = [
        *(sys.executable, "-m", "aavs_jax.compare", f"--workdir={out}", "--budget=frames=160"),
        *(f"--configs=avss_end_to_end,{tmp_path / 'faster.py'}", "--seeds=1"),
        *tiny_flags(("understand",)),
    ]
    environment = {**os.environ, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}

    def start() -> subprocess.Popen:
        return subprocess.Popen(
            program,
            cwd=REPOSITORY,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    said = []
    with start() as process:
        for line in process.stdout:
            said.append(line)
            # Once it has trained a little, and a validation is behind it.
            if "*** run 2 of 2" in "".join(said) and line.startswith("[understand/all] step"):
                process.send_signal(signal.SIGINT)
                break
        said += process.stdout.read()
        assert process.wait(120) == 130, "".join(said)
    assert "stopped: the same command resumes faster, seed 1; " in "".join(said)
    assert "1 of 2 are complete" in (out / "index.html").read_text()

    with start() as process:
        text = process.communicate(timeout=500)[0]
    assert process.returncode == 0, text
    assert "*** run 1 of 2: avss_end_to_end, seed 1, is complete" in text
    assert "[understand/all] resumes from step" in text
    found = json.loads((out / "results.json").read_text())
    assert [run["frames_seen"] for run in found["runs"]] == [160, 160]
    for run in found["runs"]:
        scores = run["scores"]
        assert {row["protocol"] for row in scores} == set(PROTOCOLS)
        assert {row["sound"] for row in scores} == {"right", "other", "silence"}
        assert run["frames_per_second"] > 0 and run["training_seconds"] > 0
    assert all(cost["flops"] > 1e5 for cost in found["systems"].values())
    assert "| `faster` | " in text
