"""Figures without training: of given weights, and of masks that other tools wrote.

    weights -> each stage: figures, masks -> report          masks -> figures -> report

The folder of an evaluation is like that of a run, without phases. The same command, given again,
shows the figures, or resumes with the first stage that has none.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from aavs_jax.checks import check_classes, check_evaluation, check_prior_masks
from aavs_jax.errors import UserError
from aavs_jax.inputs import dataset, embeddings
from aavs_jax.inputs.batches import (
    NO_OTHER,
    eval_batches,
    evaluations,
    masks_folder,
    open_split,
    sounds_to_hear,
)
from aavs_jax.methods.aavs.config import AAVSConfig
from aavs_jax.methods.method import make_method
from aavs_jax.plan.values import checked
from aavs_jax.report import presentation
from aavs_jax.run.progress import say
from aavs_jax.run.workdir import Workdir, read_rows
from aavs_jax.scoring import mask_pictures, one_pass, stage_scores
from aavs_jax.scoring.mask_folders import ReadMasks, find_masks, state_of_files
from aavs_jax.state.sharding import everyone_is_here, make_mesh
from aavs_jax.state.tree import digest
from aavs_jax.weights import given_weights
from aavs_jax.weights.given_weights import Given
from aavs_jax.weights.pretrained import AUDIO_ENCODER
from data_pipelines.errors import tidy_path
from data_pipelines.loading.front_ends import LogMel
from data_pipelines.prepared import embeddings as embedded
from data_pipelines.prepared.embeddings import Embeddings
from data_pipelines.prepared.source import ClipSource, fingerprint

Config = Mapping[str, Any]
Rows = list[dict[str, Any]]
GIVEN = "given"  # in place of a sound, where nobody knows what the masks were made with


def evaluate_weights(config: Config, root: Path, name: str, folders: str) -> Rows:
    """Figures of given weights on the test split.

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
        check_evaluation(config, stage_name)
    given = given_weights.read(config, name, folders)
    config = {**config, "data": given_weights.own_data(config["data"], folders)}
    say(f"scores on {dataset.describe(config['data'])}, split test")
    stages = _with_priors({stage_name: found.stage for stage_name, found in given.items()})
    record = {n: f"{found.folder.absolute()}, {found.digest}" for n, found in given.items()}
    for stage_name, stage in stages.items():
        if (masks := _masks_of_others(stage_name, stage, stages, root)) is not None:
            record[f"{stage_name} prior masks"] = state_of_files(masks)
    data = dataset.known_fingerprint(config["data"], root)
    with Workdir(root, {**config, "evaluate": record}, name, data) as workdir:

        def run() -> Rows:
            mine = {**config, "schedule": tuple(stages), "stages": stages}
            mesh, data_dir, sources = _open(mine, workdir)
            for stage_name, found in given.items():
                given_weights.check_classes(stage_name, found, sources[stage_name])
                _check_passes(mine, stage_name, sources[stage_name], workdir.root, mesh)
            rows = []
            with jax.default_matmul_precision(config["matmul_precision"]):
                for stage_name, found in given.items():
                    rows += _weights_stage(
                        mine, stage_name, found, sources[stage_name], data_dir, workdir, mesh
                    )
            facts = [("weights", ", ".join(str(found.folder) for found in given.values()))]
            last = {"test": sources[tuple(stages)[-1]]}
            presentation.present(mine, workdir, rows, last, facts=facts)
            return rows

        return _finish(workdir, run)


