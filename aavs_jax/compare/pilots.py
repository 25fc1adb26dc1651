"""By how much each config's epochs are multiplied, and the short runs that tell its speed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aavs_jax.compare import budget, record, running, times
from aavs_jax.compare.budget import Budget
from aavs_jax.compare.systems import Run, System
from aavs_jax.run.progress import say

STEPS = 60  # of each phase


def factors(
    systems: Sequence[System],
    wanted: Budget,
    workdir: Path,
    data_dir: Path,
    seed: int,
    kept: dict[str, Any],
) -> tuple[dict[str, float], dict[str, str]]:
    """By how much the epochs of each system are multiplied.

    Where the budget is of minutes, a short run of each system is timed first, and the record keeps
    what follows, since another time would find another speed.

    Args:
      systems: compared.
      wanted: the budget of each run.
      workdir: of the comparison.
      data_dir: the prepared data set.
      seed: of what is timed.
      kept: see `record.of`; written where something is added.

    Returns:
      Factors by name, and by name of those that could not be timed the reason.
    """
    found, failed = {}, {}
    for system in systems:
        parts = budget.parts(system.values(), data_dir)
        seconds: dict[str, float] = {}
        if wanted.kind == "minutes":
            if system.name in kept["factors"]:
                found[system.name] = kept["factors"][system.name]
                continue
            say(f"\n*** {system.name}: {STEPS} steps of each phase, to know how long they take")
            flags = budget.pilot(parts, system.values(), STEPS)
            run = Run(system, seed, workdir / f"{system.name}-pilot", tuple(flags))
            reason = "" if run.is_complete else running.run(run.program)
            if reason:
                failed[system.name] = f"its {STEPS} steps to be timed did not end: {reason}"
                continue
            seconds = {str(p.name): times.step_seconds(run.folder, str(p.name)) for p in parts}
            # What the run leaves out, as another stage answers it, takes none.
            seconds = {name: value or 0.0 for name, value in seconds.items()}
        found[system.name] = budget.factor(wanted, parts, seconds)
        if wanted.kind == "minutes":
            kept["factors"][system.name] = found[system.name]
            record.write(workdir, kept)
    return found, failed
