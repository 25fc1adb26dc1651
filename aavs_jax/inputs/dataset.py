"""From a config's data folder, or none, to a prepared data set."""

import contextlib
import fcntl
import hashlib
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aavs_jax.errors import UserError
from aavs_jax.run.progress import say
from aavs_jax.run.stopping import what_is_next
from data_pipelines.errors import DataError, reason, remedy, tidy_path
from data_pipelines.making import audible_shapes
from data_pipelines.prepare import Builder, ClipFault, check_form, is_complete, prepare
from data_pipelines.prepared import source


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
    target = _target(data, root)
    if data["folder"]:
        raw = tidy_path(Path(data["folder"]).absolute())
        if target == raw:
            return raw
    else:
        if is_complete(Builder(data_dir=target)):
            return target
        raw = target / "raw"
        say(f"making the built-in data set Audible Shapes in {target}")
        with what_is_next("the same command makes the data set again"):
            _make_audible_shapes(raw, data)
    say(f"preparing {raw}")
    try:
        with what_is_next(f"the same command resumes preparing {raw} where it was"):
            prepare(raw, target)
    except ClipFault as fault:
        raise DataError(
            f"{fault}; python -m data_pipelines.prepare {shlex.quote(str(raw))} --out DIR leaves "
            "such clips out, then give DIR in place of the folder"
        ) from fault
    return target


def known_fingerprint(data: Mapping[str, Any], root: Path) -> str | None:
    """The fingerprint (`data_pipelines.prepared.source`) of a run's data that are prepared already.

    Args:
      data: as for `prepared`.
      root: the folder of the run.

    Returns:
      None, too, where the data are not there or damaged, which `prepared` says in words: a run
      that is complete needs none.
    """
    with contextlib.suppress(UserError, DataError):
        target = _target(data, root)
        if is_complete(Builder(data_dir=target)):
            return source.fingerprint(target)
    return None


def describe(data: Mapping[str, Any]) -> str:
    """'/data/avsbench', or 'Audible Shapes, 640 clips'."""
    return data["folder"] or f"Audible Shapes, {data['clips']} clips"


def _target(data: Mapping[str, Any], root: Path) -> Path:
    """Where a run's prepared data lie, or will lie."""
    shelf = root.parent / "data"
    if not data["folder"]:
        return shelf / f"audible_shapes-{data['clips']}x{data['size']}-seed{data['seed']}"
    # Of one folder there is to be one data set, however its path is written.
    raw = tidy_path(Path(data["folder"]).absolute())
    if not raw.is_dir():
        raise UserError(f"there is no data folder {raw}: {_where_to_look(raw)}")
    builder = Builder(data_dir=raw)
    if is_complete(builder):
        return raw
    check_form(builder)
    # Two folders of the same name must not share what is prepared from them.
    digest = hashlib.sha256(str(raw).encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return shelf / f"{raw.name}-{digest}"


def _where_to_look(raw: Path) -> str:
    """What to do about a data folder that is not there."""
    if raw.name == "small":
        return (
            "for the small network on a folder, write FOLDER,small behind the config's colon; on "
            "the built-in data set it is the only one, so leave out the colon and 'small'"
        )
    if "," in raw.name:
        return "check the path; ',small' is the only option that a folder can be followed by"
    return (
        "check the path behind the config's colon, or leave it out to run on the built-in data set"
    )


def _make_audible_shapes(raw: Path, data: Mapping[str, Any]) -> None:
    try:
        raw.parent.mkdir(parents=True, exist_ok=True)
        lock = open(raw.parent / "making.lock", "w")
    except OSError as error:
        raise UserError(
            f"cannot write {raw.parent} ({reason(error)}): {remedy(error)}, or choose another "
            "place with --workdir"
        ) from error
    # Of several processes on a machine one makes it; the system lifts the lock of a killed one.
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not raw.exists():
            audible_shapes.make(raw, clips=data["clips"], size=data["size"], seed=data["seed"])
