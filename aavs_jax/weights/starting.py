"""What a phase starts from: all parameters are taken from somewhere, or initialised at random.

What is initialised at random is named. A frozen layer that nobody noticed to be random is a silent
disaster, so the phase has to train it, or the config has to allow it by name.
"""

import dataclasses
import math
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from aavs_jax.errors import UserError
from aavs_jax.methods.method import Method
from aavs_jax.run.progress import say
from aavs_jax.state import tree
from aavs_jax.state.checkpoint import Best, PhaseCheckpoints, rank
from aavs_jax.weights import card, pretrained

Shape = tuple[int, ...]

# The only parameters whose shape may be another where they come from: the axis that may differ,
# what it counts, and how many of its entries are not that ("no object" is no class).
MAY_MISFIT = {
    r"decoder/class_predictor/(kernel|bias)": (-1, "classes", 1),
    r"decoder/query_(positions|features)": (0, "queries", 0),
}
# How parameters are called together, and how many arrays that are where it is always as many. The
# first pattern that matches counts.
NAMES = {
    r"backbone/.*_adapter/.*": ("the backbone adapters", None),
    r"pixel_decoder/.*adapter/.*": ("the pixel decoder's adapters", None),
    r"decoder/.*adapter/.*": ("the decoder's adapters", None),
    r"decoder/class_predictor/.*": ("the class predictor", 2),
    r"decoder/query_positions": ("the query positions", 1),
    r"decoder/query_features": ("the query features", 1),
    r"decoder/(silent|sounding|uncertain)_embed": ("the key vectors", 3),
    r"audio_proj/.*": ("the audio MLP", 4),
    r"audio_encoder/.*": ("the audio encoder", None),
    r"backbone/.*": ("the backbone", None),
    r"pixel_decoder/.*": ("the pixel decoder", None),
    r"decoder/.*": ("the decoder", None),
    r".*": ("the network", None),
}
FEW = 3  # parameters are named one by one


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
    shapes: Mapping[str, Shape], given: Mapping[str, Shape], phase: Mapping[str, Any], name: str
) -> Start:
    """Decides for every parameter where it comes from. Later ones win:

    1. it is drawn from the seed;
    2. what is given under its path is taken, if it fits;
    3. `fresh`: patterns of what is drawn all the same;
    4. `zero`: patterns of what is set to zero.

    Args:
      shapes: path -> shape of every parameter of the network.
      given: the same of what the phase starts from.
      phase: `start`, `fresh`, `zero` as in configs/base.py.
      name: "<stage>/<phase>".

    Raises:
      UserError: nothing given fits; something given has another shape, other than by its number of
        classes or queries; a pattern that matches nothing.
    """
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
            drawn[path] = _misfit(path, shape, given[path], origin, name)
    return Start(frozenset(taken), drawn, frozenset(zero), frozenset(given.keys() - shapes.keys()))


def check_start(start: Start, phase: Mapping[str, Any], name: str, init: Mapping[str, Any]) -> None:
    """Whether all that is initialised at random is trained by the phase, or allowed to stay so.

    Args:
      start: of the phase.
      phase: `trains` and `start` as in configs/base.py.
      name: "<stage>/<phase>".
      init: config.init.

    Raises:
      UserError: something would stay random for ever; names it and what to do.
    """
    patterns = [*phase["trains"], *init["allow"]]
    random = {
        path: reason
        for path, reason in start.drawn.items()
        if not any(re.fullmatch(pattern, path) for pattern in patterns)
    }
    if not random:
        return
    what = f"{in_words(random)} would be initialised at random and never be trained by {name}"
    missing = pretrained.missing(init) if phase["start"] == "pretrained" else []
    # An audio encoder comes with no Mask2Former, and the other way round.
    sound = [path.startswith(pretrained.AUDIO_ENCODER) for path in random]
    needed = [key for key in missing if (any(sound) if key == "vggish" else not all(sound))]
    if needed:
        raise UserError(
            f"{name} starts from pretrained parameters, and --config.init.{needed[0]} is not "
            f"given: {what}; {pretrained.how_to_give(needed)}"
        )
    stage_name, phase_name = name.split("/")
    raise UserError(
        f"{what}: start from weights that hold them, add them to "
        f"config.stages.{stage_name}.phases.{phase_name}.trains, or let them be random with "
        f"patterns as in --config.init.allow=\"('{min(random)}',)\""
    )


