"""What came out of the runs: read from their folders, and put into tables over the seeds."""

import dataclasses
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from aavs_jax.compare import budget, times
from aavs_jax.compare.budget import Part
from aavs_jax.compare.systems import Run, System
from aavs_jax.report.score_tables import main_sound, pivot
from aavs_jax.run.logging_writer import read_metrics
from aavs_jax.run.resuming import RESULTS
from aavs_jax.run.workdir import read_rows, times_of
from aavs_jax.scoring.metrics import PROTOCOL, PROTOCOLS

MISSING = "-"
# The score of a task that selects checkpoints, too.
HEADLINE = {"binary": "J", "semantic": "mIoU"}
QUESTION = {"binary": "where", "semantic": "what"}
SOUNDS = {"right": "its own sound", "other": "another clip's", "silence": "silence"}


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Of a run that is complete.

    Attributes:
      run: which.
      rows: its scores.
      metrics: the lines of its log.
      parts: its phases.
      frames: that it saw in training.
      frames_per_second: of its training steps alone; None where it is not known.
      training: seconds, compiling and validation among them.
      whole: seconds of the run, scores among them; that of making the data set is not.
    """

    run: Run
    rows: Sequence[Mapping[str, Any]]
    metrics: Sequence[Mapping[str, Any]]
    parts: Sequence[Part]
    frames: float
    frames_per_second: float | None
    training: float
    whole: float

    def score(self, task: str, metric: str, sound: str, protocol: str = PROTOCOL) -> float | None:
        """Of the last stage of a task, on the test split, with the first of its priors."""
        table = self._table(task, protocol)
        for (heard, _), cells in table.items():
            if heard == sound and metric in cells:
                return cells[metric]["value"]
        return None

    def stage(self, task: str) -> tuple[str, str] | None:
        """The last stage of a task and the first of its priors; None: there is none."""
        tables = [key for key in pivot(self.rows) if self._is_of(task, key)]
        if not tables:
            return None
        table = pivot(self.rows)[tables[-1]]
        main = main_sound(table)
        return tables[-1][0], next(prior for sound, prior in table if sound == main)

    def _table(self, task: str, protocol: str) -> Mapping:
        found = [t for key, t in pivot(self.rows).items() if self._is_of(task, key, protocol)]
        return found[-1] if found else {}

    def _is_of(self, task: str, key: tuple[str, str, str], protocol: str = PROTOCOL) -> bool:
        """Whether a table, by its stage, split and protocol, is one of a task's test scores."""
        stage, split, by = key
        # A binary network inside another one, as in avss_joint, is no stage of the config.
        keys = self.run.values["stages"].get(stage, {"task": "binary"})
        return split == "test" and by == protocol and keys["task"] == task


def read(run: Run, data_dir: Path) -> Outcome:
    """What a complete run has left.

    Raises:
      UserError: a file of it is damaged.
    """
    metrics = read_metrics(run.folder / "metrics.jsonl")
    parts = budget.parts(run.values, data_dir)
    steps: dict[str, int] = {}
    for line in metrics:
        name = f"{line['stage']}/{line['phase']}"
        steps[name] = max(steps.get(name, 0), line["step"])
    # A stage that asks what another has answered is left out by the run.
    parts = [
        dataclasses.replace(p, steps=steps[str(p.name)]) for p in parts if str(p.name) in steps
    ]
    seconds = {str(part.name): times.step_seconds(run.folder, str(part.name)) for part in parts}
    known = parts and all(seconds.values())
    in_steps = sum(part.steps * seconds[str(part.name)] for part in parts) if known else 0.0
    spent = times_of(run.folder)
    return Outcome(
        run,
        read_rows(run.folder / RESULTS) or [],
        metrics,
        parts,
        budget.frames(parts),
        budget.frames(parts) / in_steps if in_steps else None,
        sum(value for what, value in spent.items() if what in seconds),
        sum(value for what, value in spent.items() if what != "data"),
    )


@dataclasses.dataclass(frozen=True)
class Cell:
    """The median over the seeds as text, the range beside it, and whether none is better."""

    text: str = MISSING
    range: str = ""
    best: bool = False


@dataclasses.dataclass(frozen=True)
class Table:
    """Columns with their heads, of two lines; a line for each system."""

    heads: Sequence[tuple[str, str]]
    lines: Sequence[tuple[str, Sequence[Cell]]]


@dataclasses.dataclass(frozen=True)
class Column:
    """A number of each outcome, None where it has none, its digits, and whether most is best."""

    head: tuple[str, str]
    value: Callable[[Outcome], float | None]
    shown: Callable[[float], str] = "{:.3f}".format
    most_is_best: bool = False


