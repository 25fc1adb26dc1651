"""Files that appear whole or not at all, and what is said where they cannot be written."""

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from aavs_jax.errors import UserError
from data_pipelines.errors import reason, remedy

SUMMARY = "summary.json"  # of a clip's folder that aavs_jax.predict wrote
PREDICT = "aavs_jax.predict"
# What else to do in a run than to make the file writable.
OF_A_RUN = "or choose another folder with --workdir; the same command then resumes the run"


def replace_file(
    path: str | os.PathLike, content: bytes | Iterable[bytes], advice: str = OF_A_RUN
) -> None:
    """Writes a file so that it is seen either as it was or whole, whenever the process dies.

    Args:
      path: of the file; its folder is made.
      content: all of it, or its parts one after the other.
      advice: what else to do where it cannot be written, for the error.

    Raises:
      UserError: the disk is full or the folder cannot be written.
    """
    path = Path(path)
    with writing(path, advice):
        path.parent.mkdir(parents=True, exist_ok=True)
        # One fixed name: what a killed process leaves behind is overwritten by the next.
        temporary = path.with_name(f".{path.name}.partial")
        try:
            with open(temporary, "wb") as file:
                for part in [content] if isinstance(content, bytes) else content:
                    file.write(part)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def writing(path: Path, advice: str = OF_A_RUN) -> Iterator[None]:
    """What the system refuses is the user's to mend: a UserError that names `path` and a remedy,
    with `advice` on what else to do."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write {path} ({reason(error)}): {remedy(error)}, {advice}"
        ) from error


def record_of(path: Path, written_by: str = PREDICT) -> dict[str, Any] | None:
    """What a JSON file says that one of our commands wrote; None where it is not there or says
    under `written_by` that another did."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        record = json.loads(path.read_bytes())
        if record.get("written_by") == written_by:
            return record
    return None
