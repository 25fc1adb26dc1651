"""TPAVI as a method: its network, its loss, and how its logits are read."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from aavs_jax.methods.encoders import pretrained, sound_encoder
from aavs_jax.methods.functional import functional
from aavs_jax.methods.method import Aux, Method, Prediction, Resizable
from aavs_jax.methods.objectives.targets import frame_weights
from aavs_jax.methods.parts.layers import resize_bilinear
from aavs_jax.methods.tpavi import objective
from aavs_jax.methods.tpavi.config import TPAVIConfig, TPAVILoss
from aavs_jax.methods.tpavi.network import TPAVI
from data_pipelines.loading.front_ends import LogMel, ZeroPaddedLogMel

SIZES = TPAVIConfig
LOSS = TPAVILoss
PRETRAINED = pretrained("pvt", "tpavi", "TPAVI files")
PARTS = {
    r"audio_encoder/.*": ("the audio encoder", None),
    r"backbone/.*": ("the backbone", None),
    r"neck/.*": ("the neck", None),
    r"interaction/.*": ("TPAVI", None),
    r"decoder/.*": ("the decoder", None),
    r"head/output/.*": ("the classifier", 2),
    r"head/.*": ("the head", None),
}
RESIZABLE = {r"head/output/(kernel|bias)": Resizable(-1, "classes")}
DROP_PATH = frozenset({"pvt.drop_path_rate"})
# What does not fit is drawn, and the others are not in the parameters.
MAY_DIFFER = frozenset({"task", "num_classes", "prior", "dtype", *DROP_PATH})


def make(stage: Mapping[str, Any], num_classes: int, ignores: bool) -> Method:
    """See `aavs_jax.methods.make_method`; K here is that of the stage's task.

    Raises:
      ValueError: sizes or loss settings that cannot be.
    """
    task, data = stage["task"], stage["data"]
    has_prior = stage["prior"]["train"] != "none"
    config = TPAVIConfig.from_dict(
        {**stage["model"], "task": task, "num_classes": num_classes, "prior": has_prior}
    )
    loss_config = TPAVILoss.from_dict(stage["loss"])
    if config.backbone == "pvt":
        config.pvt.check_side(data["image_size"])
    label_size = (data["label_size"],) * 2
    net = functional(TPAVI, config)
    remat = stage.get("train", {}).get("remat", "none")
    in_training = functional(TPAVI, config, remat)
    seen = ("frames", "audio", "valid", *(("prior_mask",) if has_prior else ()))

    def weights(batch):
        return frame_weights(
            batch["labels"], batch["labelled"], batch["valid"], data["drop_empty_clips"]
        )

    def loss(parameters, batch, key, progress):
        network = in_training.network(parameters)
        keys = jax.random.split(key, batch["valid"].size)  # of drop-path, frame by frame
        outputs = network(*(batch[name] for name in seen), training=True, keys=keys)
        labels = batch["labels"].reshape(-1, *label_size)
        total, terms = objective.loss(outputs, labels, weights(batch).reshape(-1), loss_config)
        scalars = {f"loss/{name}": term for name, term in terms.items()}
        return total, Aux(scalars, in_training.statistics(network))

    def class_scores(parameters, batch):
        told = batch.get("prior_mask") if has_prior else None
        if told is not None and told.ndim == 5:  # of several views, [B,T,V,G,G]
            views = [{**batch, "prior_mask": told[:, :, view]} for view in range(told.shape[2])]
            return sum(class_scores(parameters, view) for view in views) / len(views)
        outputs = net.network(parameters)(*(batch[name] for name in seen))
        logits = resize_bilinear(outputs.logits, label_size, axes=(1, 2))
        if task == "binary":
            sounding = jax.nn.sigmoid(logits)
            scores = jnp.concatenate([1 - sounding, sounding], -1)
        else:
            scores = jax.nn.softmax(logits)
        return scores.reshape(*batch["valid"].shape, *scores.shape[1:])

    def predict(parameters, batch):
        scores = class_scores(parameters, batch)
        maps = {"confidence": scores.max(-1)}
        if task == "binary":
            maps |= {"foreground": scores[..., 1], "softmax": scores[..., 1]}
        return Prediction(scores.argmax(-1).astype(jnp.uint8), maps)

    network = dataclasses.asdict(config)
    network.pop("resnet" if config.backbone == "pvt" else "pvt")
    return Method(
        task=task,
        num_classes=num_classes,
        network=network,
        shapes=net.shapes,
        initial=net.initial,
        loss=loss,
        predict=jax.jit(predict),
        scores=jax.jit(class_scores),
        entries=(*seen, "labels", "labelled"),
        # The public loaders fill up what is missing of a sound in their own way each.
        front_end=(LogMel if task == "binary" else ZeroPaddedLogMel)(config.audio.channels),
        mutable=net.mutable,
        counts=(lambda batch: weights(batch).any()) if data["drop_empty_clips"] else None,
        over_time=True,
        sound_encoder=sound_encoder(config.audio),
        parts=PARTS,
        resizable=RESIZABLE,
        pretrained=pretrained(config.backbone, "tpavi", "TPAVI files"),
        may_differ=MAY_DIFFER,
        training_only=DROP_PATH,
    )
