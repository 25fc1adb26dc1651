"""What full-size training steps are planned to take, held against a table.

Steps are compiled, not run. This file is a program, too: plans are those of a process as users have
it, where the tests' own compile with fewer optimisations.

    python tests/test_plans.py            prints the table as it is now
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
GROWTH = 1.1  # at most
# config, stage, phase, frames of a clip, frames_per_pass, remat -> megabytes of temporary memory as
# XLA for CPUs plans it, and 1e9 operations of matrix products.
TABLE = {
    ("s4", "localise", "a", 5, 1, "none"): (392, 1068),
    ("s4", "localise", "b", 5, 1, "none"): (1508, 1630),
    ("s4", "localise", "b", 5, 1, "everything"): (675, 2282),
    ("avss", "understand", "b", 10, 1, "none"): (1634, 3485),
}


def plans() -> list[tuple[float, float]]:
    """Of every row of TABLE what it is now."""
    sys.path.insert(0, str(REPOSITORY))
    import importlib

    import jax
    import numpy as np

    from aavs_jax.benchmark import flops
    from aavs_jax.methods import make_method
    from aavs_jax.methods.gradients import compiler_options, value_and_gradient
    from aavs_jax.state import tree

    found = []
    for config, stage, phase, frames, frames_per_pass, remat in TABLE:
        keys = importlib.import_module(f"configs.{config}").get_config("/x").to_dict()["stages"]
        keys = {**keys[stage], "train": {"remat": remat}}
        method = make_method(keys, 71)
        trainable, rest = tree.partition(method.shapes, keys["phases"][phase]["trains"], phase)
        side, label_side = keys["data"]["image_size"], keys["data"]["label_size"]
        shapes = {
            "frames": ((side, side, 3), np.uint8),
            "audio": ((128,), np.float32),
            "labels": ((label_side, label_side), np.uint8),
            "labelled": ((), bool),
            "valid": ((), bool),
            "prior_mask": ((label_side, label_side), np.float32),
        }
        batch = {
            name: jax.ShapeDtypeStruct((1, frames, *shape), dtype)
            for name, (shape, dtype) in shapes.items()
            if name in method.entries
        }

        def step(trainable, rest, batch, method=method, frames_per_pass=frames_per_pass):
            key, options = jax.random.key(0), {"frames_per_pass": frames_per_pass}
            return value_and_gradient(method, trainable, rest, batch, key, 0.0, **options)

        with jax.default_matmul_precision("highest"):
            step = jax.jit(step, compiler_options=compiler_options())
            traced = step.trace(trainable, rest, batch)
            memory = traced.lower().compile().memory_analysis().temp_size_in_bytes
        found.append((memory / 1e6, flops.of(traced.jaxpr) / 1e9))
    return found


@pytest.mark.slow
def test_a_step_takes_no_more_than_it_did():
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    # Without the tests' own settings: users' steps are compiled without them.
    for name in ("JAX_DISABLE_MOST_OPTIMIZATIONS", "XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR"):
        environment.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-P", __file__],
        capture_output=True,
        text=True,
        env=environment,
        cwd=REPOSITORY,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) == len(TABLE)
    for (row, most), (memory, operations) in zip(TABLE.items(), found, strict=True):
        assert memory < GROWTH * most[0], row
        assert operations < GROWTH * most[1], row
        # A table that says much more than there is would let everything pass.
        assert memory > 0.5 * most[0] and operations > 0.9 * most[1], row


if __name__ == "__main__":
    print(json.dumps([[round(number) for number in row] for row in plans()]))
