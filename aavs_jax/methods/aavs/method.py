"""AAVS as a method: its network, the set-prediction loss, and how its masks are read."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from aavs_jax.methods.aavs.config import AAVSConfig
from aavs_jax.methods.aavs.network import AAVS
from aavs_jax.methods.encoders import on_host, sound_encoder, vggish
from aavs_jax.methods.functional import functional
from aavs_jax.methods.method import (
    Aux,
    FrameEncoder,
    Method,
    Prediction,
    Pretrained,
    Resizable,
    Slices,
)
from aavs_jax.methods.objectives import mask_classification, set_prediction
from aavs_jax.methods.objectives.set_prediction_config import LossConfig
from aavs_jax.methods.objectives.targets import frame_weights, make_targets
from aavs_jax.methods.parts.frames import normalised
from aavs_jax.methods.parts.sizes import DROP_PATH_OPTIONS
from aavs_jax.methods.parts.swin import Swin
from aavs_jax.methods.rows import by_clip, frames_of, frames_or_maps, keys_of, regrouped
from data_pipelines.loading.front_ends import LogMel

SIZES = AAVSConfig
LOSS = LossConfig
PRETRAINED = {
    "mask2former": Pretrained(
        ("mask2former", "aavs", "swin"),
        "facebook/mask2former-swin-base-ade-semantic",
        "python -m aavs_jax.convert mask2former-swin-base-ade-semantic --out weights/m2f_swin_b",
    ),
    "vggish": vggish("AAVS files"),
}
PARTS = {
    r"backbone/.*_adapter/.*": ("the backbone adapters", None),
    r"pixel_decoder/.*adapter/.*": ("the pixel decoder's adapters", None),
    r"decoder/.*adapter/.*": ("the decoder's adapters", None),
    r"decoder/class_predictor/.*": ("the class predictor", 2),
    r"decoder/query_positions": ("the query positions", 1),
    r"decoder/query_features": ("the query features", 1),
    r"decoder/(silent|sounding|uncertain)_embed": ("the key vectors", 3),
    r"audio_proj/.*": ("the audio MLP", 4),
    r"audio_encoder/.*": ("the audio encoder", None),
    r"backbone/.*": ("the backbone", None),
    r"pixel_decoder/.*": ("the pixel decoder", None),
    r"decoder/.*": ("the decoder", None),
}
RESIZABLE = {
    r"decoder/class_predictor/(kernel|bias)": Resizable(-1, "classes", besides=1),
    r"decoder/query_(positions|features)": Resizable(0, "queries"),
}
# Of training alone.
DROP_PATH = frozenset(
    {"backbone.drop_path_rate", *(f"backbone.{key}" for key in DROP_PATH_OPTIONS)}
)
# Classes and queries that do not fit are drawn, and the others are not in the parameters.
MAY_DIFFER = frozenset(
    {"task", "num_classes", "num_queries", "prior", "prior_keys", "dtype", *DROP_PATH}
)


def make(stage: Mapping[str, Any], num_classes: int, ignores: bool) -> Method:
    """See `aavs_jax.methods.make_method`; K here is that of the stage's task.

    Raises:
      ValueError: sizes or loss settings that cannot be.
    """
    task, data = stage["task"], stage["data"]
    has_prior = stage["prior"]["train"] != "none"
    config = AAVSConfig.from_dict(
        {**stage["model"], "task": task, "num_classes": num_classes, "prior": has_prior}
    )
    loss_config = LOSS.from_dict(
        {**stage["loss"], "max_targets": data["max_targets"], "ignores": ignores}
    )
    frame_size = (data["image_size"],) * 2
    label_size = (data["label_size"],) * 2
    aavs = functional(AAVS, config)
    remat = stage.get("train", {}).get("remat", "none")
    in_training = functional(AAVS, config, remat)

    seen = ("frames", "audio", *(("prior_mask",) if has_prior else ()))

    def forward(network, flat, keys=None):
        return network(
            flat["frames"], flat["audio"], flat["prior_mask"] if has_prior else None, keys=keys
        )

    def weights(batch):
        return frame_weights(
            batch["labels"], batch["labelled"], batch["valid"], data["drop_empty_clips"]
        )

    def split(batch, key):
        weight = weights(batch)
        targets = make_targets(
            frames_of(batch["labels"]), loss_config.max_targets, num_classes, frame_size
        )
        shares = set_prediction.total_shares(
            targets, weight.reshape(-1), config.num_queries, loss_config
        )
        # A picture may be that of several seconds, each with a sound, label and draws of its own.
        frames = frames_or_maps(batch)
        pictures = len(jax.tree.leaves(frames)[0])
        by_picture = functools.partial(regrouped, pictures)
        drop_path, points = jax.random.split(key)
        rows = {
            "frames": frames,
            **{name: by_picture(batch[name], 2) for name in seen if name != "frames"},
            "targets": jax.tree.map(by_picture, targets),
            "weight": by_picture(weight, 2),
            "drop_path": keys_of(drop_path, pictures),
            "points": by_picture(keys_of(points, weight.size)),
        }
        return {**rows, "counts": (rows["weight"] > 0).any(1)}, shares

    def loss(parameters, rows, shares, progress):
        flat = {name: frames_of(rows[name]) for name in seen if name != "frames"}
        network = in_training.network(parameters)
        outputs = forward(network, {**flat, "frames": rows["frames"]}, rows["drop_path"])
        total, terms = set_prediction.set_prediction_loss(
            outputs["class_logits"],
            outputs["mask_logits"],
            jax.tree.map(frames_of, rows["targets"]),
            frames_of(rows["weight"] * rows["counts"][:, None]),
            loss_config,
            key=frames_of(rows["points"]),
            shares=shares,
        )
        return total, Aux({f"loss/{name}": term.sum() for name, term in terms.items()})

    slices = Slices(split, loss)

    def class_scores(parameters, flat):
        views = flat["prior_mask"].shape[1] if has_prior and flat["prior_mask"].ndim == 4 else 1
        if views > 1:  # of one picture, which is looked at once
            told = flat["prior_mask"].reshape(-1, *flat["prior_mask"].shape[2:])
            flat = {**flat, "audio": jnp.repeat(flat["audio"], views, 0), "prior_mask": told}
        outputs = forward(aavs.network(parameters), flat)
        scores = mask_classification.class_scores(
            outputs["class_logits"][-1], outputs["mask_logits"][-1], frame_size, label_size
        )
        if views > 1:
            scores = scores.reshape(-1, views, *scores.shape[1:]).mean(1)
        return scores

    @jax.jit
    def predict_frames(parameters, flat):
        scores = class_scores(parameters, flat)
        maps = {"confidence": mask_classification.confidence(scores)}
        if task == "binary":
            mask, maps["foreground"] = mask_classification.binary_prediction(scores)
            maps["softmax"] = mask_classification.softmax_map(scores)
            return Prediction(mask, maps)
        return Prediction(mask_classification.semantic_prediction(scores), maps)

    return Method(
        task=task,
        num_classes=num_classes,
        network=dataclasses.asdict(config),
        shapes=aavs.shapes,
        initial=aavs.initial,
        loss=slices.whole,
        slices=slices,
        predict=by_clip(predict_frames, seen),
        scores=by_clip(jax.jit(class_scores), seen),
        entries=(*seen, "labels", "labelled", "valid"),
        front_end=LogMel(config.audio.channels),
        counts=(lambda batch: weights(batch).any()) if data["drop_empty_clips"] else None,
        stills=True,
        sound_encoder=sound_encoder(config.audio),
        frame_encoder=_frame_encoder(config, data["image_size"]),
        parts=PARTS,
        resizable=RESIZABLE,
        pretrained=PRETRAINED,
        may_differ=MAY_DIFFER,
        training_only=DROP_PATH,
    )


def _frame_encoder(config: AAVSConfig, size: int) -> FrameEncoder:
    """The backbone, of frames of `size` pixels a side."""
    # Drop-path is no part of what is kept.
    sizes = dataclasses.replace(config.backbone, drop_path_rate=0.0)
    sides = [-(-size // (sizes.patch_size << level)) for level in range(len(sizes.depths))]

    return FrameEncoder(
        "backbone/",
        functools.partial(on_host, Swin, (sizes, config.dtype), _look),
        shapes=tuple((side, side, sizes.embed_dim << n) for n, side in enumerate(sides)),
        settings=f"{sizes} {config.dtype}",
        random_by="backbone.drop_path_rate" if config.backbone.drop_path_rate else "",
    )


def _look(backbone: Swin, frames: jax.Array) -> list[jax.Array]:
    return backbone(normalised(frames))
