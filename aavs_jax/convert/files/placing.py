"""Files and folders that get their names once they are whole, and never in the place of others."""

import contextlib
import errno
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from safetensors import SafetensorError

from aavs_jax.errors import UserError
from data_pipelines.errors import reason, remedy

_TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.EISDIR)


def write_all(makers: Mapping[Path, Callable[[Path], object]]) -> None:
    """Writes files and folders; none has its name before all are whole.

    Args:
      makers: name -> what makes the file or folder at the path that it is given. Nothing is at the
        name, or an empty folder for a folder. Folders above it are made.

    Raises:
      UserError: one cannot be written, or meanwhile something is at its name; says which and why.
    """
    with contextlib.ExitStack() as stack:
        for out, make in makers.items():
            place = stack.enter_context(_staged(out))
            try:
                make(place)
                if place.is_file():
                    with open(place, "rb") as file:
                        os.fsync(file.fileno())
            except (OSError, SafetensorError) as error:
                raise cannot_write(out, error) from error
            except UserError as error:
                # Who wrote may have given advice for other commands, and the name of a part.
                cause = error.__cause__ or error.__context__
                if isinstance(cause, Exception):
                    raise cannot_write(out, cause) from error
                raise


@contextlib.contextmanager
def _staged(out: Path) -> Iterator[Path]:
    """A place to make a file or a folder at, which is moved to `out` if all goes well.

    It lies in a new folder beside `out`, `<out>.<random>.partial`, so that nobody's file is in the
    way and two processes do not meet. A process that is killed leaves that folder.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        # The name may be as long as a name can be, and so may not be kept whole.
        partial = Path(
            tempfile.mkdtemp(prefix=out.name[:40] + ".", suffix=".partial", dir=out.parent)
        )
    except OSError as error:
        raise cannot_write(out, error) from error
    try:
        made = partial / "made"
        yield made
        # Renaming would replace a file, but of folders only an empty one.
        if not made.is_dir() and os.path.lexists(out):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        os.rename(made, out)
    except OSError as error:
        if error.errno not in _TAKEN:
            raise cannot_write(out, error) from error
        raise UserError(
            f"{out} is there already and nothing is overwritten: choose another name, or delete it"
        ) from error
    finally:
        for _ in range(50):
            shutil.rmtree(partial, ignore_errors=True)
            if not partial.exists():
                break
            time.sleep(0.1)  # for TensorStore, which may still write after it has failed


def cannot_write(path: Path, cause: BaseException) -> UserError:
    """Says that and why a file is not there."""
    return UserError(
        f"cannot write {path} ({reason(cause)}): nothing was written; {remedy(cause)}, or choose "
        "another place"
    )
