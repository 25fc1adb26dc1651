"""Semantic scores (AVSS, VPO): IoU and F of each class, averaged over frames or over the set.

The scores per frame are AVSBench's (Zhou et al., IJCV 2024; avss/utils/compute_color_metrics.py),
which AVSegFormer, COMBO and Stepping Stones took over. They differ in what pads a clip and in the
class that their mean without background leaves out.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from aavs_jax.scoring.metrics import set_sums
from aavs_jax.scoring.metrics.counting import (
    add,
    empty_sum,
    f_score,
    frames_of,
    histogram,
    to_units,
    total,
)
from aavs_jax.scoring.metrics.protocols import Protocol

# CAVP's subset of frames with several sources: more than two ids, background among them, have more
# than a hundred pixels each (trainer/trainer_cavp_avss_image.py).
_MULTI_SOURCE_IDS, _MULTI_SOURCE_PIXELS = 2, 100


class Counts(NamedTuple):
    """Pixels of each frame and class, int32 [N, K], of those whose label is a class."""

    overlap: jax.Array
    predicted: jax.Array
    wanted: jax.Array


def init(rows: Sequence[Protocol], num_classes: int) -> dict[str, Any]:
    """Empty state of some protocols, by name."""
    return {row.name: _init(row, num_classes) for row in rows}


def _init(row: Protocol, num_classes: int) -> dict[str, Any]:
    if not row.frame_mean:
        return set_sums.init(num_classes, _SUBSETS[row.name])
    state = init_frames(num_classes)
    return {**state, "padding": jnp.zeros((), jnp.int32)} if row.padding else state


def update(
    states: Mapping[str, Any],
    rows: Sequence[Protocol],
    prediction: jax.Array,
    labels: jax.Array,
    valid: jax.Array,
) -> dict[str, Any]:
    """Adds a batch; arguments as for `metrics.update`, and the states' rows."""
    counts = count(prediction, labels, _num_classes(states[rows[0].name]))
    new = {}
    for row in rows:
        state = states[row.name]
        if row.frame_mean:
            new[row.name] = add_frames(state, counts, valid)
            if row.padding:
                new[row.name]["padding"] = state["padding"] + _padding(valid, row.padding)
        else:
            new[row.name] = _add_to_set(state, counts, valid, _SUBSETS[row.name])
    return new


def result(row: Protocol, state: Mapping[str, Any]) -> dict[str, Any]:
    """Scores of one protocol from its state on the host."""
    if row.frame_mean:
        return result_frames(state, row.no_background)
    return {**_SET_FIGURES[row.name](state), **set_sums.counts(state)}


def _num_classes(state: Mapping[str, Any]) -> int:
    return (state["all"]["wanted"] if "all" in state else state["iou"]).shape[-1]


# ------------------------------------------------------------------------------ per frame


def count(prediction: Any, labels: Any, classes: int) -> Counts:
    """Counts from class ids, integer [B, T, G, G]. Ids of `classes` and above belong to none:
    labels of them, as 255, take a pixel out of all counts."""
    prediction, labels = (
        jnp.minimum(frames_of(ids, jnp.int32), classes) for ids in (prediction, labels)
    )
    # One histogram of the pairs (label, prediction) tells all that is asked.
    bins = classes + 1
    pairs = histogram(labels * bins + prediction, bins * bins).reshape(-1, bins, bins)
    return Counts(
        overlap=jnp.diagonal(pairs, axis1=1, axis2=2)[:, :classes],
        predicted=jnp.sum(pairs[:, :classes], axis=1)[:, :classes],
        wanted=jnp.sum(pairs, axis=2)[:, :classes],
    )


def init_frames(num_classes: int) -> dict[str, jax.Array]:
    """Empty state of means over the frames of a class."""
    zero = jnp.zeros((), jnp.int32)
    return {
        "iou": empty_sum((num_classes,)),
        "f": empty_sum((num_classes,)),
        "seen": jnp.zeros((num_classes,), jnp.int32),
        "clips": zero,
        "frames": zero,
    }


def add_frames(
    state: Mapping[str, jax.Array], counts: Counts, valid: jax.Array
) -> dict[str, jax.Array]:
    """Per frame and class: IoU and F (beta^2 = 0.3), summed over the frames in which the class
    occurs in prediction or label."""
    overlap, predicted, wanted = counts
    union = predicted + wanted - overlap
    seen = (union > 0) & valid.reshape(-1, 1)
    iou = to_units(overlap / jnp.maximum(union, 1))
    f = to_units(f_score(overlap, predicted, wanted))
    return {
        "iou": add(state["iou"], jnp.where(seen, iou, 0)),
        "f": add(state["f"], jnp.where(seen, f, 0)),
        "seen": state["seen"] + jnp.sum(seen, axis=0, dtype=jnp.int32),
        "clips": state["clips"] + jnp.sum(valid.any(axis=1), dtype=jnp.int32),
        "frames": state["frames"] + jnp.sum(valid, dtype=jnp.int32),
    }


def _padding(valid: jax.Array, length: int) -> jax.Array:
    """How many frames the clips of a batch lack to `length`."""
    real = jnp.sum(valid, axis=1, dtype=jnp.int32)
    return jnp.sum(jnp.where(real > 0, jnp.maximum(length - real, 0), 0))


def result_frames(state: Mapping[str, Any], no_background: int) -> dict[str, Any]:
    """Means per class, then over all classes and over all but one (0 or -1).

    A class that no frame showed or predicted has score 0 and takes part in the means; without any
    frame at all the scores are NaN.
    """
    seen = np.asarray(state["seen"]).astype(np.int64)
    frames = int(state["frames"])
    iou, f = total(state["iou"]), total(state["f"])
    # Padding shows background and nothing else, and is predicted so: 1 each.
    background = np.arange(len(seen)) == 0
    padding = int(state.get("padding", 0)) * background
    seen, iou, f = (x + padding for x in (seen, iou, f))
    divisor = np.maximum(seen, 1) if frames else np.full(seen.shape, np.nan)
    iou, f = iou / divisor, f / divisor
    others = slice(1, None) if no_background == 0 else slice(None, -1)
    return {
        "mIoU": float(iou.mean()),
        "F": float(f.mean()),
        "mIoU_no_background": float(iou[others].mean()),
        "F_no_background": float(f[others].mean()),
        "mIoU_per_class": iou,
        "F_per_class": f,
        "frames_per_class": seen,
        "frames": frames,
        "clips": int(state["clips"]),
    }


# ------------------------------------------------------------------------------ per set


def _add_to_set(
    state: Mapping[str, Any], counts: Counts, valid: jax.Array, subsets: Sequence[str]
) -> dict[str, Any]:
    real = valid.reshape(-1)
    large = jnp.sum(counts.wanted > _MULTI_SOURCE_PIXELS, axis=1)
    chosen = {"all": real, "multi_source": real & (large > _MULTI_SOURCE_IDS)}
    return set_sums.add_frames(
        state, counts._asdict(), valid, {name: chosen[name] for name in subsets}
    )


def _cavp(state: Mapping[str, Any]) -> dict[str, float | int]:
    multi_source = set_sums.cavp(state["multi_source"])
    return {
        **set_sums.cavp(state["all"]),
        **{f"{name}_multi_source": value for name, value in multi_source.items()},
        "frames_multi_source": int(state["multi_source"]["frames"]),
    }


def _data_set(state: Mapping[str, Any]) -> dict[str, float | int]:
    return set_sums.data_set(state["all"])


_SUBSETS = {"cavp": ("all", "multi_source"), "data_set": ("all",)}
_SET_FIGURES = {"cavp": _cavp, "data_set": _data_set}
