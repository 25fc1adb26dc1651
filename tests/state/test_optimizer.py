"""The optimiser of a phase: what PyTorch's, which the papers train with, makes of the same."""

import math

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from aavs_jax.errors import UserError
from aavs_jax.state.checkpoint import SCORE, PhaseCheckpoints
from aavs_jax.state.optimizer import make_optimizer, make_schedule, rate_factors, steps_made
from aavs_jax.state.train_state import TrainState
from configs import base

PLAIN = base.phase((), "nothing", 1, 1e-2).optimizer.to_dict()
SHAPES = {"layer/kernel": (4, 3), "layer/bias": (3,), "norm/scale": (5,)}
STEPS = 5
NAMES = {"adamw": {}, "adam": {}, "sgd": {}, "sgd with momentum": {"momentum": 0.9}}
# What torch's schedule says of the share of a phase that is over.
FALL = {
    "constant": lambda share: 1.0,
    "cosine": lambda share: (1 + math.cos(math.pi * share)) / 2,
    "poly": lambda share: (1 - share) ** 0.9,
}
EVERYTHING = {
    "clip_norm": 0.1,
    "no_decay": (r".*/(bias|scale)",),
    "multipliers": ((r".*/scale", 3.0), (r"layer/kernel", 0.5), (r"norm/.*", 7.0)),
}
FACTORS = {"layer/kernel": 0.5, "layer/bias": 1.0, "norm/scale": 3.0}


def described(name: str, **changes) -> dict:
    return PLAIN | {"name": name.split()[0]} | NAMES[name] | changes


def start_and_gradients():
    rng = np.random.default_rng(0)
    start = {path: rng.normal(size=shape).astype(np.float32) for path, shape in SHAPES.items()}
    gradients = [
        # Of very different sizes, so that clipping holds for some steps and not for others.
        {p: (s * rng.normal(size=shape)).astype(np.float32) for p, shape in SHAPES.items()}
        for s in np.geomspace(1e-3, 10, STEPS)
    ]
    return start, gradients


def run_ours(description, start, gradients):
    optimizer = make_optimizer(description, STEPS, list(start), "localise/a")
    state, parameters = optimizer.init(start), start
    for gradient in gradients:
        updates, state = optimizer.update(gradient, state, parameters)
        parameters = optax.apply_updates(parameters, updates)
    assert int(steps_made(state)) == STEPS
    return jax.tree.map(np.asarray, parameters)


def run_torch(description, start, gradients):
    tensors = {p: torch.nn.Parameter(torch.tensor(v)) for p, v in start.items()}
    everything = bool(description["multipliers"])
    groups = [
        {
            "params": [tensor],
            "lr": 1e-2 * (FACTORS[path] if everything else 1),
            "weight_decay": 0.0 if everything and path != "layer/kernel" else 0.05,
        }
        for path, tensor in tensors.items()
    ]
    optimizer = {
        "adamw": lambda: torch.optim.AdamW(groups, betas=(0.9, 0.999), eps=1e-8),
        "adam": lambda: torch.optim.Adam(groups, betas=(0.9, 0.999), eps=1e-8),
        "sgd": lambda: torch.optim.SGD(groups, momentum=description["momentum"]),
    }[description["name"]]()
    warmup = description["warmup_steps"]

    def share_of_rate(step):
        if step < warmup:
            return step / warmup
        return FALL[description["schedule"]]((step - warmup) / (STEPS - warmup))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, share_of_rate)
    clipped = []
    for gradient in gradients:
        for path, tensor in tensors.items():
            tensor.grad = torch.tensor(gradient[path])
        if clip_norm := description["clip_norm"]:
            whole = torch.nn.utils.clip_grad_norm_(tensors.values(), clip_norm)
            clipped.append(bool(whole > clip_norm))
        optimizer.step()
        schedule.step()
    assert not clipped or set(clipped) == {False, True}
    return {path: tensor.detach().numpy() for path, tensor in tensors.items()}


def check_against_torch(description):
    start, gradients = start_and_gradients()
    ours = run_ours(description, start, gradients)
    theirs = run_torch(description, start, gradients)
    for path in SHAPES:
        # Rounding of float32 in five steps of size 1e-2, and in 1 - 0.999^step.
        np.testing.assert_allclose(ours[path], theirs[path], rtol=1e-6, atol=1e-7)
        assert np.abs(ours[path] - start[path]).max() > 1e-4


@pytest.mark.parametrize("schedule", FALL)
@pytest.mark.parametrize("name", NAMES)
def test_equals_torch_with_everything(name, schedule):
    check_against_torch(described(name, schedule=schedule, warmup_steps=2, **EVERYTHING))


@pytest.mark.parametrize("name", NAMES)
def test_equals_torch_with_nothing_else(name):
    check_against_torch(described(name, schedule="poly"))


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


