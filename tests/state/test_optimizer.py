"""The optimiser of a phase: torch's AdamW is what the paper's code trains with."""

import jax
import numpy as np
import optax
import pytest
import torch

from aavs_jax.errors import UserError
from aavs_jax.state.optimizer import make_optimizer, make_schedule

PLAIN = {
    "learning_rate": 1e-2,
    "schedule": "constant",
    "warmup_steps": 0,
    "weight_decay": 0.05,
    "no_decay": (),
    "clip_norm": 0.0,
}
SHAPES = {"layer/kernel": (4, 3), "layer/bias": (3,), "norm/scale": (5,)}


def start_and_gradients(steps: int):
    rng = np.random.default_rng(0)
    start = {path: rng.normal(size=shape).astype(np.float32) for path, shape in SHAPES.items()}
    gradients = [
        # Of very different sizes, so that clipping holds for some steps and not for others.
        {p: (s * rng.normal(size=shape)).astype(np.float32) for p, shape in SHAPES.items()}
        for s in np.geomspace(1e-3, 10, steps)
    ]
    return start, gradients


def run_ours(description, start, gradients):
    optimizer = make_optimizer(description, len(gradients), list(start), "localise/a")
    state, parameters = optimizer.init(start), start
    for gradient in gradients:
        updates, state = optimizer.update(gradient, state, parameters)
        parameters = optax.apply_updates(parameters, updates)
    return jax.tree.map(np.asarray, parameters)


def run_torch(start, gradients, *, decaying, clip_norm, rates):
    tensors = {p: torch.nn.Parameter(torch.tensor(v)) for p, v in start.items()}
    groups = [
        {"params": [t for p, t in tensors.items() if p in decaying], "weight_decay": 0.05},
        {"params": [t for p, t in tensors.items() if p not in decaying], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW([g for g in groups if g["params"]], betas=(0.9, 0.999), eps=1e-8)
    for gradient, rate in zip(gradients, rates, strict=True):
        for path, tensor in tensors.items():
            tensor.grad = torch.tensor(gradient[path])
        if clip_norm:
            torch.nn.utils.clip_grad_norm_(tensors.values(), clip_norm)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
    return {path: tensor.detach().numpy() for path, tensor in tensors.items()}


@pytest.mark.parametrize("clip_norm", [0.0, 0.01])
@pytest.mark.parametrize("no_decay", [(), (r".*/(bias|scale)",)])
def test_equals_torch(clip_norm, no_decay):
    start, gradients = start_and_gradients(8)
    ours = run_ours(PLAIN | {"clip_norm": clip_norm, "no_decay": no_decay}, start, gradients)
    decaying = {"layer/kernel"} if no_decay else set(SHAPES)
    theirs = run_torch(start, gradients, decaying=decaying, clip_norm=clip_norm, rates=[1e-2] * 8)
    for path in SHAPES:
        # float32, eight steps of size 1e-2
        np.testing.assert_allclose(ours[path], theirs[path], rtol=2e-5, atol=2e-6)
        assert np.abs(ours[path] - start[path]).max() > 1e-2


def test_equals_torch_under_a_schedule():
    start, gradients = start_and_gradients(8)
    description = PLAIN | {"schedule": "cosine", "warmup_steps": 3}
    schedule = make_schedule(description, 8, "localise/a")
    rates = [float(schedule(step)) for step in range(8)]
    ours = run_ours(description, start, gradients)
    theirs = run_torch(start, gradients, decaying=set(SHAPES), clip_norm=0.0, rates=rates)
    for path in SHAPES:
        np.testing.assert_allclose(ours[path], theirs[path], rtol=2e-5, atol=2e-6)


def test_constant_schedule():
    schedule = make_schedule(PLAIN, 100, "localise/a")
    assert [float(schedule(step)) for step in (0, 1, 99)] == pytest.approx([1e-2] * 3)


def test_cosine_schedule_with_warm_up():
    schedule = make_schedule(PLAIN | {"schedule": "cosine", "warmup_steps": 10}, 110, "localise/a")
    # Linear from zero; the peak; half of it midway through the rest; zero at the end.
    for step, rate in ((0, 0.0), (5, 5e-3), (10, 1e-2), (60, 5e-3), (110, 0.0)):
        assert float(schedule(step)) == pytest.approx(rate, abs=1e-8), step
    later = [float(schedule(step)) for step in range(10, 111)]
    assert later == sorted(later, reverse=True)


def test_constant_schedule_with_warm_up():
    schedule = make_schedule(PLAIN | {"warmup_steps": 4}, 10, "localise/a")
    assert [float(schedule(step)) for step in (0, 2, 4, 9)] == pytest.approx([0, 5e-3, 1e-2, 1e-2])


def test_a_short_phase_warms_up_over_half_of_it():
    schedule = make_schedule(PLAIN | {"warmup_steps": 50}, 10, "localise/a")
    assert [float(schedule(step)) for step in (0, 5, 9)] == pytest.approx([0, 1e-2, 1e-2])


def test_unknown_schedule_names_the_phase_and_the_known_ones():
    with pytest.raises(UserError, match=r"understand/b is 'linear', none of constant, cosine"):
        make_schedule(PLAIN | {"schedule": "linear"}, 10, "understand/b")


def test_a_no_decay_pattern_without_match_names_the_phase():
    with pytest.raises(UserError, match=r"'nothing' of 'localise/a no_decay' matches none"):
        make_optimizer(PLAIN | {"no_decay": ("nothing",)}, 10, list(SHAPES), "localise/a")


def test_only_what_trains_has_moments():
    optimizer = make_optimizer(PLAIN, 10, ["layer/kernel"], "localise/a")
    state = optimizer.init({"layer/kernel": np.zeros((4, 3), np.float32)})
    assert sum(leaf.size for leaf in jax.tree.leaves(state) if leaf.ndim) == 2 * 12
