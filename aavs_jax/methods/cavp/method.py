"""CAVP as a method: its network, a training step, and how its logits are read."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from aavs_jax.methods.cavp.config import CAVPConfig, CAVPLoss
from aavs_jax.methods.cavp.network import CAVP
from aavs_jax.methods.cavp.objective import Pictures, draw, train_step
from aavs_jax.methods.cavp.pairing import Queue, classes_shown
from aavs_jax.methods.encoders import SOUND, vggish
from aavs_jax.methods.functional import functional
from aavs_jax.methods.method import Aux, Method, Prediction, Pretrained, Resizable
from aavs_jax.methods.objectives.mask_classification import confidence
from aavs_jax.methods.objectives.targets import IGNORED
from aavs_jax.methods.parts.layers import resize_bilinear
from aavs_jax.methods.rows import by_clip, frames_of
from data_pipelines.loading.power_spectrogram import SILENCE, PowerMel

SIZES = CAVPConfig
LOSS = CAVPLoss
STRIDE = 4  # of the logits
SEEN = ("frames", "audio")  # entries of a batch that predictions are made of


def _deep_stem(layers: int) -> Pretrained:
    return Pretrained(
        ("resnet", "cavp"),
        f"a ResNet-{layers} with a deep stem, as CAVP's code takes it",
        f"python -m aavs_jax.convert resnet{layers}.pth --out weights/resnet{layers}_deep_stem",
    )


PRETRAINED = {"backbone": _deep_stem(50), "vggish": vggish("")}
# The sound encoder of 3 s, VPO's, begins at random.
PRETRAINED_VPO = {"backbone": _deep_stem(101)}
PARTS = {
    r"backbone/.*": ("the picture encoder", None),
    r"(aspp|reduction|reduction_norm)/.*": ("ASPP and the reduction", None),
    r"projector/.*": ("the projector", 4),
    r"fusion/.*": ("the fusion", None),
    r"head/.*": ("the head", None),
    r"audio_encoder/.*": ("the sound encoder", None),
}
# Of training alone, or decided by the files that weights come from and not told by them.
MAY_DIFFER = frozenset(
    {"task", "num_classes", "dtype", "published_excerpts", "audio.fully_connected"}
)


def make(stage: Mapping[str, Any], num_classes: int, ignores: bool) -> Method:
    """See `aavs_jax.methods.make_method`; K here is that of the stage's task.

    Raises:
      ValueError: sizes or loss settings that cannot be.
    """
    task, data = stage["task"], stage["data"]
    config = CAVPConfig.from_dict(
        {
            **stage["model"],
            "task": task,
            "num_classes": num_classes,
            "prior": stage["prior"]["train"] != "none",
        }
    )
    loss_config = CAVPLoss(**stage["loss"])
    if data["drop_empty_clips"]:
        raise ValueError(
            "this network, CAVP, learns from clips without sources: set drop_empty_clips to False"
        )
    if data.get("batch_size", 2) * data.get("seconds", 2) < 2:
        raise ValueError(
            "batch norms, which CAVP has, want at least two frames: set batch_size to 2 or more"
        )
    label_size = (data["label_size"],) * 2
    cavp = functional(CAVP, config)
    front_end = PowerMel(config.audio.channels, config.heard, config.published_excerpts)
    # Of the binary task no label says what sounds, and classes cannot be told apart.
    by_label = task == "semantic" and loss_config.classes == "labels"
    memory = _memory(loss_config, task, num_classes, data.get("batch_size", 1), front_end)

    def loss(parameters, batch, key, progress):
        network = cavp.network(parameters)
        pictures = _pictures(batch, num_classes, by_label)
        grid = tuple(-(-side // STRIDE) for side in pictures.frames.shape[1:3])
        step = train_step(
            network,
            pictures,
            draw(key, len(pictures.frames), grid),
            loss_config,
            Queue(parameters["queue/sounds"], parameters["queue/seen"]) if memory else None,
            progress > _share_before_replacing(stage, loss_config),
        )
        total = step.terms["cross_entropy"]
        if "contrastive" in step.terms:
            total = total + loss_config.contrastive_weight * step.terms["contrastive"]
        scalars = {f"loss/{name}": term for name, term in step.terms.items()}
        if step.pairs is not None:
            scalars["pairs/matching"] = step.pairs.match.mean()
            scalars["pairs/replaced"] = step.pairs.replaced.mean()
        remembered = {}
        if memory:
            remembered = {"queue/sounds": step.queue.sounds, "queue/seen": step.queue.seen}
        return total, Aux(scalars, cavp.statistics(network), remembered)

    @jax.jit
    def class_scores(parameters, flat):
        logits = cavp.network(parameters)(flat["frames"], flat["audio"], training=False)
        return jax.nn.softmax(resize_bilinear(logits, label_size, axes=(1, 2)))

    @jax.jit
    def predict_frames(parameters, flat):
        scores = class_scores(parameters, flat)
        maps = {"confidence": confidence(scores)}
        if task == "binary":
            maps["foreground"] = maps["softmax"] = scores[..., 1]
        return Prediction(scores.argmax(-1).astype(jnp.uint8), maps)

    last = len(config.audio.fully_connected)
    return Method(
        task=task,
        num_classes=num_classes,
        network=dataclasses.asdict(config),
        shapes=cavp.shapes,
        initial=cavp.initial,
        loss=loss,
        predict=by_clip(predict_frames, SEEN),
        scores=by_clip(class_scores, SEEN),
        entries=(*SEEN, "labels", "labelled", "valid", "objects"),
        front_end=front_end,
        mutable=cavp.mutable,
        memory=memory,
        parts=PARTS,
        resizable={
            r"head/classifier/(kernel|bias)": Resizable(-1, "classes"),
            # VGGish's own embedding is 128 wide.
            rf"{SOUND}fully_connected/{last}/(kernel|bias)": Resizable(-1, "channels"),
        },
        pretrained=PRETRAINED if config.heard == 1 else PRETRAINED_VPO,
        may_differ=MAY_DIFFER,
    )


# By the public script for AVSBench-semantic: the trainer makes the first eight of twelve groups ten
# times faster, which here are the encoder, projector and fusion, and not the head.
PUBLISHED_SEMANTIC = ((r"(backbone|aspp|reduction|reduction_norm|projector|fusion)/.*", 10.0),)


def as_published(stage: Mapping[str, Any]) -> dict[str, Any]:
    """A stage's keys changed into what the public code does where it is not what the paper means.

    Sounds are cut by Python's slices; a queue that is not full lends silence; with stereo sound
    pairs are of features, and those that would be replaced are called right; and the script for
    AVSBench-semantic trains the wrong parameters ten times faster.
    """
    model = {**stage["model"], "published_excerpts": True}
    loss = {**stage["loss"], "silence_in_queue": True}
    if model["audio"]["channels"] == 2 and stage["task"] == "semantic":
        loss["pairs"] = "features"
    phases = stage["phases"]
    if stage["task"] == "semantic" and model["heard"] == 1:
        phases = {
            name: {**phase, "optimizer": phase["optimizer"] | {"multipliers": PUBLISHED_SEMANTIC}}
            if phase["optimizer"]["multipliers"]
            else phase
            for name, phase in phases.items()
        }
    return {**stage, "model": model, "loss": loss, "phases": phases}


def _share_before_replacing(stage: Mapping[str, Any], loss: CAVPLoss) -> float:
    """The share of a phase after which sounds are replaced, a rounding error less."""
    epochs = [phase["epochs"] for phase in stage.get("phases", {}).values()] or [1.0]
    return loss.replaced_after_epochs / epochs[0] - 1e-6


def _memory(
    loss: CAVPLoss, task: str, num_classes: int, batch_size: int, front_end: PowerMel
) -> dict[str, np.ndarray]:
    """The queue of sounds of each class at first: silence. {} where no sound is ever replaced."""
    if not loss.replaces or task == "binary":
        return {}
    row = front_end(np.zeros((0, front_end.channels), np.float32), 1)[0]
    shape = (num_classes, loss.queue or batch_size, *row.shape)
    return {
        "queue/sounds": np.broadcast_to(np.float32(SILENCE), shape),
        "queue/seen": np.zeros(num_classes, np.int32),
    }


def _pictures(batch: Mapping[str, jax.Array], num_classes: int, by_label: bool) -> Pictures:
    """The frames of a training batch; what is no label, or padding, is ignored in all pixels."""
    flat = {name: frames_of(batch[name]) for name in (*SEEN, "labels")}
    counts = frames_of(batch["labelled"] & batch["valid"])[:, None, None]
    labels = jnp.where(counts, flat["labels"].astype(jnp.int32), IGNORED)
    if by_label:
        classes = classes_shown(labels, num_classes)
    else:
        classes = jnp.repeat(batch["objects"], batch["labels"].shape[1], axis=0)
    return Pictures(flat["frames"], flat["audio"], labels, classes)
