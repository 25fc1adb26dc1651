"""The optax transformation of a phase, from its description in the config."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from aavs_jax.errors import UserError
from aavs_jax.state import tree

# Keys that a group of parameters may have of its own; the others are of all.
OF_A_GROUP = frozenset(
    ("name", "betas", "eps", "momentum", "learning_rate", "schedule", "power", "warmup_steps")
    + ("schedule_lag", "weight_decay", "no_decay")
)


def make_schedule(description: Mapping[str, Any], total_steps: int, purpose: str) -> Callable:
    """Learning rate by step of the optimiser.

    Where empty clips are dropped, a batch of nothing else is no such step: the phase then ends
    before `total_steps` of them are made, and a falling rate above zero.

    Args:
      description: learning_rate; schedule, "constant", or falling to zero at the phase's end,
        "cosine" or "poly": (1 - share of the phase)^power; warmup_steps, over which it rises
        linearly from zero before that, at most half of the phase: a small data set makes short
        phases; schedule_lag, by how many steps all of this is late: the first step's rate is then
        that of so many more.
      total_steps: batches of the phase.
      purpose: names the phase in errors.

    Raises:
      UserError: an unknown schedule.
    """
    peak = description["learning_rate"]
    warmup = min(description["warmup_steps"], total_steps // 2)
    rest = total_steps - warmup
    after = {
        "constant": optax.constant_schedule(peak),
        "cosine": optax.cosine_decay_schedule(peak, rest),
        "poly": optax.polynomial_schedule(peak, 0.0, description["power"], rest),
    }
    schedule = _chosen(after, "schedule", description, purpose)
    if warmup:
        rising = optax.linear_schedule(0.0, peak, warmup)
        schedule = optax.join_schedules([rising, schedule], [warmup])
    lag = description["schedule_lag"]
    return (lambda step: schedule(jnp.maximum(step - lag, 0))) if lag else schedule


def make_optimizer(
    description: Mapping[str, Any], total_steps: int, paths: Sequence[str], purpose: str
) -> optax.GradientTransformation:
    """AdamW, Adam or SGD as in PyTorch, behind clipping by the global norm.

    Args:
      description: what `make_schedule` reads, and: name, "adamw", "adam" or "sgd"; betas and eps of
        the first two; momentum of the last; weight_decay, which AdamW takes off the weights, times
        the learning rate, and the others add to the (clipped) gradient; no_decay, patterns of
        parameters that do not decay; multipliers, as `rate_factors` reads them; clip_norm, 0 for
        none; groups, (pattern, keys) pairs: what matches, and no pair before, has an optimiser of
        its own, which reads these keys in place of the others.
      total_steps: optimiser steps of the phase.
      paths: of the parameters that train.
      purpose: names the phase in errors.

    Raises:
      UserError: an unknown name or schedule; a pattern that matches nothing; a key of a group that
        no optimiser has.
    """
    factors = rate_factors(description, paths, purpose)
    tree.matching(paths, description["no_decay"], f"{purpose} no_decay")
    steps = [_grouped(description, total_steps, paths, purpose)]
    if description["clip_norm"]:
        steps.insert(0, optax.clip_by_global_norm(description["clip_norm"]))
    if description["multipliers"]:
        # Of the whole update: the weight decay of AdamW goes with the learning rate.
        steps.append(
            optax.stateless(lambda updates, _: {p: factors[p] * u for p, u in updates.items()})
        )
    return optax.chain(*steps)


def _grouped(
    description: Mapping[str, Any], total_steps: int, paths: Sequence[str], purpose: str
) -> optax.GradientTransformation:
    """The optimisers of all groups as one; without groups it is an optimiser as any other."""
    rest, optimizers = list(paths), []
    for pattern, keys in description["groups"]:
        if unknown := sorted(keys.keys() - OF_A_GROUP):
            raise UserError(
                f"optimizer.groups of {purpose} has {unknown[0]!r}, which is no key of a group: "
                f"give some of {', '.join(sorted(OF_A_GROUP))}"
            )
        matches = tree.matching(paths, (pattern,), f"{purpose} groups")
        own = [path for path in rest if path in matches]
        if not own:
            raise UserError(
                f"all that {pattern!r} of {purpose} groups matches belongs to groups before it: "
                "leave it out, or put it before them"
            )
        tree.matching(own, keys.get("no_decay", ()), f"{purpose} groups no_decay")
        rest = [path for path in rest if path not in own]
        optimizers.append((tuple(own), {**description, **keys}))
    optimizers.append((tuple(rest), description))
    made = [(own, _optimizer(keys, total_steps, own, purpose)) for own, keys in optimizers if own]
    if len(made) == 1:
        return made[0][1]

    def of(own, arrays):
        return {path: arrays[path] for path in own}

    def init(parameters):
        return tuple(optimizer.init(of(own, parameters)) for own, optimizer in made)

    def update(gradients, states, parameters):
        updates, new = {}, []
        for (own, optimizer), state in zip(made, states, strict=True):
            found, state = optimizer.update(of(own, gradients), state, of(own, parameters))
            updates |= found
            new.append(state)
        return updates, tuple(new)

    return optax.GradientTransformation(init, update)


def _optimizer(
    description: Mapping[str, Any], total_steps: int, paths: Sequence[str], purpose: str
) -> optax.GradientTransformation:
    """AdamW, Adam or SGD of some parameters."""
    spared = {p for p in paths if any(re.fullmatch(e, p) for e in description["no_decay"])}
    rate = make_schedule(description, total_steps, purpose)
    decay = {
        "weight_decay": description["weight_decay"],
        "mask": {path: path not in spared for path in paths},
    }
    b1, b2 = description["betas"]
    adam = {"b1": b1, "b2": b2, "eps": description["eps"]}
    momentum = description["momentum"] or None  # None keeps no sum of gradients
    optimizers = {
        "adamw": optax.adamw(rate, **adam, **decay),
        "adam": optax.chain(optax.add_decayed_weights(**decay), optax.adam(rate, **adam)),
        "sgd": optax.chain(optax.add_decayed_weights(**decay), optax.sgd(rate, momentum)),
    }
    return _chosen(optimizers, "name", description, purpose)


def rate_factors(
    description: Mapping[str, Any], paths: Sequence[str], purpose: str
) -> dict[str, float]:
    """By how much the learning rate of each parameter is multiplied.

    Args:
      description: multipliers, (pattern, factor) pairs, of which the first that matches counts.
      paths: of the parameters that train.
      purpose: names the phase in errors.

    Returns:
      A factor for each path, 1 where no pattern matches.

    Raises:
      UserError: a pattern that matches nothing.
    """
    factors = dict.fromkeys(paths, 1.0)
    for pattern, factor in reversed(description["multipliers"]):
        matches = tree.matching(paths, (pattern,), f"{purpose} multipliers")
        factors |= dict.fromkeys(matches, factor)
    return factors


def steps_made(opt_state: optax.OptState) -> jax.Array:
    """How many steps an optimiser of `make_optimizer` has made, int32, from its state."""
    # Whatever counts, Adam's moments and the schedule, counts alike.
    return optax.tree_utils.tree_get_all_with_path(opt_state, "count")[0][1]


def _chosen(
    choices: Mapping[str, Any], key: str, description: Mapping[str, Any], purpose: str
) -> Any:
    if description[key] not in choices:
        raise UserError(
            f"optimizer.{key} of {purpose} is {description[key]!r}, none of {', '.join(choices)}: "
            "correct it in the config"
        )
    return choices[description[key]]
