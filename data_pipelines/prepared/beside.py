"""What is computed of a prepared data set and kept beside it, whole or not at all.

    <prepared>/<kind>/<digest>/index.json    what the arrays are, and of which data set
                               <name>.npy    arrays of float32

A folder's name is the beginning of a digest of all that decides what is in it besides the data, so
that nothing is mixed up. It gets that name when it is complete.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.errors import DataError

INDEX_NAME = "index.json"
DIGEST_LETTERS = 16  # of the digest in a folder's name


def folder_of(data_dir: str | os.PathLike[str], kind: str, decided_by: str) -> Path:
    """Where something lies, or will lie.

    Args:
        data_dir: the prepared data set.
        kind: of what is kept.
        decided_by: all that decides what is in it besides the data.
    """
    digest = hashlib.sha256(decided_by.encode()).hexdigest()
    return Path(data_dir) / kind / digest[:DIGEST_LETTERS]


def write_once(
    folder: Path,
    find: Callable[[], Path | None],
    write: Callable[[Path], Mapping[str, Any]],
) -> Path:
    """Writes a folder unless it is found.

    Of processes that ask for the same at the same time one does it and the others wait. One that
    is killed leaves nothing that is taken for complete.

    Args:
        folder: of `folder_of`. What lies there and is not found is replaced.
        find: gives the folder if it is complete and belongs to the data.
        write: writes the arrays into the folder it is given, and returns the index.

    Returns:
        The folder.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.parent / "writing.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the system lifts the lock of one that was killed
        if find():  # written while this one waited
            return folder
        shutil.rmtree(folder, ignore_errors=True)  # of data that was prepared there before
        for left in folder.parent.glob(".*.partial"):  # of those that were killed
            shutil.rmtree(left, ignore_errors=True)
        partial = folder.with_name(f".{folder.name}.partial")
        partial.mkdir()
        try:
            index = write(partial)
            (partial / INDEX_NAME).write_text(json.dumps(index))
            os.replace(partial, folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return folder


def read_index(folder: Path, keys: Collection[str]) -> dict[str, Any]:
    """What `write` of `write_once` returned.

    Raises:
        DataError: it is not there, damaged, or lacks one of the keys.
    """
    try:
        index = json.loads((folder / INDEX_NAME).read_text())
        if not index.keys() >= set(keys):
            raise ValueError("keys missing")
    except FileNotFoundError as fault:
        raise DataError(f"nothing is kept in {folder}: compute it first") from fault
    except (OSError, ValueError, AttributeError) as fault:
        raise damaged(folder) from fault
    return index


def load(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """A file of float32, mapped into memory; it has to have this shape, and all its rows.

    Raises:
        DataError: it is damaged.
    """
    try:
        array = np.load(path, mmap_mode="r")
    except (OSError, ValueError) as fault:
        raise damaged(path.parent) from fault
    if array.shape != shape or array.dtype != np.float32:
        raise damaged(path.parent)
    return array


def damaged(folder: Path) -> DataError:
    """What is said of a folder that is not what was written."""
    return DataError(
        f"the {folder.parent.name} in {folder} are damaged or incomplete: delete that folder, and "
        "they are computed anew"
    )
