"""The folder of a run, which explains itself: what was run, with what, and what came out.

config.json     every key, the command and the versions
times.jsonl     seconds that parts of the run took, one line per part and start
results.json    figures, a flat list of rows; there when the run is complete
"""

import contextlib
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
from aavs_jax.logging_writer import replace_file

PACKAGES = ("aavs_jax", "jax", "flax", "optax", "orbax-checkpoint", "grain", "tensorflow-datasets")
# A run may go on with other values of these: they change no figure.
FREE_KEYS = ("data.num_workers", "data.cache", "mesh.fsdp", "checkpoint_every")


class Workdir:
    """Paths and records of a run; only the first process writes."""

    def __init__(self, root: str | os.PathLike[str], config: Mapping[str, Any], name: str):
        """Takes the folder for this config, or takes it up again.

        Args:
          root: the folder; made if missing.
          config: all keys, nested plain values.
          name: of the config, such as "avss".

        Raises:
          UserError: it was made by another config, or cannot be written.
        """
        self.root = Path(root).absolute()
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
            except ValueError:
                raise UserError(
                    f"{path} is damaged: choose another folder with --workdir, or delete it if "
                    "nothing in that folder is of worth"
                ) from None
            self._check_same(before["config"], record["config"])
            self.record = before
            if before["versions"] != record["versions"]:
                print(f"{path} was written by other versions of the libraries", file=sys.stderr)
            return
        if self.root.is_dir() and any(self.root.iterdir()) and jax.process_index() == 0:
            raise UserError(
                f"the folder {self.root} is not empty and was not made by this program: choose "
                "another with --workdir"
            )
        self.record = record
        if jax.process_index() == 0:
            replace_file(path, json.dumps(record, indent=1).encode())

    def _check_same(self, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        old, new = _flatten(before), _flatten(now)
        differing = [
            key
            for key in sorted(old.keys() | new.keys())
            if old.get(key) != new.get(key) and key not in FREE_KEYS
        ]
        if differing:
            key = differing[0]
            more = f" and {len(differing) - 1} more" if len(differing) > 1 else ""
            raise UserError(
                f"the folder {self.root} was made by another config ({key} was {old.get(key)!r}, "
                f"is {new.get(key)!r}{more}): choose another with --workdir, or go back to that "
                "config"
            )

    @contextlib.contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Adds the seconds spent inside to times.jsonl."""
        start = time.monotonic()
        yield
        if jax.process_index() == 0:
            line = {"what": what, "seconds": round(time.monotonic() - start, 2)}
            with open(self.root / "times.jsonl", "a") as file:
                file.write(json.dumps(line) + "\n")

    def times(self) -> dict[str, float]:
        """Seconds by part, all starts together."""
        path = self.root / "times.jsonl"
        total: dict[str, float] = {}
        for row in path.read_text().splitlines() if path.exists() else ():
            with contextlib.suppress(ValueError):  # a line that a kill tore in two
                line = json.loads(row)
                total[line["what"]] = total.get(line["what"], 0.0) + line["seconds"]
        return total

    def write_rows(self, path: Path, rows: list[dict[str, Any]]) -> None:
        """Writes rows of figures, from the first process."""
        if jax.process_index() == 0:
            replace_file(path, json.dumps(rows, indent=1).encode())


def read_rows(path: Path) -> list[dict[str, Any]] | None:
    """What `write_rows` wrote; None if there is no such file."""
    return json.loads(path.read_text()) if path.exists() else None


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
