"""What was measured: rows, in a file and as a table for people."""

import dataclasses
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from aavs_jax.benchmark.cases import Case
from aavs_jax.run.files import replace_file

FILE = "benchmark.json"
OURS = "aavs_jax"
Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Measured:
    """What a side took for a case.

    Attributes:
      case: what was done.
      side: of `worker.SIDES`.
      rounds: of each seconds, cpu_seconds and peak_bytes of one run.
      told: see `work.Work`.
    """

    case: Case
    side: str
    rounds: Sequence[Mapping[str, float]]
    told: Mapping[str, Any]


def rows(measured: Measured, flops: float = 0.0, note: str = "", axis: str = "") -> list[Row]:
    """A flat row for each metric: its median, lowest and highest of all rounds.

    Args:
      measured: of one side.
      flops: of one run; 0: unknown, and there is no row of them.
      note: a sentence on all of them.
      axis: of the scaling, `cases.Case`'s field that it is about; '': it is no part of that.
    """
    case, per_round = measured.case, measured.rounds
    frames = measured.told.get("frames", case.clips * case.frames)
    names = ("seconds", "cpu_seconds", "peak_bytes")
    metrics = {name: [each[name] for each in per_round] for name in names}
    metrics["frames_per_second"] = [frames / each["seconds"] for each in per_round]
    if flops:
        metrics["flops_per_second"] = [flops / each["seconds"] for each in per_round]
    described = {**dataclasses.asdict(case), "side": measured.side, "axis": axis}
    return [
        {
            **described,
            "metric": name,
            "median": statistics.median(values),
            "low": min(values),
            "high": max(values),
            "rounds": len(values),
            "note": note,
        }
        for name, values in metrics.items()
    ]


def machine_rows(measured: Measured) -> list[Row]:
    """The machine's speeds as rows, as far as the side tells them: the best of some runs."""
    described = {**dataclasses.asdict(measured.case), "side": measured.side, "axis": ""}
    return [
        {
            **described,
            "metric": name,
            **dict.fromkeys(("median", "low", "high"), measured.told[name]),
            "rounds": 1,
            "note": "the best of all runs",
        }
        for name in ("flops_per_second", "bytes_per_second")
        if name in measured.told
    ]


def with_faster(rows: Sequence[Row], machine: Sequence[Row]) -> list[Row]:
    """Rows with those of the machine, each in place of a slower one if there is one."""

    def key(row: Row) -> tuple:
        return row["what"], row["side"], row["metric"]

    before = {key(row): row for row in rows if row["what"] == "machine"}
    faster = [max(row, before.get(key(row), row), key=lambda r: r["median"]) for row in machine]
    replaced = set(map(key, machine))
    return [*(row for row in rows if key(row) not in replaced), *faster]


def write(path: Path, rows: Sequence[Row], advice: str) -> None:
    """Writes all rows, whole or not at all; a UserError, with `advice`, where that cannot be."""
    replace_file(path, json.dumps(rows, indent=1, allow_nan=False).encode(), advice)


def peak(rows: Iterable[Row]) -> float:
    """FLOP/s of the machine's matrix product, the faster side's; 0 where it was not measured."""
    speeds = [
        row["median"]
        for row in rows
        if row["what"] == "machine" and row["metric"] == "flops_per_second"
    ]
    return max(speeds, default=0.0)


def by_case(rows: Iterable[Row]) -> dict[Case, dict[str, dict[str, Row]]]:
    """case -> side -> metric -> row, in the order measured; without machine and scaling."""
    found: dict[Case, dict[str, dict[str, Row]]] = {}
    for row in rows:
        if row["what"] != "machine" and not row["axis"]:
            found.setdefault(case_of(row), {}).setdefault(row["side"], {})[row["metric"]] = row
    return found


def case_of(row: Row) -> Case:
    """The case that a row is of."""
    return Case(**{field.name: row[field.name] for field in dataclasses.fields(Case)})


HEAD = (
    *("", "seconds", "low", "high", "CPU s", "peak MB"),
    *("frames/s", "GFLOP/s", "of peak", "faster"),
)


def lines(rows: Sequence[Row]) -> list[tuple[str, list[list[str]]]]:
    """(case, a line of cells for each side, as in HEAD) for people.

    'of peak' is the share of the machine's matrix product; 'faster' is how many times as fast as
    that side this program is.
    """
    fastest, blocks = peak(rows), []
    for case, sides in by_case(rows).items():
        ours = sides.get(OURS, {}).get("seconds")
        block = []
        for side, metrics in sides.items():
            seconds, flops = metrics["seconds"], metrics.get("flops_per_second")
            other = ours and side != OURS
            block.append(
                [
                    side,
                    *(f"{seconds[part]:.4g}" for part in ("median", "low", "high")),
                    f"{metrics['cpu_seconds']['median']:.4g}",
                    f"{metrics['peak_bytes']['median'] / 1e6:,.0f}",
                    f"{metrics['frames_per_second']['median']:.4g}",
                    f"{flops['median'] / 1e9:.3g}" if flops else "",
                    f"{flops['median'] / fastest:.0%}" if flops and fastest else "",
                    f"{seconds['median'] / ours['median']:.2f} x" if other else "",
                ]
            )
        blocks.append((case.name, block))
    return blocks


def table(rows: Sequence[Row]) -> str:
    """The same as text, with the notes beneath each case."""
    widths = (16, 10, 10, 10, 10, 10, 10, 9, 9, 9)

    def line(cells: Sequence[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        text = f"{first[0]:<{first[1]}}" + "".join(f"{cell:>{width}}" for cell, width in others)
        return text.rstrip()

    notes = {case.name: notes_on(sides) for case, sides in by_case(rows).items()}
    out = [line(HEAD)]
    for name, block in lines(rows):
        out += ["", name, *map(line, block), *(f"  {note}" for note in notes[name])]
    return "\n".join(out)


def notes_on(sides: Mapping[str, Mapping[str, Row]]) -> list[str]:
    """The notes of a case, each once."""
    notes = (row["note"] for metrics in sides.values() for row in metrics.values())
    return [note for note in dict.fromkeys(notes) if note]


def shares(rows: Sequence[Row]) -> list[str]:
    """Of what was measured: the loss beside a step, and reading beside training."""
    ours = {case: sides[OURS] for case, sides in by_case(rows).items() if OURS in sides}
    seconds = {case: metrics["seconds"]["median"] for case, metrics in ours.items()}
    speeds = {case: metrics["frames_per_second"]["median"] for case, metrics in ours.items()}
    said = []
    for step in (case for case in seconds if case.what == "train"):
        for other in seconds:
            if (other.size, other.task, other.dtype) != (step.size, step.task, step.dtype):
                continue
            if other.what == "loss" and other.frames == step.frames:
                share = seconds[other] / seconds[step]
                said.append(f"{step.name}: the loss with matching takes {share:.1%} of the step")
            if other.what == "loader":
                said.append(
                    f"{step.name}: needs {speeds[step]:.4g} frames a second, and the loader reads "
                    f"{speeds[other]:.4g}"
                )
    return said
