"""The loaders that a stage's config asks for."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import grain
import jax
from jax.sharding import Mesh

from aavs_jax.errors import UserError
from data_pipelines.loader import EvalLoader, eval_loader, train_loader
from data_pipelines.loading.front_ends import LogMel
from data_pipelines.loading.partners import has_other_sounds
from data_pipelines.prepared.embeddings import Embeddings
from data_pipelines.prepared.source import ClipSource, open_source, splits

Config = Mapping[str, Any]
MEANING = {"v1s": "AVSBench's S4", "v1m": "AVSBench's MS3", "v2": "AVSBench's AVSS alone"}
SPLITS = ("train", "val", "test")
NO_OTHER = "no row of another clip's sound: some clip of split test shares a class with all others"


def open_sources(data_dir: Path, stage: Config) -> dict[str, ClipSource]:
    """The splits of a prepared data set in which a stage has clips; train always.

    Raises:
      UserError: none of the stage's subsets is in the training split.
      DataError: nothing prepared there, or no clips to train on.
    """
    subsets = stage["data"]["subsets"]
    sources = {"train": open_split(data_dir, "train", stage)}
    there = splits(data_dir)
    for split in SPLITS[1:]:
        clips = open_source(data_dir, split).clips if there.get(split) else ()
        if any(not subsets or clip.subset in subsets for clip in clips):
            sources[split] = open_source(data_dir, split, subsets)
    return sources


def open_split(data_dir: Path, split: str, stage: Config) -> ClipSource:
    """The clips that a stage has in a split.

    Raises:
      UserError: none of its subsets is there, but others are.
      DataError: nothing prepared there, or no such split.
    """
    subsets = stage["data"]["subsets"]
    here = dict.fromkeys(clip.subset for clip in open_source(data_dir, split).clips)
    if subsets and not here.keys() & set(subsets):
        asked = ", ".join(
            f"{name} ({MEANING[name]})" if name in MEANING else name for name in subsets
        )
        one = stage["task"] == "binary"
        raise UserError(
            f"the config asks for clips of {asked} only, and the split {split} of {data_dir} has "
            f"{', '.join(here)}: --config=configs/{'binary' if one else 'avss'}.py:FOLDER takes "
            "all clips of any folder; or name others in config.stages.<stage>.data.subsets"
        )
    return open_source(data_dir, split, subsets)


def train_batches(
    config: Config,
    stage: Config,
    source: ClipSource,
    root: Path,
    seed: int,
    embeddings: Embeddings | None = None,
) -> Iterator[dict[str, Any]]:
    """This process's share of a stage's training batches.

    Args:
      config: as in configs/base.py.
      stage: one of its stages.
      source: clips of the training split.
      root: the folder of the run, where masks of other stages lie.
      seed: of order and draws.
      embeddings: of the source's sounds, which the network takes instead of log-mel examples.

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
        bucket_by_length=data["bucket_by_length"],
        augment=data["augment"],
        prior=prior["train"],
        prior_dir=masks_folder(stage, root),
        mixture=prior["mixture"],
        max_targets=data["max_targets"],
        front_end=LogMel(stage["model"]["audio"]["channels"]),
        embeddings=embeddings,
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
    embeddings: Embeddings | None = None,
    nearest: bool = False,
    masks: grain.transforms.Map | None = None,
) -> EvalLoader:
    """This process's share of one pass over a split; arguments and errors as in `train_batches`.

    With `masks`, see `data_pipelines.loader.eval_loader`, no network looks: frames and sounds are
    left out.
    """
    data = stage["data"]
    return eval_loader(
        source,
        task=stage["task"],
        image_size=None if masks else data["image_size"],
        label_size=data["label_size"],
        frames_per_batch=config["eval"]["frames_per_batch"],
        sound=sound,
        prior=prior,
        prior_dir=masks_folder(stage, root),
        front_end=LogMel(stage["model"]["audio"]["channels"]),
        embeddings=embeddings,
        nearest=nearest,
        masks=masks,
        devices=mesh.size,
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


def evaluations(
    config: Config, stage: Config, sources: Mapping[str, ClipSource]
) -> list[tuple[str, str, str]]:
    """(split, prior, sound) of every pass that a trained stage is evaluated with.

    The test split with every prior and sound; the others too, where masks are wanted of all clips.
    Splits that have no source are left out.
    """
    priors = stage["prior"]["evaluate"]
    passes = []
    if "test" in sources:
        sounds = sounds_to_hear(config, sources["test"])
        passes = [("test", prior, sound) for prior in priors for sound in sounds]
    if stage["writes_masks"]:
        passes += [(split, priors[0], "right") for split in ("val", "train") if split in sources]
    return passes


def sounds_to_hear(config: Config, test: ClipSource) -> tuple[str, ...]:
    """Those of config.eval.sounds that a test split has: where every clip shares a class with
    some clip, nobody can lend it a sound of other classes.
    """
    sounds = tuple(config["eval"]["sounds"])
    return sounds if has_other_sounds(test.clips) else tuple(s for s in sounds if s != "other")
