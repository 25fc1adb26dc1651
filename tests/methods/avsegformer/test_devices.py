"""A step of AVSegFormer on eight simulated devices is that on one.

With a ResNet batch norms see the whole batch; with PVT-v2 each device takes its frames in passes.
Devices must be there before JAX starts, so this file is a program, too.
"""

import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]


def main(backbone: str) -> None:
    import jax
    import jax.numpy as jnp
    import numpy as np

    from aavs_jax.methods import gradients
    from aavs_jax.state import sharding
    from tests.methods.avsegformer import test_method as tiny

    method = tiny.method_of("semantic", backbone=backbone)
    rng, shape = np.random.default_rng(0), (8, 2)
    batch = {
        "frames": rng.integers(0, 256, (*shape, 32, 32, 3), np.uint8),
        "audio": rng.normal(size=(*shape, 96, 64)).astype(np.float32),
        "labels": rng.integers(0, tiny.CLASSES, (*shape, 24, 24)).astype(np.uint8),
        "labelled": rng.random(shape) < 0.7,
        "valid": rng.random(shape) < 0.9,
    }
    parameters = method.initial(0)
    rest = {path: parameters.pop(path) for path in method.mutable}
    found = []
    for mesh in (sharding.make_mesh(1, [1]), sharding.make_mesh(1)):
        step = functools.partial(
            gradients.value_and_gradient,
            method,
            key=jax.random.key(3),
            progress=jnp.float32(0),
            frames_per_pass=1,
            mesh=mesh,
        )
        state = sharding.put_state({"trains": parameters, "rest": rest}, mesh)
        arrays = sharding.put_batch(batch, mesh)
        found.append((mesh.size, jax.jit(step)(state["trains"], state["rest"], arrays)))
    (one, single), (eight, split) = found
    assert (one, eight) == (1, 8)
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(single), jax.tree.leaves(split), strict=True
    ):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        # Sums of float32 in another order.
        bound = (1e-3 if path[0].idx else 1e-5) * max(np.abs(a).max(), 1e-3)
        assert np.abs(a - b).max() <= bound, (path, np.abs(a - b).max(), bound)
    print("equal")


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["pvt", "resnet"])
def test_eight_devices_are_one(backbone):
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    ran = subprocess.run(
        [sys.executable, "-m", "tests.methods.avsegformer.test_devices", backbone],
        cwd=REPOSITORY,
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert ran.stdout.strip().endswith("equal"), ran.stdout + ran.stderr


if __name__ == "__main__":
    main(sys.argv[1])
