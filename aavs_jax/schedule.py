"""The story: where does it sound, then what is it; and what is handed from one to the next.

    data -> localise: phases -> figures, masks -> understand: phases -> figures -> report

A phase hands its best checkpoint to the next, through Orbax. A stage hands the next one its masks,
as files in AVSBench's naming. Each step leaves its result under its final name only when it is
whole, so the same command, given again, resumes with the first one that is missing.
"""

import functools
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from aavs_jax.checks import check_data, check_schedule, remarks, without_repeated_question
from aavs_jax.inputs import dataset, embeddings
from aavs_jax.inputs.batches import (
    NO_OTHER,
    SPLITS,
    eval_batches,
    open_sources,
    sounds_to_hear,
    train_batches,
)
from aavs_jax.methods.method import Method, make_method
from aavs_jax.plan.values import checked
from aavs_jax.report import presentation
from aavs_jax.run.logging_writer import LoggingWriter
from aavs_jax.run.progress import say
from aavs_jax.run.workdir import Workdir, read_rows
from aavs_jax.scoring import metrics, one_pass, stage_scores
from aavs_jax.state import tree
from aavs_jax.state.checkpoint import SCORE
from aavs_jax.state.sharding import everyone_is_here, make_mesh
from aavs_jax.train import count_steps, train_phase
from aavs_jax.weights import card, pretrained
from aavs_jax.weights.starting import check_begun, chosen_parameters, starting_parameters
from data_pipelines.loader import labelled_clips
from data_pipelines.prepared.embeddings import Embeddings
from data_pipelines.prepared.source import ClipSource, fingerprint

SELECTED_BY = {"binary": "J", "semantic": "mIoU"}  # the figure that chooses checkpoints
BINARY_CLASSES = ("background", "sounding")
MISSING = {
    "val": "the data has no split val: each phase hands over its last checkpoint, not its best",
    "val labels": (
        "no clip of the split val has a label: each phase hands over its last checkpoint, not its "
        "best"
    ),
    "test": "the data has no split test: there are no figures and pictures of it",
}
# What a run leaves besides its report and figures.
MORE = (
    ("curves", "metrics.jsonl and tensorboard/"),
    ("checkpoints", "<stage>/<phase>/checkpoints/"),
)


def train_and_evaluate(config: Mapping[str, Any], root: Path, name: str) -> list[dict[str, Any]]:
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
        results = workdir.root / "results.json"
        rows = read_rows(results)
        if rows is not None:
            say(f"{workdir.root} is complete already; give another --workdir to run again\n")
            if data not in (None, workdir.known_data()):
                say("Its data are others by now: another --workdir trains and scores on them\n")
        else:
            rows = _run(config, workdir)
            workdir.write_rows(results, rows)
    presentation.show(workdir.root, rows, MORE)
    return rows


def _run(config: Mapping[str, Any], workdir: Workdir) -> list[dict[str, Any]]:
    check_schedule(config, workdir.root)
    stages = [config["stages"][name] for name in config["schedule"]]
    mesh = make_mesh(config["mesh"]["fsdp"], [stage["data"]["batch_size"] for stage in stages])
    with workdir.timed("data"):
        data_dir = dataset.prepared(config["data"], workdir.root)
    config = without_repeated_question(config, data_dir)
    stages = [config["stages"][name] for name in config["schedule"]]
    check_data(config, data_dir, workdir.root, mesh)
    workdir.keep_to_data(data_dir, fingerprint(data_dir))
    rows = []
    with jax.default_matmul_precision(config["matmul_precision"]):
        for stage_name in config["schedule"]:
            rows += run_stage(config, stage_name, data_dir, workdir, mesh)
    presentation.present(config, workdir, rows, open_sources(data_dir, stages[-1]))
    return rows


