"""What is compared: configs with their seeds, each an ordinary run of `aavs_jax.main`."""

import dataclasses
import functools
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_flags

import configs
from aavs_jax.errors import UserError, in_a_sentence
from aavs_jax.plan.values import checked
from aavs_jax.run.resuming import RESULTS

BUILT_IN = "shapes"  # --data, where no folder is given
# Every run is scored by every protocol.
OF_ALL = ("--config.eval.protocols=all",)


@dataclasses.dataclass(frozen=True)
class System:
    """A config on the data of the comparison.

    Attributes:
      name: for people and folders, 'avss' or 'avss_joint-shared'.
      config: what --config is given, 'configs/avss.py:/data/mine,small'.
      overrides: '--config.KEY=VALUE', of all its runs.
    """

    name: str
    config: str
    overrides: tuple[str, ...] = ()

    def values(self, *more: str) -> dict[str, Any]:
        """All keys, nested plain values, with further overrides.

        Raises:
          UserError: the file cannot be read; a key or value that cannot be.
        """
        words = [self.name, f"--config={self.config}", *self.overrides, *more]
        parsed = flags.FlagValues()
        holder = config_flags.DEFINE_config_file("config", flag_values=parsed, sys_argv=words)
        try:
            parsed(words)
            config = holder.value
        # What a config's own file raises, too.
        except (flags.Error, AttributeError, KeyError, ValueError, TypeError, OSError) as error:
            raise UserError(f"{self.config}: {in_a_sentence(error)}") from None
        try:
            return checked(config)
        except UserError as error:
            raise UserError(f"{self.config}: {error}") from None


@dataclasses.dataclass(frozen=True)
class Run:
    """A system trained with a seed."""

    system: System
    seed: int
    folder: Path
    overrides: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.system.name}, seed {self.seed}"

    @property
    def arguments(self) -> list[str]:
        """What follows `python -m aavs_jax.main`."""
        return [
            f"--config={self.system.config}",
            f"--workdir={self.folder}",
            *self.system.overrides,
            *self._own,
        ]

    @property
    def command(self) -> str:
        """For people."""
        return shlex.join(["python", "-m", "aavs_jax.main", *self.arguments])

    @property
    def program(self) -> list[str]:
        return [sys.executable, "-m", "aavs_jax.main", *self.arguments]

    @functools.cached_property
    def values(self) -> dict[str, Any]:
        return self.system.values(*self._own)

    @property
    def _own(self) -> tuple[str, ...]:
        return (f"--config.seed={self.seed}", *self.overrides)

    @property
    def is_complete(self) -> bool:
        """Whether its scores are there, of the config as it is now."""
        try:
            before = json.loads((self.folder / "config.json").read_text())["config"]
        except (OSError, ValueError, KeyError, TypeError):
            return False
        return (self.folder / RESULTS).exists() and before == json.loads(json.dumps(self.values))


def find(names: Sequence[str], data: str, overrides: Sequence[str]) -> list[System]:
    """The systems that are asked for, their files read.

    Args:
      names: of configs, 'avss' or a path to a file, each with what may follow the data folder, as
        in 'avss_joint:,shared'.
      data: a folder; BUILT_IN for the built-in data set.
      overrides: '--config.KEY=VALUE', of all of them.

    Raises:
      UserError: no such config; one is named twice; it cannot be read.
    """
    systems = [_system(name, data, (*OF_ALL, *overrides)) for name in names]
    taken: set[str] = set()
    for system in systems:
        if system.name in taken:
            raise UserError(f"--configs has two of the name {system.name}: leave one out")
        taken.add(system.name)
        system.values()
    return systems


def _system(name: str, data: str, overrides: tuple[str, ...]) -> System:
    file, _, argument = name.partition(":")
    folder, _, recipe = argument.partition(",")
    if folder:
        raise UserError(f"--configs has {name}, with a data folder: give it with --data, to all")
    path = Path(file if file.endswith(".py") else f"configs/{file}.py")
    if not path.is_file() and not file.endswith(".py"):
        path = Path(configs.__file__).with_name(f"{file}.py")
    if not path.is_file():
        raise UserError(
            f"--configs has {name}, and there is no file {path}: give names out of configs/ or "
            "paths, separated by commas, and what follows a name as in avss_joint:,shared"
        )
    whole = "" if data == BUILT_IN else data
    parts = [whole, *([recipe] if recipe else []), *(["small"] if whole else [])]
    argument = ",".join(parts)
    config = f"{path}:{argument}" if argument else str(path)
    return System("-".join(filter(None, (path.stem, recipe.replace(",", "-")))), config, overrides)


def make_runs(
    systems: Sequence[System],
    seeds: Sequence[int],
    workdir: Path,
    overrides: Mapping[str, Sequence[str]],
) -> list[Run]:
    """All runs: every system with the first seed, then with the next.

    Args:
      systems: compared.
      seeds: of each.
      workdir: their folders lie in it, so that they share data and what is compiled.
      overrides: by the name of a system, those that give it its budget.
    """
    return [
        Run(system, seed, workdir / f"{system.name}-seed{seed}", tuple(overrides[system.name]))
        for seed in seeds
        for system in systems
    ]
