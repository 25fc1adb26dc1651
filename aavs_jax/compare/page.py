"""The page of a comparison: what every system scores and costs, how it learned, what it says."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aavs_jax.benchmark.page import processor
from aavs_jax.compare import outcomes as tables
from aavs_jax.compare.outcomes import HEADLINE, QUESTION, Outcome
from aavs_jax.compare.systems import System
from aavs_jax.report.learning_curves import FRAME, Curve, layout
from aavs_jax.report.page import example_of
from aavs_jax.run.files import replace_file
from aavs_jax.scoring.metrics import PROTOCOLS
from data_pipelines.pages import render


def write(
    path: Path,
    *,
    facts: Mapping[str, str],
    failed: Mapping[str, str],
    systems: Sequence[System],
    outcomes: Sequence[Outcome],
    costs: Mapping[str, Mapping[str, float]],
    examples: Sequence[Mapping[str, Any]],
) -> None:
    """Writes the page, which needs no other file; beside it lie the runs that it links to.

    Args:
      path: of the file; replaced in one go.
      facts: what was asked for, and on what it ran, by label.
      failed: by name the reason.
      systems: compared, in the order of lines and columns.
      outcomes: of the runs that are complete.
      costs: by name of the system, see `measure.cost`.
      examples: see `clips.side_by_side`.

    Raises:
      UserError: it cannot be written.
    """
    text = render(
        Path(__file__).with_name("compare.html"),
        title="Configs side by side",
        facts=facts,
        failed=failed,
        main=tables.main_table(outcomes, systems),
        cost=tables.cost_table(outcomes, systems, costs),
        protocols=[
            (
                protocol,
                {
                    words: tables.protocol_table(name, sound, outcomes, systems)
                    for sound, words in tables.SOUNDS.items()
                },
            )
            for name, protocol in PROTOCOLS.items()
        ],
        charts=[chart for task in HEADLINE if (chart := curves(task, outcomes, systems))],
        frame=FRAME,
        legend=dict(pair for each in examples for pair in each["legend"]),
        examples=[{**each, **example_of(each)} for each in examples],
        runs=[(o.run.name, o.run.folder.name, o.run.command) for o in outcomes],
        told=_is_told(outcomes),
    )
    replace_file(path, text.encode())


def curves(
    task: str, outcomes: Sequence[Outcome], systems: Sequence[System]
) -> dict[str, Any] | None:
    """The validation score of a task over the frames seen, of all runs; None: there is none.

    Frames are counted over all stages, so that a second stage begins where the first has ended. A
    system's further seeds are drawn faintly.
    """
    metric, lines, seen = HEADLINE[task], [], set()
    for outcome in outcomes:
        name, at = outcome.run.system.name, 0.0
        colour = [system.name for system in systems].index(name)
        kind = "faint" if name in seen else ""
        points = []
        for part in outcome.parts:
            is_of = outcome.run.values["stages"].get(part.name.stage, {}).get("task") == task
            scores = {
                line["step"]: line[metric]
                for line in outcome.metrics
                if line["kind"] == "val" and line.get(metric) is not None
                if (line["stage"], line["phase"]) == tuple(part.name)
            }
            if is_of and scores:
                steps = sorted(scores)
                x = at + np.array(steps, float) * part.frames
                points.append((x, np.array([scores[step] for step in steps], float)))
            at += part.steps * part.frames
        if points:
            seen.add(name)
            lines.append(Curve(name, points, colour, kind, markers=not kind))
    if not lines:
        return None
    chart = {"title": f"{QUESTION[task].capitalize()}: {metric}", "remark": "validation split"}
    return chart | {"y_label": f"{metric}, 0 to 1"} | layout(lines, {}, fractions=True)


def of_machine(outcomes: Sequence[Outcome]) -> dict[str, str]:
    """On what the runs were made, as they have noted it, by label."""
    devices, versions = set(), set()
    for outcome in outcomes:
        record = json.loads((outcome.run.folder / "config.json").read_text())
        devices.add(", ".join(record["devices"]))
        versions.add(", ".join(f"{name} {v}" for name, v in record["versions"].items()))
    if not outcomes:
        return {}
    return {
        "device": f"{'; '.join(sorted(devices))}; processor {processor()}",
        "versions": "; ".join(sorted(versions)),
    }


def _is_told(outcomes: Sequence[Outcome]) -> bool:
    """Whether any of the systems is told where it sounds."""
    found = (outcome.stage("semantic") for outcome in outcomes)
    return any(stage is not None and stage[1] != "none" for stage in found)
