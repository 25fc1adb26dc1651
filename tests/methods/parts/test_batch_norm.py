"""Batch norm of a batch that is split over devices; tests/parity compares it with torch's."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

PROGRAM = """
import json, sys
import jax, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from aavs_jax.methods.functional import functional
from aavs_jax.methods.parts.sizes import ResNetConfig
from aavs_jax.methods.parts.resnet import ResNet

config = ResNetConfig(block="basic", depths=(1, 1, 1, 1), planes=(3, 3, 4, 4), stem=4)
net = functional(lambda: ResNet(config))
parameters = {path: jax.numpy.asarray(value) for path, value in net.initial(0).items()}
trainable = {path: value for path, value in parameters.items() if path not in net.mutable}
frames = np.random.default_rng(0).normal(size=(16, 32, 32, 3)).astype(np.float32)
frames *= np.arange(1, 17, dtype=np.float32)[:, None, None, None]  # of no two devices alike

@jax.jit
def step(trainable, frames):
    def loss(trainable):
        network = net.network(parameters | trainable)
        total = sum((x * jax.numpy.cos(x)).mean() for x in network(frames, True))
        return total, net.statistics(network)
    return jax.value_and_grad(loss, has_aux=True)(trainable)

found = []
for devices in (1, 8):
    mesh = jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,))
    shared = jax.device_put(frames, NamedSharding(mesh, P("data")))
    (_, after), gradient = step(trainable, shared)
    found.append([{k: np.asarray(v).tolist() for k, v in d.items()} for d in (after, gradient)])
print(json.dumps(found))
"""


def test_statistics_and_gradients_are_those_of_the_whole_batch():
    """Of one device and of eight, which the CPU can be told to simulate."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    environment = os.environ | {"XLA_FLAGS": flags}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=Path(__file__).parents[3],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert not done.returncode, done.stderr[-2000:]
    one, eight = json.loads(done.stdout)
    for ours, theirs in zip(one, eight, strict=True):
        assert ours.keys() == theirs.keys() and ours
        for path, value in ours.items():
            value = np.asarray(value)
            np.testing.assert_allclose(
                theirs[path], value, rtol=1e-4, atol=1e-4 * np.abs(value).max(), err_msg=path
            )
