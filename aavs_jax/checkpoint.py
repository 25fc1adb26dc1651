"""Checkpoints: what a phase continues from, and what the next one starts from. Orbax's V1 API.

    <phase>/checkpoints/<step>   trainable parameters, optimiser state, data iterator, figures
    <phase>/frozen               the parameters that the phase never changes, if any, written once

Kept are the two newest, to continue from, and the best by validation figure, to hand over.
"""

import contextlib
import logging
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from aavs_jax.errors import UserError
from aavs_jax.train_state import TrainState

PARAMETERS = "parameters"  # the one item of a checkpoint that `save_parameters` writes
SCORE = "score"  # the figure by which the best checkpoint is chosen; larger is better


class PhaseCheckpoints:
    """The checkpoints of one phase; a context manager."""

    def __init__(self, directory: Path):
        """Opens the folder of a phase, making it if missing.

        Raises:
          UserError: it cannot be written.
        """
        self._directory = Path(directory).absolute()
        policies = ocp.training.preservation_policies
        with _writing(self._directory):
            self._root.mkdir(parents=True, exist_ok=True)
            self._orbax = ocp.training.Checkpointer(
                self._root,
                preservation_policy=policies.AnyPreservationPolicy(
                    [
                        policies.LatestN(2),
                        policies.BestN(
                            get_metric_fn=lambda figures: figures[SCORE],
                            n=1,
                            keep_checkpoints_without_metrics=False,
                        ),
                    ]
                ),
                # What a killed process was writing; it is not a checkpoint yet.
                cleanup_tmp_directories=True,
            )

    @property
    def _root(self) -> Path:
        return self._directory / "checkpoints"

    def __enter__(self) -> "PhaseCheckpoints":
        return self

    def __exit__(self, *exception) -> None:
        with _writing(self._directory):
            self._orbax.close()

    @property
    def latest_step(self) -> int:
        """The newest checkpoint's step, -1 if there is none."""
        return self._orbax.latest.step if self._orbax.latest else -1

    def save(self, state: TrainState, data: Any, figures: Mapping[str, float] | None) -> None:
        """Writes in the background; what was being written before is waited for.

        Args:
          state: after some step; must not hold NaN.
          data: the Grain iterator, having given the batches of the steps done.
          figures: of the validation at this step, SCORE among them, if there was one.
        """
        with _writing(self._directory):
            self._orbax.wait()
            self._orbax.save_checkpointables_async(
                int(state.step),
                {"state": _saved_part(state), "data": data},
                metrics=dict(figures) if figures else None,
                force=True,
            )

    def wait(self) -> None:
        """Until everything is on the disk."""
        with _writing(self._directory):
            self._orbax.wait()

    def restore_latest(self, state: TrainState, data: Any) -> TrainState | None:
        """The newest checkpoint that can be read; `data` is moved to its place.

        A damaged one is moved out of the way, said so, and the one before is taken.

        Args:
          state: shapes and shardings wanted; its frozen parameters are taken over.
          data: a fresh Grain iterator.

        Returns:
          The state, or None if there is no readable checkpoint.
        """
        for checkpoint in reversed(self._orbax.checkpoints):
            try:
                loaded = self._orbax.load_checkpointables(
                    checkpoint.step, {"state": _abstract(_saved_part(state)), "data": data}
                )["state"]
            # Orbax, TensorStore and JSON each have errors of their own for what is damaged.
            except Exception as error:
                self._put_aside(checkpoint.step, error)
                continue
            return TrainState(frozen=state.frozen, **loaded)
        return None

    def best_step(self) -> int:
        """Of the checkpoints that were validated the best one's step, the earliest of equals."""
        scored = [c for c in self._orbax.checkpoints if c.metrics]
        return max(scored, key=lambda c: (c.metrics[SCORE], -c.step)).step

    def best_parameters(self) -> dict[str, np.ndarray]:
        """All parameters of the best checkpoint, as host arrays by path.

        A damaged one is moved out of the way, said so, and the next best is taken.

        Raises:
          UserError: none can be read.
        """
        while any(c.metrics for c in self._orbax.checkpoints):
            step = self.best_step()
            try:
                loaded = _load_on_host(self._root / str(step), "state")
            except Exception as error:  # as in restore_latest
                self._put_aside(step, error)
                continue
            frozen = self._directory / "frozen"
            frozen = load_parameters(frozen) if frozen.exists() else {}
            return loaded["trainable"] | frozen
        raise UserError(
            f"no readable checkpoint in {self._root}: delete the folder {self._directory} and "
            "start the command again, which trains this phase anew"
        )

    def save_frozen(self, parameters: Mapping[str, jax.Array]) -> None:
        """Writes what the phase never changes, once."""
        folder = self._directory / "frozen"
        if parameters and not folder.exists():  # Orbax refuses to write nothing
            save_parameters(folder, parameters)

    def _put_aside(self, step: int, error: Exception) -> None:
        aside = self._directory / "damaged" / str(step)
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else ""
        logging.warning(
            "The checkpoint %s cannot be read (%s: %s); it is moved to %s, and the one before it "
            "is used instead.",
            self._root / str(step),
            type(error).__name__,
            reason,
            aside,
        )
        if jax.process_index() == 0:
            with _writing(self._directory):
                shutil.rmtree(aside, ignore_errors=True)
                aside.parent.mkdir(parents=True, exist_ok=True)
                shutil.move(self._root / str(step), aside)
        if jax.process_count() > 1:
            from jax.experimental import multihost_utils

            multihost_utils.sync_global_devices("damaged checkpoint")
        self._orbax.reload()


def save_parameters(folder: Path, parameters: Mapping[str, jax.Array]) -> None:
    """Writes parameters, by path, as an Orbax checkpoint that appears whole or not at all."""
    with _writing(folder):
        ocp.save_checkpointables(
            Path(folder).absolute(), {PARAMETERS: dict(parameters)}, overwrite=True
        )


def load_parameters(folder: Path) -> dict[str, np.ndarray]:
    """What `save_parameters` wrote, as host arrays by path.

    Raises:
      UserError: there is nothing readable.
    """
    folder = Path(folder).absolute()
    if not folder.is_dir():
        raise UserError(f"there is no folder of parameters at {folder}: check the path")
    try:
        return _load_on_host(folder, PARAMETERS)
    except Exception as error:
        raise UserError(
            f"{folder} holds no readable Orbax checkpoint of parameters "
            f"({type(error).__name__}): check the path, or write it anew"
        ) from error


def _load_on_host(folder: Path, name: str) -> Any:
    """One item of a checkpoint as NumPy arrays, whatever devices it was saved from."""
    shapes = ocp.metadata(folder, name).metadata
    empty = jax.tree.map(lambda array: np.empty(array.shape, array.dtype), shapes)
    return ocp.load_checkpointables(folder, {name: empty})[name]


def _saved_part(state: TrainState) -> dict[str, Any]:
    return {"step": state.step, "trainable": state.trainable, "opt_state": state.opt_state}


def _abstract(values: Any) -> Any:
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), values
    )


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Full disks and forbidden folders are the user's to mend."""
    try:
        yield
    except (OSError, ValueError) as error:
        # TensorStore reports the system's errors as ValueErrors.
        if (
            isinstance(error, ValueError)
            and "RESOURCE_EXHAUSTED" not in str(error)
            and ("PERMISSION_DENIED" not in str(error))
        ):
            raise
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0][:200]
        raise UserError(
            f"Cannot write a checkpoint to {folder} ({reason}): free some space, make the folder "
            "writable, or choose another with --workdir; the run continues where it stopped."
        ) from error
