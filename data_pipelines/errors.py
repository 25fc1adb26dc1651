"""Faults in a user's data, and the words for what the system refuses."""

import errno
import os
import re
from pathlib import Path

# In the errors of TensorStore, [os_error_code='28'], and of safetensors, (os error 28).
_SYSTEM_CODE = re.compile(r"[\[(]os(?:_error_code=| error )'?(\d+)'?[\])]")
# What the system says -> what to do about a file or folder that cannot be written.
_REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free some space"),
    **dict.fromkeys((errno.EACCES, errno.EPERM), "make the folder writable"),
    errno.EROFS: "have that disk mounted for writing",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f)",
    errno.ENAMETOOLONG: "choose a shorter name",
    **dict.fromkeys(
        (errno.EEXIST, errno.ENOTDIR, errno.EISDIR), "move what is in the way of that name"
    ),
}


class DataError(Exception):
    """One clear sentence: what is wrong, in which file, and what to do.

    The commands print it and exit with 2.
    """


def reason(fault: BaseException) -> str:
    """What the system said, as in 'No space left on device', without numbers and paths.

    Args:
        fault: an OSError, or what a library made of one.
    """
    code = _code(fault)
    words = getattr(fault, "strerror", None) or (os.strerror(code) if code else str(fault))
    return (words.strip().splitlines() or [type(fault).__name__])[0][:200]


def remedy(fault: BaseException) -> str:
    """What to do about a file that cannot be written, as the first words of an advice.

    A full disk wants other things than a folder without permission: each gets its own advice.

    Args:
        fault: an OSError, or what a library made of one.
    """
    return _REMEDIES.get(_code(fault), "check the path")


def _code(fault: BaseException) -> int:
    """The system's number of an error, 0 if it has none."""
    if number := getattr(fault, "errno", None):
        return number
    if found := _SYSTEM_CODE.search(str(fault)):
        return int(found[1])
    # Other libraries pass on the system's words alone.
    said = str(fault).lower()
    return next((code for code in _REMEDIES if os.strerror(code).lower() in said), 0)


def lies_in(path: str | os.PathLike[str], folder: str | os.PathLike[str]) -> bool:
    """Whether a path is a folder or lies inside it, wherever links lead."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def tidy_path(path: str | os.PathLike[str]) -> Path:
    """The same place without '.', '..' and doubled slashes, as people write it in a message.

    Where 'link/..' leads elsewhere, because `link` is a symbolic link, the path stays as it is.
    """
    path = Path(path)
    if ".." not in path.parts:
        return path
    tidy = Path(os.path.normpath(path))
    return tidy if os.path.realpath(tidy) == os.path.realpath(path) else path
