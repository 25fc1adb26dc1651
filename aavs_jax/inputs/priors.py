"""Prior masks of a stage: whether they fit together, and whether every one of them is there."""

import os
from collections.abc import Collection, Sequence
from pathlib import Path

from aavs_jax.errors import UserError
from aavs_jax.plan.folds import BY_OTHERS, earlier_name, fold_names
from aavs_jax.plan.stage import Stage
from data_pipelines.facts import avsbench
from data_pipelines.loading.checks import PREDICTED
from data_pipelines.loading.read_clip import folder_of_masks
from data_pipelines.loading.request import seconds_shown


def check_priors(stage: Stage) -> None:
    """Raises UserError where prior masks are in training alone, or in evaluation alone; where a
    stage cannot write masks, or not so.
    """
    prior = stage.keys["prior"]
    evaluate = prior["evaluate"]
    if not evaluate or any((p == "none") != (prior["train"] == "none") for p in evaluate):
        raise UserError(
            f"{stage.where}.prior.train is {prior['train']!r} and prior.evaluate {evaluate}: a "
            "network is trained and evaluated either with prior masks or, 'none', without"
        )
    for key in ("folds", "earlier"):
        if stage.keys[key] and not stage.keys["writes_masks"]:
            raise UserError(
                f"{stage.where}.{key} is {stage.keys[key]:g}, but the stage writes no masks: set "
                f"--{stage.where}.writes_masks=True, or leave {key} out"
            )
    if stage.keys["writes_masks"] and stage.task.name != "binary":
        raise UserError(f"{stage.where}.writes_masks is set, but only a binary stage draws masks")


def check_who_writes(stage: Stage, earlier: Sequence[Stage]) -> None:
    """Raises UserError where a stage takes masks that no stage before it and no folder has."""
    prior = stage.keys["prior"]
    if not {stage.prior_in_training, *prior["evaluate"]} & PREDICTED:
        return
    train, masks, folder = prior["train"], prior["masks"], stage.masks_from
    others = {other.name: other.keys for other in earlier if other.keys["writes_masks"]}
    if folder is None or (masks not in others and not folder.is_dir()):
        raise UserError(
            f"{stage.where}.prior.masks is {masks!r}, which is neither an earlier stage that "
            "writes masks nor a folder of masks: correct it"
        )
    if train not in BY_OTHERS:
        return
    if masks not in others:
        raise UserError(
            f"{stage.where}.prior.train is {train!r}, but prior.masks is the folder {masks}, whose "
            f"masks are taken as they are: give --{stage.where}.prior.train=predicted"
        )
    if train == "crossfit" and not others[masks]["folds"]:
        raise UserError(
            f"{stage.where}.prior.train is 'crossfit', and prior.masks, {masks!r}, is a stage "
            f"without folds: give --config.stages.{masks}.folds=2"
        )
    if train == "earlier" and not others[masks]["earlier"]:
        raise UserError(
            f"{stage.where}.prior.train is 'earlier', and prior.masks, {masks!r}, is a stage that "
            f"keeps no earlier checkpoint: give --config.stages.{masks}.earlier=0.6"
        )


def splits_with_predicted(stage: Stage) -> set[str]:
    """The splits of which a stage takes predicted masks in training and evaluation."""
    prior = stage.keys["prior"]
    taking = {"train"} if stage.prior_in_training in PREDICTED else set()
    taking |= {"val"} if prior["evaluate"][0] in PREDICTED else set()
    return taking | ({"test"} if PREDICTED & set(prior["evaluate"]) else set())


def check_masks_are_there(stage: Stage, splits: Collection[str]) -> None:
    """Whether every predicted prior mask that will be asked for is there.

    Args:
      stage: on its data. Masks of a split that other stages of the run write are looked for once
        those are complete.
      splits: that take masks; of "train" those seconds are looked for that training shows, of
        others all.

    Raises:
      UserError: one is missing.
    """
    masks, folder = stage.keys["prior"]["masks"], stage.masks_from
    if not masks:
        return
    given = "/" in masks
    for split in (split for split in stage.sources if split in splits):
        writers = () if given else _writers(stage, split)
        if not all((stage.root / writer / "results.json").exists() for writer in writers):
            continue
        source = stage.sources[split]
        masks_of = stage.training_masks(source) if split == "train" else folder
        missing, clips, wanted = [], set(), 0
        for clip in source.clips:
            place = folder_of_masks(masks_of, clip)
            paths = [
                avsbench.mask_path(place, clip.subset, clip.uid, second)
                for second in _seconds(stage, split, clip)
            ]
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
                f"{stage.where}.prior.masks is {masks!r}, which {lacks}: name a folder "
                "<subset>/<uid>/<second>.png of all of them"
            )
        written = missing[0].parents[2]
        raise UserError(
            f"the stage {written.parent.name} is complete, but {written}, from which {stage.name} "
            f"takes its prior masks, {lacks}: delete this folder and results.json beside it, and "
            "start the command again, which writes them anew and trains nothing twice"
        )


def _writers(stage: Stage, split: str) -> tuple[str, ...]:
    """The stages that write its masks of a split."""
    prior = stage.keys["prior"]
    if split == "train" and prior["train"] == "crossfit":
        return fold_names(stage.config, prior["masks"])
    if split == "train" and prior["train"] == "earlier":
        return (earlier_name(prior["masks"]),)
    return (prior["masks"],)


def _seconds(stage: Stage, split: str, clip) -> tuple[int, ...]:
    if split != "train":
        return tuple(range(clip.seconds))
    if not clip.labelled:
        return ()
    return seconds_shown(clip.labelled, clip.seconds, stage.keys["data"]["sampling"])


def _names_in(folder: Path) -> set[str]:
    """One listing for all seconds of a clip: over a network each look at a file takes its time."""
    try:
        return set(os.listdir(folder))
    except OSError:
        return set()
