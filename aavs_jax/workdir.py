"""The folder of a run, which explains itself: what was run, with what, and what came out.

config.json     every key, the command and the versions
times.jsonl     seconds that parts of the run took, one line per part and start
results.json    figures, a flat list of rows; there when the run is complete
"""

import contextlib
import fcntl
import hashlib
import importlib.metadata
import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from aavs_jax import tree
from aavs_jax.errors import UserError
from aavs_jax.logging_writer import replace_file, writing

PACKAGES = ("aavs_jax", "jax", "flax", "optax", "orbax-checkpoint", "grain", "tensorflow-datasets")
# What a folder holds at most in which nothing was trained yet; one may have been killed writing.
BEGINNINGS = {".lock", "config.json", ".config.json.partial", "times.jsonl"}
# A run may go on with other values of these: they change no figure.
FREE_KEYS = ("data.cache", "checkpoint_every")
# What keys stood for before there were any of that name: runs of then go on.
DEFAULTS = {"eval.protocols": "stepping_stones", "eval.save_masks": False, "init.allow": []}
# The same of every stage's keys.
RATE = "drop_path_rate"
STAGE_DEFAULTS = {
    "best_over_phases": "last",
    "model.backbone.drop_path_schedule": "linear",
    "model.backbone.drop_path_branches": "both",
}
ROW_KEYS = {"stage", "split", "protocol", "metric", "value"}  # of every row of figures


