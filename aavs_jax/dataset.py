"""From a config's data folder, or none, to a prepared data set."""

import fcntl
import hashlib
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aavs_jax.errors import UserError
from aavs_jax.progress import say
from data_pipelines import audible_shapes
from data_pipelines.errors import DataError
from data_pipelines.prepare import Builder, ClipFault, check_form, is_complete, prepare


def prepared(data: Mapping[str, Any], root: Path) -> Path:
    """The data of a run as array_record files, made once.

    A folder in any layout that is known is prepared beside the run's folder, under
    `../data/<name>-<digest of its path>`, so that runs share it; without a folder, Audible Shapes
    is made there first. A folder that is prepared already is taken as it is.

    Args:
      data: `folder`, `clips`, `size` and `seed` as in configs/base.py.
      root: the folder of the run.

    Returns:
      What `data_pipelines.loader.open_source` opens.

    Raises:
      UserError: there is no such folder.
      DataError: a fault in the data, data prepared in the form of another version, or no room to
        prepare it.
    """
    shelf = root.parent / "data"
    if data["folder"]:
        raw = Path(data["folder"]).absolute()
        if not raw.is_dir():
            raise UserError(
                f"there is no data folder {raw}: check the path behind the config's colon, or "
                "leave it out to run on the embedded data set"
            )
        builder = Builder(data_dir=raw)
        if is_complete(builder):
            return raw
        check_form(builder)
        # Two folders of the same name must not share what is prepared from them.
        digest = hashlib.sha256(str(raw).encode("utf-8", "surrogateescape")).hexdigest()[:8]
        target = shelf / f"{raw.name}-{digest}"
    else:
        target = shelf / f"audible_shapes-{data['clips']}x{data['size']}-seed{data['seed']}"
        if is_complete(Builder(data_dir=target)):
            return target
        raw = target / "raw"
        say(f"making the embedded data set Audible Shapes in {target}")
        _make_audible_shapes(raw, data)
    say(f"preparing {raw}")
    try:
        prepare(raw, target)
    except ClipFault as fault:
        raise DataError(
            f"{fault}; python -m data_pipelines.prepare {shlex.quote(str(raw))} --out DIR leaves "
            "such clips out, then give DIR in place of the folder"
        ) from fault
    return target


def _make_audible_shapes(raw: Path, data: Mapping[str, Any]) -> None:
    try:
        raw.parent.mkdir(parents=True, exist_ok=True)
        lock = open(raw.parent / "making.lock", "w")
    except OSError as error:
        raise UserError(
            f"Cannot write {raw.parent} ({error.strerror}): choose another place with --workdir"
        ) from error
    # Of several processes on a machine one makes it; the system lifts the lock of a killed one.
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not raw.exists():
            audible_shapes.make(raw, clips=data["clips"], size=data["size"], seed=data["seed"])
