"""One pass of a network over a split: every frame predicted, and its figures."""

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from aavs_jax import metrics
from aavs_jax.method import Method
from aavs_jax.progress import progress_bar
from aavs_jax.sharding import local_rows, put_batch, put_state

# Called with a batch and the predictions for it, uint8 [B,T,G,G], both of this process only.
Observer = Callable[[Mapping[str, np.ndarray], np.ndarray], None]

FIGURES = {
    "binary": ("J", "F", "J&F"),
    "semantic": ("mIoU", "F", "mIoU_no_background", "F_no_background"),
}


def score(
    method: Method,
    parameters: Mapping[str, jax.Array],
    batches: Iterable[Mapping[str, np.ndarray]],
    mesh: Mesh,
    *,
    description: str,
    observers: Iterable[Observer] = (),
) -> dict[str, Any]:
    """Predicts every frame and computes the stage's figures, protocol `stepping_stones`.

    Args:
      method: network and readout.
      parameters: by path, on the mesh.
      batches: an `eval_loader`; its length is the progress bar's.
      mesh: of the devices.
      description: what the progress bar says.
      observers: see every batch with its predictions.

    Returns:
      What `metrics.binary_result` or `metrics.semantic_result` return.
    """
    binary = method.task == "binary"
    state = metrics.binary_init() if binary else metrics.semantic_init(method.num_classes)
    state = put_state(state, mesh)
    # Frames and clips without a label have no figure, but masks are drawn for them, too.
    bar = progress_bar(len(batches), 0, description, enabled=jax.process_index() == 0)
    with bar:
        for batch in batches:
            clips, seconds = batch["valid"].shape
            flat = {
                name: batch[name].reshape(-1, *batch[name].shape[2:])
                for name in ("frames", "audio", "prior_mask", "labels")
                if name in batch
            }
            flat["counted"] = (batch["valid"] & batch["labelled"]).reshape(-1)
            arrays = put_batch(flat, mesh)
            outputs = method.predict(
                parameters, arrays["frames"], arrays["audio"], arrays.get("prior_mask")
            )
            update = _update_binary if binary else _update_semantic
            state = update(state, outputs, arrays["labels"], arrays["counted"], seconds)
            predictions = local_rows(outputs["prediction"]) if observers else None
            for observe in observers:
                observe(batch, predictions.reshape(clips, seconds, *predictions.shape[1:]))
            bar.update(1)
    return metrics.binary_result(state) if binary else metrics.semantic_result(state)


@functools.partial(jax.jit, static_argnames="seconds")
def _update_binary(state, outputs, labels, counted, seconds):
    def clips(array):
        return array.reshape(-1, seconds, *array.shape[1:])

    return metrics.binary_update(
        state,
        clips(outputs["foreground"]),
        clips(outputs["prediction"]),
        clips(labels),
        clips(counted),
    )


@functools.partial(jax.jit, static_argnames="seconds")
def _update_semantic(state, outputs, labels, counted, seconds):
    def clips(array):
        return array.reshape(-1, seconds, *array.shape[1:])

    return metrics.semantic_update(
        state, clips(outputs["prediction"]), clips(labels), clips(counted)
    )


def to_rows(
    figures: Mapping[str, Any], task: str, class_names: tuple[str, ...], **labels: str
) -> list[dict[str, Any]]:
    """Figures as rows of results.json: stage, split, sound, prior, protocol, metric, value, clips,
    frames; for the semantic task also IoU and F of every class.

    Args:
      figures: from `score`.
      task: "binary" or "semantic".
      class_names: by class id.
      **labels: stage, split, sound and prior.
    """
    values = {name: figures[name] for name in FIGURES[task]}
    if task == "semantic":
        for metric, name in (("IoU", "mIoU_per_class"), ("F", "F_per_class")):
            for class_id, class_name in enumerate(class_names):
                if figures["frames_per_class"][class_id]:
                    values[f"{metric}/{class_name}"] = figures[name][class_id]
    return [
        {
            **labels,
            "protocol": metrics.PROTOCOL,
            "metric": metric,
            "value": float(value),
            "clips": figures["clips"],
            "frames": figures["frames"],
        }
        for metric, value in values.items()
    ]


class Showcase:
    """Observer that keeps the predictions and labels of some clips, for the report."""

    def __init__(self, names: Iterable[str]):
        self._names = set(names)
        self.predictions: dict[str, np.ndarray] = {}  # clip -> uint8 [T,G,G]
        self.labels: dict[str, np.ndarray] = {}

    def __call__(self, batch: Mapping[str, np.ndarray], predictions: np.ndarray) -> None:
        for row, clip in enumerate(batch["ids"]):
            if clip in self._names:
                self.predictions[str(clip)] = predictions[row]
                self.labels[str(clip)] = batch["labels"][row]
