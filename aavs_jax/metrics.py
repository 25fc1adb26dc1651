"""Streaming metrics, protocol `stepping_stones` (AAVS.md section 5).

The definitions are those of the evaluation published with "Stepping Stones" (ECCV 2024, arXiv
2407.11820), itself descended from AVSBench (Zhou et al., ECCV 2022). Other code bases average
differently under the same names, so a figure always goes with its protocol.

A state is a dict of int32 arrays on the device. Values in [0, 1] are summed as integers in units of
2^-24, and integer sums do not depend on their order: batch size, padding, splitting and number of
devices leave every bit of a result as it is (the scores per frame, a few float32 operations each,
are at most one unit of 2^-24 apart where compilers round them differently). Against the definition
in real numbers a mean is off by 1.5e-7 at most. Results are computed on the host in float64.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

PROTOCOL = "stepping_stones"

BETA_SQUARED = 0.3

# Fixed point: 2^24 is the finest unit float32 resolves just below 1. A sum of such integers is kept
# as two int32, upper and lower 12 bits apart, which has room for 2^31 / 2^12 values.
_UNIT = 2**24
_HALF_BITS = 12
LARGEST_COUNT = 2**31 // 2**_HALF_BITS - 1
LARGEST_CLIP = 2**31 // _UNIT - 1

_THRESHOLDS = 255


def thresholds() -> np.ndarray:
    """float32 [255], ascending: evenly spaced from 0 to 1 - 1e-10, which float32 makes 1.

    The rule is `torch.linspace`'s, which the reference calls: one float32 step, counted up from the
    start in the lower half and down from the end in the upper half, each with a single rounding.
    (`numpy.linspace` differs in the last bit of ten thresholds.)
    """
    step = np.float64(np.float32(1.0 - 1e-10) / np.float32(_THRESHOLDS - 1))
    index = np.arange(_THRESHOLDS)
    upward, downward = step * index, 1.0 - step * (_THRESHOLDS - 1 - index)
    return np.where(index < _THRESHOLDS // 2, upward, downward).astype(np.float32)


def binary_init() -> dict[str, jax.Array]:
    """Empty state of the binary metrics (S4, MS3; protocol `stepping_stones`)."""
    zero = jnp.zeros((), jnp.int32)
    return {"J": _empty_sum(()), "F": _empty_sum(()), "clips": zero, "frames": zero}


def binary_update(
    state: dict[str, jax.Array],
    scores_fmap: jax.Array,
    masks: jax.Array,
    labels: jax.Array,
    valid: jax.Array,
) -> dict[str, jax.Array]:
    """Adds a batch of clips to the binary metrics (protocol `stepping_stones`).

    J per frame: intersection / union; where the target is empty, the share of pixels that are
    rejected. Per clip: mean over its frames. F per frame: beta^2 = 0.3 at 255 thresholds, positive
    where map >= threshold. Per clip: mean over the frames whose target is not empty, at each
    threshold, then the best threshold; 0 if no frame has a target. Clips count alike. NaN in
    the map is positive at no threshold. The reference's additions to denominators (1e-7, 1e-20)
    are below float32's resolution for the counts at hand.

    Args:
        state: from `binary_init`, at most LARGEST_COUNT clips.
        scores_fmap: float [B, T, G, G], the map for F in [0, 1] (AAVS.md section 4).
        masks: integer or bool [B, T, G, G], the predicted mask.
        labels: integer or bool [B, T, G, G], not 0 is foreground.
        valid: bool [B, T], real frames. A clip without any is not counted.

    Returns:
        The new state.

    Raises:
        ValueError: clips of more than LARGEST_CLIP frames.
    """
    clips, frames = valid.shape
    if frames > LARGEST_CLIP:
        raise ValueError(f"a clip has {frames} frames; binary metrics take at most {LARGEST_CLIP}")
    valid = jnp.asarray(valid, bool)
    scores = jnp.asarray(scores_fmap).astype(jnp.float32).reshape(clips * frames, -1)
    positive = (jnp.asarray(masks) != 0).reshape(clips * frames, -1)
    wanted = (jnp.asarray(labels) != 0).reshape(clips * frames, -1)
    size = jnp.sum(wanted, axis=1)

    rejected = jnp.sum(~positive & ~wanted, axis=1)
    overlap = jnp.where(size > 0, jnp.sum(positive & wanted, axis=1), rejected)
    union = jnp.where(size > 0, jnp.sum(positive | wanted, axis=1), wanted.shape[1])
    per_frame = _to_units(overlap / union).reshape(clips, frames)
    real = jnp.sum(valid, axis=1)
    clip_j = _rounded_mean(jnp.sum(jnp.where(valid, per_frame, 0), axis=1), real)

    # One histogram over the thresholds, target pixels apart, tells what all 255 comparisons would.
    level = _thresholds_reached(scores)
    levels = _THRESHOLDS + 1
    histogram = _histogram(level + levels * wanted, 2 * levels).reshape(-1, 2, levels)
    above = jnp.cumsum(histogram[..., ::-1], axis=-1)[..., ::-1][..., 1:]
    per_threshold = _to_units(_f_score(above[:, 1], above.sum(axis=1), size[:, None]))
    usable = valid & (size > 0).reshape(clips, frames)
    per_threshold = per_threshold.reshape(clips, frames, _THRESHOLDS)
    best = jnp.max(jnp.sum(jnp.where(usable[..., None], per_threshold, 0), axis=1), axis=1)
    clip_f = _rounded_mean(best, jnp.sum(usable, axis=1))

    return {
        "J": _add(state["J"], clip_j),
        "F": _add(state["F"], clip_f),
        "clips": state["clips"] + jnp.sum(real > 0, dtype=jnp.int32),
        "frames": state["frames"] + jnp.sum(valid, dtype=jnp.int32),
    }


def binary_result(state: dict[str, Any]) -> dict[str, float | int]:
    """Figures of the binary metrics (protocol `stepping_stones`), on the host.

    Returns:
        {"J", "F", "J&F"} as fractions (NaN if no clip was seen), {"clips", "frames"} as counts.
    """
    clips = int(state["clips"])
    j, f = (float(_total(state[name]) / clips) if clips else float("nan") for name in "JF")
    return {"J": j, "F": f, "J&F": (j + f) / 2, "clips": clips, "frames": int(state["frames"])}


def semantic_init(num_classes: int) -> dict[str, jax.Array]:
    """Empty state of the semantic metrics (AVSS; protocol `stepping_stones`) for K classes."""
    zero = jnp.zeros((), jnp.int32)
    return {
        "iou": _empty_sum((num_classes,)),
        "f": _empty_sum((num_classes,)),
        "seen": jnp.zeros((num_classes,), jnp.int32),
        "clips": zero,
        "frames": zero,
    }


def semantic_update(
    state: dict[str, jax.Array], prediction: jax.Array, labels: jax.Array, valid: jax.Array
) -> dict[str, jax.Array]:
    """Adds a batch of clips to the semantic metrics (protocol `stepping_stones`).

    Per frame and class, background included: IoU and F (beta^2 = 0.3), summed over frames; counted
    are the frames in which the class occurs in prediction or label.

    Args:
        state: from `semantic_init`, at most LARGEST_COUNT frames.
        prediction: integer [B, T, G, G], class ids.
        labels: integer [B, T, G, G], class ids. Ids of K and above belong to no class.
        valid: bool [B, T], real frames.

    Returns:
        The new state.
    """
    valid = jnp.asarray(valid, bool)
    classes = state["seen"].shape[0]
    prediction = _class_ids(prediction, valid.size, classes)
    labels = _class_ids(labels, valid.size, classes)
    common = jnp.where(prediction == labels, labels, classes)
    predicted, wanted, overlap = (
        _histogram(ids, classes + 1)[:, :classes] for ids in (prediction, labels, common)
    )
    union = predicted + wanted - overlap
    seen = (union > 0) & valid.reshape(-1, 1)
    iou = _to_units(overlap / jnp.maximum(union, 1))
    f = _to_units(_f_score(overlap, predicted, wanted))
    return {
        "iou": _add(state["iou"], jnp.where(seen, iou, 0)),
        "f": _add(state["f"], jnp.where(seen, f, 0)),
        "seen": state["seen"] + jnp.sum(seen, axis=0, dtype=jnp.int32),
        "clips": state["clips"] + jnp.sum(valid.any(axis=1), dtype=jnp.int32),
        "frames": state["frames"] + jnp.sum(valid, dtype=jnp.int32),
    }


def semantic_result(state: dict[str, Any]) -> dict[str, Any]:
    """Figures of the semantic metrics (protocol `stepping_stones`), on the host.

    A class that no frame showed or predicted has score 0 and takes part in the means; without any
    frame at all the figures are NaN.

    Returns:
        {"mIoU", "F"}: means over all K classes; {"mIoU_no_background", "F_no_background"}: over
        classes from 1; {"mIoU_per_class", "F_per_class"}: float64 [K]; "frames_per_class": int64
        [K], the divisors; {"frames", "clips"}: counts.
    """
    seen = np.asarray(state["seen"]).astype(np.int64)
    frames = int(state["frames"])
    divisor = np.maximum(seen, 1) if frames else np.full(seen.shape, np.nan)
    iou, f = _total(state["iou"]) / divisor, _total(state["f"]) / divisor
    return {
        "mIoU": float(iou.mean()),
        "F": float(f.mean()),
        "mIoU_no_background": float(iou[1:].mean()),
        "F_no_background": float(f[1:].mean()),
        "mIoU_per_class": iou,
        "F_per_class": f,
        "frames_per_class": seen,
        "frames": frames,
        "clips": int(state["clips"]),
    }


def _thresholds_reached(scores: jax.Array) -> jax.Array:
    """int32, for each score how many thresholds it reaches (0 to 255); NaN reaches none.

    Threshold i lies within a rounding of i/254. So the nearest i is the only one in doubt, and one
    comparison settles it exactly: the same answer as 255 comparisons.
    """
    scaled = jnp.where(jnp.isnan(scores), 0.0, scores) * (_THRESHOLDS - 1)
    nearest = jnp.round(scaled).clip(0, _THRESHOLDS - 1).astype(jnp.int32)
    return nearest + (scores >= jnp.asarray(thresholds())[nearest])


def _histogram(index: jax.Array, bins: int) -> jax.Array:
    """int32 [N, bins] from indices [N, P] below `bins`. On CPU a scatter is 10 times faster here
    than one-hot matrix products and 100 times faster than comparing with every threshold."""
    return jax.vmap(lambda row: jnp.zeros(bins, jnp.int32).at[row].add(1))(index)


def _class_ids(ids: jax.Array, frames: int, classes: int) -> jax.Array:
    """int32 [frames, pixels], with everything that is no class at `classes`."""
    return jnp.minimum(jnp.asarray(ids).reshape(frames, -1).astype(jnp.int32), classes)


def _f_score(overlap: jax.Array, predicted: jax.Array, wanted: jax.Array) -> jax.Array:
    """F from pixel counts; 0 without overlap, where precision and recall leave it undefined.

    (1 + b) P R / (b P + R) with P = overlap / predicted and R = overlap / wanted is
    (1 + b) overlap / (b wanted + predicted), which needs no 0 / 0.
    """
    denominator = BETA_SQUARED * wanted + predicted
    return (1 + BETA_SQUARED) * overlap / jnp.where(overlap > 0, denominator, 1.0)


def _to_units(value: jax.Array) -> jax.Array:
    """Values in [0, 1] as int32 multiples of 2^-24."""
    return jnp.round(value.astype(jnp.float32) * _UNIT).astype(jnp.int32)


def _rounded_mean(total: jax.Array, count: jax.Array) -> jax.Array:
    """total / count in integers, to the nearest; 0 where count is 0."""
    return (total + count // 2) // jnp.maximum(count, 1)


def _empty_sum(shape: tuple[int, ...]) -> jax.Array:
    """int32 [2, ...]: upper and lower half of a sum of units."""
    return jnp.zeros((2, *shape), jnp.int32)


def _add(accumulated: jax.Array, units: jax.Array) -> jax.Array:
    """Adds units [n, ...] to a sum [2, ...]. Split before summing, so neither half overflows."""
    halves = jnp.stack([units >> _HALF_BITS, units & (2**_HALF_BITS - 1)])
    return accumulated + jnp.sum(halves, axis=1, dtype=jnp.int32)


def _total(accumulated: Any) -> np.ndarray:
    """float64 value of a sum [2, ...]."""
    upper, lower = np.asarray(accumulated).astype(np.float64)
    return (upper * 2**_HALF_BITS + lower) / _UNIT
