"""Scores from pixels summed over the whole set: CAVP's, and the usual mean IoU.

The sums know nothing of frames or clips, so a large object counts more than a small one, and a
class that is predicted by mistake costs its area, not a whole frame.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from aavs_jax.scoring.metrics.counting import (
    BETA_SQUARED_TENTHS,
    add,
    empty_sum,
    f_ratio,
    total_pixels,
)

_PIXELS = ("overlap", "predicted", "wanted")


def init(num_classes: int, subsets: Sequence[str]) -> dict[str, Any]:
    """Empty sums over each subset of the frames; "all" is one of them."""
    zero = jnp.zeros((), jnp.int32)
    sums = {
        name: {**{kind: empty_sum((num_classes,)) for kind in _PIXELS}, "frames": zero}
        for name in subsets
    }
    return {**sums, "clips": zero}


def add_frames(
    state: Mapping[str, Any],
    pixels: Mapping[str, jax.Array],
    valid: jax.Array,
    subsets: Mapping[str, jax.Array],
) -> dict[str, Any]:
    """Adds pixels per frame and class, int32 [N, K], "overlap", "predicted" and "wanted".

    Args:
      state: from `init`.
      pixels: by kind.
      valid: bool [B, T], with B T = N.
      subsets: bool [N], which frames take part, by name.
    """
    new = {}
    for name, chosen in subsets.items():
        sums = state[name]
        new[name] = {
            kind: add(sums[kind], jnp.where(chosen[:, None], pixels[kind], 0)) for kind in _PIXELS
        }
        new[name]["frames"] = sums["frames"] + jnp.sum(chosen, dtype=jnp.int32)
    return {**new, "clips": state["clips"] + jnp.sum(valid.any(axis=1), dtype=jnp.int32)}


def counts(state: Mapping[str, Any]) -> dict[str, int]:
    """{"clips", "frames"} of all."""
    return {"clips": int(state["clips"]), "frames": int(state["all"]["frames"])}


def per_class(sums: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """IoU and F (beta^2 = 0.3) of each class, float64 [K]; NaN where a class does not occur in
    prediction or label."""
    overlap, predicted, wanted = (total_pixels(sums[kind]) for kind in _PIXELS)
    return _ratio(overlap, predicted + wanted - overlap), _f(overlap, predicted, wanted)


def cavp(sums: Mapping[str, Any]) -> dict[str, float]:
    """Scores by cyh-0/CAVP, utils/eval_utils.py.

    Its means treat a class that does not occur differently: in the mean IoU it counts 0; in F1,
    F (beta^2 = 0.3) and the false detection rate FP / (FP + TP) it is left out, from the last also
    a class that is never predicted.

    Returns:
      {"mIoU", "F", "J&F", "F1", "FDR"}, NaN where there is no pixel at all.
    """
    overlap, predicted, wanted = (total_pixels(sums[kind]) for kind in _PIXELS)
    iou = np.nan_to_num(_ratio(overlap, predicted + wanted - overlap))
    miou = float(iou.mean()) if wanted.any() or predicted.any() else float("nan")
    f = _mean(_f(overlap, predicted, wanted))
    return {
        "mIoU": miou,
        "F": f,
        "J&F": (miou + f) / 2,
        "F1": _mean(_f(overlap, predicted, wanted, tenths=10)),
        "FDR": _mean(_ratio(predicted - overlap, predicted)),
    }


def data_set(sums: Mapping[str, Any]) -> dict[str, float | int]:
    """Means over the classes that occur in prediction or label, with and without background.

    Returns:
      {"mIoU", "F", "mIoU_no_background", "F_no_background"}, NaN where no class occurs, and
      {"classes"}: how many do.
    """
    iou, f = per_class(sums)
    return {
        "mIoU": _mean(iou),
        "F": _mean(f),
        "mIoU_no_background": _mean(iou[1:]),
        "F_no_background": _mean(f[1:]),
        "classes": int((~np.isnan(iou)).sum()),
    }


def _f(
    overlap: np.ndarray, predicted: np.ndarray, wanted: np.ndarray, tenths=BETA_SQUARED_TENTHS
) -> np.ndarray:
    return _ratio(*f_ratio(overlap, predicted, wanted, tenths))


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, NaN where whole is 0."""
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)


def _mean(values: np.ndarray) -> float:
    """Mean of what is not NaN; NaN if nothing is."""
    there = values[~np.isnan(values)]
    return float(there.mean()) if there.size else float("nan")
