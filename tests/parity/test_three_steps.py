"""Three training steps against PyTorch's AdamW: clipping, learning rate, decay and what is frozen.

Our side is the compiled step that `train_phase` runs, on a tiny network and the phases of the
paper. Its gradients are noted on their way to the optimiser and given to PyTorch, which clips
them by the function the public code calls and steps by its own AdamW. The gradients themselves are
compared in test_golden.py.
"""

import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from aavs_jax.methods import make_method
from aavs_jax.plan.stage import PhaseName, Stage
from aavs_jax.state import tree
from aavs_jax.state.optimizer import make_optimizer, make_schedule
from aavs_jax.state.sharding import make_mesh, put_batch, put_state, state_shardings
from aavs_jax.state.train_state import TrainState
from aavs_jax.train import make_train_step
from aavs_jax.weights.starting import plan_start
from configs import avss

STEPS = 3
TOTAL = 100  # steps that the phase would have
CLASSES = 6
# float32 both, in different orders of operations: one unit in the last place is 6e-8 of a value,
# and a step of Adam a handful of operations. Relative to the largest value of an array.
TOLERANCE = 1e-6
# optax computes the bias correction 1 - 0.999^t in float32, PyTorch in float64. 0.999 is rounded by
# up to 3e-8, which is 3e-5 of 1 - 0.999, and its root is what a step is divided by.
STEP_TOLERANCE = 1.5e-5  # relative to the way gone; it is all that a bias which starts at zero has


def note_gradients() -> optax.GradientTransformation:
    """Passes gradients on as they are, and keeps the last ones as its state."""
    return optax.GradientTransformation(
        lambda parameters: jax.tree.map(jnp.zeros_like, parameters),
        lambda gradients, state, parameters=None: (gradients, gradients),
    )


def batch_of(seed: int, prior: bool) -> dict[str, np.ndarray]:
    """A clip of five seconds of noise, with labels of two or three classes."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((1, 5, 32, 32), np.uint8)
    labels[:, :, 8:20, 4:16] = 1
    if prior:
        labels[:, :, 20:, 16:] = 4
    batch = {
        "frames": rng.integers(0, 256, (1, 5, 32, 32, 3), np.uint8),
        "audio": rng.normal(size=(1, 5, 8)).astype(np.float32),  # embeddings
        "labels": labels,
        "labelled": np.ones((1, 5), bool),
        "valid": np.ones((1, 5), bool),
    }
    return batch | ({"prior_mask": (labels != 0).astype(np.float32)} if prior else {})


def stage_of(name: str, tiny_stage):
    """The paper's stage but for its sizes: random points, drop-path, no warm-up."""
    paper = avss.get_config("/x").to_dict()["stages"][name]
    stage = tiny_stage(
        name,
        **{"loss.grid": 0, "loss.num_points": 64, "model.backbone.drop_path_rate": 0.3},
    )
    for key in ("phases", "order", "prior"):
        stage[key] = paper[key]
    return stage, make_method(stage, CLASSES)


# Clipping is held against torch's in tests/state/test_optimizer.py, too.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "phase_name"),
    [("localise", "a"), ("localise", "b"), ("understand", "a"), ("understand", "b")],
)
def test_equal_to_torch(name, phase_name, tiny_stage):
    description, method = stage_of(name, tiny_stage)
    phase = description["phases"][phase_name]
    clip_norm = phase["optimizer"]["clip_norm"]
    assert clip_norm == (0.01 if name == "localise" else 0.0)
    assert phase["optimizer"]["learning_rate"] == (1e-3 if phase_name == "a" else 1e-4)

    initial = method.initial(3407)
    shapes = {path: value.shape for path, value in initial.items()}
    start = plan_start(method, shapes, phase, PhaseName(name, phase_name))
    initial |= {path: np.zeros_like(initial[path]) for path in start.zero}
    trainable, frozen = tree.partition(initial, phase["trains"], "trains")
    assert any("_adapter" in path for path in trainable) == (phase_name == "b")
    assert len(frozen) > 50
    paths = list(trainable)
    purpose = f"{name}/{phase_name}"
    optimizer = optax.chain(
        note_gradients(), make_optimizer(phase["optimizer"], TOTAL, paths, purpose)
    )
    mesh = make_mesh()
    state = put_state(TrainState.create(trainable, frozen, optimizer), mesh)
    schedule = make_schedule(phase["optimizer"], TOTAL, purpose)
    clips = types.SimpleNamespace(clips=[types.SimpleNamespace(labelled=(0,))])
    # One frame after the other, which has to give the same.
    train = {"frames_per_pass": 1}
    config = {"seed": 7, "stages": {name: description}, "train": train}
    stage = Stage(name, config, Path("unused"), method, {"train": clips})
    state, still = state.apart()
    step = make_train_step(
        stage, PhaseName(name, phase_name), optimizer, schedule, state_shardings(state, mesh)
    )

    theirs = {path: torch.nn.Parameter(torch.tensor(value)) for path, value in trainable.items()}
    adamw = torch.optim.AdamW(
        theirs.values(),
        lr=phase["optimizer"]["learning_rate"],
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=0.05,
    )
    norms = []
    for number in range(STEPS):
        batch = batch_of(number, name == "understand")
        taken = {entry: batch[entry] for entry in method.entries}
        state, scalars = step(state, still, put_batch(taken, mesh))
        gradients = jax.tree.map(np.asarray, state.opt_state[0])
        for path, parameter in theirs.items():
            parameter.grad = torch.tensor(gradients[path])
        whole = torch.nn.utils.clip_grad_norm_(theirs.values(), clip_norm or float("inf"))
        adamw.step()
        norms.append(float(whole))
        assert float(scalars["gradient_norm"]) == pytest.approx(norms[-1], rel=1e-5)
        assert float(scalars["learning_rate"]) == np.float32(phase["optimizer"]["learning_rate"])
        way = phase["optimizer"]["learning_rate"] * (number + 1)
        excess = {}
        for path, parameter in theirs.items():
            torchs = parameter.detach().numpy()
            error = np.abs(np.asarray(state.trainable[path]) - torchs).max()
            excess[path] = error / (TOLERANCE * np.abs(torchs).max() + STEP_TOLERANCE * way)
        worst = max(excess, key=excess.get)
        print(f"{purpose} step {number + 1}: {excess[worst]:.2f} of what is allowed, {worst}")
        assert excess[worst] <= 1, worst
    # Clipping had something to clip, and the steps went somewhere.
    assert min(norms) > 0.02
    moved = [
        path
        for path, value in trainable.items()
        if np.abs(np.asarray(state.trainable[path]) - value).max()
        > phase["optimizer"]["learning_rate"] / 10
    ]
    # The last map is one pixel, of which GroupNorm leaves nothing: no gradient for what is before.
    assert len(moved) > 0.7 * len(trainable)
