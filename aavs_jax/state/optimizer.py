"""The optax transformation of a phase, from its description in the config."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import optax

from aavs_jax.errors import UserError
from aavs_jax.state import tree


def make_schedule(description: Mapping[str, Any], total_steps: int, purpose: str) -> Callable:
    """Learning rate by step of the optimiser.

    Where empty clips are dropped, a batch of nothing else is no such step: the phase then ends
    before `total_steps` of them are made, and a cosine above zero.

    Args:
      description: learning_rate; schedule "constant" or "cosine" (to zero at the phase's end);
        warmup_steps, over which it rises linearly from zero, at most half of the phase: a small
        data set makes short phases.
      total_steps: batches of the phase.
      purpose: names the phase in errors.

    Raises:
      UserError: an unknown schedule.
    """
    peak = description["learning_rate"]
    warmup = min(description["warmup_steps"], total_steps // 2)
    after = {
        "constant": lambda: optax.constant_schedule(peak),
        "cosine": lambda: optax.cosine_decay_schedule(peak, total_steps - warmup),
    }
    if description["schedule"] not in after:
        raise UserError(
            f"optimizer.schedule of {purpose} is {description['schedule']!r}, none of "
            f"{', '.join(after)}: correct it in the config"
        )
    schedule = after[description["schedule"]]()
    if not warmup:
        return schedule
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), schedule], [warmup])


def make_optimizer(
    description: Mapping[str, Any], total_steps: int, paths: Sequence[str], purpose: str
) -> optax.GradientTransformation:
    """AdamW (betas 0.9 and 0.999, eps 1e-8) behind clipping by the global norm.

    Args:
      description: what `make_schedule` reads, and: weight_decay; no_decay, patterns of parameters
        that do not decay; clip_norm, 0 for none.
      total_steps: optimiser steps of the phase.
      paths: of the parameters that train.
      purpose: names the phase in errors.

    Raises:
      UserError: as `make_schedule`; a no_decay pattern that matches nothing.
    """
    spared = tree.matching(paths, description["no_decay"], f"{purpose} no_decay")
    adamw = optax.adamw(
        make_schedule(description, total_steps, purpose),
        b1=0.9,
        b2=0.999,
        eps=1e-8,
        weight_decay=description["weight_decay"],
        mask={path: path not in spared for path in paths},
    )
    if not description["clip_norm"]:
        return adamw
    return optax.chain(optax.clip_by_global_norm(description["clip_norm"]), adamw)


def steps_made(opt_state: optax.OptState) -> jax.Array:
    """How many steps an optimiser of `make_optimizer` has made, int32, from its state."""
    # Adam and the schedule count alike.
    return optax.tree_utils.tree_get_all_with_path(opt_state, "count")[0][1]
