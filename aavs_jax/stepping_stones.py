"""The story: where does it sound, then what is it; and what is handed from one to the next.

    data -> localise: phases -> figures, masks -> understand: phases -> figures -> report

A phase hands its best checkpoint to the next, through Orbax. A stage hands the next one its masks,
as files in AVSBench's naming. Each step leaves its result under its final name only when it is
whole, so the same command, given again, goes on with the first one that is missing.
"""

import contextlib
import functools
import math
import shutil
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from aavs_jax import dataset, evaluate, presentation, tree
from aavs_jax.checkpoint import SCORE, PhaseCheckpoints, load_parameters
from aavs_jax.errors import UserError
from aavs_jax.logging_writer import LoggingWriter
from aavs_jax.method import Method, make_method
from aavs_jax.progress import say
from aavs_jax.report import format_table
from aavs_jax.sharding import make_mesh, put_state
from aavs_jax.train import train_phase
from aavs_jax.workdir import Workdir, read_rows
from data_pipelines.loader import eval_loader, open_source, train_loader
from data_pipelines.source import ClipSource

SELECTED_BY = {"binary": "J", "semantic": "mIoU"}  # the figure that chooses checkpoints
SPLITS = ("train", "val", "test")


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
    workdir = Workdir(root, config, name)
    results = workdir.root / "results.json"
    rows = read_rows(results)
    if rows is not None:
        say(f"{workdir.root} is complete already; give another --workdir to run again\n")
    else:
        mesh = make_mesh(config["mesh"]["fsdp"])
        with workdir.timed("data"):
            data_dir = dataset.prepared(config["data"], workdir.root)
        rows = []
        for stage_name in config["schedule"]:
            rows += run_stage(config, stage_name, data_dir, workdir, mesh)
        presentation.present(config, workdir, rows, data_dir)
        workdir.write_rows(results, rows)
    say(f"\n{format_table(rows)}\n")
    for what, path in (
        ("report", "report/index.html"),
        ("figures", "results.json"),
        ("curves", "metrics.jsonl and tensorboard/"),
        ("checkpoints", "<stage>/<phase>/checkpoints/"),
    ):
        say(f"{what:<12} {workdir.root / path}")
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
    sources = {split: open_source(data_dir, split, stage["data"]["subsets"]) for split in SPLITS}
    method = make_method(stage, sources["train"].num_classes)
    check_patterns(stage_name, stage, method)
    with LoggingWriter(workdir.root, enabled=jax.process_index() == 0) as writer:
        for phase_name in stage["order"]:
            with workdir.timed(f"{stage_name}/{phase_name}"):
                _run_phase(config, stage_name, phase_name, method, sources, workdir, mesh, writer)
    say(f"[{stage_name}] hands over the best of phase {stage['order'][-1]}; figures follow")
    with workdir.timed(f"{stage_name} figures"):
        parameters = best_parameters(folder / stage["order"][-1])
        rows = _figures(config, stage_name, method, parameters, sources, workdir.root, mesh)
    workdir.write_rows(folder / "results.json", rows)
    _everyone_is_here(f"{stage_name} complete")
    return rows


def check_patterns(stage_name: str, stage: Mapping[str, Any], method: Method) -> None:
    """Every phase's patterns, before hours are spent on the first one.

    Raises:
      UserError: a pattern matches nothing.
    """
    for phase_name in stage["order"]:
        phase = stage["phases"][phase_name]
        for key in ("trains", "fresh", "zero"):
            purpose = f"{stage_name}/{phase_name} {key}"
            chosen = tree.matching(method.shapes, phase[key], purpose)
            if key == "trains":
                decay = phase["optimizer"]["no_decay"]
                tree.matching(chosen, decay, f"{stage_name}/{phase_name} no_decay")


