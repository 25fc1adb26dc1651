"""How long each run trains: frames that it sees, or minutes of its steps.

Epochs are scaled, all phases of all stages by one factor, so that each schedule is whole: a run
that is cut off would have the learning rate of its middle. So is the time between validations,
and every run has as many of them as its recipe.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aavs_jax.errors import UserError
from aavs_jax.inputs.batches import open_split
from aavs_jax.plan.folds import split_by, with_writers
from aavs_jax.plan.questions import without_repeated_question
from aavs_jax.plan.stage import PhaseName, Stage
from data_pipelines.loader import labelled_clips

KINDS = ("recipe", "frames", "minutes")
ADVICE = "give recipe, frames=N or minutes=M"


@dataclasses.dataclass(frozen=True)
class Budget:
    """Of each run's training: 'recipe', as its config says, or so many 'frames' or 'minutes'."""

    kind: str
    amount: float = 0.0

    def __str__(self) -> str:
        return self.kind if self.kind == "recipe" else f"{self.kind}={self.amount:g}"

    @property
    def described(self) -> str:
        """For people."""
        if self.kind == "recipe":
            return "as long as each config says"
        what = "of steps, without compiling and validation" if self.kind == "minutes" else "seen"
        return f"{self.amount:,.10g} {self.kind} {what} in each run"


def parse(text: str) -> Budget:
    """'frames=20000' -> Budget; a UserError where it is none."""
    kind, equals, amount = text.partition("=")
    if text == "recipe":
        return Budget("recipe")
    if kind not in KINDS[1:] or not equals:
        raise UserError(f"--budget={text} is no budget: {ADVICE}")
    try:
        number = float(amount)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise UserError(f"--budget={text} is no budget: {amount!r} is no number above 0, {ADVICE}")
    return Budget(kind, number)


@dataclasses.dataclass(frozen=True)
class Part:
    """A phase, as a part of a run's training.

    Attributes:
      name: of the phase; of a fold, of the fold's own.
      steps: optimiser steps.
      frames: that a step sees, on average; padding is none.
      unrounded: the steps as the epochs have them.
    """

    name: PhaseName
    steps: int
    frames: float
    unrounded: float


def parts(values: Mapping[str, Any], data_dir: Path) -> list[Part]:
    """The phases of a config, those of folds too, in the order in which they train.

    Args:
      values: of the config, `plan.values.checked`.
      data_dir: the prepared data set.

    Raises:
      UserError, DataError: the data have nothing to train a stage on.
    """
    config, stages, found = with_writers(values), [], []
    for name in config["schedule"]:
        # To count steps takes its clips; its network would take seconds to describe.
        stage = Stage(name, config, data_dir, None)
        source = open_split(data_dir, "train", stage)
        if stage.fold:
            source = source.only(split_by(source.clips, stage.fold, stage.keys["folds"])[0])
        stages.append(dataclasses.replace(stage, sources={"train": source}))
    for stage in without_repeated_question(stages):
        frames = _frames_of_a_clip(stage) * stage.keys["data"]["batch_size"]
        for phase in stage.phases:
            unrounded = stage.phase(phase)["epochs"] * stage.steps_per_epoch
            found.append(Part(phase, stage.steps(phase), frames, unrounded))
    return found


def _frames_of_a_clip(stage: Stage) -> float:
    data, source = stage.keys["data"], stage.sources["train"]
    if data["sampling"] == "frame":
        return 1.0
    seconds = [
        min(source.clips[index].seconds, data["seconds"]) for index in labelled_clips(source)
    ]
    return sum(seconds) / len(seconds)


def frames(parts: Sequence[Part]) -> float:
    """Seen in training, over all phases."""
    return sum(part.steps * part.frames for part in parts)


def factor(budget: Budget, parts: Sequence[Part], seconds: Mapping[str, float]) -> float:
    """By which the epochs of all phases are multiplied.

    Args:
      budget: of the run.
      parts: of its config as it is.
      seconds: that a step takes, by '<stage>/<phase>'; of minutes alone.

    Raises:
      KeyError: a phase whose steps have no time.
    """
    if budget.kind == "recipe":
        return 1.0
    if budget.kind == "frames":
        return budget.amount / sum(part.unrounded * part.frames for part in parts)
    return 60 * budget.amount / sum(part.unrounded * seconds[str(part.name)] for part in parts)


def overrides(values: Mapping[str, Any], factor: float) -> list[str]:
    """The flags that multiply all epochs of a config.

    Args:
      values: of the config, `plan.values.checked`.
      factor: 1: there are none.
    """
    if factor == 1:
        return []
    flags = _no_other_epochs(values)
    for name in values["schedule"]:
        stage = values["stages"][name]
        keys = {
            f"phases.{phase}.{key}": stage["phases"][phase][key]
            for phase in stage["order"]
            for key in ("epochs", "validate_every_epochs")
        }
        flags += [f"--config.stages.{name}.{key}={v * factor:.6g}" for key, v in keys.items()]
    return flags


def pilot(parts: Sequence[Part], values: Mapping[str, Any], steps: int) -> list[str]:
    """The flags of a run whose phases have a few steps each, which are to be timed.

    Args:
      parts: of the config.
      values: of the config.
      steps: of each phase.
    """
    flags = [
        "--config.eval.protocols=stepping_stones",
        "--config.eval.sounds=('right',)",
        "--config.eval.examples=0",
        "--config.log_every=5",
        *_no_other_epochs(values),
    ]
    for part in parts:
        stage, phase = part.name
        if stage in values["stages"]:  # folds have the epochs of their stage
            keys, factor = values["stages"][stage], steps / part.unrounded
            epochs = keys["phases"][phase]["epochs"] * factor
            where = f"--config.stages.{stage}"
            flags += [
                f"{where}.phases.{phase}.epochs={epochs:.6g}",
                f"{where}.phases.{phase}.validate_every_epochs=1e6",
            ]
    return flags


def _no_other_epochs(values: Mapping[str, Any]) -> list[str]:
    """The flag for a config that gives epochs of all stages: each stage has its share by now."""
    return ["--config.epochs=0"] if values["epochs"] else []
