"""The clips of a stage, and the loaders that its config asks for."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grain
import jax
from jax.sharding import Mesh

from aavs_jax.errors import UserError
from aavs_jax.methods import make_method
from aavs_jax.plan.folds import UNSEEN, split_by
from aavs_jax.plan.stage import Stage
from data_pipelines.loader import EvalLoader, eval_loader, train_loader
from data_pipelines.loading.features import Features
from data_pipelines.loading.partners import has_other_sounds
from data_pipelines.prepared.source import ClipSource, open_source, splits

MEANING = {"v1s": "AVSBench's S4", "v1m": "AVSBench's MS3", "v2": "AVSBench's AVSS alone"}
SPLITS = ("train", "val", "test")
NO_OTHER = "no row of another clip's sound: some clip of split test shares a class with all others"


def on_data(stage: Stage, data_dir: Path, mesh: Mesh, wanted: tuple[str, ...] = SPLITS) -> Stage:
    """A stage with its clips, a network for their classes, and its devices.

    Args:
      stage: before its data were opened.
      data_dir: the prepared data set.
      mesh: of the devices.
      wanted: splits; the first one has to be there.

    Raises:
      UserError: none of the stage's subsets is in the first split.
      DataError: nothing prepared there, or no clips in the first split.
    """
    subsets = stage.keys["data"]["subsets"]
    first = open_split(data_dir, wanted[0], stage)
    sources, there = {wanted[0]: first}, splits(data_dir)
    if stage.fold:
        first, sources = _without_part(stage, first)
        wanted = ("train", "val")
    for split in wanted[1:]:
        clips = open_source(data_dir, split).clips if there.get(split) else ()
        if any(not subsets or clip.subset in subsets for clip in clips):
            sources[split] = open_source(data_dir, split, subsets)
    keys = {**stage.keys, "train": stage.config["train"]}
    # What is around a picture that was made smaller counts for nothing.
    around = keys["data"]["augment"]["scaled_crop"]["probability"] > 0
    method = make_method(keys, first.num_classes, ignores=first.ignores or around)
    return dataclasses.replace(stage, method=method, sources=sources, mesh=mesh)


def _without_part(stage: Stage, source: ClipSource) -> tuple[ClipSource, dict[str, ClipSource]]:
    """The training clips that a stage sees, and its sources: these, and those it does not see."""
    seen, unseen = split_by(source.clips, stage.fold, stage.keys["folds"])
    if not seen or not unseen:
        raise UserError(
            f"config.stages.{stage.writes_for}.folds is {stage.keys['folds']}, and of "
            f"{len(source)} training clips part {stage.fold} has {len(unseen)}: give fewer folds"
        )
    first = source.only(seen)
    return first, {"train": first, UNSEEN: source.only(unseen)}


def open_split(data_dir: Path, split: str, stage: Stage) -> ClipSource:
    """The clips that a stage has in a split.

    Raises:
      UserError: none of its subsets is there, but others are.
      DataError: nothing prepared there, or no such split.
    """
    subsets = stage.keys["data"]["subsets"]
    here = dict.fromkeys(clip.subset for clip in open_source(data_dir, split).clips)
    if subsets and not here.keys() & set(subsets):
        asked = ", ".join(
            f"{name} ({MEANING[name]})" if name in MEANING else name for name in subsets
        )
        config = "binary" if stage.task.name == "binary" else "avss"
        raise UserError(
            f"the config asks for clips of {asked} only, and the split {split} of {data_dir} has "
            f"{', '.join(here)}: --config=configs/{config}.py:FOLDER takes all clips of any "
            "folder; or name others in config.stages.<stage>.data.subsets"
        )
    return open_source(data_dir, split, subsets)


def train_batches(
    stage: Stage, seed: int, features: Features | None = None
) -> Iterator[dict[str, Any]]:
    """This process's share of a stage's training batches.

    Args:
      stage: on its data.
      seed: of order and draws.
      features: maps of the frames, given in their place.

    Raises:
      DataError: see `data_pipelines.loader.train_loader`.
    """
    data, prior = stage.keys["data"], stage.keys["prior"]
    return train_loader(
        stage.sources["train"],
        image_size=data["image_size"],
        batch_size=data["batch_size"],
        seconds=data["seconds"],
        sampling=data["sampling"],
        shuffle=data["shuffle"],
        bucket_by_length=data["bucket_by_length"],
        resize=data["resize"],
        augment=data["augment"],
        prior=stage.prior_in_training,
        prior_dir=stage.training_masks(stage.sources["train"]),
        mixture=prior["mixture"],
        untold=prior["dropout"],
        max_targets=data["max_targets"],
        embeddings=stage.heard.get("train"),
        features=features,
        stills=stage.method.stills and not stage.config["as_published"],
        seed=seed,
        **_shared(stage),
    )


def eval_batches(
    stage: Stage,
    split: str,
    *,
    prior: str,
    sound: str = "right",
    nearest: bool = False,
    masks: grain.transforms.Map | None = None,
) -> EvalLoader:
    """This process's share of one pass over a split; errors as in `train_batches`.

    With `masks`, see `data_pipelines.loader.eval_loader`, no network looks: frames and sounds are
    left out.
    """
    return eval_loader(
        stage.sources[split],
        image_size=None if masks else stage.keys["data"]["image_size"],
        frames_per_batch=stage.config["eval"]["frames_per_batch"],
        sound=sound,
        prior=prior,
        prior_dir=stage.masks_from,
        embeddings=stage.heard.get(split),
        nearest=nearest,
        masks=masks,
        devices=stage.mesh.size,
        **_shared(stage),
    )


def _shared(stage: Stage) -> dict[str, Any]:
    """What both loaders are told alike."""
    return {
        "task": stage.task.name,
        "label_size": stage.keys["data"]["label_size"],
        "front_end": stage.method.front_end,
        "process_index": jax.process_index(),
        "process_count": jax.process_count(),
        "num_workers": stage.config["data"]["num_workers"],
        "cache": stage.config["data"]["cache"],
    }


def evaluations(stage: Stage) -> list[tuple[str, str, str]]:
    """(split, prior, sound) of every pass that a trained stage is evaluated with.

    The test split with every prior and sound; the others too, where masks of them are wanted.
    Splits that have no clips are left out. Of a stage that only writes masks of training clips
    these alone, or of them those that it does not see.
    """
    priors = stage.keys["prior"]["evaluate"]
    if stage.fold:
        return [(UNSEEN, priors[0], "right")]
    if stage.writes_for:
        return [("train", priors[0], "right")]
    passes = []
    if "test" in stage.sources:
        passes = [("test", prior, sound) for prior in priors for sound in sounds_to_hear(stage)]
    if stage.keys["writes_masks"]:
        others = ("val", "train") if stage.own_training_masks_are_wanted else ("val",)
        passes += [(split, priors[0], "right") for split in others if split in stage.sources]
    return passes


def sounds_to_hear(stage: Stage) -> tuple[str, ...]:
    """Those of config.eval.sounds that a test split has: where every clip shares a class with
    some clip, nobody can lend it a sound of other classes.
    """
    sounds = tuple(stage.config["eval"]["sounds"])
    if has_other_sounds(stage.sources["test"].clips):
        return sounds
    return tuple(sound for sound in sounds if sound != "other")