def evaluate_masks(
    config: Config, root: Path, name: str, folder: Path, kind: str | None = None
) -> Rows:
    """Figures of masks in files, for the last stage of the schedule; no network takes part.

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
    stage_name, folder = config["schedule"][-1], tidy_path(folder)
    check_evaluation(config, stage_name)
    if not folder.is_dir():
        raise UserError(f"there is no folder of masks at {folder}: check the path")
    stage = config["stages"][stage_name]
    mask_pictures.check_kind(kind, stage["task"])
    stage = {**stage, "prior": {**stage["prior"], "evaluate": ("none",)}}
    say(f"scores on {dataset.describe(config['data'])}, split test")
    masks = f"{kind} masks" if kind else "masks"
    record = {stage_name: f"{masks} in {folder.absolute()}, {state_of_files(folder)}"}
    data = dataset.known_fingerprint(config["data"], root)
    with Workdir(root, {**config, "evaluate": record}, name, data) as workdir:

        def run() -> Rows:
            mine = {
                **config,
                "schedule": (stage_name,),
                "stages": {stage_name: stage},
                "eval": {**config["eval"], "sounds": (GIVEN,)},
            }
            mesh, _, sources = _open(mine, workdir)
            source = sources[stage_name]
            with workdir.timed(f"{stage_name} figures"):
                rows, facts = _masks_stage(mine, stage_name, folder, kind, source, workdir, mesh)
            presentation.present(mine, workdir, rows, {"test": source}, facts=facts)
            return rows

        return _finish(workdir, run)


def _weights_stage(
    config: Config,
    stage_name: str,
    given: Given,
    source: ClipSource,
    data_dir: Path,
    workdir: Workdir,
    mesh: Mesh,
) -> Rows:
    """A stage's rows, or those of a time before."""
    path = workdir.root / stage_name / "results.json"
    rows = read_rows(path)
    if rows is not None:
        say(f"[{stage_name}] is complete")
        return rows
    stage = config["stages"][stage_name]
    say(f"\n=== stage {stage_name}: {stage['task']}, weights {given.folder} ===")
    if len(sounds_to_hear(config, source)) < len(config["eval"]["sounds"]):
        say(f"[{stage_name}] {NO_OTHER}")
    method = make_method(stage, source.num_classes)
    with workdir.timed(f"{stage_name} embeddings"):
        heard = _embeddings(config, stage_name, given, source, data_dir)
    with workdir.timed(f"{stage_name} figures"):
        everything = (given.parameters, method, {"test": source}, heard, workdir, mesh)
        rows = stage_scores.stage_figures(
            config, stage_name, *everything, weights=str(given.folder)
        )
    workdir.write_rows(path, rows)
    everyone_is_here(f"{stage_name} complete")
    return rows


def _embeddings(
    config: Config, stage_name: str, given: Given, source: ClipSource, data_dir: Path
) -> dict[str, Embeddings]:
    """What the network takes in place of log-mel examples; {} where it cannot, or should not.

    An encoder that was trained along by a run is this run's alone, and nobody computed anything of
    it: to hear all clips of all splits once would be more work than it saves, and the figures would
    not be those of the run to the last bit.
    """
    audio = given.stage["model"]["audio"]
    if not config["data"]["embeddings"] or audio["channels"] != 1:
        return {}
    encoder = {
        path.removeprefix(AUDIO_ENCODER): value
        for path, value in given.parameters.items()
        if path.startswith(AUDIO_ENCODER)
    }
    found = embedded.find(data_dir, digest(encoder), LogMel(audio["channels"]))
    if "run" in given.card.origin and found is None:
        return {}
    folder = embeddings.compute(data_dir, encoder, AAVSConfig.from_dict({"audio": audio}).audio)
    say(f"[{stage_name}] hears embeddings, of the audio encoder, from {folder}")
    return {"test": Embeddings(folder, source)}


