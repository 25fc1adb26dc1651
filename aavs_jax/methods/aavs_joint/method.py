"""Two AAVS as one method: a step trains where it sounds and what it is, through the soft mask."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from aavs_jax.methods.aavs import method as aavs
from aavs_jax.methods.aavs_joint.config import JointConfig, JointLoss
from aavs_jax.methods.aavs_joint.network import AAVSJoint
from aavs_jax.methods.functional import functional
from aavs_jax.methods.method import Aux, Inner, Method, Prediction, Slices
from aavs_jax.methods.objectives import mask_classification, set_prediction
from aavs_jax.methods.objectives.targets import IGNORED, frame_weights, make_targets
from aavs_jax.methods.rows import by_clip, frames_of, keys_of, regrouped
from data_pipelines.loading.front_ends import LogMel

SIZES = JointConfig
LOSS = JointLoss
PRETRAINED: dict = {}
SEEN = ("frames", "audio")
TERMS = ("localise", "understand")
PARTS = {
    f"{name}/{pattern}": (f"{words} ({name})", count)
    for name in TERMS
    for pattern, (words, count) in aavs.PARTS.items()
} | {r"feed/.*": ("what the first network's queries give to the second's", 2)}


def make(stage: Mapping[str, Any], num_classes: int, ignores: bool) -> Method:
    """See `aavs_jax.methods.make_method`.

    Raises:
      ValueError: sizes or loss settings that cannot be; a task that is not semantic; a prior mask.
    """
    data = stage["data"]
    if stage["task"] != "semantic":
        raise ValueError(
            "two networks in one step say where it sounds and what it is: the task is 'semantic'"
        )
    if stage["prior"]["train"] != "none":
        raise ValueError("two networks in one step take no prior mask: set prior.train to 'none'")
    config = JointConfig.from_dict(
        {**stage["model"], "task": "semantic", "num_classes": num_classes, "prior": False}
    )
    losses = JointLoss.from_dict(
        {**stage["loss"], "max_targets": data["max_targets"], "ignores": ignores}
    )
    frame_size, label_size = (data["image_size"],) * 2, (data["label_size"],) * 2
    joint = functional(AAVSJoint, config)
    in_training = functional(AAVSJoint, config, stage.get("train", {}).get("remat", "none"))
    queries = {"localise": config.localise_queries, "understand": config.num_queries}

    def targets_of(labels):
        sounds = jnp.where(labels == IGNORED, IGNORED, labels != 0)
        return {
            "localise": make_targets(sounds, 2, 2, frame_size),
            "understand": make_targets(labels, losses.max_targets, num_classes, frame_size),
        }

    def weights(batch):
        return frame_weights(
            batch["labels"], batch["labelled"], batch["valid"], data["drop_empty_clips"]
        )

    def split(batch, key):
        weight = weights(batch)
        targets = targets_of(frames_of(batch["labels"]))
        shares = {
            name: set_prediction.total_shares(
                targets[name], weight.reshape(-1), queries[name], losses
            )
            for name in TERMS
        }
        frames = frames_of(batch["frames"])
        by_picture = functools.partial(regrouped, len(frames))
        drop_path, *points = jax.random.split(key, 3)
        rows = {
            "frames": frames,
            "audio": by_picture(batch["audio"], 2),
            "targets": jax.tree.map(by_picture, targets),
            "weight": by_picture(weight, 2),
            "drop_path": keys_of(drop_path, len(frames)),
            "points": {
                name: by_picture(keys_of(own, weight.size))
                for name, own in zip(TERMS, points, strict=True)
            },
        }
        return {**rows, "counts": (rows["weight"] > 0).any(1)}, shares

    def loss(parameters, rows, shares, progress):
        outputs = in_training.network(parameters)(
            rows["frames"], frames_of(rows["audio"]), label_size, keys=rows["drop_path"]
        )
        total, scalars = 0.0, {}
        for name in TERMS:
            own, terms = set_prediction.set_prediction_loss(
                outputs[name]["class_logits"],
                outputs[name]["mask_logits"],
                jax.tree.map(frames_of, rows["targets"][name]),
                frames_of(rows["weight"] * rows["counts"][:, None]),
                losses,
                key=frames_of(rows["points"][name]),
                shares=shares[name],
            )
            total += own * (losses.localise_weight if name == "localise" else 1.0)
            scalars |= {f"loss/{name}/{term}": value.sum() for term, value in terms.items()}
        return total, Aux(scalars)

    slices = Slices(split, loss)

    def class_scores(parameters, flat):
        network = joint.network(parameters)
        outputs = network(flat["frames"], flat["audio"], label_size)["understand"]
        return mask_classification.class_scores(
            outputs["class_logits"][-1], outputs["mask_logits"][-1], frame_size, label_size
        )

    @jax.jit
    def predict_frames(parameters, flat):
        scores = class_scores(parameters, flat)
        maps = {"confidence": mask_classification.confidence(scores)}
        return Prediction(mask_classification.semantic_prediction(scores), maps)

    alone = {**stage, "task": "binary", "model": _sizes(config.localise), "loss": {}}
    where = aavs.make({**alone, "prior": {"train": "none"}}, 2, ignores)
    return Method(
        task="semantic",
        num_classes=num_classes,
        network=dataclasses.asdict(config),
        shapes=joint.shapes,
        initial=joint.initial,
        loss=slices.whole,
        slices=slices,
        predict=by_clip(predict_frames, SEEN),
        scores=by_clip(jax.jit(class_scores), SEEN),
        entries=(*SEEN, "labels", "labelled", "valid"),
        front_end=LogMel(config.audio.channels),
        counts=(lambda batch: weights(batch).any()) if data["drop_empty_clips"] else None,
        stills=True,
        inner={"localise": Inner("localise/", where, losses.guard)},
        parts=PARTS,
        resizable={f"({'|'.join(TERMS)})/{p}": how for p, how in aavs.RESIZABLE.items()},
        may_differ=aavs.MAY_DIFFER | {"localise_queries"},
        training_only=aavs.DROP_PATH,
    )


def _sizes(config) -> dict[str, Any]:
    own = dataclasses.asdict(config)
    return {key: own[key] for key in own if key not in ("task", "num_classes", "prior")}
