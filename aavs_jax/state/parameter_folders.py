"""Parameters by path in a folder of their own, as an Orbax checkpoint."""

import contextlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from aavs_jax.errors import UserError
from data_pipelines.errors import reason, remedy

PARAMETERS = "parameters"  # the item of a checkpoint that `save_parameters` always writes
LEFT_OVER = "left_over"  # the item beside it: tensors of the origin without a place in the network
# Orbax writes each array in a task of its own. Where several fail, as on a full disk, the first is
# raised and said in a sentence; asyncio would log the tracebacks of the others.
logging.getLogger("asyncio").setLevel(logging.CRITICAL)
_SYSTEM = ("RESOURCE_EXHAUSTED", "PERMISSION_DENIED", "[os_error_code=")


def save_parameters(
    folder: Path,
    parameters: Mapping[str, jax.Array | np.ndarray],
    left_over: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Writes parameters, by path, as an Orbax checkpoint that appears whole or not at all.

    Args:
      folder: replaced if it is there.
      parameters: must not change until this returns.
      left_over: of any dtype and by any name, kept beside them.

    Raises:
      UserError: the disk is full or the folder cannot be written.
    """
    context = ocp.Context()
    # Weights are noise to a compressor, which would win 7 % and hold all of them in memory; nor
    # need arrays be copied that nobody changes meanwhile.
    context.array.saving.use_compression = False
    context.memory.deepcopy_host_arrays = False
    items = {PARAMETERS: dict(parameters)} | ({LEFT_OVER: dict(left_over)} if left_over else {})
    with orbax_writes(folder, context):
        ocp.save_checkpointables(Path(folder).absolute(), items, overwrite=True)


def load_parameters(folder: Path) -> dict[str, np.ndarray]:
    """What `save_parameters` wrote, as host arrays by path.

    Raises:
      UserError: there is nothing readable.
    """
    folder = Path(folder).absolute()
    if not folder.is_dir():
        raise UserError(f"there is no folder of parameters at {folder}: check the path")
    try:
        return load_on_host(folder, PARAMETERS)
    except Exception as error:
        raise UserError(
            f"{folder} holds no readable Orbax checkpoint of parameters "
            f"({type(error).__name__}): check the path, or write it anew"
        ) from error


def load_left_over(folder: Path) -> dict[str, np.ndarray]:
    """What `save_parameters` was given as `left_over`, by name; {} if nothing.

    Raises:
      UserError: it cannot be read.
    """
    folder = Path(folder).absolute()
    if not (folder / LEFT_OVER).exists():
        return {}
    try:
        return load_on_host(folder, LEFT_OVER)
    except Exception as error:  # as in load_parameters
        raise UserError(
            f"what was left over of the origin cannot be read from {folder} "
            f"({type(error).__name__}): convert the origin once more"
        ) from error


def load_on_host(folder: Path, name: str) -> Any:
    """One item of a checkpoint as NumPy arrays, whatever devices it was saved from."""
    shapes = ocp.metadata(folder, name).metadata
    empty = jax.tree.map(lambda array: np.empty(array.shape, array.dtype), shapes)
    return ocp.load_checkpointables(folder, {name: empty})[name]


@contextlib.contextmanager
def orbax_writes(folder: Path, context: ocp.Context | None = None) -> Iterator[None]:
    """Full disks and forbidden folders are the user's to mend; under Orbax's options `context`."""
    context = context or ocp.Context()
    # Made in the background, a folder that cannot be made keeps threads waiting for it, and the
    # process from ending, for 20 minutes.
    context.asynchronous.create_directories_asynchronously = False
    try:
        with context:
            yield
    except (OSError, ValueError) as error:
        # TensorStore reports the system's errors as ValueErrors.
        if isinstance(error, ValueError) and not any(sign in str(error) for sign in _SYSTEM):
            raise
        raise UserError(
            f"cannot write a checkpoint to {folder} ({reason(error)}): {remedy(error)}, or choose "
            "another folder with --workdir; the same command then resumes the run"
        ) from error
