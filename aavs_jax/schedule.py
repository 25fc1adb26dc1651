"""The story: where does it sound, then what is it; and what is handed from one to the next.

    data -> localise: phases -> scores, masks -> understand: phases -> scores -> report

A phase hands its best checkpoint to the next, through Orbax. A stage hands the next one its masks,
as files in AVSBench's naming. Each step leaves its result under its final name only when it is
whole, so the same command, given again, resumes with the first one that is missing. An evaluation
is a schedule whose stages have no phases.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from aavs_jax import checks
from aavs_jax.inputs import dataset, embeddings, features
from aavs_jax.inputs.batches import (
    NO_OTHER,
    SPLITS,
    on_data,
    sounds_to_hear,
    train_batches,
)
from aavs_jax.plan.folds import with_writers
from aavs_jax.plan.questions import repeated_question, without_repeated_question
from aavs_jax.plan.stage import PhaseName, Stage, make_stages, trained_paths
from aavs_jax.plan.values import checked
from aavs_jax.report import presentation
from aavs_jax.run.logging_writer import LoggingWriter
from aavs_jax.run.progress import say
from aavs_jax.run.resuming import RESULTS
from aavs_jax.run.workdir import Workdir, read_rows
from aavs_jax.scoring.stage_scores import stage_scores
from aavs_jax.scoring.validation import validation
from aavs_jax.state.sharding import everyone_is_here, make_mesh
from aavs_jax.state.tree import below
from aavs_jax.train import train_phase
from aavs_jax.weights import card
from aavs_jax.weights.given_weights import Given
from aavs_jax.weights.keeping import check_begun, chosen_parameters, parameters_at
from aavs_jax.weights.starting import starting_parameters
from data_pipelines.prepared.source import fingerprint

Rows = list[dict[str, Any]]

MISSING = {
    "val": "the data has no split val: each phase hands over its last checkpoint, not its best",
    "val labels": (
        "no clip of the split val has a label: each phase hands over its last checkpoint, not its "
        "best"
    ),
    "test": "the data has no split test: there are no scores and pictures of it",
}
# What a run leaves besides its report and scores.
MORE = (
    ("curves", "metrics.jsonl and tensorboard/"),
    ("checkpoints", "<stage>/<phase>/checkpoints/"),
)


def train_and_evaluate(config: Mapping[str, Any], root: Path, name: str) -> Rows:
    """Runs every stage of the schedule, or what is left of it.

    Args:
      config: as in configs/base.py, nested plain values.
      root: the folder of the run.
      name: of the config.

    Returns:
      The rows of results.json.

    Raises:
      UserError, DataError: whatever the user has to mend.
    """
    config, root = checked(config), Path(root).absolute()
    data = dataset.known_fingerprint(config["data"], root)
    with Workdir(root, config, name, data) as workdir:
        everyone_is_here("the folder of the run is taken")
        rows = read_rows(workdir.root / RESULTS)
        if rows is not None:
            say(f"{workdir.root} is complete already; give another --workdir to run again\n")
            if data not in (None, workdir.known_data()):
                say("Its data are others by now: another --workdir trains and scores on them\n")
        else:
            rows = _run(config, workdir)
            workdir.write_rows(workdir.root / RESULTS, rows)
    presentation.show(workdir.root, rows, MORE)
    return rows


def _run(config: Mapping[str, Any], workdir: Workdir) -> Rows:
    stages = make_stages(with_writers(config), workdir.root)
    checks.before_data(stages)
    mesh = make_mesh(config["mesh"]["fsdp"], [s.keys["data"]["batch_size"] for s in stages])
    with workdir.timed("data"):
        data_dir = dataset.prepared(config["data"], workdir.root)
    stages = [on_data(stage, data_dir, mesh) for stage in stages]
    stages = _without_repeated_question(stages)
    checks.with_data(stages)
    workdir.keep_to_data(data_dir, fingerprint(data_dir))
    rows = []
    with jax.default_matmul_precision(config["matmul_precision"]):
        for stage in stages:
            rows += run_stage(stage, data_dir, workdir)
    presentation.present([stage for stage in stages if not stage.writes_for], workdir, rows)
    return rows


def _without_repeated_question(stages: Sequence[Stage]) -> list[Stage]:
    """Leaves out, and says so, what another stage answers already."""
    answered = repeated_question(stages)
    for name, by in answered.items():
        say(
            f"[{name}] is left out: the labels tell one class besides background, so that what it "
            f"is and where it sounds are one question, which {by} answers"
        )
    kept = without_repeated_question(stages)
    schedule = tuple(stage.name for stage in kept)
    return [
        dataclasses.replace(stage, config={**stage.config, "schedule": schedule}) for stage in kept
    ]


def run_stage(stage: Stage, data_dir: Path, workdir: Workdir, given: Given | None = None) -> Rows:
    """Trains a stage through its phases, writes its masks, and returns its rows of scores.

    Args:
      stage: on its data.
      data_dir: the prepared data set.
      workdir: of the run.
      given: weights that are scored in place of trained ones; the stage then has no phases.

    Returns:
      Those of a time before, if the stage is complete.
    """
    rows = read_rows(stage.folder / RESULTS)
    if rows is not None:
        say(f"[{stage.name}] is complete")
        return rows
    does = f"weights {given.folder}" if given else f"phases {', '.join(stage.keys['order'])}"
    if stage.writes_for and not stage.phases:
        does = f"masks by an earlier checkpoint of {stage.writes_for}"
    say(f"\n=== stage {stage.name}: {stage.task.name}, {does} ===")
    _say_what_is_unusual(stage)
    with workdir.timed(f"{stage.name} embeddings"):
        stage = dataclasses.replace(stage, heard=_embeddings(stage, data_dir, given))
    with LoggingWriter(workdir.root, enabled=jax.process_index() == 0) as writer:
        for name in stage.phases:
            with workdir.timed(str(name)):
                _run_phase(stage, name, data_dir, workdir.record["command"], writer)
    with workdir.timed(f"{stage.name} scores"):
        if given is None:
            parameters, named = _trained_parameters(stage), {}
        else:
            parameters, named = given.parameters, {"weights": str(given.folder)}
        rows = stage_scores(stage, parameters, **named)
        for name, inner in stage.method.inner.items():
            rows += stage_scores(stage.inside(name), below(parameters, inner.prefix), **named)
    workdir.write_rows(stage.folder / RESULTS, rows)
    everyone_is_here(f"{stage.name} complete")
    return rows


def _trained_parameters(stage: Stage) -> dict[str, np.ndarray]:
    """Those that a stage is scored with, and writes its masks; says which they are."""
    if stage.writes_for and not stage.phases:
        whole = dataclasses.replace(stage, name=stage.writes_for)
        name = whole.phases[-1]
        step = whole.earlier_step(name)
        say(f"[{stage.name}] takes step {step} of {name}; masks follow")
        return parameters_at(stage.root / str(name), step)
    parameters, chosen = chosen_parameters(stage.folder, stage.keys)
    keeps = "keeps" if stage.name == stage.config["schedule"][-1] else "hands over"
    say(f"[{stage.name}] {keeps} {chosen.describe(stage.task.score)}; scores follow")
    return parameters


def _say_what_is_unusual(stage: Stage) -> None:
    said = []
    if stage.phases:
        wanted = SPLITS[:2] if stage.fold else SPLITS
        said += [MISSING[split] for split in wanted if split not in stage.sources]
        said += checks.remarks(stage)
        val = stage.sources.get("val")
        if val is not None and not any(clip.labelled for clip in val.clips):
            said.append(MISSING["val labels"])
    wanted = stage.config["eval"]["sounds"]
    tests = "test" in stage.sources and not stage.writes_for
    if tests and len(sounds_to_hear(stage)) < len(wanted):
        said.append(NO_OTHER)
    for line in said:
        say(f"[{stage.name}] {line}")


def _embeddings(stage: Stage, data_dir: Path, given: Given | None):
    """What the network takes in place of what its front end gives; {} where it has to hear."""
    if given is None:
        return embeddings.for_training(stage, data_dir)
    own = "run" in given.card.origin
    return embeddings.for_evaluation(stage, given.parameters, data_dir, own=own)


def _run_phase(
    stage: Stage, name: PhaseName, data_dir: Path, command: str, writer: LoggingWriter
) -> None:
    directory = stage.root / str(name)

    def batches(parameters: Mapping[str, np.ndarray]) -> Iterator[dict[str, Any]]:
        maps = features.for_phase(stage, name, parameters, data_dir)
        return train_batches(stage, stage.seed(name), maps)

    if jax.process_index() == 0 and not (directory / card.FILE).exists():
        origin = {"run": command, "stage": name.stage, "phase": name.phase}
        card.write(directory, phase_card(stage, origin))
    _, frozen = trained_paths(stage.method, stage.phase(name), name)
    check_begun(directory, frozen, stage.steps(name))
    train_phase(
        stage,
        name,
        start=functools.partial(starting_parameters, stage, name),
        batches=batches,
        validate=validation(stage, name),
        writer=writer,
    )


def phase_card(stage: Stage, origin: Mapping[str, str]) -> card.Card:
    """What the folder of a phase says of its weights.

    Args:
      stage: on its data.
      origin: 'run', 'stage' and 'phase'.
    """
    keys, method = stage.keys, stage.method
    asked = {
        "task": method.task,
        "num_classes": method.num_classes,
        "prior": keys["prior"]["train"] != "none",
    }
    return card.Card(
        kind=keys["method"],
        network={**method.network, **asked},
        classes=stage.task.classes or stage.sources["train"].class_names,
        origin=origin,
        image_size=keys["data"]["image_size"],
        label_size=keys["data"]["label_size"],
        told=_told(keys["prior"]),
    )


def _told(prior: Mapping[str, Any]) -> dict[str, str]:
    """How a network is told where it sounds when nobody has labels."""
    if prior["train"] == "none":
        return {}
    view = prior["evaluate"][0]
    return {"kind": prior["kind"], "view": "predicted" if view == "true" else view}
