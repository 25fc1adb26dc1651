"""Checkpoints: what a phase resumes from, and what the next one starts from. Orbax's V1 API.

    <phase>/checkpoints/<step>   trainable parameters, running statistics, optimiser state, data
                                 iterator, scores
    <phase>/frozen               the parameters that the phase never changes, if any, written once

Kept are the two newest, to continue from, the best of those validated, and one that was asked for.
"""

import json
import logging
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from aavs_jax.errors import UserError
from aavs_jax.state import parameter_folders as folders
from aavs_jax.state.sharding import everyone_is_here
from aavs_jax.state.train_state import TrainState

# What the best checkpoint is chosen by; larger is better. NaN: it was not, or cannot be, scored.
SCORE = "score"


def rank(score: float, place: Any) -> tuple:
    """Sorts what was validated: the largest score is best, of equals the earliest.

    A score that is not a number is worse than all others; where there are no others, the latest
    is best.

    Args:
      score: of the validation, NaN where there is none.
      place: when it was, an integer.
    """
    return (True, score, -place) if math.isfinite(score) else (False, 0.0, place)


def _rank(checkpoint: Any) -> tuple:
    return rank(checkpoint.metrics[SCORE], checkpoint.step)


class _KeepBest:
    """Orbax's preservation policy BestN keeps the latest of equals, and knows no NaN."""

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        best = max((c for c in checkpoints if c.metrics), key=_rank, default=None)
        return [c is best for c in checkpoints]


class Best(NamedTuple):
    """A checkpoint that was validated."""

    step: int
    score: float  # NaN: it was not, or cannot be, scored


