"""The loaders that a stage's config asks for."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from data_pipelines.loader import EvalLoader, eval_loader, train_loader
from data_pipelines.source import ClipSource

Config = Mapping[str, Any]


def train_batches(
    config: Config, stage: Config, source: ClipSource, root: Path, seed: int
) -> Iterator[dict[str, Any]]:
    """This process's share of a stage's training batches.

    Args:
      config: as in configs/base.py.
      stage: one of its stages.
      source: clips of the training split.
      root: the folder of the run, where masks of other stages lie.
      seed: of order and draws.

    Raises:
      DataError: see `data_pipelines.loader.train_loader`.
    """
    data, prior = stage["data"], stage["prior"]
    return train_loader(
        source,
        task=stage["task"],
        image_size=data["image_size"],
        label_size=data["label_size"],
        batch_size=data["batch_size"],
        seconds=data["seconds"],
        sampling=data["sampling"],
        shuffle=data["shuffle"],
        flip=data["flip"],
        prior=prior["train"],
        prior_dir=masks_folder(stage, root),
        mixture=prior["mixture"],
        max_targets=data["max_targets"],
        seed=seed,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        num_workers=config["data"]["num_workers"],
        cache=config["data"]["cache"],
    )


def eval_batches(
    config: Config,
    stage: Config,
    source: ClipSource,
    root: Path,
    mesh: Mesh,
    *,
    prior: str,
    sound: str = "right",
) -> EvalLoader:
    """This process's share of one pass over a split; arguments and errors as in `train_batches`."""
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


def masks_folder(stage: Config, root: Path) -> Path | None:
    """Where the predicted prior masks of a stage lie; None if it has no prior."""
    masks = stage["prior"]["masks"]
    if not masks:
        return None
    return Path(masks) if "/" in masks else root / masks / "masks"


def evaluations(config: Config, stage: Config) -> list[tuple[str, str, str]]:
    """(split, prior, sound) of every pass that a trained stage is evaluated with.

    The test split with every prior and sound; the others too, where masks are wanted of all clips.
    """
    priors = stage["prior"]["evaluate"]
    passes = [("test", prior, sound) for prior in priors for sound in config["eval"]["sounds"]]
    if stage["writes_masks"]:
        passes += [(split, priors[0], "right") for split in ("val", "train")]
    return passes