def test_poly_schedule_after_a_warm_up():
    schedule = make_schedule(PLAIN | {"schedule": "poly", "warmup_steps": 10}, 110, "localise/a")
    for step, share in ((5, 0.5), (10, 1.0), (60, 0.5**0.9), (109, 0.01**0.9), (110, 0.0)):
        assert float(schedule(step)) == pytest.approx(1e-2 * share, rel=1e-5), step
    straight = make_schedule(PLAIN | {"schedule": "poly", "power": 1.0}, 4, "localise/a")
    rates = [float(straight(step)) for step in range(4)]
    assert rates == pytest.approx([1e-2, 7.5e-3, 5e-3, 2.5e-3])


def test_a_late_schedule():
    late = make_schedule(PLAIN | {"schedule": "poly", "schedule_lag": 1}, 6, "localise/a")
    rates = [1e-2 * (1 - step / 6) ** 0.9 for step in (0, 0, 1, 2)]
    assert [float(late(step)) for step in range(4)] == pytest.approx(rates)


def test_groups_have_optimisers_of_their_own():
    """CAVP's: Adam of one group at a constant rate, beside SGD with momentum and poly decay."""
    start, gradients = start_and_gradients()
    keys = PLAIN | {"name": "sgd", "momentum": 0.9, "schedule": "poly"}
    adam = {"name": "adam", "schedule": "constant", "weight_decay": 0.0}
    both = run_ours(keys | {"groups": (("norm/.*", adam),)}, start, gradients)
    alone = run_ours(keys, start, gradients)
    other = run_ours(keys | adam, start, gradients)
    for path in SHAPES:
        np.testing.assert_array_equal(both[path], (other if "norm" in path else alone)[path])
        assert not np.array_equal(alone[path], other[path])


def test_faults_in_groups():
    for groups, message in (
        ((("layer/.*", {"clip_norm": 1.0}),), "has 'clip_norm', which is no key of a group"),
        ((("nothing", {}),), "'nothing' of 'localise/a groups' matches none"),
        ((("layer/.*", {"no_decay": ("norm/.*",)}),), "'norm/.*' of 'localise/a groups no_decay'"),
        ((("layer/.*", {"no_decay": ("*",)}),), "groups no_decay' is no regular expression"),
        ((("layer/.*", {}), ("layer/.*", {})), "belongs to groups before it: leave it out"),
    ):
        with pytest.raises(UserError, match=message):
            make_optimizer(PLAIN | {"groups": groups}, 10, list(SHAPES), "localise/a")


def test_unknown_choices_name_the_phase_and_the_known_ones():
    with pytest.raises(UserError, match=r"understand/b is 'linear', none of constant, cosine"):
        make_schedule(PLAIN | {"schedule": "linear"}, 10, "understand/b")
    with pytest.raises(UserError, match=r"name of understand/b is 'lamb', none of adamw, adam"):
        make_optimizer(PLAIN | {"name": "lamb"}, 10, list(SHAPES), "understand/b")


def test_the_first_multiplier_that_matches_counts():
    assert rate_factors(EVERYTHING, list(SHAPES), "localise/a") == FACTORS
    # Of the whole path.
    with pytest.raises(UserError, match=r"'norm' of 'localise/a multipliers' matches none"):
        rate_factors({"multipliers": (("norm", 2.0),)}, list(SHAPES), "localise/a")


def test_a_no_decay_pattern_without_match_names_the_phase():
    with pytest.raises(UserError, match=r"'nothing' of 'localise/a no_decay' matches none"):
        make_optimizer(PLAIN | {"no_decay": ("nothing",)}, 10, list(SHAPES), "localise/a")


def test_only_what_trains_has_moments():
    optimizer = make_optimizer(PLAIN, 10, ["layer/kernel"], "localise/a")
    state = optimizer.init({"layer/kernel": np.zeros((4, 3), np.float32)})
    assert sum(leaf.size for leaf in jax.tree.leaves(state) if leaf.ndim) == 2 * 12


@pytest.mark.parametrize("name", [*NAMES, "groups"])
def test_the_state_comes_back_from_a_checkpoint(tmp_path, name):
    start, gradients = start_and_gradients()
    keys = described("adam" if name == "groups" else name, **EVERYTHING)
    memory = {}
    if name == "groups":
        keys["groups"] = (("norm/.*", {"name": "sgd", "momentum": 0.9}),)
        memory = {"queue": jnp.arange(4)}
    optimizer = make_optimizer(keys, STEPS, list(start), "localise/a")
    fresh = TrainState.create(jax.tree.map(jnp.asarray, start), {}, optimizer, None, memory)
    data = iter(grain.MapDataset.range(9).to_iter_dataset())  # whose place is saved along
    memory = {path: array + 1 for path, array in memory.items()}
    state = fresh.apply_gradients(gradients[-1], optimizer, None, None, memory)
    with PhaseCheckpoints(tmp_path) as checkpoints:
        checkpoints.save(state, data, {SCORE: 0.5})
    with PhaseCheckpoints(tmp_path) as checkpoints:
        restored = checkpoints.restore_latest(fresh, data)
    assert int(steps_made(restored.opt_state)) == 1
    jax.tree.map(np.testing.assert_array_equal, restored, state)
