"""A step of CAVP on eight simulated devices is that on one: batch norms see the whole batch.

Devices must be there before JAX starts, so this file is a program, too.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]


def main() -> None:
    import jax
    import jax.numpy as jnp
    import numpy as np

    from aavs_jax.methods import make_method
    from aavs_jax.state import sharding
    from tests.methods.cavp import test_method as tiny

    keys = tiny.stage()
    keys["data"]["batch_size"] = 8
    method = make_method(keys, tiny.K)
    rng, shape = np.random.default_rng(0), (8, 1)
    objects = np.zeros((8, tiny.K), bool)
    objects[np.arange(8), 1 + np.arange(8) % 3] = objects[:, 0] = True
    batch = {
        "frames": rng.integers(0, 256, (*shape, 32, 32, 3), np.uint8),
        "audio": rng.uniform(-1, 0, (*shape, 96, 64)).astype(np.float32),
        "labels": rng.integers(0, tiny.K, (*shape, 4, 4))
        .repeat(8, 2)
        .repeat(8, 3)
        .astype(np.uint8),
        "labelled": np.ones(shape, bool),
        "valid": np.ones(shape, bool),
        "objects": objects,
    }
    parameters = {path: np.asarray(value) for path, value in method.initial(0).items()}
    rest = {path: parameters.pop(path) for path in method.mutable} | dict(method.memory)
    step = jax.jit(
        jax.value_and_grad(
            lambda trains, rest, batch: method.loss(
                trains | rest, batch, jax.random.key(3), jnp.float32(0.5)
            ),
            has_aux=True,
        ),
        compiler_options=tiny.COMPILER,
    )
    found = []
    for mesh in (sharding.make_mesh(1, [1]), sharding.make_mesh(1)):
        state = sharding.put_state({"trains": parameters, "rest": rest}, mesh)
        arrays = sharding.put_batch(method.trains_on(batch), mesh)
        found.append((mesh.size, step(state["trains"], state["rest"], arrays)))
    (one, single), (eight, split) = found
    assert (one, eight) == (1, 8)
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(single), jax.tree.leaves(split), strict=True
    ):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        # Sums of float32 in another order; of gradients those behind a ReLU that turned over.
        bound = (2e-2 if path[0].idx else 1e-5) * max(np.abs(a).max(), 1e-3)
        assert np.abs(a - b).max() <= bound, (path, np.abs(a - b).max(), bound)
    print("equal")


@pytest.mark.slow
def test_eight_devices_are_one():
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    ran = subprocess.run(
        [sys.executable, "-m", "tests.methods.cavp.test_devices"],
        cwd=REPOSITORY,
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert ran.stdout.strip().endswith("equal"), ran.stdout + ran.stderr


if __name__ == "__main__":
    main()
