"""AVSegFormer as a method: its network, its loss, and how its logits are read."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from aavs_jax.methods.avsegformer.config import AVSegFormerConfig, AVSegFormerLoss
from aavs_jax.methods.avsegformer.network import AVSegFormer
from aavs_jax.methods.avsegformer.objective import losses
from aavs_jax.methods.encoders import pretrained, sound_encoder
from aavs_jax.methods.functional import functional
from aavs_jax.methods.method import Aux, Method, Prediction, Resizable, Slices
from aavs_jax.methods.objectives.targets import frame_weights
from aavs_jax.methods.parts.layers import resize_bilinear
from aavs_jax.methods.rows import by_clip, frames_of, keys_of
from data_pipelines.loading.front_ends import LogMel, ZeroPaddedLogMel

SIZES = AVSegFormerConfig
LOSS = AVSegFormerLoss
PRETRAINED = pretrained("pvt", "avsegformer")
PARTS = {
    r"head/classify/.*": ("the last layer", 1),
    r"head/.*": ("the head", None),
    r"audio_proj/.*": ("the audio projection", 2),
    r"audio_encoder/.*": ("the audio encoder", None),
    r"backbone/.*": ("the backbone", None),
    r"encoder/.*": ("the encoder", None),
    r"query_generator/.*": ("the query generator", None),
    r"decoder_queries|decoder/.*": ("the decoder", None),
    r"mixer/.*": ("the mixer", 6),
    r"(input_(projections|norms)|lateral|lateral_norm|fusion|fusion_norm)/.*": (
        "the mask feature",
        None,
    ),
}
DROPPED = frozenset({"dropout", "pvt.drop_path_rate"})  # of training alone
MAY_DIFFER = frozenset({"task", "num_classes", "prior", "dtype", *DROPPED})


def make(stage: Mapping[str, Any], num_classes: int, ignores: bool) -> Method:
    """See `aavs_jax.methods.make_method`; K here is that of the stage's task.

    Raises:
      ValueError: sizes or loss settings that cannot be.
    """
    task, data = stage["task"], stage["data"]
    has_prior = stage["prior"]["train"] != "none"
    config = AVSegFormerConfig.from_dict(
        {**stage["model"], "task": task, "num_classes": num_classes, "prior": has_prior}
    )
    loss_config = LOSS.from_dict(stage["loss"])
    if config.backbone == "pvt":
        config.pvt.check_side(data["image_size"])
    label_size = (data["label_size"],) * 2
    predicting = functional(AVSegFormer, config)
    remat = stage.get("train", {}).get("remat", "none")
    training = functional(AVSegFormer, config, remat)
    seen = ("frames", "audio", *(("prior_mask",) if has_prior else ()), "valid")

    def forward(network, flat, **options):
        prior = flat["prior_mask"] if has_prior else None
        return network(flat["frames"], flat["audio"], prior, valid=flat["valid"], **options)

    def weights(batch):
        return frame_weights(
            batch["labels"], batch["labelled"], batch["valid"], data["drop_empty_clips"]
        )

    def split(batch, key):
        weight = weights(batch).reshape(-1)
        rows = {name: frames_of(batch[name]) for name in (*seen, "labels")}
        keys = keys_of(key, weight.size)
        # Of the loss a frame is as much as its weight is of all weights.
        share = weight / jnp.maximum(weight.sum(), 1)
        return {**rows, "keys": keys, "share": share, "counts": weight > 0}, ()

    def loss(parameters, rows, shared, progress):
        network = training.network(parameters)
        outputs = forward(network, rows, training=True, keys=rows["keys"])
        share = rows["share"] * rows["counts"]
        terms = losses(outputs, rows["labels"], loss_config)
        scalars = {f"loss/{name}": (term * share).sum() for name, term in terms.items()}
        return sum(scalars.values()), Aux(scalars, training.statistics(network))

    def logits(parameters, flat):
        found = forward(predicting.network(parameters), flat)["logits"]
        return resize_bilinear(found, label_size, axes=(1, 2))

    @jax.jit
    def scores(parameters, flat):
        found = logits(parameters, flat)
        if task == "binary":  # the chances of background and of foreground
            found = jnp.concatenate([jnp.zeros_like(found), found], axis=-1)
        found = jax.nn.softmax(found)
        if has_prior and flat["prior_mask"].ndim == 4:
            found = found.reshape(-1, flat["prior_mask"].shape[1], *found.shape[1:]).mean(1)
        return found

    @jax.jit
    def predict_frames(parameters, flat):
        found = scores(parameters, flat)
        maps = {"confidence": found.max(-1)}
        if task == "binary":
            # Its one map of logits has one sigmoid, whoever lays thresholds on it.
            maps |= {"foreground": found[..., 1], "softmax": found[..., 1]}
        return Prediction(found.argmax(-1).astype(jnp.uint8), maps)

    slices = Slices(split, loss)
    network = dataclasses.asdict(config)
    network.pop("resnet" if config.backbone == "pvt" else "pvt")  # nobody's sizes
    return Method(
        task=task,
        num_classes=num_classes,
        network=network,
        shapes=predicting.shapes,
        mutable=predicting.mutable,
        initial=predicting.initial,
        loss=slices.whole,
        # Batch norm looks at all frames of a batch together.
        slices=None if predicting.mutable else slices,
        predict=by_clip(predict_frames, seen),
        scores=by_clip(scores, seen),
        entries=(*seen, "labels", "labelled"),
        # What is missing of a sound's last second the public loader of AVSS fills up with zeros.
        front_end=(LogMel if task == "binary" else ZeroPaddedLogMel)(config.audio.channels),
        counts=(lambda batch: weights(batch).any()) if data["drop_empty_clips"] else None,
        sound_encoder=sound_encoder(config.audio),
        parts=PARTS,
        resizable={r"head/classify/kernel": Resizable(-1, "classes")},
        pretrained=pretrained(config.backbone, "avsegformer"),
        may_differ=MAY_DIFFER,
        training_only=DROPPED,
    )