def starting_parameters(
    config: Mapping[str, Any], name: str, method: Method, root: Path
) -> dict[str, np.ndarray]:
    """The parameters that a phase starts from, as `plan_start` decides; says what it did.

    Args:
      config: as in configs/base.py.
      name: "<stage>/<phase>".
      method: of the stage.
      root: the folder of the run.

    Returns:
      float32 host arrays by path, of all parameters of the network.

    Raises:
      UserError: pretrained parameters are asked for and none are given; a phase that is not
        there; what `plan_start` and `check_start` find.
    """
    stage_name, phase_name = name.split("/")
    phase = config["stages"][stage_name]["phases"][phase_name]
    given, source = _given(config, name, method, root)
    shapes = {path: leaf.shape for path, leaf in method.shapes.items()}
    start = plan_start(shapes, {path: value.shape for path, value in given.items()}, phase, name)
    check_start(start, phase, name, config["init"])
    parameters = method.initial(config["seed"], only=start.drawn)
    parameters |= {path: given[path] for path in start.taken}
    parameters |= {path: np.zeros(shapes[path], np.float32) for path in start.zero}
    if given:
        words = [f"takes {len(start.taken)} of {len(shapes)} arrays from {source}"]
        if start.drawn:
            what = in_words(start.drawn)
            words.append(f"initialised at random from seed {config['seed']}: {what}")
        if start.zero:
            words.append(f"set to zero: {in_words(dict.fromkeys(start.zero, ''))}")
        if start.homeless:
            words.append(
                f"without a place in this network: {in_words(dict.fromkeys(start.homeless, ''))}"
            )
        say(f"[{name}] {'; '.join(words)}")
    return parameters


@dataclasses.dataclass(frozen=True)
class Chosen:
    """The checkpoint that a stage keeps: its masks and scores are of it.

    Attributes:
      phase: its name.
      among: the phases whose checkpoints it was chosen from.
      best: its step, and the score of its validation, NaN where no checkpoint has one.
    """

    phase: str
    among: tuple[str, ...]
    best: Best

    def describe(self, score: str) -> str:
        """'the best of phases a and b: step 30 of phase a, J 0.812', where the score is 'J'."""
        here = f"step {self.best.step} of phase {self.phase}"
        if not math.isfinite(self.best.score):
            return f"the last checkpoint, as none has a score: {here}"
        phases = "phases" if len(self.among) > 1 else "phase"
        names = " and ".join(self.among)
        return f"the best of {phases} {names}: {here}, {score} {self.best.score:.3f}"


def choose(folder: Path, stage: Mapping[str, Any], *, reading: bool = False) -> Chosen | None:
    """Which checkpoint a stage keeps: the best of its last phase, or of all its phases.

    Of equal scores the earlier one is kept.

    Args:
      folder: of the stage.
      stage: `order` and `best_over_phases` as in configs/base.py.
      reading: see `PhaseCheckpoints`; phases without a checkpoint to choose are left out.

    Returns:
      None, when only reading, if there is nothing to choose from.

    Raises:
      UserError: a phase has no checkpoint that can be read.
    """
    everything = stage["best_over_phases"] == "all"
    among = tuple(stage["order"] if everything else stage["order"][-1:])
    found: dict[int, Best] = {}
    for place, phase in enumerate(among):
        if reading and not (folder / phase / "checkpoints").is_dir():
            continue
        with PhaseCheckpoints(folder / phase, reading=reading) as checkpoints:
            if (best := checkpoints.best()) is not None:
                found[place] = best
            elif not reading:
                checkpoints.raise_none()
    if not found:
        return None
    place = max(found, key=lambda place: rank(found[place].score, place))
    return Chosen(among[place], among, found[place])


def chosen_parameters(
    folder: Path, stage: Mapping[str, Any]
) -> tuple[dict[str, np.ndarray], Chosen]:
    """The parameters that a trained stage keeps, by path, and where they are from.

    A damaged checkpoint is moved out of the way, said so, and the next best is taken.

    Args:
      folder: of the stage.
      stage: as in `choose`.

    Raises:
      UserError: none can be read, or some parameters are not there.
    """
    while True:
        chosen = choose(folder, stage)
        with PhaseCheckpoints(folder / chosen.phase) as checkpoints:
            parameters = checkpoints.load(chosen.best)
        if parameters is not None:
            _check_nothing_lacks(folder / chosen.phase, parameters)
            return parameters, chosen