class PhaseCheckpoints:
    """The checkpoints of one phase; a context manager."""

    def __init__(self, directory: Path, *, keep: int = 0, reading: bool = False):
        """Opens the folder of a phase, making it if missing.

        Args:
          directory: of the phase.
          keep: a step whose checkpoint stays, whatever comes; 0: none.
          reading: only to read from, perhaps while it trains: nothing in it is tidied up.

        Raises:
          UserError: it cannot be written.
        """
        self._directory = Path(directory).absolute()
        self._root = self._directory / "checkpoints"
        self._reading = reading
        policies = ocp.training.preservation_policies
        with folders.orbax_writes(self._directory):
            if not reading:
                self._root.mkdir(parents=True, exist_ok=True)
            self._put_aside_what_cannot_be_listed()
            kept = [policies.LatestN(2), _KeepBest(), policies.CustomSteps([keep])]
            self._orbax = ocp.training.Checkpointer(
                self._root,
                preservation_policy=policies.AnyPreservationPolicy(kept),
                # What a killed process was writing; it is not a checkpoint yet.
                cleanup_tmp_directories=not reading,
            )

    def __enter__(self) -> "PhaseCheckpoints":
        return self

    def __exit__(self, *exception) -> None:
        with folders.orbax_writes(self._directory):
            self._orbax.close()

    @property
    def latest_step(self) -> int:
        """The newest checkpoint's step, -1 if there is none."""
        return self._orbax.latest.step if self._orbax.latest else -1

    def save(self, state: TrainState, data: Any, scores: Mapping[str, float] | None) -> None:
        """Writes in the background; what was being written before is waited for.

        Args:
          state: after some step; must not hold NaN.
          data: the Grain iterator, having given the batches of the steps done.
          scores: of the validation at this step, SCORE among them, if there was one. Where a
            phase has no validation, its last checkpoint comes with the SCORE NaN.
        """
        with folders.orbax_writes(self._directory):
            self._orbax.wait()
            self._orbax.save_checkpointables_async(
                int(state.step),
                {"state": _saved_part(state), "data": data},
                metrics=dict(scores) if scores else None,
                force=True,
            )

    def wait(self) -> None:
        """Until everything is on the disk."""
        with folders.orbax_writes(self._directory):
            self._orbax.wait()

    def restore_latest(self, state: TrainState, data: Any) -> TrainState | None:
        """The newest checkpoint that can be read; `data` is moved to its place.

        Damaged ones are moved aside, said so, and the one before is taken. If none can be read, the
        fault may lie elsewhere, and all stay.

        Args:
          state: shapes and shardings wanted; its frozen parameters are taken over.
          data: a fresh Grain iterator.

        Returns:
          The state, or None if there is no checkpoint.

        Raises:
          UserError: there are some, and none can be read.
        """
        beginning = data.get_state()
        damaged: list[tuple[int, Exception]] = []
        for checkpoint in reversed(self._orbax.checkpoints):
            try:
                loaded = self._orbax.load_checkpointables(
                    checkpoint.step, {"state": _abstract(_saved_part(state)), "data": data}
                )["state"]
            # Orbax, TensorStore and JSON each have errors of their own for what is damaged.
            except Exception as error:
                damaged.append((checkpoint.step, error))
                # It may have been moved before the fault was found.
                data.set_state(beginning)
                continue
            for step, error in damaged:
                self._put_aside(step, error)
            if damaged:
                self._orbax.reload()
            return TrainState(frozen=state.frozen, **{"mutable": {}, "memory": {}} | loaded)
        if not damaged:
            return None
        raise UserError(
            f"none of the checkpoints in {self._root} can be read ({_reason(damaged[0][1])}): if "
            "the code or the libraries have changed, go back to those of config.json; otherwise "
            f"{self._anew}"
        )

    def best(self) -> Best | None:
        """Of the checkpoints that were validated the best; None if there is none."""
        scored = [c for c in self._orbax.checkpoints if c.metrics]
        if not scored:
            return None
        best = max(scored, key=_rank)
        return Best(best.step, best.metrics[SCORE])

    def best_parameters(self) -> dict[str, np.ndarray]:
        """All parameters of the best checkpoint, as host arrays by path.

        A damaged one is moved out of the way, said so, and the next best is taken.

        Raises:
          UserError: none can be read, or the frozen parameters cannot.
        """
        while best := self.best():
            if (parameters := self.load(best)) is not None:
                return parameters
        self.raise_none()

    def load(self, best: Best) -> dict[str, np.ndarray] | None:
        """What `best_parameters` gives, of one checkpoint; None if it is damaged, and then it is
        moved out of the way, said so.

        Raises:
          UserError: the frozen parameters cannot be read; the phase is only read from, and the
            checkpoint is damaged.
        """
        try:
            loaded = folders.load_on_host(self._root / str(best.step), "state")
        except Exception as error:  # as in restore_latest
            self._put_aside(best.step, error)
            self._orbax.reload()
            return None
        return loaded["trainable"] | loaded.get("mutable", {}) | self.load_frozen()

    def raise_none(self) -> NoReturn:
        """Raises the UserError that says that there is no checkpoint to hand over."""
        if self._reading:
            raise UserError(
                f"no checkpoint of {self._directory} has been validated yet: wait for its first "
                "validation, or name another phase"
            )
        raise UserError(f"no readable checkpoint in {self._root}: {self._anew}")

    @property
    def _anew(self) -> str:
        if self._reading:
            return "name another phase or folder of weights"
        return (
            f"delete the folder {self._directory} and start the command again, which trains this "
            "phase anew"
        )

    def save_frozen(self, parameters: Mapping[str, jax.Array]) -> None:
        """Writes what the phase never changes, before its first checkpoint."""
        if parameters:  # Orbax refuses to write nothing
            folders.save_parameters(self._directory / "frozen", parameters)

    def load_frozen(self) -> dict[str, np.ndarray]:
        """What `save_frozen` wrote, as host arrays by path.

        Raises:
          UserError: it cannot be read.
        """
        folder = self._directory / "frozen"
        try:
            return folders.load_parameters(folder) if folder.exists() else {}
        except UserError as error:
            raise UserError(f"{folder} holds no readable parameters: {self._anew}") from error

    def _put_aside_what_cannot_be_listed(self) -> None:
        """Orbax opens no folder in which one checkpoint's metadata or scores are damaged."""
        mine = self._reading or jax.process_index() == 0
        for folder in self._root.iterdir() if mine else ():
            if not (folder.name.isdecimal() and folder.is_dir()):
                continue
            for file in (folder / "_CHECKPOINT_METADATA", folder / "metrics" / "metrics"):
                try:
                    if file.exists() and not isinstance(json.loads(file.read_bytes()), dict):
                        raise ValueError(f"{file.name} is damaged")
                except ValueError as error:
                    self._move_aside(int(folder.name), error)
                    break
                except FileNotFoundError:  # who trains here has just deleted it
                    break
        if not self._reading:
            everyone_is_here("damaged checkpoints are aside")

    def _put_aside(self, step: int, error: Exception) -> None:
        if jax.process_index() == 0:
            self._move_aside(step, error)
        everyone_is_here("damaged checkpoint is aside")

    def _move_aside(self, step: int, error: Exception) -> None:
        if self._reading:
            raise UserError(
                f"the checkpoint {self._root / str(step)} cannot be read ({_reason(error)}): give "
                "another phase or folder of weights"
            ) from error
        aside = self._directory / "damaged" / str(step)
        logging.warning(
            "The checkpoint %s cannot be read (%s); it is moved to %s, and the one before it "
            "is used instead.",
            self._root / str(step),
            _reason(error),
            aside,
        )
        with folders.orbax_writes(self._directory):
            shutil.rmtree(aside, ignore_errors=True)
            aside.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(self._root / str(step), aside)


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}"


def _saved_part(state: TrainState) -> dict[str, Any]:
    saved = {"step": state.step, "trainable": state.trainable, "opt_state": state.opt_state}
    # Orbax refuses to write nothing.
    changing = {"mutable": state.mutable, "memory": state.memory}
    return saved | {name: arrays for name, arrays in changing.items() if arrays}


def _abstract(values: Any) -> Any:
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), values
    )
