"""Writing where others may write, too, and where the system may refuse."""

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator
from pathlib import Path

from data_pipelines.errors import DataError, reason, remedy, tidy_path


@contextlib.contextmanager
def only_one(path: Path) -> Iterator[None]:
    """Waits until no other process is inside; the system lifts the lock of one that was killed."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def faults_of_writing(folder: Path, out: Path) -> Iterator[None]:
    """What the system refuses is one sentence."""
    try:
        yield
    except (OSError, RuntimeError) as fault:
        # So array_record's writer reports a full disk and the like.
        said = re.search(r"write\(\) failed: ([^;]+)", str(fault))
        if isinstance(fault, OSError):
            place = f" ({tidy_path(os.fsdecode(fault.filename))})" if fault.filename else ""
            what = f"{reason(fault)}{place}"
        elif said:
            what = said[1]
        else:
            raise
        raise DataError(
            f"cannot prepare {folder} in {out}: {what}: {remedy(fault)}, or choose another folder "
            "for prepared data"
        ) from fault
