"""The folder of a run, which explains itself: what was run, with what, and what came out.

config.json     every key, the command and the versions
data.json       which prepared data it is made with
times.jsonl     seconds that parts of the run took, one line per part and start
results.json    scores, a flat list of rows; there when the run is complete
"""

import contextlib
import fcntl
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

from aavs_jax.errors import UserError
from aavs_jax.run.files import replace_file, writing
from aavs_jax.run.progress import say
from aavs_jax.run.resuming import Changes, compare, forget_scores
from data_pipelines.errors import tidy_path

PACKAGES = ("aavs_jax", "jax", "flax", "optax", "orbax-checkpoint", "grain", "tensorflow-datasets")
TIMES = "times.jsonl"
# What a folder holds at most in which nothing was trained yet; one may have been killed writing.
BEGINNINGS = {
    *(".lock", "config.json", ".config.json.partial", "data.json", ".data.json.partial"),
    TIMES,
}
DATA = "data.json"
ROW_KEYS = {"stage", "split", "protocol", "metric", "value"}  # of every row of scores


class Workdir:
    """Paths and records of a run; inside `with` it is this run's, and nobody else runs in it.

    Only the first process writes. What is refused changes nothing in the folder.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        config: Mapping[str, Any],
        name: str,
        data: str | None = None,
    ):
        """Touches nothing; `with` takes the folder.

        Args:
          root: the folder; made if missing.
          config: all keys, nested plain values.
          name: of the config, such as "avss".
          data: fingerprint of the prepared data, where it is known before they are opened: a run
            resumes on the same data wherever they lie.
        """
        self.root = tidy_path(Path(root).absolute())
        self._data = data
        self._lock = None
        self.record = {
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

    def __enter__(self) -> "Workdir":
        """Takes the folder for this config, or takes it up again; until `with` ends it is held.

        A run that stopped before it trained anything leaves its folder free, so that a mistake in
        the config can be mended and the command repeated.

        Raises:
          UserError: another process runs in it; it was made by another config, in a key that
            cannot change any more, or by another number of processes; it cannot be written.
        """
        self._changes()  # a folder that is refused is not even locked
        if jax.process_index() == 0:
            self._hold()
        try:
            self._take_up()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _hold(self) -> None:
        """The system lets go of the lock when the process is killed."""
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

    def _take_up(self) -> None:
        before, changes = self._changes()
        path = self.root / "config.json"
        if before is not None:
            if before["versions"] != self.record["versions"]:
                print(f"{path} was written by other versions of the libraries", file=sys.stderr)
            if before["config"] == self.record["config"]:
                self.record = before
                return
            for line in changes.said:
                say(line)
            # A change of what is only written down leaves the record as it was.
            self.record = before | {key: self.record[key] for key in ("config", "command")}
        if jax.process_index() == 0:
            with writing(path):
                # First what no longer holds: a kill in between leaves the old config, and the next
                # command finds the same changes.
                forget_scores(self.root, changes)
            replace_file(path, json.dumps(self.record, indent=1).encode())
            if before is None:
                with writing(self._times):
                    self._times.unlink(missing_ok=True)  # those of another config
                    (self.root / DATA).unlink(missing_ok=True)

    def _changes(self) -> tuple[dict[str, Any] | None, Changes]:
        """The record of the run that is taken up, None where one begins; and what has changed."""
        path = self.root / "config.json"
        if not path.exists():
            if jax.process_index() == 0 and self._is_begun():
                raise UserError(
                    f"the folder {self.root} is not empty and was not made by this program: choose "
                    "another with --workdir"
                )
            return None, Changes()
        try:
            before = json.loads(path.read_text())
            config, processes, _ = before["config"], before["processes"], before["versions"]
        except (ValueError, KeyError, TypeError):
            raise UserError(
                f"{path} is damaged: choose another folder with --workdir, or delete it if "
                "nothing in that folder is of worth"
            ) from None
        known = self.known_data()
        same_data = known is not None and known == self._data
        changes = compare(config, self.record["config"], self.root, same_data=same_data)
        refused = changes.refused
        if not refused and processes != self.record["processes"]:
            # Every process has its own place in the data, and they would not fit together.
            refused = f"processes were {processes}, are {self.record['processes']}"
        if not refused:
            return before, changes
        if self._is_begun():
            raise UserError(
                f"the folder {self.root} was made by another config ({refused}), and what was "
                "trained with it cannot change: choose another folder with --workdir, or go back "
                "to that config"
            )
        return None, Changes()

    def known_data(self) -> str | None:
        """The fingerprint of the data that this run is made with; None if it has opened none."""
        try:
            return json.loads((self.root / DATA).read_text())["fingerprint"]
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def keep_to_data(self, folder: Path, fingerprint: str) -> None:
        """Notes the prepared data that a run begins with; a run resumes on no others.

        Args:
          folder: where they lie.
          fingerprint: of what is in them, see `data_pipelines.prepared.source.fingerprint`.

        Raises:
          UserError: the run was begun with others.
        """
        known = self.known_data()
        if known not in (None, fingerprint) and self._is_begun():
            raise UserError(
                f"the prepared data in {folder} are not those that {self.root} was begun with: "
                "put those back, or begin again with another --workdir"
            )
        if known != fingerprint and jax.process_index() == 0:
            note = {"fingerprint": fingerprint, "folder": str(folder)}
            replace_file(self.root / DATA, json.dumps(note, indent=1).encode())

    @property
    def _times(self) -> Path:
        return self.root / TIMES

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
        return times_of(self.root)

    def write_rows(self, path: Path, rows: list[dict[str, Any]]) -> None:
        """Writes rows of scores, from the first process; none may be NaN."""
        if jax.process_index() == 0:
            replace_file(path, json.dumps(rows, indent=1, allow_nan=False).encode())


def times_of(run: Path) -> dict[str, float]:
    """Seconds by part of the run in a folder, all starts together."""
    path, total = run / TIMES, {}
    for row in path.read_text().splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError):  # a line that a kill tore in two
            line = json.loads(row)
            total[line["what"]] = total.get(line["what"], 0.0) + line["seconds"]
    return total


def read_rows(path: Path) -> list[dict[str, Any]] | None:
    """What `write_rows` wrote; None if there is no such file.

    Raises:
      UserError: it is damaged.
    """
    if not path.exists():
        return None
    try:
        rows = json.loads(path.read_bytes())
        if isinstance(rows, list) and all(ROW_KEYS <= row.keys() for row in rows):
            return rows
    except (ValueError, AttributeError, TypeError):
        pass
    raise UserError(
        f"{path} is damaged: delete it and start the command again, which computes the scores anew"
    )