class Workdir:
    """Paths and records of a run, held by `with`, so that nobody else runs in it meanwhile.

    Only the first process writes.
    """

    def __init__(self, root: str | os.PathLike[str], config: Mapping[str, Any], name: str):
        """Takes the folder for this config, or takes it up again.

        A run that stopped before it trained anything leaves its folder free, so that a mistake in
        the config can be mended and the command repeated.

        Args:
          root: the folder; made if missing.
          config: all keys, nested plain values.
          name: of the config, such as "avss".

        Raises:
          UserError: it was made by another config or by another number of processes, or cannot be
            written.
        """
        self.root = Path(root).absolute()
        self._lock = None
        record = {
            "config_name": name,
            "config": json.loads(json.dumps(config)),
            "command": shlex.join(["python", "-m", "aavs_jax.main", *sys.argv[1:]]),
            "versions": {
                "python": platform.python_version(),
                **{package: importlib.metadata.version(package) for package in PACKAGES},
            },
            "devices": [str(device.device_kind) for device in jax.devices()],
            "processes": jax.process_count(),
        }
        path = self.root / "config.json"
        if path.exists():
            try:
                before = json.loads(path.read_text())
                old_config, old_versions = before["config"], before["versions"]
            except (ValueError, KeyError, TypeError):
                raise UserError(
                    f"{path} is damaged: choose another folder with --workdir, or delete it if "
                    "nothing in that folder is of worth"
                ) from None
            differing = _differing(old_config, record["config"])
            if not differing and before.get("processes") != record["processes"]:
                # Every process has its own place in the data, and they would not fit together.
                differing = f"processes were {before.get('processes')}, are {record['processes']}"
            if not differing:
                self.record = before
                if old_versions != record["versions"]:
                    print(f"{path} was written by other versions of the libraries", file=sys.stderr)
                return
            if self._is_begun():
                raise UserError(
                    f"the folder {self.root} was made by another config ({differing}): choose "
                    "another with --workdir, or go back to that config"
                )
        elif jax.process_index() == 0 and self._is_begun():
            raise UserError(
                f"the folder {self.root} is not empty and was not made by this program: choose "
                "another with --workdir"
            )
        self.record = record
        if jax.process_index() == 0:
            replace_file(path, json.dumps(record, indent=1).encode())
            with writing(self._times):
                self._times.unlink(missing_ok=True)  # those of another config

    def __enter__(self) -> "Workdir":
        """Holds the folder for this run; the system lets go of it when the process is killed.

        Raises:
          UserError: another run has it.
        """
        if jax.process_index():
            return self
        path = self.root / ".lock"
        with writing(path):
            self.root.mkdir(parents=True, exist_ok=True)
            self._lock = lock = open(path, "a")  # changes nothing that is there
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.__exit__()
            raise UserError(
                f"another process is running in {self.root}: wait for it to end, or choose another "
                "folder with --workdir"
            ) from None
        return self

    def __exit__(self, *exception) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    @property
    def _times(self) -> Path:
        return self.root / "times.jsonl"

    def _is_begun(self) -> bool:
        return self.root.is_dir() and any(e.name not in BEGINNINGS for e in self.root.iterdir())

    @contextlib.contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Adds the seconds spent inside to times.jsonl."""
        start = time.monotonic()
        yield
        if jax.process_index() == 0:
            line = {"what": what, "seconds": round(time.monotonic() - start, 2)}
            with writing(self._times), open(self._times, "a") as file:
                file.write(json.dumps(line) + "\n")

    def times(self) -> dict[str, float]:
        """Seconds by part, all starts together."""
        total: dict[str, float] = {}
        for row in self._times.read_text().splitlines() if self._times.exists() else ():
            with contextlib.suppress(ValueError):  # a line that a kill tore in two
                line = json.loads(row)
                total[line["what"]] = total.get(line["what"], 0.0) + line["seconds"]
        return total

    def write_rows(self, path: Path, rows: list[dict[str, Any]]) -> None:
        """Writes rows of figures, from the first process; none may be NaN."""
        if jax.process_index() == 0:
            replace_file(path, json.dumps(rows, indent=1, allow_nan=False).encode())


def read_rows(path: Path) -> list[dict[str, Any]] | None:
    """What `write_rows` wrote; None if there is no such file.

    Raises:
      UserError: it is damaged.
    """
    if not path.exists():
        return None
    try:
        # Figures that are not defined were once written as NaN, which is no JSON.
        rows = json.loads(path.read_bytes(), parse_constant=lambda _: None)
        if isinstance(rows, list) and all(ROW_KEYS <= row.keys() for row in rows):
            return rows
    except (ValueError, AttributeError, TypeError):
        pass
    raise UserError(
        f"{path} is damaged: delete it and start the command again, which computes the figures anew"
    )


def state_of_files(folder: Path) -> str:
    """Changes when a PNG file in the folder does; links are followed, to where there is something.

    Returns:
      16 hexadecimal digits.
    """
    state = hashlib.sha256()
    for path, status in sorted(_pictures(Path(folder), ())):
        state.update(f"{path.relative_to(folder)} {status}\n".encode(errors="surrogateescape"))
    return state.hexdigest()[:16]


def _pictures(folder: Path, above: tuple[tuple[int, int], ...]) -> Iterator[tuple[Path, str]]:
    """PNG files and what tells that one was changed; `above` are the folders that lead here."""
    try:
        status = folder.stat()
        entries = list(os.scandir(folder))
    except OSError:  # what cannot be read is not read by anybody
        return
    here = status.st_dev, status.st_ino
    if here in above:  # a link to a folder that it lies in
        return
    for entry in entries:
        try:
            if entry.is_dir():
                yield from _pictures(Path(entry.path), (*above, here))
            elif entry.name.lower().endswith(".png"):
                status = entry.stat()
                yield Path(entry.path), f"{status.st_size} {status.st_mtime_ns}"
        except OSError:  # a link to nothing
            continue


def _before_there_were_keys(new: Mapping[str, Any]) -> dict[str, Any]:
    """What a run did that knows none of the later keys, of those that a config has."""
    then = {key: value for key, value in DEFAULTS.items() if key in new}
    for key in new:
        stage, _, inner = key.removeprefix("stages.").partition(".")
        if key.startswith("stages.") and inner in STAGE_DEFAULTS:
            # Without drop-path its kind makes no difference.
            never = "drop_path" in inner and not new.get(f"stages.{stage}.model.backbone.{RATE}")
            then[key] = new[key] if never else STAGE_DEFAULTS[inner]
    return then


def _differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Says where two configs differ; '' if nowhere that matters."""
    new = tree.flatten(now)
    old = _before_there_were_keys(new) | tree.flatten(before)
    keys = [
        key
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and key not in FREE_KEYS
    ]
    if not keys:
        return ""
    more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
    return f"{keys[0]} was {old.get(keys[0])!r}, is {new.get(keys[0])!r}{more}"
