"""What can be known to be wrong with a run before hours are spent on it: the rooms' own checks."""

import dataclasses
from collections.abc import Sequence

from aavs_jax.errors import UserError
from aavs_jax.inputs import features, priors
from aavs_jax.inputs.batches import eval_batches, evaluations, train_batches
from aavs_jax.plan.stage import Stage
from aavs_jax.scoring.one_pass import protocols
from aavs_jax.state.optimizer import make_schedule
from aavs_jax.weights.starting import check_starts
from data_pipelines.loader import check_targets, labelled_clips
from data_pipelines.loading.checks import PREDICTED

FEW = 20  # clips: a network learns so many by heart


def before_data(stages: Sequence[Stage]) -> None:
    """Stages and hand-overs, before data are prepared; finished stages are not looked at.

    Args:
      stages: of the schedule, in its order.

    Raises:
      UserError: a phase that starts from, or a stage that takes masks from, what no earlier one
        leaves; pretrained parameters that are not given or do not fit; parameters that would stay
        random for ever; maps of frames that cannot be kept; what `evaluation` finds.
    """
    for place, stage in enumerate(stages):
        if not stage.is_complete:
            evaluation(stage)
            _check_empty_labels(stage)
            features.check(stage)
            priors.check_who_writes(stage, stages[:place])
    check_starts(stages)


def evaluation(stage: Stage) -> None:
    """What a stage is evaluated with, and by which protocols.

    Raises:
      UserError: no such protocol; prior masks in training alone, or in evaluation alone; not the
        right sound; masks of classes that are handed over.
    """
    protocols(stage.config)
    priors.check_priors(stage)
    if "right" not in stage.config["eval"]["sounds"]:
        raise UserError("config.eval.sounds lacks 'right', the sound that belongs to each clip")


def with_data(stages: Sequence[Stage]) -> None:
    """Whether the data fits every stage that is not finished.

    Args:
      stages: on their data.

    Raises:
      UserError, DataError: no clips to train on, or labels that tell no classes to a semantic
        stage; label maps of more classes than data.max_targets; prior masks that are missing;
        sizes that do not fit the clips or the devices; augmentations that cannot be; no sound of
        other classes; maps of frames beyond their budget.
    """
    for stage in stages:
        if not stage.is_complete:
            _check_stage(_without_workers(stage))


def _check_stage(stage: Stage) -> None:
    keys, train = stage.keys, stage.sources["train"]
    batch_size = keys["data"]["batch_size"]
    classes_are_told(stage)
    priors.check_masks_are_there(stage, priors.splits_with_predicted(stage))
    most = f"--{stage.where}.data.max_targets"
    check_targets(train, stage.task.name, keys["data"]["max_targets"], most)
    features.check_room(stage)
    train_batches(stage, 0)
    if batch_size % stage.mesh.size:
        raise UserError(
            f"{stage.where}.data.batch_size is {batch_size}, which {stage.mesh.size} devices "
            "cannot share: make it a multiple"
        )
    for name in stage.phases:
        make_schedule(stage.phase(name)["optimizer"], stage.steps(name), str(name))
    passes = evaluations(stage)
    if "val" in stage.sources:
        passes.append(("val", keys["prior"]["evaluate"][0], "right"))
    for split, prior, sound in passes:
        eval_batches(stage, split, prior=prior, sound=sound)


def passes_of(stage: Stage) -> None:
    """Raises what the loaders of an evaluation raise, before the first of them is walked."""
    stage = _without_workers(stage)
    if PREDICTED & {*stage.keys["prior"]["evaluate"]}:
        priors.check_masks_are_there(stage, ["test"])
    for split, prior, sound in evaluations(stage):
        eval_batches(stage, split, prior=prior, sound=sound)


def _without_workers(stage: Stage) -> Stage:
    """Nothing is read in a check, so nobody needs to be hired for it."""
    data = {**stage.config["data"], "num_workers": 0}
    return dataclasses.replace(stage, config={**stage.config, "data": data})


def remarks(stage: Stage) -> list[str]:
    """What is unusual about a stage's training, though it can be."""
    clips, batch_size = (
        len(labelled_clips(stage.sources["train"])),
        stage.keys["data"]["batch_size"],
    )
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


def classes_are_told(stage: Stage) -> None:
    """Whether labels tell a semantic stage classes.

    Raises:
      UserError: of some subset they do not.
    """
    if stage.task.name != "semantic":
        return
    classless = {
        clip.subset
        for source in stage.sources.values()
        for clip in source.clips
        if clip.subset in source.binary_only
    }
    if classless:
        raise UserError(
            f"the stage {stage.name} learns classes, but the labels of "
            f"{', '.join(sorted(classless))} tell only where something sounds: take "
            "--config=configs/binary.py:FOLDER, which asks that, or name other subsets in "
            f"{stage.where}.data.subsets"
        )


def _check_empty_labels(stage: Stage) -> None:
    data = stage.keys["data"]
    if data["drop_empty_clips"] and data["augment"]["swap_sound"]:
        raise UserError(
            f"{stage.where}.data.augment.swap_sound empties labels, and drop_empty_clips takes "
            "clips with empty labels out of the loss: turn one of them off"
        )
