"""The same code on one device and on eight, which the CPU can be told to simulate.

Devices must be there before JAX starts. So this file is a program, too: it runs a few steps and an
evaluation on every mesh and leaves what came out, and the tests compare. Eight devices cannot agree
with one bit for bit: each sums over its own clips first, and float32 sums depend on their order.
"""

import json
import os
import pickle
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

# Tests of batch norm and of scores use eight devices in every test run.
pytestmark = pytest.mark.slow

TRAINS = "(?!audio_encoder/).*"  # something is frozen, too
STEPS = 4
EMPTY = 2  # of the steps one whose clips are all empty, and dropped
CLIPS = 16  # per batch
MESHES = {"data=8": 1, "data=2, fsdp=4": 4}  # and the devices along fsdp
# Cuts along fsdp and the batches' rows -> how many of eight devices are taken.
TAKEN = {(1, (16,)): 8, (1, (20,)): 5, (1, (20, 8)): 4, (2, (20,)): 4, (1, (1,)): 1}
REPOSITORY = Path(__file__).parents[1]
DEVICES = "--xla_force_host_platform_device_count=8"


def main(stage: dict, data_dir: str, out: Path, meshes: dict[str, int]) -> None:
    """Runs everything on each mesh. Without this program's devices: on one."""
    import jax
    import optax

    from aavs_jax.methods import make_method
    from aavs_jax.plan.stage import PhaseName, Stage
    from aavs_jax.scoring.metrics import PROTOCOLS
    from aavs_jax.scoring.one_pass import network, score
    from aavs_jax.state import sharding, tree
    from aavs_jax.state.train_state import TrainState
    from aavs_jax.train import make_train_step
    from data_pipelines.loader import eval_loader, open_source

    sharding.SMALLEST_CUT = 2**8  # or next to nothing of so small a network would be cut
    method = make_method(stage, 9)
    clips = types.SimpleNamespace(clips=[types.SimpleNamespace(labelled=(0,))])
    # With its usual eps Adam's first steps are as long for a gradient of rounding errors as for any
    # other, and no two trajectories could be compared. Clipping makes a global norm count.
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-2, eps=1e-2))
    schedule = optax.constant_schedule(1e-2)
    rng = np.random.default_rng(0)
    shape = (CLIPS, 1)
    batches = [
        {
            "frames": rng.integers(0, 256, (*shape, 32, 32, 3), np.uint8),
            "audio": rng.normal(size=(*shape, 96, 64)).astype(np.float32),
            "labels": rng.integers(0, 3, (*shape, 4, 4)).repeat(8, 2).repeat(8, 3).astype(np.uint8),
            "labelled": np.ones(shape, bool),
            "valid": rng.random(shape) < 0.8,
            "prior_mask": rng.random((*shape, 32, 32), np.float32),
        }
        for _ in range(STEPS)
    ]
    batches[EMPTY]["labels"][:] = 0
    results = {"devices": jax.device_count()}
    if jax.device_count() == 8:
        results["taken"] = [sharding.make_mesh(*wanted).size for wanted in TAKEN]
    for name, fsdp in meshes.items():
        mesh = sharding.make_mesh(fsdp)
        # Two frames on each of eight devices, one after the other.
        train = {"frames_per_pass": 1 if name == "data=8" else 0}
        config = {"seed": 5, "stages": {"s": stage}, "train": train}
        whole = Stage("s", config, out, method, {"train": clips}, mesh=mesh)
        found = results[name] = {"axis_types": [kind.name for kind in mesh.axis_types]}
        trainable, frozen = tree.partition(method.initial(7), [TRAINS], "test")
        state = sharding.put_state(TrainState.create(trainable, frozen, optimizer), mesh)
        moving, frozen = state.apart()
        shardings = sharding.state_shardings(moving, mesh)
        step = make_train_step(whole, PhaseName("s", "all"), optimizer, schedule, shardings)
        found["losses"] = []
        for batch in batches:
            taken = {name: batch[name] for name in method.entries}
            moving, scalars = step(moving, frozen, sharding.put_batch(taken, mesh))
            found["losses"].append({key: float(value) for key, value in scalars.items()})
        arrays = dict(moving.beside(frozen).parameters)
        for path, x in jax.tree_util.tree_leaves_with_path(moving.opt_state):
            arrays[f"optimiser{jax.tree_util.keystr(path)}"] = x
        found["arrays"] = {path: np.asarray(x) for path, x in arrays.items()}
        # Of one device's share of each array, relative to the whole.
        found["shares"] = {
            path: x.addressable_shards[0].data.size / x.size for path, x in arrays.items()
        }
        parameters = sharding.put_state(method.initial(7), mesh)
        for frames in {"one device": (40, 80), "data=8": (40,)}.get(name, ()):
            loader = eval_loader(
                open_source(data_dir, "train"),
                task=stage["task"],
                image_size=32,
                label_size=32,
                frames_per_batch=frames,
                prior="true",
                devices=mesh.size,
            )
            predictions = {}

            def observe(batch, found, predictions=predictions):
                for clip, mask, valid in zip(
                    batch["ids"], found.classes, batch["valid"], strict=True
                ):
                    if clip:
                        assert clip not in predictions
                        predictions[str(clip)] = mask[valid]

            figures = score(
                network(method, parameters),
                loader,
                mesh,
                description=name,
                protocols=tuple(PROTOCOLS),
                observers=[observe],
            )
            found[f"evaluation of {frames}"] = (figures, predictions)
    out.write_bytes(pickle.dumps(results))


