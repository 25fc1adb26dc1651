"""Command line: python -m aavs_jax.compare --configs=avss,tpavi [--budget=frames=N] [--workdir=DIR]

Trains the small form of each config on the same data, each as long as the others, scores it by
every protocol with three sounds, and writes one page. The same command again resumes.
"""

import argparse
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from aavs_jax.compare import budget, outcomes, pilots, record, running, systems
from aavs_jax.compare.comparison import NUMBERS, PAGE, Comparison
from aavs_jax.compare.systems import BUILT_IN, Run
from aavs_jax.errors import Parser, UserError
from aavs_jax.inputs import dataset
from aavs_jax.run.progress import say
from data_pipelines.errors import DataError, tidy_path

COMMAND = "python -m aavs_jax.compare"
DATA_KEYS = ("folder", "clips", "size", "seed")


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0; 1 where a run failed; 2 where the request cannot be met; 130 after
    Ctrl-C."""
    arguments = sys.argv[1:] if arguments is None else arguments
    # This process computes next to nothing; the accelerator belongs to the runs.
    jax.config.update("jax_platforms", "cpu")
    try:
        options, rest = _parser().parse_known_args(arguments)
        if unknown := [word for word in rest if not word.startswith("--config.")]:
            raise UserError(f"what is {unknown[0]!r}? See {COMMAND} --help")
        if any(word.startswith("--config.seed") for word in rest):
            raise UserError("--config.seed is that of one run: give --seeds=3407,1,2")
        if options.budget.kind != "recipe" and any("--config.epochs" in word for word in rest):
            raise UserError("--config.epochs and --budget both say how long: leave one out")
        # Before there is a folder.
        compared = systems.find(options.configs, options.data, rest)
        data = _data(compared)
        with record.held(options.workdir):
            command = shlex.join([*COMMAND.split(), *arguments])
            return _run(options, rest, compared, data, command)
    except (UserError, DataError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        said = str(stop) or "the same command resumes from what is saved so far"
        print(f"\nstopped: {said}", file=sys.stderr, flush=True)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=COMMAND,
        allow_abbrev=False,
        description="Trains and scores several configs in their small forms on the same data, and "
        "writes a page, index.html, and its numbers, results.json.",
        epilog="--config.KEY=VALUE, any key of configs/base.py, is given to every run.",
    )
    add = parser.add_argument
    configs = "such as avss,tpavi: names out of configs/ or paths of files; what follows a name "
    configs += "comes after its colon, as in avss_joint:,shared"
    add("--configs", required=True, type=_names, metavar="A,B", help=configs)
    add("--data", default=BUILT_IN, metavar="DIR", help="a folder (built-in: shapes)")
    add("--seeds", default=(3407,), type=_seeds, metavar="1,2", help="of each config (3407)")
    budgets = "of each run's training: recipe, as long as its config says (the default); frames=N "
    budgets += "that it sees; minutes=M, after a short run that tells its speed"
    add("--budget", default=budget.parse("recipe"), type=_budget, metavar="B", help=budgets)
    add("--workdir", default=Path("runs/compare"), type=Path, metavar="DIR", help="%(default)s")
    return parser


def _names(text: str) -> list[str]:
    """'avss,avss_joint:,shared' -> ['avss', 'avss_joint:,shared']: behind a colon the first comma
    ends the data folder, which is empty here."""
    names = text.replace(":,", "\n").split(",")
    found = [name.strip().replace("\n", ":,") for name in names if name.strip()]
    if not found:
        raise argparse.ArgumentTypeError("nothing is named: give some, as in avss,tpavi")
    return found


def _seeds(text: str) -> tuple[int, ...]:
    try:
        return tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} should be whole numbers, separated by commas"
        ) from None


def _budget(text: str) -> budget.Budget:
    try:
        return budget.parse(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix("--budget=")) from None


def _run(
    options: argparse.Namespace,
    overrides: Sequence[str],
    compared: Sequence[systems.System],
    data: Mapping[str, Any],
    command: str,
) -> int:
    workdir, wanted = options.workdir, options.budget
    asked = {"budget": str(wanted), "keys": list(overrides)}
    folder = data["folder"] and str(tidy_path(Path(data["folder"]).absolute()))
    asked |= {"data": folder or {key: data[key] for key in DATA_KEYS[1:]}}
    kept = record.of(workdir, asked)
    data_dir = dataset.prepared(data, workdir.absolute() / "run")
    record.write(workdir, kept)
    found, failed = pilots.factors(compared, wanted, workdir, data_dir, options.seeds[0], kept)
    keys = {
        system.name: budget.overrides(system.values(), found[system.name])
        for system in compared
        if system.name in found
    }
    trained = [system for system in compared if system.name in keys]
    runs = systems.make_runs(trained, options.seeds, workdir, keys)
    facts = {
        "command": command,
        "data": dataset.describe(data),
        "training": wanted.described,
        "seeds": ", ".join(map(str, options.seeds)),
    }
    comparison = Comparison(workdir, data_dir, compared, runs, facts, failed)
    _train(runs, comparison)
    comparison.write()
    for table in comparison.tables:
        say(f"\n{outcomes.markdown(table)}")
    say(f"\npage     {workdir / PAGE}\nnumbers  {workdir / NUMBERS}")
    for name, reason in comparison.failed.items():
        print(f"error: {name} failed: {reason}", file=sys.stderr)
    return 1 if comparison.failed else 0


def _data(compared: Sequence[systems.System]) -> dict:
    """The keys `data` of the configs, which have to be one data set."""
    first, *others = [system.values()["data"] for system in compared]
    for system, data in zip(compared[1:], others, strict=True):
        for key in DATA_KEYS:
            if data[key] != first[key]:
                raise UserError(
                    f"{system.config} has other data (data.{key} is {data[key]!r}) than "
                    f"{compared[0].config} ({first[key]!r}): give --config.data.{key} to all"
                )
    return first


def _train(runs: Sequence[Run], comparison: Comparison) -> None:
    """What is not complete yet, one after the other, the page behind each."""
    took: list[float] = []
    for number, run in enumerate(runs, start=1):
        if run.is_complete:
            say(f"*** run {number} of {len(runs)}: {run.name}, is complete")
            with comparison.stopping_at(run):
                comparison.measure(run)
            continue
        left = sum(not later.is_complete for later in runs[number:])
        about = f", about {left * sum(took) / len(took) / 60:.0f} min" if took and left else ""
        say(f"\n*** run {number} of {len(runs)}: {run.name}; {left} to follow{about}")
        say(f"*** {run.command}\n")
        start = time.monotonic()
        with comparison.stopping_at(run):
            if reason := running.run(run.program):
                comparison.failed[run.name] = reason
                say(f"*** {run.name} failed: {reason}")
                continue
            took.append(time.monotonic() - start)
            comparison.measure(run)
        if number < len(runs):  # behind the last one it is written anyway
            comparison.write()


if __name__ == "__main__":
    sys.exit(main())