def _run_phase(config, stage_name, phase_name, method, sources, workdir, mesh, writer) -> None:
    stage = config["stages"][stage_name]
    phase, data = stage["phases"][phase_name], stage["data"]
    name = f"{stage_name}/{phase_name}"
    seed = zlib.crc32(f"{config['seed']}/{name}".encode())
    batches = train_loader(
        sources["train"],
        task=stage["task"],
        image_size=data["image_size"],
        label_size=data["label_size"],
        batch_size=data["batch_size"],
        seconds=data["seconds"],
        sampling=data["sampling"],
        shuffle=data["shuffle"],
        flip=data["flip"],
        prior=stage["prior"]["train"],
        prior_dir=masks_folder(stage, workdir.root),
        mixture=stage["prior"]["mixture"],
        max_targets=data["max_targets"],
        seed=seed,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        num_workers=config["data"]["num_workers"],
        cache=config["data"]["cache"],
    )
    validation = _eval_batches(
        config, stage, sources["val"], workdir.root, mesh, prior=stage["prior"]["evaluate"][0]
    )

    def validate(parameters: Mapping[str, jax.Array]) -> dict[str, float]:
        figures = evaluate.evaluate(
            method, parameters, validation, mesh, description=f"{name} validation"
        )
        kept = {key: figures[key] for key in evaluate.FIGURES[stage["task"]]}
        return kept | {SCORE: kept[SELECTED_BY[stage["task"]]]}

    train_phase(
        name,
        phase,
        method=method,
        start=functools.partial(starting_parameters, config, name, method, workdir.root),
        batches=batches,
        steps_per_epoch=len(sources["train"]) / data["batch_size"],
        validate=validate,
        mesh=mesh,
        directory=workdir.root / stage_name / phase_name,
        writer=writer,
        seed=seed,
        log_every=config["log_every"],
        checkpoint_every=config["checkpoint_every"],
    )


def starting_parameters(
    config: Mapping[str, Any], name: str, method: Method, root: Path
) -> dict[str, np.ndarray]:
    """What a phase starts from. Later ones win:

    1. a fresh draw of everything, from the seed and each parameter's path;
    2. by `start`: nothing else; 'pretrained': the folders of config.init; '<stage>/<phase>': the
       best checkpoint of that phase. What is missing there or has another shape stays fresh;
    3. `fresh`: patterns of what is drawn anew all the same (it is the draw of 1);
    4. `zero`: patterns of what is set to zero.

    Raises:
      UserError: pretrained parameters are asked for and none are given; a phase that is not
        there; a pattern that matches nothing.
    """
    stage_name, phase_name = name.split("/")
    phase = config["stages"][stage_name]["phases"][phase_name]
    fresh = method.initial(config["seed"])
    parameters = dict(fresh)
    start = phase["start"]
    if start == "pretrained":
        given = pretrained_parameters(config["init"], name)
    elif start == "nothing":
        given = {}
    else:
        if not (root / start / "checkpoints").is_dir():
            raise UserError(
                f"{name} starts from {start!r}, which is neither 'nothing', 'pretrained' nor a "
                f"phase trained in {root}: correct config.stages.{stage_name}.phases.{phase_name}"
            )
        given = best_parameters(root / start)
    taken = {
        path: value
        for path, value in given.items()
        if path in fresh and value.shape == fresh[path].shape
    }
    parameters |= taken
    if given:
        left = [path for path in fresh if path not in taken]
        say(
            f"[{name}] takes {len(taken)} of {len(fresh)} arrays from {start!r}"
            + (f"; drawn afresh: {', '.join(left)}" if left else "")
        )
    for path in tree.matching(fresh, phase["fresh"], f"{name} fresh"):
        parameters[path] = fresh[path]
    for path in tree.matching(fresh, phase["zero"], f"{name} zero"):
        parameters[path] = np.zeros_like(fresh[path])
    return parameters


