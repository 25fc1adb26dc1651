"""Batch size, order, padding, compiling, other protocols and devices change no bit.

Devices must be there before JAX starts, so this file is a program, too: it scores a split on eight
devices and leaves what came out.
"""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aavs_jax.scoring import metrics

CLASSES = 22
DEVICES = "--xla_force_host_platform_device_count=8"


def main(batches_file: Path, out: Path) -> None:
    """Scores batches of eight clips, one clip on each of eight devices."""
    from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

    mesh = Mesh(np.array(jax.devices()).reshape(8), ("data",), axis_types=(AxisType.Auto,))
    rows, everywhere = (NamedSharding(mesh, PartitionSpec(*cut)) for cut in (("data",), ()))
    update = jax.jit(metrics.update, out_shardings=everywhere)
    found = {"devices": jax.device_count()}
    for task, (clips, batches) in pickle.loads(batches_file.read_bytes()).items():
        state = metrics.init(task, metrics.PROTOCOLS, num_classes=CLASSES, clips=clips)
        state = jax.device_put(state, everywhere)
        for batch in batches:
            state = update(state, **jax.device_put(batch, rows))
        found[task] = jax.device_get(state)
    out.write_bytes(pickle.dumps(found))


@pytest.fixture(scope="module")
def cases(splits):
    return {"binary": splits.binary(5), "semantic": splits.semantic(6, CLASSES)}


@pytest.fixture(scope="module")
def references(splits, cases):
    return {
        task: splits.run(task, clips, classes=CLASSES, batch_size=3)
        for task, clips in cases.items()
    }


def assert_same(ours, theirs):
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


@pytest.mark.parametrize("task", metrics.TASKS)
@pytest.mark.parametrize(("batch_size", "frames"), [(1, 12), (2, 13), (4, 12), (7, 12)])
def test_batch_size_padding_and_order(splits, cases, references, task, batch_size, frames):
    order = np.random.default_rng(batch_size).permutation(len(cases[task]))
    options = dict(classes=CLASSES, batch_size=batch_size, frames=frames)
    assert_same(splits.run(task, cases[task], order=order, **options), references[task])


@settings(max_examples=12, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_order_and_batch_size(splits, cases, references, data):
    task = data.draw(st.sampled_from(metrics.TASKS))
    order = data.draw(st.permutations(range(len(cases[task]))))
    batch_size = data.draw(st.sampled_from([1, 3, 4]))
    state = splits.run(
        task, cases[task], classes=CLASSES, order=np.array(order), batch_size=batch_size
    )
    assert_same(state, references[task])


@pytest.mark.parametrize("task", metrics.TASKS)
def test_compiled_or_not(splits, cases, references, task):
    state = splits.run(task, cases[task], classes=CLASSES, jit=False)
    assert_same(state, references[task])


@pytest.mark.parametrize("task", metrics.TASKS)
@pytest.mark.parametrize("names", ["stepping_stones", "cavp,avsbench", "data_set"])
def test_other_protocols_do_not_matter(splits, cases, references, task, names):
    state = splits.run(task, cases[task], names, classes=CLASSES)
    assert_same(state[task], {name: references[task][task][name] for name in names.split(",")})


def test_eight_devices(splits, cases, references, tmp_path):
    batches = {
        task: (len(clips), list(splits.batches(clips, 8, 12, None)))
        for task, clips in cases.items()
    }
    (tmp_path / "batches").write_bytes(pickle.dumps(batches))
    flags = f"{os.environ.get('XLA_FLAGS', '')} {DEVICES}"  # of two the last counts
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    environment["PYTHONPATH"] = str(Path(__file__).parents[3])
    subprocess.run(
        [sys.executable, __file__, str(tmp_path / "batches"), str(tmp_path / "out")],
        check=True,
        env=environment,
    )
    found = pickle.loads((tmp_path / "out").read_bytes())
    assert found.pop("devices") == 8
    assert_same(found, references)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
