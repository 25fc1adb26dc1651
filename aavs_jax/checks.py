"""What can be known to be wrong with a run before hours are spent on it."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from aavs_jax.errors import UserError
from aavs_jax.inputs.batches import (
    eval_batches,
    evaluations,
    masks_folder,
    open_sources,
    train_batches,
)
from aavs_jax.methods.method import Method, make_method
from aavs_jax.run.progress import say
from aavs_jax.scoring.one_pass import protocols
from aavs_jax.state import tree
from aavs_jax.state.optimizer import make_schedule, rate_factors
from aavs_jax.train import count_steps
from aavs_jax.weights.pretrained import check_pretrained, shapes_of
from aavs_jax.weights.starting import check_start, plan_start
from data_pipelines.facts import avsbench
from data_pipelines.loader import check_targets, labelled_clips
from data_pipelines.loading.request import seconds_shown
from data_pipelines.prepared.source import ClipSource

Config = Mapping[str, Any]
FEW = 20  # clips: a network learns so many by heart
CLASSES = "decoder/class_predictor/"  # beginning of the paths whose shapes depend on the data


def check_schedule(config: Config, root: Path) -> None:
    """Stages, phases, patterns and hand-overs, before data is prepared; finished stages are not
    looked at.

    Args:
      config: as in configs/base.py.
      root: the folder of the run.

    Raises:
      UserError: a stage or phase that is not described; a network that cannot be; a pattern that
        matches nothing; a phase that starts from, or a stage that takes masks from, what no earlier
        one leaves; pretrained parameters that are not given or do not fit; parameters that would
        stay random for ever.
    """
    methods: dict[str, Method] = {}
    for stage_name in config["schedule"]:
        stage = _described_stage(config, stage_name)
        for phase_name in stage["order"]:
            _described(stage["phases"], phase_name, f"config.stages.{stage_name}.phases")
        if not _finished(root, stage_name):
            # No pattern depends on the number of classes, which only the data knows.
            methods[stage_name] = make_method(stage, 2)
            check_patterns(stage_name, stage, methods[stage_name])
            check_evaluation(config, stage_name)
            _check_empty_labels(stage_name, stage)
    if methods:
        paths = {path: None for method in methods.values() for path in method.shapes}
        tree.matching(paths, config["init"]["allow"], "init allow")
    earlier: list[str] = []
    for stage_name in config["schedule"]:
        if stage_name in methods:
            _check_masks(config, stage_name, earlier, root)
        for phase_name in config["stages"][stage_name]["order"]:
            name = f"{stage_name}/{phase_name}"
            if stage_name in methods and not (root / name / "checkpoints").is_dir():
                _check_start(config, name, methods, earlier, root)
            earlier.append(name)


def check_patterns(stage_name: str, stage: Config, method: Method) -> None:
    """Every phase's patterns.

    Raises:
      UserError: a pattern matches nothing.
    """
    for phase_name in stage["order"]:
        phase = stage["phases"][phase_name]
        for key in ("trains", "fresh", "zero"):
            purpose = f"{stage_name}/{phase_name} {key}"
            chosen = tree.matching(method.shapes, phase[key], purpose)
            if key == "trains":
                if not chosen:
                    raise UserError(f"{purpose} is empty: name the parameters that shall train")
                optimizer, name = phase["optimizer"], f"{stage_name}/{phase_name}"
                tree.matching(chosen, optimizer["no_decay"], f"{name} no_decay")
                rate_factors(optimizer, list(chosen), name)


def check_data(config: Config, data_dir: Path, root: Path, mesh: Mesh) -> None:
    """Whether the data fits every stage that is not finished.

    Raises:
      UserError, DataError: no clips to train on, or labels that tell no classes to a semantic
        stage; label maps of more classes than data.max_targets; prior masks that are missing;
        sizes that do not fit the clips or the devices; augmentations that cannot be; more warm-up
        than a phase has steps; no sound of other classes.
    """
    # Nothing is read here, so nobody needs to be hired for it.
    config = {**config, "data": {**config["data"], "num_workers": 0}}
    for stage_name in config["schedule"]:
        if _finished(root, stage_name):
            continue
        stage = config["stages"][stage_name]
        batch_size = stage["data"]["batch_size"]
        sources = open_sources(data_dir, stage)
        check_classes(stage_name, stage, sources)
        priors = stage["prior"]["evaluate"]
        taking = {
            "train": stage["prior"]["train"] in ("predicted", "mixture"),
            "val": priors[0] == "predicted",
            "test": "predicted" in priors,
        }
        shown = {split: source for split, source in sources.items() if taking[split]}
        check_prior_masks(stage_name, stage, shown, root)
        most = f"--config.stages.{stage_name}.data.max_targets"
        check_targets(sources["train"], stage["task"], stage["data"]["max_targets"], most)
        train_batches(config, stage, sources["train"], root, 0)
        if batch_size % mesh.size:
            raise UserError(
                f"config.stages.{stage_name}.data.batch_size is {batch_size}, which "
                f"{mesh.size} devices cannot share: make it a multiple"
            )
        for phase_name in stage["order"]:
            phase = stage["phases"][phase_name]
            steps = count_steps(phase, len(labelled_clips(sources["train"])) / batch_size)
            make_schedule(phase["optimizer"], steps, f"{stage_name}/{phase_name}")
        passes = evaluations(config, stage, sources)
        if "val" in sources:
            passes.append(("val", stage["prior"]["evaluate"][0], "right"))
        for split, prior, sound in passes:
            eval_batches(config, stage, sources[split], root, mesh, prior=prior, sound=sound)


def without_repeated_question(config: Config, data_dir: Path) -> Config:
    """The config without the semantic stages that would ask what a binary one before them asks.

    Where the labels tell one class, or none, what something is and where it sounds are the same
    question, and one stage answers it. Says so.

    Args:
      config: as in configs/base.py.
      data_dir: the prepared data set.

    Raises:
      DataError: nothing prepared there.
    """
    binary = [name for name in config["schedule"] if config["stages"][name]["task"] == "binary"]
    kept = []
    for name in config["schedule"]:
        stage = config["stages"][name]
        if binary and stage["task"] == "semantic":
            found = open_sources(data_dir, stage).values()
            if all(one_class(source) for source in found):
                say(
                    f"[{name}] is left out: the labels tell one class besides background, so that "
                    f"what it is and where it sounds are one question, which {binary[0]} answers"
                )
                continue
        kept.append(name)
    return {**config, "schedule": tuple(kept)}


def one_class(source: ClipSource) -> bool:
    """Whether the labels of a split tell foreground and background, and no more."""
    binary_only = {clip.subset for clip in source.clips} <= set(source.binary_only)
    return binary_only or source.num_classes <= 2


def remarks(stage: Config, train: ClipSource) -> list[str]:
    """What is unusual about a stage's training, though it can be."""
    clips, batch_size = len(labelled_clips(train)), stage["data"]["batch_size"]
    found = []
    if clips < FEW:
        found.append(
            f"trains on {clips} clip{'s' * (clips > 1)}: expect it to learn them by heart, and "
            "scores on other clips to be low"
        )
    if batch_size > clips:
        found.append(
            f"a batch of {batch_size} is larger than the training split of {clips}: some clips "
            "are in it more than once"
        )
    return found


