"""Which checkpoint a trained stage keeps, hands over and is scored with."""

import dataclasses
import json
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from aavs_jax.errors import UserError
from aavs_jax.methods import METHODS
from aavs_jax.methods.tasks import TASKS
from aavs_jax.run.progress import say
from aavs_jax.run.resuming import RESULTS
from aavs_jax.state.checkpoint import Best, PhaseCheckpoints, rank
from aavs_jax.weights import card
from aavs_jax.weights.card_method import method_of
from aavs_jax.weights.naming import in_words


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


def choose(folder: Path, keys: Mapping[str, Any], *, reading: bool = False) -> Chosen | None:
    """Which checkpoint a stage keeps: the best of its last phase, or of all its phases.

    Of equal scores the earlier one is kept.

    Args:
      folder: of the stage.
      keys: of the stage, `order` and `best_over_phases` as in configs/base.py.
      reading: see `PhaseCheckpoints`; phases without a checkpoint to choose are left out.

    Returns:
      None, when only reading, if there is nothing to choose from.

    Raises:
      UserError: a phase has no checkpoint that can be read.
    """
    everything = keys["best_over_phases"] == "all"
    among = tuple(keys["order"] if everything else keys["order"][-1:])
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
    folder: Path, keys: Mapping[str, Any]
) -> tuple[dict[str, np.ndarray], Chosen]:
    """The parameters that a trained stage keeps, by path, and where they are from.

    A damaged checkpoint is moved out of the way, said so, and the next best is taken.

    Args:
      folder: of the stage.
      keys: as in `choose`.

    Raises:
      UserError: none can be read, or some parameters are not there.
    """
    while True:
        chosen = choose(folder, keys)
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


def parameters_at(directory: Path, step: int) -> dict[str, np.ndarray]:
    """The parameters that a trained phase had after a step that it was told to keep.

    Raises:
      UserError: they cannot be read, or some are not there.
    """
    with PhaseCheckpoints(directory) as checkpoints:
        parameters = checkpoints.load(Best(step, math.nan))
    if parameters is None:
        raise UserError(
            f"{directory / 'checkpoints' / str(step)} cannot be read, and masks were to be written "
            f"with it: delete {directory} and {directory.parent / RESULTS} and start the command "
            "again, which trains this phase anew"
        )
    _check_nothing_lacks(directory, parameters)
    return parameters


def _check_nothing_lacks(directory: Path, parameters: Mapping[str, np.ndarray]) -> None:
    if not (directory / card.FILE).exists():
        return
    description = card.read(directory)
    if description.kind in METHODS:
        method = method_of(description)
        if lacking := dict.fromkeys(method.shapes.keys() - parameters.keys(), ""):
            words = in_words(lacking, method.parts)
            raise UserError(f"{directory} lacks {words}: {put_back(directory)}")


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
            f"continued: {put_back(directory)}"
        )


def put_back(directory: Path) -> str:
    """What to do where a phase has lost what it never trained."""
    return (
        f"put the folder {directory / 'frozen'} back, or delete {directory} and start the command "
        "again, which trains this phase anew"
    )


def newest_run(folder: Path) -> Path:
    """The run in a folder whose checkpoints were written last.

    Raises:
      UserError: there is none.
    """
    places = [place for place in folder.glob("*/*/*/checkpoints") if place.is_dir()]
    if not places:
        raise UserError(
            f"there is no trained run in {folder}: name weights with --weights=FOLDER, or train "
            "with python -m aavs_jax.main --config=configs/avss.py"
        )
    return max(places, key=lambda place: place.stat().st_mtime).parents[2]


def kept_phases(run: Path) -> list[Path]:
    """The folders of the phases whose best a run's stages keep, of those that have been trained."""
    path = run / "config.json"
    try:
        record = json.loads(path.read_bytes())
        if isinstance(record, dict) and "config" not in record:
            raise UserError(
                f"{path} is not the record of a run: give --evaluate a folder that "
                "aavs_jax.convert wrote, a run, or <run>/<stage>/<phase>"
            )
        config = record["config"]
        stages = {name: config["stages"][name] for name in config["schedule"]}
        last = {name: run / name / stage["order"][-1] for name, stage in stages.items()}
        scores = {name: TASKS[stage["task"]].score for name, stage in stages.items()}
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise UserError(f"{path} is damaged: name <run>/<stage>/<phase> instead of it") from error
    kept = []
    for name, stage in stages.items():
        if (chosen := choose(run / name, stage, reading=True)) is not None:
            say(f"of {run / name} is taken {chosen.describe(scores[name])}")
            kept.append(run / name / chosen.phase)
        elif any((last[name] / "checkpoints").glob("[0-9]*")):
            kept.append(last[name])
    if not kept:
        raise UserError(
            f"{run} holds no trained network: none of its stages has reached its last phase, such "
            f"as {next(iter(last.values()))}"
        )
    return kept