def run_stage(
    config: Mapping[str, Any], stage_name: str, data_dir: Path, workdir: Workdir, mesh: Mesh
) -> list[dict[str, Any]]:
    """Trains a stage through its phases, writes its masks, and returns its rows of figures."""
    stage = config["stages"][stage_name]
    folder = workdir.root / stage_name
    rows = read_rows(folder / "results.json")
    if rows is not None:
        say(f"[{stage_name}] is complete")
        return rows
    say(f"\n=== stage {stage_name}: {stage['task']}, phases {', '.join(stage['order'])} ===")
    sources = open_sources(data_dir, stage)
    for split in SPLITS:
        if split not in sources:
            say(f"[{stage_name}] {MISSING[split]}")
    for remark in remarks(stage, sources["train"]):
        say(f"[{stage_name}] {remark}")
    if "val" in sources and not _has_labels(sources["val"]):
        say(f"[{stage_name}] {MISSING['val labels']}")
    wanted = config["eval"]["sounds"]
    if "test" in sources and len(sounds_to_hear(config, sources["test"])) < len(wanted):
        say(f"[{stage_name}] {NO_OTHER}")
    train = sources["train"]
    method = make_method(stage, train.num_classes, ignores=train.ignores)
    heard = _embeddings(config, stage_name, method, sources, data_dir, workdir)
    given = (method, sources, heard, workdir, mesh)
    with LoggingWriter(workdir.root, enabled=jax.process_index() == 0) as writer:
        for phase_name in stage["order"]:
            with workdir.timed(f"{stage_name}/{phase_name}"):
                _run_phase(config, stage_name, phase_name, *given, writer)
    with workdir.timed(f"{stage_name} figures"):
        parameters, chosen = chosen_parameters(folder, stage)
        does = "keeps" if stage_name == config["schedule"][-1] else "hands over"
        best = chosen.describe(SELECTED_BY[stage["task"]])
        say(f"[{stage_name}] {does} {best}; scores follow")
        rows = stage_scores.stage_figures(config, stage_name, parameters, *given)
    workdir.write_rows(folder / "results.json", rows)
    everyone_is_here(f"{stage_name} complete")
    return rows


def _embeddings(config, stage_name, method, sources, data_dir, workdir) -> dict[str, Embeddings]:
    """For each split what the network takes in place of log-mel examples; {} where it cannot."""
    if not any(config["init"][key] for key in pretrained.KINDS):
        return {}
    with workdir.timed(f"{stage_name} embeddings"):
        folder = embeddings.for_stage(config, stage_name, method, data_dir, workdir.root)
    return {split: Embeddings(folder, source) for split, source in sources.items() if folder}


def _run_phase(
    config, stage_name, phase_name, method, sources, heard, workdir, mesh, writer
) -> None:
    stage = config["stages"][stage_name]
    phase, data = stage["phases"][phase_name], stage["data"]
    name = f"{stage_name}/{phase_name}"
    seed = zlib.crc32(f"{config['seed']}/{name}".encode())
    root = workdir.root
    batches = train_batches(config, stage, sources["train"], root, seed, heard.get("train"))
    validation = None
    if "val" in sources and _has_labels(sources["val"]):
        kind = {"prior": stage["prior"]["evaluate"][0], "embeddings": heard.get("val")}
        validation = eval_batches(config, stage, sources["val"], root, mesh, **kind)

    def validate(parameters: Mapping[str, jax.Array]) -> dict[str, float]:
        found = one_pass.score(
            method, parameters, validation, mesh, description=f"{name} validation"
        )[metrics.PROTOCOL]
        names = metrics.PROTOCOLS[metrics.PROTOCOL].figures[stage["task"]]
        kept = {key: found[key] for key in names}
        return kept | {SCORE: kept[SELECTED_BY[stage["task"]]]}

    directory = root / stage_name / phase_name
    # A card tells the sizes of an AAVS; a network of another kind has none.
    if method.network and jax.process_index() == 0 and not (directory / card.FILE).exists():
        origin = {"run": workdir.record["command"], "stage": stage_name, "phase": phase_name}
        card.write(directory, phase_card(stage, method, sources["train"].class_names, origin))
    steps_per_epoch = len(labelled_clips(sources["train"])) / data["batch_size"]
    _, frozen = tree.partition(method.shapes, phase["trains"], f"{name} trains")
    check_begun(directory, frozen, count_steps(phase, steps_per_epoch))
    train_phase(
        name,
        phase,
        method=method,
        start=functools.partial(starting_parameters, config, name, method, root),
        batches=batches,
        steps_per_epoch=steps_per_epoch,
        validate=None if validation is None else validate,
        mesh=mesh,
        directory=directory,
        writer=writer,
        seed=seed,
        log_every=config["log_every"],
        checkpoint_every=config["checkpoint_every"],
    )


def _has_labels(source: ClipSource) -> bool:
    return any(clip.labelled for clip in source.clips)


def phase_card(
    stage: Mapping[str, Any],
    method: Method,
    class_names: Sequence[str],
    origin: Mapping[str, str],
) -> card.Card:
    """What the folder of a phase says of its weights.

    Args:
      stage: as in configs/base.py.
      method: of it.
      class_names: of the data, by class id.
      origin: 'run', 'stage' and 'phase'.
    """
    return card.Card(
        kind="aavs",
        network=method.network,
        classes=BINARY_CLASSES if stage["task"] == "binary" else tuple(class_names),
        origin=origin,
        image_size=stage["data"]["image_size"],
        label_size=stage["data"]["label_size"],
    )
