"""A method is a network, an objective and a readout. Here they are joined; neighbours of AAVS go in
beside it, and get data, schedule, metrics and commands for nothing."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx

from aavs_jax.errors import UserError
from aavs_jax.methods.aavs.config import AAVSConfig
from aavs_jax.methods.aavs.init import abstract_model, initial_parameters
from aavs_jax.methods.objectives import mask_classification, set_prediction

Parameters = Mapping[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Method:
    """One stage's network with what trains it and what reads it; functions of plain arrays.

    Attributes:
      task: "binary" or "semantic".
      num_classes: K, background counted.
      network: its sizes, nested plain values as `AAVSConfig.from_dict` takes them; {} where it is
        no AAVS, and what it learns can then not be evaluated by its folder alone.
      shapes: path -> ShapeDtypeStruct of every parameter.
      initial: (seed, only=None) -> parameters, as host arrays; only: the paths wanted, None: all.
      loss: (parameters, batch, key) -> (total, scalars); batch as in `data_pipelines.loader`,
        key for drop-path and for the points of the loss. To be jitted by the caller.
      predict: (parameters, frames [N,...], audio [N,...], prior [N,...] or None) ->
        {"prediction": uint8 [N,G,G] class ids (binary: 0/1)} and, for the binary task,
        {"foreground", "softmax": float32 [N,G,G]}, the maps for the F-score: Stepping Stones' and
        that of other code bases. Compiled once for each N.
      counts: batch -> bool scalar, whether any frame of it has part in the loss, where a batch
        without any is no step of the optimiser; None: every batch is a step. To be jitted by the
        caller.
    """

    task: str
    num_classes: int
    network: dict[str, Any]
    shapes: dict[str, jax.ShapeDtypeStruct]
    initial: Callable[..., dict[str, np.ndarray]]
    loss: Callable[..., tuple[jax.Array, dict[str, jax.Array]]]
    predict: Callable[..., dict[str, jax.Array]]
    counts: Callable[[Mapping[str, jax.Array]], jax.Array] | None = None


def make_method(stage: Mapping[str, Any], num_classes: int, *, ignores: bool = False) -> Method:
    """The method that a stage's config asks for.

    Args:
      stage: `method`, `task`, `model`, `loss`, `prior`, `data` as in configs/base.py.
      num_classes: K of the data set, background counted; the binary task has 2.
      ignores: whether the labels it is trained on may have ignored pixels, see
        `losses.LossConfig`.

    Raises:
      UserError: no such method, or a model or loss that cannot be.
    """
    if stage["method"] not in METHODS:
        raise UserError(
            f"the method {stage['method']!r} is none of {', '.join(METHODS)}: correct the config"
        )
    try:
        classes = 2 if stage["task"] == "binary" else num_classes
        return METHODS[stage["method"]](stage, classes, ignores)
    # What sizes of 0 and empty lists run into is not only the ValueErrors of the configurations.
    except (ValueError, TypeError, IndexError, ArithmeticError) as error:
        raise UserError(f"the config's model or loss cannot be: {error}") from error


def _aavs(stage: Mapping[str, Any], num_classes: int, ignores: bool) -> Method:
    task, data = stage["task"], stage["data"]
    has_prior = stage["prior"]["train"] != "none"
    config = AAVSConfig.from_dict(
        {**stage["model"], "task": task, "num_classes": num_classes, "prior": has_prior}
    )
    loss_config = set_prediction.LossConfig.from_dict(
        {**stage["loss"], "max_targets": data["max_targets"], "ignores": ignores}
    )
    frame_size = (data["image_size"],) * 2
    label_size = (data["label_size"],) * 2

    model = abstract_model(config)
    graphdef, state = nnx.split(model)
    flat = nnx.to_flat_state(state)
    places = {"/".join(map(str, path)): path for path, _ in flat}
    shapes = {
        name: jax.ShapeDtypeStruct(variable.shape, variable.dtype)
        for name, (_, variable) in zip(places, flat, strict=True)
    }

    def network(parameters: Parameters) -> nnx.Module:
        nested: dict = {}
        for name, path in places.items():
            inner = nested
            for key in path[:-1]:
                inner = inner.setdefault(key, {})
            inner[path[-1]] = parameters[name]
        return nnx.merge(graphdef, nested)

    def weights(batch):
        return set_prediction.frame_weights(
            batch["labels"], batch["labelled"], batch["valid"], data["drop_empty_clips"]
        )

    def loss(parameters, batch, key):
        flat_batch = {
            name: batch[name].reshape(-1, *batch[name].shape[2:])
            for name in ("frames", "audio", "labels", "prior_mask")
            if name in batch
        }
        drop_path, points = jax.random.split(key)
        outputs = network(parameters)(
            flat_batch["frames"],
            flat_batch["audio"],
            flat_batch["prior_mask"] if has_prior else None,
            rngs=nnx.Rngs(dropout=drop_path),
        )
        weight = weights(batch)
        targets = set_prediction.make_targets(
            flat_batch["labels"], loss_config.max_targets, num_classes, frame_size
        )
        total, terms = set_prediction.set_prediction_loss(
            outputs["class_logits"],
            outputs["mask_logits"],
            targets,
            weight.reshape(-1),
            loss_config,
            key=points,
        )
        return total, {f"loss/{name}": term.sum() for name, term in terms.items()}

    @jax.jit
    def predict(parameters, frames, audio, prior_mask=None):
        outputs = network(parameters)(frames, audio, prior_mask)
        scores = mask_classification.class_scores(
            outputs["class_logits"][-1], outputs["mask_logits"][-1], frame_size, label_size
        )
        if task == "binary":
            mask, foreground = mask_classification.binary_prediction(scores)
            softmax = mask_classification.softmax_map(scores)
            return {"prediction": mask, "foreground": foreground, "softmax": softmax}
        return {"prediction": mask_classification.semantic_prediction(scores)}

    return Method(
        task=task,
        num_classes=num_classes,
        network=dataclasses.asdict(config),
        shapes=shapes,
        initial=functools.partial(initial_parameters, model),
        loss=loss,
        predict=predict,
        counts=(lambda batch: weights(batch).any()) if data["drop_empty_clips"] else None,
    )


METHODS: dict[str, Callable[[Mapping[str, Any], int, bool], Method]] = {"aavs": _aavs}