def best_parameters(directory: Path) -> dict[str, np.ndarray]:
    """The parameters that a trained phase hands over.

    Raises:
      UserError: none can be read, or some are not there.
    """
    with PhaseCheckpoints(directory) as checkpoints:
        parameters = checkpoints.best_parameters()
    _check_nothing_lacks(directory, parameters)
    return parameters


def _check_nothing_lacks(directory: Path, parameters: Mapping[str, np.ndarray]) -> None:
    if (directory / card.FILE).exists():
        wanted = pretrained.network_shapes(card.read(directory).network)
        if lacking := dict.fromkeys(wanted.keys() - parameters.keys(), ""):
            raise UserError(f"{directory} lacks {in_words(lacking)}: {_put_back(directory)}")


def check_begun(directory: Path, frozen: Collection[str], total: int) -> None:
    """Whether a phase that is to be continued still has what it never changes.

    Args:
      directory: of the phase.
      frozen: paths of what it never changes.
      total: its steps.

    Raises:
      UserError: it has not.
    """
    names = [path.name for path in (directory / "checkpoints").glob("[0-9]*")]
    steps = [int(name) for name in names if name.isdecimal()]
    if frozen and steps and max(steps) < total and not (directory / "frozen").is_dir():
        raise UserError(
            f"{directory} has checkpoints but not its folder frozen, without which they cannot be "
            f"continued: {_put_back(directory)}"
        )


def _put_back(directory: Path) -> str:
    return (
        f"put the folder {directory / 'frozen'} back, or delete {directory} and start the command "
        "again, which trains this phase anew"
    )


def in_words(paths: Mapping[str, str]) -> str:
    """Many parameters in few words: '96 arrays of the backbone adapters (as the phase asks)'.

    Args:
      paths: path -> reason, '' if it needs none.
    """
    patterns = list(NAMES)
    groups: dict[tuple[int, str], list[str]] = {}
    for path, reason in paths.items():
        place = next(i for i, pattern in enumerate(patterns) if re.fullmatch(pattern, path))
        groups.setdefault((place, reason), []).append(path)
    words = []
    for (place, reason), members in sorted(groups.items()):
        name, whole = NAMES[patterns[place]]
        if len(members) == whole:
            what = name
        elif len(members) <= FEW:
            what = ", ".join(sorted(members))
        else:
            what = f"{len(members)} arrays of {name}"
        words.append(f"{what} ({reason})" if reason else what)
    return ", ".join(words)


def _given(
    config: Mapping[str, Any], name: str, method: Method, root: Path
) -> tuple[dict[str, np.ndarray], str]:
    """What a phase's `start` names, by path, and its name for people."""
    stage_name, phase_name = name.split("/")
    start = config["stages"][stage_name]["phases"][phase_name]["start"]
    if start == "nothing":
        return {}, start
    if start == "pretrained":
        origins = pretrained.check_pretrained(config, name, method.network)
        return pretrained.load(origins), " and ".join(origin.describe() for origin in origins)
    if not (root / start / "checkpoints").is_dir():
        raise UserError(
            f"{name} starts from {start!r}, which is neither 'nothing', 'pretrained' nor a phase "
            f"trained in {root}: correct config.stages.{stage_name}.phases.{phase_name}"
        )
    return best_parameters(root / start), repr(start)


def _misfit(path: str, wanted: Shape, found: Shape, origin: str, name: str) -> str:
    """Why a parameter of another shape is not taken; an error where that may not be."""
    for pattern, (axis, what, besides) in MAY_MISFIT.items():
        if re.fullmatch(pattern, path) and len(wanted) == len(found):
            resized = list(found)
            resized[axis] = wanted[axis]
            if tuple(resized) == wanted:
                return f"{wanted[axis] - besides} {what}, not {found[axis] - besides}"
    raise UserError(
        f"{path} has the shape {list(found)} in {origin} and {list(wanted)} in the network of "
        f"{name}: start from weights of this network's sizes, or change its sizes"
    )
