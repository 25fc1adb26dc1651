"""What a phase starts from: all parameters are taken from somewhere, or initialised at random.

What is initialised at random is named. A frozen layer that nobody noticed to be random is a silent
disaster, so the phase has to train it, or the config has to allow it by name.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from aavs_jax.errors import UserError
from aavs_jax.methods.method import Method
from aavs_jax.plan.stage import PhaseName, Stage, depends_on_classes
from aavs_jax.run.progress import say
from aavs_jax.state import tree
from aavs_jax.weights import pretrained
from aavs_jax.weights.keeping import best_parameters
from aavs_jax.weights.naming import in_words

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Start:
    """Where each parameter of a network comes from.

    Attributes:
      taken: paths that are taken as they are.
      drawn: path -> why it is drawn from the seed, '' if nothing was to be taken.
      zero: paths that are set to zero.
      homeless: paths of what is given and has no place in the network.
    """

    taken: frozenset[str]
    drawn: dict[str, str]
    zero: frozenset[str]
    homeless: frozenset[str]


def plan_start(
    method: Method,
    given: Mapping[str, Shape],
    phase: Mapping[str, Any],
    name: PhaseName,
    shapes: Mapping[str, Shape] | None = None,
) -> Start:
    """Decides for every parameter where it comes from. Later ones win:

    1. it is drawn from the seed;
    2. what is given under its path is taken, if it fits;
    3. `fresh`: patterns of what is drawn all the same;
    4. `zero`: patterns of what is set to zero.

    Args:
      method: whose parameters they are.
      given: path -> shape of what the phase starts from.
      phase: `start`, `fresh`, `zero` as in configs/base.py.
      name: of the phase.
      shapes: path -> shape of every parameter, where they are not the method's.

    Raises:
      UserError: nothing given fits; something given has another shape, other than by its number of
        classes or queries; a pattern that matches nothing.
    """
    shapes = shapes or {path: leaf.shape for path, leaf in method.shapes.items()}
    origin = "the pretrained weights" if phase["start"] == "pretrained" else phase["start"]
    fresh = tree.matching(shapes, phase["fresh"], f"{name} fresh")
    zero = tree.matching(shapes, phase["zero"], f"{name} zero")
    if given and not shapes.keys() & given.keys():
        raise UserError(
            f"nothing in {origin}, from which {name} starts, has a place in the network: it holds "
            f"{', '.join(list(given)[:3])} and the like; check what it starts from"
        )
    taken, drawn = set(), {}
    for path, shape in shapes.items():
        if path in zero:
            continue
        if path in fresh:
            drawn[path] = "as the phase asks"
        elif path not in given:
            drawn[path] = f"not in {origin}" if given else ""
        elif given[path] == shape:
            taken.add(path)
        else:
            drawn[path] = _misfit(method, path, shape, given[path])
            if not drawn[path]:
                raise UserError(
                    f"{path} has the shape {list(given[path])} in {origin} and {list(shape)} in "
                    f"the network of {name}: start from weights of this network's sizes, or change "
                    "its sizes"
                )
    return Start(frozenset(taken), drawn, frozenset(zero), frozenset(given.keys() - shapes.keys()))


def check_start(start: Start, stage: Stage, name: PhaseName) -> None:
    """Whether all that is initialised at random is trained by the phase, or allowed to stay so.

    Running statistics begin as they are and are no draws.

    Args:
      start: of the phase.
      stage: of the phase.
      name: of the phase.

    Raises:
      UserError: something would stay random for ever; names it and what to do.
    """
    phase, init, method = stage.phase(name), stage.config["init"], stage.method
    patterns = [*phase["trains"], *init["allow"]]
    random = {
        path: reason
        for path, reason in start.drawn.items()
        if path not in method.mutable
        and not any(re.fullmatch(pattern, path) for pattern in patterns)
    }
    if not random:
        return
    words = in_words(random, method.parts)
    what = f"{words} would be initialised at random and never be trained by {name}"
    missing = pretrained.missing(method, init) if phase["start"] == "pretrained" else []
    if needed := [key for key in missing if pretrained.could_give(method, key, random)]:
        raise UserError(
            f"{name} starts from pretrained parameters, and --config.init.{needed[0]} is not "
            f"given: {what}; {pretrained.how_to_give(method, needed)}"
        )
    raise UserError(
        f"{what}: start from weights that hold them, add them to "
        f"{stage.where}.phases.{name.phase}.trains, or let them be random with "
        f"patterns as in --config.init.allow=\"('{min(random)}',)\""
    )


def check_starts(stages: Sequence[Stage]) -> None:
    """Whether every phase that is to come will find what it starts from.

    Args:
      stages: of the schedule, in its order; finished ones are not looked at.

    Raises:
      UserError: as `plan_start` and `check_start`; a start that no earlier phase is.
    """
    earlier: list[str] = []
    methods = {stage.name: stage.method for stage in stages if not stage.is_complete}
    for stage in stages:
        for name in stage.phases:
            begun = (stage.root / str(name) / "checkpoints").is_dir()
            if not stage.is_complete and not begun:
                _check_start(stage, name, methods, earlier)
            earlier.append(str(name))


def _check_start(
    stage: Stage, name: PhaseName, methods: Mapping[str, Method], earlier: Sequence[str]
) -> None:
    phase, method = stage.phase(name), stage.method
    start = phase["start"]
    if start == "pretrained":
        given = pretrained.shapes_of(pretrained.check_pretrained(stage, name))
    elif start == "nothing":
        given = {}
    else:
        given = {}
        for prefix, phase_name in (PhaseName.starts(start) or {"": start}).items():
            place = str(phase_name)
            if place not in earlier and not (stage.root / place / "checkpoints").is_dir():
                raise UserError(
                    f"{name} starts from {start!r}, which is neither 'nothing', 'pretrained' nor a "
                    f"phase before it: correct {stage.where}.phases.{name.phase}.start"
                )
            before = methods.get(place.split("/")[0])
            if place not in earlier or before is None:
                return  # what it holds is looked at when this phase starts
            given |= {prefix + path: leaf.shape for path, leaf in before.shapes.items()}
    # How many classes there are only the data knows.
    shapes = {
        path: given.get(path, leaf.shape) if depends_on_classes(method, path) else leaf.shape
        for path, leaf in method.shapes.items()
    }
    check_start(plan_start(method, given, phase, name, shapes), stage, name)


def starting_parameters(stage: Stage, name: PhaseName) -> dict[str, np.ndarray]:
    """The parameters that a phase starts from, as `plan_start` decides; says what it did.

    Returns:
      float32 host arrays by path, of all parameters and running statistics of the network.

    Raises:
      UserError: pretrained parameters are asked for and none are given; a phase that is not
        there; what `plan_start` and `check_start` find.
    """
    method, seed = stage.method, stage.config["seed"]
    given, source = _given(stage, name)
    shapes = {path: value.shape for path, value in given.items()}
    start = plan_start(method, shapes, stage.phase(name), name)
    check_start(start, stage, name)
    parameters = method.initial(seed, only=start.drawn)
    parameters |= {path: given[path] for path in start.taken}
    parameters |= {p: np.zeros(method.shapes[p].shape, np.float32) for p in start.zero}
    if given:
        words = [f"takes {len(start.taken)} of {len(method.shapes)} arrays from {source}"]
        if start.drawn:
            drawn = in_words(start.drawn, method.parts)
            words.append(f"initialised at random from seed {seed}: {drawn}")
        if start.zero:
            zero = in_words(dict.fromkeys(start.zero, ""), method.parts)
            words.append(f"set to zero: {zero}")
        if start.homeless:
            homeless = in_words(dict.fromkeys(start.homeless, ""), method.parts)
            words.append(f"without a place in this network: {homeless}")
        say(f"[{name}] {'; '.join(words)}")
    return parameters


def _given(stage: Stage, name: PhaseName) -> tuple[dict[str, np.ndarray], str]:
    """What a phase's `start` names, by path, and its name for people."""
    start = stage.phase(name)["start"]
    if start == "nothing":
        return {}, start
    if start == "pretrained":
        origins = pretrained.check_pretrained(stage, name)
        return pretrained.load(origins), " and ".join(origin.describe() for origin in origins)
    given: dict[str, np.ndarray] = {}
    for prefix, phase in (PhaseName.starts(start) or {"": start}).items():
        if not (stage.root / str(phase) / "checkpoints").is_dir():
            raise UserError(
                f"{name} starts from {start!r}, which is neither 'nothing', 'pretrained' nor a "
                f"phase trained in {stage.root}: correct {stage.where}.phases.{name.phase}"
            )
        found = best_parameters(stage.root / str(phase))
        given |= {prefix + path: value for path, value in found.items()}
    return given, repr(start)


def _misfit(method: Method, path: str, wanted: Shape, found: Shape) -> str:
    """Why a parameter of another shape is not taken; '' where that may not be."""
    for pattern, may in method.resizable.items():
        if re.fullmatch(pattern, path) and len(wanted) == len(found):
            resized = list(found)
            resized[may.axis] = wanted[may.axis]
            if tuple(resized) == wanted:
                ours, theirs = wanted[may.axis] - may.besides, found[may.axis] - may.besides
                return f"{ours} {may.what}, not {theirs}"
    return ""