@pytest.fixture(scope="module")
def results(tiny_stage, tmp_path_factory):
    """What `main` found on one device and on all meshes of eight."""
    from data_pipelines.making import audible_shapes
    from data_pipelines.prepare import prepare

    folder = tmp_path_factory.mktemp("devices")
    raw = audible_shapes.make(folder / "raw", clips=12, size=32, progress=False)
    prepare(raw, folder / "data", progress=False)
    stage = tiny_stage("understand", **{"data.drop_empty_clips": True})
    (folder / "stage.json").write_text(json.dumps(stage))
    # Both at once: half of the time is Python's.
    runs = []
    for name, meshes in (("one", {"one device": 1}), ("eight", MESHES)):
        flags = DEVICES if name == "eight" else "--xla_force_host_platform_device_count=1"
        arguments = [str(folder / "stage.json"), str(folder / "data"), str(folder / name)]
        runs.append(
            subprocess.Popen(
                # -P: this file's folder holds a data_pipelines of its own
                [sys.executable, "-P", __file__, *arguments, json.dumps(meshes)],
                cwd=REPOSITORY,
                env={
                    **os.environ,
                    "PYTHONPATH": str(REPOSITORY),
                    # What is set already stays; of two the last counts.
                    "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}",
                    "JAX_PLATFORMS": "cpu",
                    # What LLVM does for speed takes longer than it saves here.
                    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
                },
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    for run in runs:
        output, _ = run.communicate(timeout=600)
        assert run.returncode == 0, output[-4000:]
    one, eight = (pickle.loads((folder / name).read_bytes()) for name in ("one", "eight"))
    assert (one["devices"], eight["devices"]) == (1, 8)
    return one | eight


@pytest.mark.parametrize("mesh", MESHES)
def test_losses_are_those_of_one_device(mesh, results):
    one, eight = results["one device"]["losses"], results[mesh]["losses"]
    assert len(one) == len(eight) == STEPS
    for ours, theirs in zip(eight, one, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)  # measured: 6e-7
    assert len({scalars["loss"] for scalars in one}) == STEPS
    assert one[EMPTY]["loss"] == 0
    assert [scalars["optimizer_steps"] for scalars in eight] == [1, 2, 2, 3]


@pytest.mark.parametrize("mesh", MESHES)
def test_state_is_that_of_one_device(mesh, results):
    one, eight = results["one device"]["arrays"], results[mesh]["arrays"]
    assert one.keys() == eight.keys()
    for kind in (".mu[", ".nu[", ""):
        paths = [path for path in one if kind in path and (kind or "optimiser" not in path)]
        # Biases in front of a normalisation have no gradient but rounding errors.
        floor = 1e-3 * max(np.abs(one[path]).max() for path in paths)
        for path in paths:
            scale = max(np.abs(one[path]).max(), floor)
            assert np.abs(eight[path] - one[path]).max() < 1e-5 * scale, path  # measured: 3e-6


@pytest.mark.parametrize("mesh", MESHES)
def test_parameters_and_moments_are_cut(mesh, results):
    """Along fsdp, and only along fsdp; what is too small to be worth it is copied."""
    shares, arrays = results[mesh]["shares"], results["one device"]["arrays"]
    fsdp = MESHES[mesh]
    assert set(shares.values()) == ({1.0} if fsdp == 1 else {1.0, 1 / fsdp})
    if fsdp > 1:
        held = sum(share * arrays[path].size for path, share in shares.items())
        assert held < 1.2 / fsdp * sum(array.size for array in arrays.values())
        # A parameter's moments lie where it lies.
        for path, share in shares.items():
            for moment in ("mu", "nu"):
                (mine,) = [p for p in shares if p.endswith(f".{moment}['{path}']")] or [path]
                assert shares[mine] == share
        assert sum(".mu[" in path and share < 1 for path, share in shares.items()) > 50


def test_figures_do_not_depend_on_devices(results):
    one, eight = (results[name]["evaluation of 40"] for name in ("one device", "data=8"))
    assert_same_figures(eight, one)


def test_figures_do_not_depend_on_the_batch_size(results):
    evaluations = [results["one device"][f"evaluation of {frames}"] for frames in (40, 80)]
    assert_same_figures(*evaluations)


def assert_same_figures(ours, theirs) -> None:
    """Of equal masks, bit for bit; and masks are equal but for what rounding decides.

    On all CPUs tried no pixel differs. But in which order products are summed may depend on the
    CPU and on how many rows there are, and where two classes are as likely the last bit decides.
    """
    (figures, masks), (other_figures, other_masks) = ours, theirs
    assert masks.keys() == other_masks.keys() and len(masks) == 6
    differ = np.concatenate([(masks[clip] != other_masks[clip]).ravel() for clip in masks])
    assert differ.mean() < 1e-3
    assert len(np.unique(np.concatenate(list(masks.values())))) > 2
    assert figures.keys() == other_figures.keys() and len(figures) > 1
    for protocol, found in figures.items():
        others = other_figures[protocol]
        assert found["clips"] == 6 and found["frames"] == 2 * (1 + 5 + 10)
        assert found.keys() == others.keys()
        for name in found if not differ.any() else ("mIoU", "F"):
            message, atol = f"{protocol} {name}", 0.05 * differ.any()
            np.testing.assert_allclose(found[name], others[name], 0, atol, err_msg=message)


def test_as_many_devices_are_taken_as_can_share_the_batches(results):
    assert results["taken"] == list(TAKEN.values())


def test_axes_are_auto(results):
    """Without it, JAX 0.10 makes Explicit axes, which Swin's window partition cannot have."""
    assert all(set(results[mesh]["axis_types"]) == {"Auto"} for mesh in MESHES)


if __name__ == "__main__":
    stage_file, data_folder, out_file, mesh_list = sys.argv[1:]
    main(
        json.loads(Path(stage_file).read_text()), data_folder, Path(out_file), json.loads(mesh_list)
    )
