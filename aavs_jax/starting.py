"""What a phase starts from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from aavs_jax import tree
from aavs_jax.checkpoint import PhaseCheckpoints, load_parameters
from aavs_jax.checks import check_pretrained
from aavs_jax.errors import UserError
from aavs_jax.method import Method
from aavs_jax.progress import say


def starting_parameters(
    config: Mapping[str, Any], name: str, method: Method, root: Path
) -> dict[str, np.ndarray]:
    """What a phase starts from. Later ones win:

    1. a fresh draw of everything, from the seed and each parameter's path;
    2. by `start`: nothing else; 'pretrained': the folders of config.init; '<stage>/<phase>': the
       best checkpoint of that phase. What is missing there or has another shape stays fresh;
    3. `fresh`: patterns of what is drawn anew all the same (it is the draw of 1);
    4. `zero`: patterns of what is set to zero.

    Raises:
      UserError: pretrained parameters are asked for and none are given; a phase that is not
        there; nothing in it fits the network; a pattern that matches nothing.
    """
    stage_name, phase_name = name.split("/")
    phase = config["stages"][stage_name]["phases"][phase_name]
    fresh = method.initial(config["seed"])
    parameters = dict(fresh)
    start = phase["start"]
    if start == "pretrained":
        given = pretrained_parameters(config["init"], name)
    elif start == "nothing":
        given = {}
    else:
        if not (root / start / "checkpoints").is_dir():
            raise UserError(
                f"{name} starts from {start!r}, which is neither 'nothing', 'pretrained' nor a "
                f"phase trained in {root}: correct config.stages.{stage_name}.phases.{phase_name}"
            )
        given = best_parameters(root / start)
    taken = {
        path: value
        for path, value in given.items()
        if path in fresh and value.shape == fresh[path].shape
    }
    parameters |= taken
    if given:
        left = [path for path in fresh if path not in taken]
        if not taken:
            raise UserError(
                f"nothing in {start!r}, from which {name} starts, fits the network: it holds "
                f"{', '.join(list(given)[:3])} and the like; check the path, or the model's sizes"
            )
        say(
            f"[{name}] takes {len(taken)} of {len(fresh)} arrays from {start!r}"
            + (f"; drawn afresh: {', '.join(left)}" if left else "")
        )
    for path in tree.matching(fresh, phase["fresh"], f"{name} fresh"):
        parameters[path] = fresh[path]
    for path in tree.matching(fresh, phase["zero"], f"{name} zero"):
        parameters[path] = np.zeros_like(fresh[path])
    return parameters


def pretrained_parameters(init: Mapping[str, str], name: str) -> dict[str, np.ndarray]:
    """The folders of config.init, as one.

    Raises:
      UserError: one of them is not given, or not readable.
    """
    check_pretrained(init, name)
    merged: dict[str, np.ndarray] = {}
    for folder in init.values():
        merged |= load_parameters(Path(folder))
    return merged


def best_parameters(directory: Path) -> dict[str, np.ndarray]:
    """The parameters that a trained phase hands over."""
    with PhaseCheckpoints(directory) as checkpoints:
        return checkpoints.best_parameters()
