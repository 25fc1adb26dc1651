"""The batch file for SLURM: what it asks for, and the command that each task runs."""

import os
import re
import subprocess
from pathlib import Path

FILE = Path(__file__).parents[1] / "launch" / "slurm.sbatch"


def test_every_task_sees_all_gpus_of_its_node(tmp_path):
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)$", FILE.read_text(), re.M))
    assert asked["ntasks-per-node"] == asked["gpus-per-node"]
    # Any of these would show a task its own GPU alone, as number 0.
    assert not {"gpus-per-task", "gpu-bind", "ntasks-per-gpu"} & asked.keys()
    srun = tmp_path / "srun"
    srun.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    srun.chmod(0o755)
    given = ["configs/avss.py:/my data", "/shared/run", "--config.seed=1"]
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    environment["SLURM_CPUS_PER_TASK"] = "4"
    said = subprocess.check_output(["bash", FILE, *given], env=environment, text=True)
    assert said.splitlines() == [
        *("--gpu-bind=none", "--cpus-per-task=4", "python", "-m", "aavs_jax.main"),
        *("--distributed", "--config=configs/avss.py:/my data", "--workdir=/shared/run"),
        "--config.seed=1",
    ]
