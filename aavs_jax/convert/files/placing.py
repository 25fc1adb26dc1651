"""Files and folders that get their names once they are whole, and never in the place of others."""

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from aavs_jax.errors import UserError
from data_pipelines.errors import reason, remedy

_TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.EISDIR)


@contextlib.contextmanager
def staged(out: Path) -> Iterator[Path]:
    """A place to make a file or a folder at, which is moved to `out` if all goes well.

    It lies in a new folder beside `out`, `<out>.<random>.partial`, so that nobody's file is in the
    way and two processes do not meet. A process that is killed leaves that folder.

    Args:
      out: its name, in a folder that exists; nothing, or an empty folder for a folder, is there.

    Yields:
      A path at which nothing is.

    Raises:
      UserError: the folder cannot be written to, or meanwhile something is at `out`.
    """
    try:
        # The name may be as long as a name can be, and so may not be kept whole.
        partial = Path(
            tempfile.mkdtemp(prefix=out.name[:40] + ".", suffix=".partial", dir=out.parent)
        )
    except OSError as error:
        raise cannot_write(out, error) from error
    try:
        made = partial / "made"
        yield made
        try:
            there = not _moved(made, out)
        except OSError as error:
            raise cannot_write(out, error) from error
        if there:
            raise UserError(
                f"{out} is there already and nothing is overwritten: choose another name, or "
                "delete it"
            )
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _moved(made: Path, out: Path) -> bool:
    """Gives a file or a folder its name, unless something else has it; returns whether."""
    if not made.is_dir() and os.path.lexists(out):
        return False  # which renaming would replace
    try:
        os.rename(made, out)  # of folders replaces an empty one only
    except OSError as error:
        if error.errno in _TAKEN:
            return False
        raise
    return True


def cannot_write(path: Path, cause: BaseException) -> UserError:
    """Says that and why a file is not there."""
    return UserError(
        f"cannot write {path} ({reason(cause)}): nothing was written; {remedy(cause)}, or choose "
        "another place"
    )
