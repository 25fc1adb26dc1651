"""One pass over a split: every frame predicted, by a network or by files, and its figures."""

import contextlib
import functools
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from aavs_jax.errors import UserError
from aavs_jax.methods.method import Method
from aavs_jax.run.progress import compiling, progress_bar
from aavs_jax.scoring import metrics
from aavs_jax.state.sharding import local_rows, put_batch, put_state
from data_pipelines.loader import EvalLoader

# Called with a batch and the predictions for it, uint8 [B,T,G,G], both of this process only.
Observer = Callable[[Mapping[str, np.ndarray], np.ndarray], None]
# {protocol: what `metrics.result` gives for it}
Figures = dict[str, dict[str, Any]]

SELECTING = (metrics.PROTOCOL,)  # the protocol by whose figures checkpoints are chosen
# By network the shapes and protocols that it was compiled for.
_COMPILED: weakref.WeakKeyDictionary[Callable, set] = weakref.WeakKeyDictionary()
MAPS = {"stepping_stones": "foreground", "softmax": "softmax"}  # of `metrics` -> of outputs


def protocols(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The names in config.eval.protocols.

    Raises:
      UserError: there is no such protocol, or none is named.
    """
    names = config["eval"]["protocols"]
    if "all" in (listed := [name.strip() for name in names.split(",")]) and len(listed) > 1:
        raise UserError(
            f"config.eval.protocols is {names!r}: 'all' stands alone; give it, or names of some"
        )
    try:
        return metrics.parse(names)
    except ValueError as error:
        raise UserError(f"config.eval.protocols is {names!r}: {error}") from None


def needs_nearest(task: str, names: Iterable[str]) -> bool:
    """Whether the labels are wanted a second time, resized by nearest."""
    return task == "binary" and "nearest" in metrics.labels_used(names)


def score(
    method: Method,
    parameters: Mapping[str, jax.Array],
    batches: EvalLoader,
    mesh: Mesh,
    *,
    description: str,
    protocols: tuple[str, ...] = SELECTING,
    observers: Iterable[Observer] = (),
) -> Figures:
    """Predicts every frame and computes the stage's figures.

    Args:
      method: network and readout.
      parameters: by path, on the mesh.
      batches: with labels_nearest, if `needs_nearest`; its length is the progress bar's.
      mesh: of the devices.
      description: what the progress bar says.
      protocols: by which figures are computed, see `metrics.PROTOCOLS`.
      observers: see every batch with its predictions.

    Returns:
      By protocol what `metrics.result` gives. Frames and clips without a label have no part in it,
      but are predicted for the observers, too.
    """

    def predict(arrays: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        return method.predict(
            parameters, arrays["frames"], arrays["audio"], arrays.get("prior_mask")
        )

    task = method.task, method.num_classes
    return _pass(predict, method.predict, *task, batches, mesh, description, protocols, observers)


def score_masks(
    task: str,
    num_classes: int,
    batches: EvalLoader,
    mesh: Mesh,
    *,
    description: str,
    protocols: tuple[str, ...] = SELECTING,
    observers: Iterable[Observer] = (),
) -> Figures:
    """The figures of predictions that batches bring along, as `masks`; otherwise like `score`.

    Args:
      task: "binary" (masks are 0 to 255, of 0 to 1) or "semantic" (class ids).
      num_classes: K.
      batches: with masks, see `mask_folders.ReadMasks`.
      mesh: as for `score`.
      description: as for `score`.
      protocols: as for `score`.
      observers: as for `score`.
    """

    def predict(arrays: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        return _decided(arrays["masks"]) if task == "binary" else {"prediction": arrays["masks"]}

    what = _decided, task, num_classes
    return _pass(predict, *what, batches, mesh, description, protocols, observers)


@jax.jit
def _decided(grey):
    prediction, maps = metrics.from_grey(grey)
    ours = {name: maps[theirs] for theirs, name in MAPS.items()}
    return {"prediction": prediction.astype("uint8"), **ours}


def _pass(
    predict, network, task, num_classes, batches, mesh, description, protocols, observers
) -> Figures:
    """`network` is the jitted function by which `predict` predicts."""
    compiled = _COMPILED.setdefault(network, set())
    state = metrics.init(task, protocols, num_classes=num_classes, clips=batches.clips)
    state = put_state(state, mesh)
    bar = progress_bar(len(batches), 0, description, enabled=jax.process_index() == 0)
    with bar:
        for batch in batches:
            clips, seconds = batch["valid"].shape
            flat = {
                name: batch[name].reshape(-1, *batch[name].shape[2:])
                for name in ("frames", "audio", "prior_mask", "labels", "labels_nearest", "masks")
                if name in batch
            }
            flat["counted"] = (batch["valid"] & batch["labelled"]).reshape(-1)
            # Rows are shared by the devices, and there may be fewer clips than those.
            flat["position"] = np.repeat(batch["position"], seconds)
            arrays = put_batch(flat, mesh)
            wanted = {n: arrays[n] for n in arrays.keys() - {"frames", "audio", "prior_mask"}}
            shapes = (
                task,
                num_classes,
                protocols,
                *((name, arrays[name].shape) for name in sorted(arrays)),
            )
            # What is compiled is compiled by the first call, and that is waited for.
            new = shapes not in compiled
            with compiling(description, "the evaluation") if new else contextlib.nullcontext():
                outputs = predict(arrays)
                state = _update(state, outputs, wanted, seconds)
                if new:
                    compiled.add(shapes)
                    jax.block_until_ready(state)
            predictions = local_rows(outputs["prediction"]) if observers else None
            for observe in observers:
                observe(batch, predictions.reshape(clips, seconds, *predictions.shape[1:]))
            bar.update(1)
    return metrics.result(state)


@functools.partial(jax.jit, static_argnames="seconds")
def _update(state, outputs, arrays, seconds):
    def clips(array):
        return array.reshape(-1, seconds, *array.shape[1:])

    nearest = arrays.get("labels_nearest")
    return metrics.update(
        state,
        clips(outputs["prediction"]),
        clips(arrays["labels"]),
        clips(arrays["counted"]),
        clips(arrays["position"])[:, 0],
        maps={name: clips(outputs[ours]) for name, ours in MAPS.items() if ours in outputs},
        labels_nearest=None if nearest is None else clips(nearest),
    )


def to_rows(
    figures: Figures, task: str, class_names: tuple[str, ...], **labels: str | int
) -> list[dict[str, Any]]:
    """Figures as rows of results.json: stage, split, sound, prior, protocol, metric, value, clips,
    frames, and what else there is in `labels`. A value that is not defined, such as J of no frame,
    is None.

    For the semantic task also IoU and F of every class that occurs, by the first protocol that has
    them: where several do, they differ in nothing but what pads the background.

    Args:
      figures: from `score`.
      task: "binary" or "semantic".
      class_names: by class id.
      **labels: stage, split, sound and prior; others come last.
    """
    first = {name: labels.pop(name) for name in ("stage", "split", "sound", "prior")}
    rows, by_class = [], False
    for protocol, found in figures.items():
        values = {
            name: found[name]
            for name in metrics.PROTOCOLS[protocol].figures[task]
            # Where no frame has several sources there is nothing to say of them.
            if found.get("frames_multi_source", 1) or not name.endswith("_multi_source")
        }
        if not by_class and "frames_per_class" in found:
            by_class = True
            for metric, name in (("IoU", "mIoU_per_class"), ("F", "F_per_class")):
                for class_id, class_name in enumerate(class_names):
                    if found["frames_per_class"][class_id]:
                        values[f"{metric}/{class_name}"] = found[name][class_id]
        counts = {"clips": found["clips"], "frames": found["frames"]}
        rows += [
            {**first, "protocol": protocol, "metric": metric, "value": _defined(value)}
            | counts
            | labels
            for metric, value in values.items()
        ]
    return rows


def _defined(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


class Showcase:
    """Observer that keeps the predictions and labels of some clips, for the report.

    Pictures show what is ignored as background: it has no colour, and belongs to no class.
    """

    def __init__(self, names: Iterable[str]):
        self._names = set(names)
        self.predictions: dict[str, np.ndarray] = {}  # clip -> uint8 [T,G,G]
        self.labels: dict[str, np.ndarray] = {}

    def __call__(self, batch: Mapping[str, np.ndarray], predictions: np.ndarray) -> None:
        for row, clip in enumerate(batch["ids"]):
            if clip in self._names:
                self.predictions[str(clip)] = predictions[row]
                labels = batch["labels"][row]
                self.labels[str(clip)] = np.where(labels == metrics.IGNORED, 0, labels)
