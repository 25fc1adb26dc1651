"""What a comparison keeps of itself in its folder, so that the same command resumes it."""

import contextlib
import fcntl
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from aavs_jax.errors import UserError
from aavs_jax.run.files import replace_file, writing

FILE = "comparison.json"


@contextlib.contextmanager
def held(workdir: Path) -> Iterator[None]:
    """Inside, no other comparison runs in the folder; a UserError where one does."""
    with writing(workdir):
        workdir.mkdir(parents=True, exist_ok=True)
        lock = open(workdir / ".lock", "a")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"another comparison is running in {workdir}: wait for it to end, or choose "
                "another folder with --workdir"
            ) from None
        yield


def of(workdir: Path, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The record of the comparison in a folder, or of the one to begin, which is not written yet.

    Configs and seeds may be added to a comparison, and left out; what makes its runs comparable
    may not change.

    Args:
      workdir: the folder.
      asked: what may not change, plain values.

    Returns:
      `asked`, and 'factors' by name of the system, which its clock has said.

    Raises:
      UserError: the folder has another comparison, or a damaged record.
    """
    path = workdir / FILE
    if not path.exists():
        return {**asked, "factors": {}}
    try:
        record = json.loads(path.read_text())
        before = {key: record[key] for key in (*asked, "factors")}
    except (ValueError, KeyError, TypeError):
        raise UserError(
            f"{path} is damaged: choose another folder with --workdir, or delete it"
        ) from None
    for key, value in asked.items():
        if before[key] != value:
            raise UserError(
                f"the folder {workdir} has another comparison: its {key} was {before[key]}, is "
                f"{value}; choose another folder with --workdir, or go back to that"
            )
    return record


def write(workdir: Path, record: Mapping[str, Any]) -> None:
    """Keeps the record, see `of`."""
    replace_file(workdir / FILE, json.dumps(record, indent=1).encode())