def check_classes(stage_name: str, stage: Config, sources: Mapping[str, ClipSource]) -> None:
    """Whether labels tell a semantic stage classes.

    Raises:
      UserError: of some subset they do not.
    """
    if stage["task"] != "semantic":
        return
    classless = {
        clip.subset
        for source in sources.values()
        for clip in source.clips
        if clip.subset in source.binary_only
    }
    if classless:
        raise UserError(
            f"the stage {stage_name} learns classes, but the labels of "
            f"{', '.join(sorted(classless))} tell only where something sounds: take "
            "--config=configs/binary.py:FOLDER, which asks that, or name other subsets in "
            f"config.stages.{stage_name}.data.subsets"
        )


def _check_start(
    config: Config, name: str, methods: Mapping[str, Method], earlier: list[str], root: Path
) -> None:
    stage_name, phase_name = name.split("/")
    method = methods[stage_name]
    phase = config["stages"][stage_name]["phases"][phase_name]
    start = phase["start"]
    if start == "pretrained":
        given = shapes_of(check_pretrained(config, name, method.network))
    elif start == "nothing":
        given = {}
    elif start in earlier or (root / start / "checkpoints").is_dir():
        before = methods.get(start.split("/")[0])
        if start not in earlier or before is None:
            return  # what it holds is looked at when this phase starts
        given = {path: leaf.shape for path, leaf in before.shapes.items()}
    else:
        raise UserError(
            f"{name} starts from {start!r}, which is neither 'nothing', 'pretrained' nor a phase "
            f"before it: correct config.stages.{stage_name}.phases.{phase_name}.start"
        )
    # How many classes there are only the data knows.
    shapes = {
        path: given.get(path, leaf.shape) if path.startswith(CLASSES) else leaf.shape
        for path, leaf in method.shapes.items()
    }
    check_start(plan_start(shapes, given, phase, name), phase, name, config["init"])