def _masks_stage(
    config: Config,
    stage_name: str,
    folder: Path,
    kind: str | None,
    source: ClipSource,
    workdir: Workdir,
    mesh: Mesh,
) -> tuple[Rows, list[tuple[str, object]]]:
    """Rows, and what the page says of the masks."""
    stage = config["stages"][stage_name]
    task, size, classes = stage["task"], stage["data"]["label_size"], source.num_classes
    found = find_masks(folder, source)
    kind = kind or mask_pictures.kind_of(found.paths, task)
    meaning = f"{kind} ({mask_pictures.KINDS[kind]})"
    say(f"[{stage_name}] {len(found.paths)} masks called {found.layout}: {meaning}")
    if task == "binary" and kind in mask_pictures.SEMANTIC:
        say(f"[{stage_name}] asks where it sounds: every class but background counts as sounding")
    if found.others:
        say(f"[{stage_name}] {found.others} other PNG files in {folder} are ignored")
    protocols = one_pass.protocols(config)
    batches = eval_batches(
        config,
        stage,
        source,
        workdir.root,
        mesh,
        prior="none",
        nearest=one_pass.needs_nearest(task, protocols),
        masks=ReadMasks(found.files, kind, task, size, classes),
    )
    showcase = one_pass.Showcase(presentation.choose(source, config["eval"]["examples"]))
    stray = []
    found_figures = one_pass.score_masks(
        task,
        classes,
        batches,
        mesh,
        description=f"{stage_name} on test, masks in {folder.name}",
        protocols=protocols,
        observers=[showcase, lambda batch, _: stray.append(int(batch["stray_pixels"].sum()))],
    )
    if sum(stray):
        say(
            f"[{stage_name}] {sum(stray)} pixels have the colour of no class and count as "
            "background: masks that were resized smoothly have such"
        )
    presentation.save(workdir.root / stage_name, GIVEN, "none", showcase)
    labels = {"stage": stage_name, "split": "test", "sound": GIVEN, "prior": "none"}
    labels |= {"label_size": size, "masks": str(folder)}
    facts = [("masks", folder), ("layout", found.layout), ("kind", meaning)]
    facts += [("stray pixels", f"{sum(stray)}, as background")] if sum(stray) else []
    return one_pass.to_rows(found_figures, task, source.class_names, **labels), facts


def _open(config: Config, workdir: Workdir) -> tuple[Mesh, Path, dict[str, ClipSource]]:
    """Devices, prepared data, and each stage's clips of the test split."""
    mesh = make_mesh(config["mesh"]["fsdp"])
    with workdir.timed("data"):
        data_dir = dataset.prepared(config["data"], workdir.root)
    workdir.keep_to_data(data_dir, fingerprint(data_dir))
    sources = {}
    for stage_name in config["schedule"]:
        stage = config["stages"][stage_name]
        sources[stage_name] = open_split(data_dir, "test", stage)
        check_classes(stage_name, stage, {"test": sources[stage_name]})
    return mesh, data_dir, sources


def _finish(workdir: Workdir, run: Callable[[], Rows]) -> Rows:
    """The rows of a time before, or those of `run`, which are then kept; shows them."""
    everyone_is_here("the folder of the evaluation is taken")
    results = workdir.root / "results.json"
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
        if "predicted" in prior["evaluate"] and "/" not in prior["masks"]:
            if prior["masks"] not in stages:
                others = tuple(p for p in prior["evaluate"] if p != "predicted")
                how = f"--config.stages.{stage_name}.prior.masks=DIR, which has a slash in it"
                why = f"no weights of the stage {prior['masks']} are given, nor masks by {how}"
                if not others:
                    raise UserError(f"{stage_name} needs predicted prior masks: {why}")
                say(f"[{stage_name}] prior masks are {' and '.join(others)} ones only: {why}")
                stage = {**stage, "prior": {**prior, "evaluate": others}}
        wanted = any(other["prior"]["masks"] == stage_name for other in stages.values())
        chosen[stage_name] = {**stage, "writes_masks": wanted}
    return chosen


def _check_passes(
    config: Config, stage_name: str, source: ClipSource, root: Path, mesh: Mesh
) -> None:
    """Raises what its loaders raise, before the first of them is walked."""
    stage = config["stages"][stage_name]
    if "predicted" in stage["prior"]["evaluate"]:
        check_prior_masks(stage_name, stage, {"test": source}, root)
    for _, prior, sound in evaluations(config, stage, {"test": source}):
        eval_batches(config, stage, source, root, mesh, prior=prior, sound=sound)


def _masks_of_others(stage_name: str, stage: Config, stages: Config, root: Path) -> Path | None:
    """The folder of a stage's predicted prior masks, if no stage evaluated here writes them."""
    if "predicted" not in stage["prior"]["evaluate"] or stage["prior"]["masks"] in stages:
        return None
    folder = masks_folder(stage, root)
    if folder is None or not folder.is_dir():
        raise UserError(
            f"config.stages.{stage_name}.prior.masks is {stage['prior']['masks']!r}, and there "
            "is no such folder of masks: correct it"
        )
    return folder