def pretrained_parameters(init: Mapping[str, str], name: str) -> dict[str, np.ndarray]:
    """The folders of config.init, as one.

    Raises:
      UserError: one of them is not given, or not readable.
    """
    missing = [f"--config.init.{key}=DIR" for key, folder in init.items() if not folder]
    if missing:
        raise UserError(
            f"{name} starts from pretrained parameters, and none are given: pass "
            f"{' and '.join(missing)} (Orbax checkpoints of parameters by path), or take the small "
            "network, which needs none, with --config=...:FOLDER,small"
        )
    merged: dict[str, np.ndarray] = {}
    for folder in init.values():
        merged |= load_parameters(Path(folder))
    return merged


def best_parameters(directory: Path) -> dict[str, np.ndarray]:
    """The parameters that a trained phase hands over."""
    with PhaseCheckpoints(directory) as checkpoints:
        return checkpoints.best_parameters()


def masks_folder(stage: Mapping[str, Any], root: Path) -> Path | None:
    """Where the predicted prior masks of a stage lie; None if it has no prior."""
    masks = stage["prior"]["masks"]
    if not masks:
        return None
    return Path(masks) if "/" in masks else root / masks / "masks"


def _eval_batches(config, stage, source: ClipSource, root, mesh, *, prior, sound="right"):
    data = stage["data"]
    # Every batch is whole clips of every length, shared evenly by processes and devices.
    lengths = {clip.seconds for clip in source.clips}
    unit = math.lcm(*(length * jax.process_count() for length in lengths), mesh.size)
    frames = math.ceil(config["eval"]["frames_per_batch"] / unit) * unit
    return eval_loader(
        source,
        task=stage["task"],
        image_size=data["image_size"],
        label_size=data["label_size"],
        frames_per_batch=frames,
        sound=sound,
        prior=prior,
        prior_dir=masks_folder(stage, root),
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        num_workers=config["data"]["num_workers"],
        cache=config["data"]["cache"],
    )


def _figures(config, stage_name, method, parameters, sources, root, mesh) -> list[dict[str, Any]]:
    """Rows for every prior and sound on the test split; masks and rows of the other splits."""
    stage = config["stages"][stage_name]
    parameters = put_state(parameters, mesh)
    masks = root / stage_name / "masks"
    partial = masks.with_name("masks.partial")
    writes = stage["writes_masks"] and not masks.exists()
    if jax.process_index() == 0:
        shutil.rmtree(partial, ignore_errors=True)
    _everyone_is_here(f"{stage_name} masks begin")
    chosen = presentation.choose(sources["test"], config["eval"]["examples"])
    rows = []
    priors = stage["prior"]["evaluate"]
    runs = [("test", prior, sound) for prior in priors for sound in config["eval"]["sounds"]]
    runs += [(split, priors[0], "right") for split in ("val", "train") if writes]
    for split, prior, sound in runs:
        batches = _eval_batches(config, stage, sources[split], root, mesh, prior=prior, sound=sound)
        showcase = evaluate.Showcase(chosen if split == "test" else ())
        observers: list[Callable] = [showcase]
        with contextlib.ExitStack() as stack:
            if writes and sound == "right":
                writer = evaluate.MaskWriter(partial)
                stack.callback(writer.close)
                observers.append(writer)
            figures = evaluate.evaluate(
                method,
                parameters,
                batches,
                mesh,
                description=f"{stage_name} on {split}, sound {sound}, prior {prior}",
                observers=observers,
            )
        labels = {"stage": stage_name, "split": split, "sound": sound, "prior": prior}
        rows += evaluate.to_rows(figures, stage["task"], sources[split].class_names, **labels)
        if split == "test":
            presentation.save(root / stage_name, sound, prior, showcase)
    if writes:
        _everyone_is_here(f"{stage_name} masks written")
        if jax.process_index() == 0:
            partial.rename(masks)
        _everyone_is_here(f"{stage_name} masks in place")
        say(f"[{stage_name}] hands over its masks: {masks}")
    return rows


def _everyone_is_here(where: str) -> None:
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(where)