def check_evaluation(config: Config, stage_name: str) -> None:
    """What a stage is evaluated with, and by which protocols.

    Raises:
      UserError: no such stage or protocol; prior masks in training alone, or in evaluation alone;
        not the right sound; masks of classes that are handed over.
    """
    stage, where = _described_stage(config, stage_name), f"config.stages.{stage_name}"
    protocols(config)
    priors = stage["prior"]["evaluate"]
    if not priors or any((p == "none") != (stage["prior"]["train"] == "none") for p in priors):
        raise UserError(
            f"{where}.prior.train is {stage['prior']['train']!r} and prior.evaluate {priors}: a "
            "network is trained and evaluated either with prior masks or, 'none', without"
        )
    if "right" not in config["eval"]["sounds"]:
        raise UserError("config.eval.sounds lacks 'right', the sound that belongs to each clip")
    if stage["writes_masks"] and stage["task"] != "binary":
        raise UserError(f"{where}.writes_masks is set, but only a binary stage draws masks")


def check_prior_masks(
    stage_name: str, stage: Config, sources: Mapping[str, ClipSource], root: Path
) -> None:
    """Whether every predicted prior mask that will be asked for is there.

    Args:
      stage_name: named in errors.
      stage: as in configs/base.py. Masks of another stage of the run are looked for once that
        stage is complete.
      sources: of the splits that take masks, by their names; of "train" those seconds are looked
        for that training shows, of others all.
      root: the folder of the run.

    Raises:
      UserError: one is missing.
    """
    masks = stage["prior"]["masks"]
    given = "/" in masks
    if not masks or not (given or _finished(root, masks)):
        return
    folder = masks_folder(stage, root)
    for split, source in sources.items():
        missing, clips, wanted = [], set(), 0
        for clip in source.clips:
            seconds = tuple(range(clip.seconds))
            if split == "train":
                sampling = stage["data"]["sampling"]
                seconds = seconds_shown(clip.labelled, clip.seconds, sampling)
                seconds = seconds if clip.labelled else ()
            paths = [avsbench.mask_path(folder, clip.subset, clip.uid, t) for t in seconds]
            wanted += len(paths)
            there = _names_in(paths[0].parent) if paths else set()
            if lacking := [path for path in paths if path.name not in there]:
                missing += lacking
                clips.add(clip.name)
        if not missing:
            continue
        lacks = (
            f"lacks {len(missing)} of {wanted} masks of split {split}, in {len(clips)} of "
            f"{len(source)} clips, such as {missing[0]}"
        )
        if given:
            raise UserError(
                f"config.stages.{stage_name}.prior.masks is {masks!r}, which {lacks}: name a "
                "folder <subset>/<uid>/<second>.png of all of them"
            )
        raise UserError(
            f"the stage {masks} is complete, but {folder}, from which {stage_name} takes its prior "
            f"masks, {lacks}: delete this folder and results.json beside it, and start the command "
            "again"
        )


def _names_in(folder: Path) -> set[str]:
    """One listing for all seconds of a clip: over a network each look at a file takes its time."""
    try:
        return set(os.listdir(folder))
    except OSError:
        return set()


def _check_empty_labels(stage_name: str, stage: Config) -> None:
    if stage["data"]["drop_empty_clips"] and stage["data"]["augment"]["swap_sound"]:
        raise UserError(
            f"config.stages.{stage_name}.data.augment.swap_sound empties labels, and "
            "drop_empty_clips takes clips with empty labels out of the loss: turn one of them off"
        )


def _check_masks(config: Config, stage_name: str, earlier: list[str], root: Path) -> None:
    stage = config["stages"][stage_name]
    prior = stage["prior"]
    if not {prior["train"], *prior["evaluate"]} & {"predicted", "mixture"}:
        return
    folder = masks_folder(stage, root)
    written = [
        other
        for other in {name.split("/")[0] for name in earlier}
        if config["stages"][other]["writes_masks"]
    ]
    if folder is None or (prior["masks"] not in written and not folder.is_dir()):
        raise UserError(
            f"config.stages.{stage_name}.prior.masks is {prior['masks']!r}, which is neither an "
            "earlier stage that writes masks nor a folder of masks: correct it"
        )


def _described_stage(config: Config, stage_name: str) -> Config:
    return _described(config["stages"], stage_name, "config.stages")


def _described(descriptions: Config, name: str, where: str) -> Config:
    if name not in descriptions:
        names = ", ".join(descriptions) or "none"
        raise UserError(f"there is no {where}.{name}: there are {names}")
    return descriptions[name]


def _finished(root: Path, stage_name: str) -> bool:
    return (root / stage_name / "results.json").exists()