def main_table(outcomes: Sequence[Outcome], systems: Sequence[System]) -> Table:
    """Scores by the main protocol with each sound, and what is lost with another clip's."""
    columns = []
    for task, metric in HEADLINE.items():
        head = f"{QUESTION[task]}: {metric}"
        for sound, words in SOUNDS.items():
            value = _score(task, metric, sound, PROTOCOL)
            columns.append(Column((head, words), value, most_is_best=sound == "right"))
        columns.append(Column((head, "lost with another's"), _lost(task, metric)))
    return table(columns, outcomes, systems)


def protocol_table(
    protocol: str, sound: str, outcomes: Sequence[Outcome], systems: Sequence[System]
) -> Table:
    """All scores by a protocol with one sound."""
    columns = [
        Column(
            (QUESTION[task], metric.replace("_", " ")),
            _score(task, metric, sound, protocol),
            most_is_best=sound == "right" and not metric.startswith("FDR"),
        )
        for task, names in PROTOCOLS[protocol].scores.items()
        for metric in names
    ]
    return table(columns, outcomes, systems)


def cost_table(
    outcomes: Sequence[Outcome],
    systems: Sequence[System],
    costs: Mapping[str, Mapping[str, float]],
) -> Table:
    """What the systems are and took; `costs` by name of the system, see `measure.cost`."""

    def cost(name: str, unit: float = 1) -> Callable[[Outcome], float | None]:
        def value(outcome: Outcome) -> float | None:
            found = costs.get(outcome.run.system.name)
            return found[name] / unit if found else None

        return value

    whole, tenths = "{:,.0f}".format, "{:,.1f}".format
    columns = [
        Column(("network", "parameters, million"), cost("parameters", 1e6), "{:,.2f}".format),
        Column(("network", "GFLOP a frame"), cost("flops", 1e9), "{:,.3g}".format),
        Column(("prediction", "frames/s"), cost("frames_per_second"), whole),
        Column(("training", "frames seen"), lambda outcome: outcome.frames, whole),
        Column(("training", "frames/s"), lambda outcome: outcome.frames_per_second, whole),
        Column(("training", "minutes"), lambda outcome: outcome.training / 60, tenths),
        Column(("whole run", "minutes"), lambda outcome: outcome.whole / 60, tenths),
    ]
    return table(columns, outcomes, systems)


def table(
    columns: Sequence[Column], outcomes: Sequence[Outcome], systems: Sequence[System]
) -> Table:
    """A line for each system; columns in which no system has a number are left out."""
    heads, filled = [], []
    for column in columns:
        cells, medians = [], []
        for system in systems:
            values = [column.value(o) for o in outcomes if o.run.system.name == system.name]
            values = [value for value in values if value is not None]
            medians.append(statistics.median(values) if values else None)
            cells.append(_cell(values, column.shown))
        known = [median for median in medians if median is not None]
        if not known:
            continue
        if column.most_is_best and len(known) > 1:
            cells = [
                dataclasses.replace(cell, best=median == max(known))
                for cell, median in zip(cells, medians, strict=True)
            ]
        heads.append(column.head)
        filled.append(cells)
    lines = [(system.name, [cells[i] for cells in filled]) for i, system in enumerate(systems)]
    return Table(heads, lines)


def markdown(table: Table) -> str:
    """The table as Markdown, the best in bold."""
    heads = [", ".join(head) for head in table.heads]
    lines = [["", *heads], ["---"] * (len(heads) + 1)]
    for name, cells in table.lines:
        texts = [f"**{cell.text}**" if cell.best else cell.text for cell in cells]
        ranges = [f" ({cell.range})" if cell.range else "" for cell in cells]
        lines.append([f"`{name}`", *(a + b for a, b in zip(texts, ranges, strict=True))])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _score(task: str, metric: str, sound: str, protocol: str) -> Callable[[Outcome], float | None]:
    return lambda outcome: outcome.score(task, metric, sound, protocol)


def _lost(task: str, metric: str) -> Callable[[Outcome], float | None]:
    def lost(outcome: Outcome) -> float | None:
        own, other = (outcome.score(task, metric, sound) for sound in ("right", "other"))
        return None if own is None or other is None else own - other

    return lost


def _cell(values: Sequence[float], shown: Callable[[float], str]) -> Cell:
    if not values:
        return Cell()
    low, high = shown(min(values)), shown(max(values))
    return Cell(shown(statistics.median(values)), f"{low}-{high}" if low != high else "")
