"""The data that given weights were trained on."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aavs_jax.errors import UserError
from configs import base


def own_data(data: Mapping[str, Any], folders: str) -> dict[str, Any]:
    """The data to score on: what the config names, or else what the weights were trained on.

    Args:
      data: config.data; it names data where it has a folder, or other numbers for the built-in data
        set than configs/base.py has.
      folders: as for `weights.given_weights.read`; of converted weights nobody knows.

    Returns:
      config.data, with `folder`, `clips`, `size` and `seed` of the run whose weights are given.

    Raises:
      UserError: the weights are of runs on different data; or what the run was trained on is not
        there any more.
    """
    keys = ("folder", "clips", "size", "seed")
    usual = base.base("", small=True).data
    if any(data[key] != usual[key] for key in keys):
        return dict(data)
    found: dict[tuple, Path] = {}
    for folder in filter(None, (part.strip() for part in folders.split(","))):
        run = next(
            (r for r in (Path(folder), *Path(folder).absolute().parents[:2]) if _is_run(r)), None
        )
        if run is not None:
            theirs = _record(run)["data"]
            found.setdefault(tuple(theirs[key] for key in keys), run)
    if len(found) > 1:
        first, second = list(found.values())[:2]
        raise UserError(
            f"{first} and {second} were trained on different data: say on which to score, with "
            "--config=...:FOLDER"
        )
    if not found:
        return dict(data)
    values, run = next(iter(found.items()))
    if values[0] and not Path(values[0]).is_dir():
        raise UserError(
            f"{run} was trained on {values[0]}, and there is no such folder now: say on which data "
            "to score, with --config=...:FOLDER"
        )
    return {**data, **dict(zip(keys, values, strict=True))}


def _is_run(folder: Path) -> bool:
    return (folder / "config.json").is_file()


def _record(run: Path) -> Mapping[str, Any]:
    """The config of a run."""
    path = run / "config.json"
    try:
        config = json.loads(path.read_bytes())["config"]
        config["data"]["folder"], config["schedule"], config["stages"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged: name <run>/<stage>/<phase> instead of it") from error
    return config
