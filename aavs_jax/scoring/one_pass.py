"""One pass over a split: every frame predicted, by a network or by files, and its scores."""

import contextlib
import dataclasses
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from aavs_jax.errors import UserError
from aavs_jax.methods.method import Method, Prediction
from aavs_jax.run.progress import compiling, progress_bar
from aavs_jax.scoring import metrics
from aavs_jax.state.sharding import local_rows, put_batch, put_state
from data_pipelines.loader import EvalLoader

# Called with a batch and the predictions for it, host arrays [B,T,G,G], both of this process only.
Observer = Callable[[Mapping[str, np.ndarray], Prediction], None]
# {protocol: what `metrics.result` gives for it}
Scores = dict[str, dict[str, Any]]

SELECTING = (metrics.PROTOCOL,)  # the protocol by whose scores checkpoints are chosen
# By network the shapes and protocols that it was compiled for.
_COMPILED: weakref.WeakKeyDictionary[Callable, set] = weakref.WeakKeyDictionary()
# Of a batch: what predictions are compared with; the other entries are what a network sees.
SCORED = ("labels", "labels_nearest", "position")
TRUTH = ("labels", "labelled", "objects")
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


@dataclasses.dataclass(frozen=True)
class Predictor:
    """What predicts: a network with its parameters, or masks that were written elsewhere.

    Attributes:
      task: "binary" or "semantic".
      num_classes: K.
      entries: names of the arrays of a batch that it reads.
      function: (parameters, arrays) -> Prediction, compiled where it is called.
      parameters: by path, on the mesh.
    """

    task: str
    num_classes: int
    entries: tuple[str, ...]
    function: Callable[[Any, Mapping[str, jax.Array]], Prediction]
    parameters: Any = None


def network(method: Method, parameters: Mapping[str, jax.Array]) -> Predictor:
    """A network with its parameters, which are by path and on the mesh."""
    read = tuple(name for name in method.entries if name not in TRUTH)
    return Predictor(method.task, method.num_classes, read, method.predict, parameters)


def given_masks(task: str, num_classes: int) -> Predictor:
    """Predictions that batches bring along as `masks`, see `mask_folders.ReadMasks`."""
    return Predictor(task, num_classes, ("masks",), _decided if task == "binary" else _as_they_are)


def score(
    predictor: Predictor,
    batches: EvalLoader,
    mesh: Mesh,
    *,
    description: str,
    protocols: tuple[str, ...] = SELECTING,
    observers: Iterable[Observer] = (),
) -> Scores:
    """Predicts every frame and computes scores.

    Args:
      predictor: from `network` or `given_masks`.
      batches: with labels_nearest, if `needs_nearest`; its length is the progress bar's.
      mesh: of the devices.
      description: what the progress bar says.
      protocols: by which scores are computed, see `metrics.PROTOCOLS`.
      observers: see every batch with its predictions.

    Returns:
      By protocol what `metrics.result` gives. Frames and clips without a label have no part in it,
      but are predicted for the observers, too.
    """
    task, num_classes = predictor.task, predictor.num_classes
    compiled = _COMPILED.setdefault(predictor.function, set())
    state = metrics.init(task, protocols, num_classes=num_classes, clips=batches.clips)
    state = put_state(state, mesh)
    bar = progress_bar(len(batches), 0, description, enabled=jax.process_index() == 0)
    before: list[tuple] = []  # the batch before, which observers see while the device computes

    def show() -> None:
        for batch, prediction in before:
            own = jax.tree.map(local_rows, prediction)
            for observe in observers:
                observe(batch, own)
        before.clear()

    with bar:
        for batch in batches:
            counted = {"counted": batch["valid"] & batch["labelled"]}
            scored = {name: batch[name] for name in SCORED if name in batch} | counted
            seen = {name: batch[name] for name in predictor.entries}
            arrays = put_batch(scored | seen, mesh)
            shapes = (
                task,
                num_classes,
                protocols,
                batch["valid"].size,
                *((name, arrays[name].shape[2:]) for name in sorted(arrays)),
            )
            # What is compiled is compiled by the first call, and that is waited for.
            new = shapes not in compiled
            with compiling(description, "the evaluation") if new else contextlib.nullcontext():
                prediction = predictor.function(
                    predictor.parameters, {name: arrays[name] for name in seen}
                )
                state = _update(state, prediction, {name: arrays[name] for name in scored})
                if new:
                    compiled.add(shapes)
                    jax.block_until_ready(state)
            show()
            if observers:
                before.append((batch, prediction))
            bar.update(1)
        show()
    return metrics.result(state)


@jax.jit
def _update(state, prediction, arrays):
    return metrics.update(
        state,
        prediction.classes,
        arrays["labels"],
        arrays["counted"],
        arrays["position"],
        maps={
            name: prediction.maps[ours] for name, ours in MAPS.items() if ours in prediction.maps
        },
        labels_nearest=arrays.get("labels_nearest"),
    )


@jax.jit
def _decided(_, arrays):
    # Of the binary task masks are 0 to 255, of 0 to 1.
    prediction, maps = metrics.from_grey(arrays["masks"])
    ours = {name: maps[theirs] for theirs, name in MAPS.items()}
    return Prediction(prediction.astype("uint8"), ours)


@jax.jit
def _as_they_are(_, arrays):
    return Prediction(arrays["masks"])


def to_rows(
    scores: Scores, task: str, class_names: tuple[str, ...], **labels: str | int
) -> list[dict[str, Any]]:
    """Scores as rows of results.json: stage, split, sound, prior, protocol, metric, value, clips,
    frames, and what else there is in `labels`. A value that is not defined, such as J of no frame,
    is None.

    For the semantic task also IoU and F of every class that occurs, by the first protocol that has
    them: where several do, they differ in nothing but what pads the background.

    Args:
      scores: from `score`.
      task: "binary" or "semantic".
      class_names: by class id.
      **labels: stage, split, sound and prior; others come last.
    """
    first = {name: labels.pop(name) for name in ("stage", "split", "sound", "prior")}
    rows, by_class = [], False
    for protocol, found in scores.items():
        values = {
            name: found[name]
            for name in metrics.PROTOCOLS[protocol].scores[task]
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
