"""Scores without training: of given weights, and of masks that other tools wrote.

Both are rows like those of a run, by the same protocols, with a page of their own.
The folder of an evaluation is like that of a run, without phases. The same command, given again,
shows its scores.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from aavs_jax import checks
from aavs_jax.errors import UserError
from aavs_jax.inputs import dataset
from aavs_jax.inputs.batches import eval_batches, on_data
from aavs_jax.plan.own_data import own_data
from aavs_jax.plan.stage import Stage, make_stage
from aavs_jax.plan.values import checked
from aavs_jax.report import presentation
from aavs_jax.run.progress import say
from aavs_jax.run.resuming import RESULTS
from aavs_jax.run.workdir import Workdir, read_rows
from aavs_jax.schedule import Rows, run_stage
from aavs_jax.scoring import mask_pictures, one_pass, showcase
from aavs_jax.scoring.mask_folders import ReadMasks, find_masks, state_of_files
from aavs_jax.state.sharding import everyone_is_here, make_mesh
from aavs_jax.weights import given_weights
from data_pipelines.errors import tidy_path
from data_pipelines.loading.checks import PREDICTED
from data_pipelines.prepared.source import fingerprint

Config = Mapping[str, Any]
GIVEN = "given"  # in place of a sound, where nobody knows what the masks were made with


def evaluate_weights(config: Config, root: Path, name: str, folders: str) -> Rows:
    """Scores of given weights on the test split.

    Args:
      config: as in configs/base.py.
      root: the folder of the evaluation.
      name: of the config.
      folders: see `given_weights.read`.

    Returns:
      The rows of results.json.

    Raises:
      UserError, DataError: whatever the user has to mend.
    """
    config, root = checked(config), Path(root).absolute()
    for stage_name in config["schedule"]:
        checks.evaluation(make_stage(config, stage_name, root))
    given = given_weights.read(config, name, folders)
    config = {**config, "data": own_data(config["data"], folders)}
    say(f"scores on {dataset.describe(config['data'])}, split test")
    chosen = _with_priors({stage_name: found.stage for stage_name, found in given.items()})
    mine = {**config, "schedule": tuple(chosen), "stages": chosen}
    stages = [make_stage(mine, stage_name, root) for stage_name in chosen]
    record = {n: f"{found.folder.absolute()}, {found.digest}" for n, found in given.items()}
    for stage in stages:
        if (masks := _masks_of_others(stage)) is not None:
            record[f"{stage.name} prior masks"] = state_of_files(masks)
    data = dataset.known_fingerprint(config["data"], root)
    with Workdir(root, {**config, "evaluate": record}, name, data) as workdir:

        def run() -> Rows:
            opened, data_dir = _open(stages, workdir)
            for stage in opened:
                given_weights.check_classes(stage.name, given[stage.name], stage.sources["test"])
                checks.passes_of(stage)
            rows = []
            with jax.default_matmul_precision(config["matmul_precision"]):
                for stage in opened:
                    rows += run_stage(stage, data_dir, workdir, given[stage.name])
            facts = [("weights", ", ".join(str(found.folder) for found in given.values()))]
            presentation.present(opened, workdir, rows, facts=facts)
            return rows

        return _finish(workdir, run)


def evaluate_masks(
    config: Config, root: Path, name: str, folder: Path, kind: str | None = None
) -> Rows:
    """Scores of masks in files, for the last stage of the schedule; no network takes part.

    Args:
      config: as in configs/base.py.
      root: the folder of the evaluation.
      name: of the config.
      folder: of masks, in a layout of `mask_folders`.
      kind: what their pictures hold, one of `mask_pictures.KINDS`; None: what the first of them
        says that is not black.

    Returns:
      The rows of results.json.

    Raises:
      UserError, DataError: whatever the user has to mend.
    """
    config, root = checked(config), Path(root).absolute()
    folder = tidy_path(folder)
    stage = make_stage(config, config["schedule"][-1], root)
    checks.evaluation(stage)
    if not folder.is_dir():
        raise UserError(f"there is no folder of masks at {folder}: check the path")
    mask_pictures.check_kind(kind, stage.task.name)
    say(f"scores on {dataset.describe(config['data'])}, split test")
    masks = f"{kind} masks" if kind else "masks"
    record = {stage.name: f"{masks} in {folder.absolute()}, {state_of_files(folder)}"}
    data = dataset.known_fingerprint(config["data"], root)
    with Workdir(root, {**config, "evaluate": record}, name, data) as workdir:

        def run() -> Rows:
            keys = {**stage.keys, "prior": {**stage.keys["prior"], "evaluate": ("none",)}}
            mine = {
                **config,
                "schedule": (stage.name,),
                "stages": {stage.name: keys},
                "eval": {**config["eval"], "sounds": (GIVEN,)},
            }
            (opened,), _ = _open([dataclasses.replace(stage, config=mine)], workdir)
            with workdir.timed(f"{stage.name} scores"):
                rows, facts = _masks_stage(opened, folder, kind)
            presentation.present([opened], workdir, rows, facts=facts)
            return rows

        return _finish(workdir, run)


def _masks_stage(
    stage: Stage, folder: Path, kind: str | None
) -> tuple[Rows, list[tuple[str, object]]]:
    """Rows, and what the page says of the masks."""
    task, size = stage.task.name, stage.keys["data"]["label_size"]
    source = stage.sources["test"]
    found = find_masks(folder, source)
    kind = kind or mask_pictures.kind_of(found.paths, task)
    meaning = f"{kind} ({mask_pictures.KINDS[kind]})"
    say(f"[{stage.name}] {len(found.paths)} masks called {found.layout}: {meaning}")
    if task == "binary" and kind in mask_pictures.SEMANTIC:
        say(f"[{stage.name}] asks where it sounds: every class but background counts as sounding")
    if found.others:
        say(f"[{stage.name}] {found.others} other PNG files in {folder} are ignored")
    protocols = one_pass.protocols(stage.config)
    batches = eval_batches(
        stage,
        "test",
        prior="none",
        nearest=one_pass.needs_nearest(task, protocols),
        masks=ReadMasks(found.files, kind, task, size, source.num_classes),
    )
    examples = showcase.Showcase(showcase.choose(source, stage.config["eval"]["examples"]))
    stray = []
    scores = one_pass.score(
        one_pass.given_masks(task, source.num_classes),
        batches,
        stage.mesh,
        description=f"{stage.name} on test, masks in {folder.name}",
        protocols=protocols,
        observers=[examples, lambda batch, _: stray.append(int(batch["stray_pixels"].sum()))],
    )
    if sum(stray):
        say(
            f"[{stage.name}] {sum(stray)} pixels have the colour of no class and count as "
            "background: masks that were resized smoothly have such"
        )
    showcase.save(stage.folder, GIVEN, "none", examples)
    labels = {"stage": stage.name, "split": "test", "sound": GIVEN, "prior": "none"}
    labels |= {"label_size": size, "masks": str(folder)}
    facts = [("masks", folder), ("layout", found.layout), ("kind", meaning)]
    facts += [("stray pixels", f"{sum(stray)}, as background")] if sum(stray) else []
    return one_pass.to_rows(scores, task, source.class_names, **labels), facts


def _open(stages: list[Stage], workdir: Workdir) -> tuple[list[Stage], Path]:
    """The stages on the test split of the prepared data, and these."""
    config = stages[0].config
    mesh: Mesh = make_mesh(config["mesh"]["fsdp"])
    with workdir.timed("data"):
        data_dir = dataset.prepared(config["data"], workdir.root)
    workdir.keep_to_data(data_dir, fingerprint(data_dir))
    opened = [on_data(stage, data_dir, mesh, wanted=("test",)) for stage in stages]
    if not any(clip.labelled for clip in opened[0].sources["test"].clips):
        raise UserError(
            "the test split has no labels, so there is nothing to score: for masks of such clips "
            "give python -m aavs_jax.predict their folder, and the same weights"
        )
    for stage in opened:
        checks.classes_are_told(stage)
    return opened, data_dir


def _finish(workdir: Workdir, run: Callable[[], Rows]) -> Rows:
    """The rows of a time before, or those of `run`, which are then kept; shows them."""
    everyone_is_here("the folder of the evaluation is taken")
    results = workdir.root / RESULTS
    rows = read_rows(results)
    if rows is not None:
        say(f"{workdir.root} is complete already; give another --workdir to evaluate again\n")
    else:
        rows = run()
        workdir.write_rows(results, rows)
    presentation.show(workdir.root, rows)
    return rows


def _with_priors(stages: Mapping[str, Config]) -> dict[str, Config]:
    """Leaves out predicted prior masks where nobody predicts any; only masks that another stage
    takes are written."""
    chosen = {}
    for stage_name, stage in stages.items():
        prior = stage["prior"]
        if PREDICTED & {*prior["evaluate"]} and "/" not in prior["masks"]:
            if prior["masks"] not in stages:
                others = tuple(p for p in prior["evaluate"] if p not in PREDICTED)
                how = f"--config.stages.{stage_name}.prior.masks=DIR, which has a slash in it"
                why = f"no weights of the stage {prior['masks']} are given, nor masks by {how}"
                if not others:
                    raise UserError(f"{stage_name} needs predicted prior masks: {why}")
                say(f"[{stage_name}] prior masks are {' and '.join(others)} ones only: {why}")
                stage = {**stage, "prior": {**prior, "evaluate": others}}
        wanted = any(other["prior"]["masks"] == stage_name for other in stages.values())
        chosen[stage_name] = {**stage, "writes_masks": wanted, "order": ()}
    return chosen


def _masks_of_others(stage: Stage) -> Path | None:
    """The folder of a stage's predicted prior masks, if no stage evaluated here writes them."""
    prior = stage.keys["prior"]
    if not PREDICTED & {*prior["evaluate"]} or prior["masks"] in stage.config["stages"]:
        return None
    folder = stage.masks_from
    if folder is None or not folder.is_dir():
        raise UserError(
            f"{stage.where}.prior.masks is {prior['masks']!r}, and there is no such folder of "
            "masks: correct it"
        )
    return folder
