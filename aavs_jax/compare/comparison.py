"""A comparison as far as it has come: its runs, what failed, the page and the numbers."""

import contextlib
import dataclasses
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from aavs_jax.compare import clips, outcomes, page, running
from aavs_jax.compare.outcomes import Outcome, Table
from aavs_jax.compare.systems import Run, System
from aavs_jax.run.files import replace_file
from aavs_jax.run.progress import say
from aavs_jax.run.stopping import Stopped

PAGE = "index.html"
NUMBERS = "results.json"


@dataclasses.dataclass
class Comparison:
    """What is known while runs are being made.

    Attributes:
      workdir: of the comparison.
      data_dir: the prepared data set.
      systems: all that are compared.
      runs: of those whose epochs are known, in the order in which they are made.
      facts: what was asked for, by label.
      failed: by name of a run, or of a system, the reason.
    """

    workdir: Path
    data_dir: Path
    systems: Sequence[System]
    runs: Sequence[Run]
    facts: Mapping[str, str]
    failed: dict[str, str] = dataclasses.field(default_factory=dict)
    _read: dict[str, Outcome] = dataclasses.field(default_factory=dict)

    @property
    def outcomes(self) -> list[Outcome]:
        """Of the runs that are complete."""
        for run in self.runs:
            if run.name not in self._read and run.is_complete:
                self._read[run.name] = outcomes.read(run, self.data_dir)
        return list(self._read.values())

    @property
    def tables(self) -> tuple[Table, Table]:
        """Scores, and what they cost."""
        found = self.outcomes
        scores = outcomes.main_table(found, self.systems)
        return scores, outcomes.cost_table(found, self.systems, self.costs)

    @property
    def costs(self) -> dict[str, dict[str, float]]:
        """By name of the system, see `measure.cost`, as far as they are measured."""
        found = {}
        for system in self.systems:
            with contextlib.suppress(OSError, ValueError):
                found[system.name] = json.loads(self._cost_file(system).read_text())
        return found

    def measure(self, run: Run) -> None:
        """What the system of a complete run costs, unless it is known."""
        file = self._cost_file(run.system)
        if file.exists():
            return
        say(f"*** {run.system.name}: its size and speed")
        program = [sys.executable, "-m", "aavs_jax.compare.measure", str(run.folder), str(file)]
        if reason := running.run(program):
            say(f"*** they could not be measured: {reason}")

    def _cost_file(self, system: System) -> Path:
        return self.workdir / "costs" / f"{system.name}.json"

    @contextlib.contextmanager
    def stopping_at(self, run: Run) -> Iterator[None]:
        """Ctrl-C inside says where the same command resumes."""
        try:
            yield
        except KeyboardInterrupt as stop:
            done = len(self.outcomes)
            self.write()
            raise Stopped(
                f"the same command resumes {run.name}; {self.workdir / PAGE} has the {done} of "
                f"{len(self.runs)} runs that are complete"
            ) from stop

    def write(self) -> None:
        """Writes the numbers and the page of what is complete."""
        found, costs = self.outcomes, self.costs
        replace_file(self.workdir / NUMBERS, json.dumps(self._numbers(costs), indent=1).encode())
        page.write(
            self.workdir / PAGE,
            facts={**self.facts, "runs": self._progress(), **page.of_machine(found)},
            failed=self.failed,
            systems=self.systems,
            outcomes=found,
            costs=costs,
            examples=clips.side_by_side(found, self.systems, self.data_dir),
        )

    def _progress(self) -> str:
        complete = f"{len(self.outcomes)} of {len(self.runs)} are complete"
        return complete + (f", {len(self.failed)} failed" if self.failed else "")

    def _numbers(self, costs: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
        return {
            "facts": dict(self.facts),
            "systems": {system.name: costs.get(system.name) for system in self.systems},
            "failed": self.failed,
            "runs": [
                {
                    "system": outcome.run.system.name,
                    "seed": outcome.run.seed,
                    "command": outcome.run.command,
                    "frames_seen": outcome.frames,
                    "frames_per_second": outcome.frames_per_second,
                    "training_seconds": outcome.training,
                    "seconds": outcome.whole,
                    "scores": list(outcome.rows),
                }
                for outcome in self.outcomes
            ],
        }
