"""Binary scores (S4, MS3): J and F of a foreground mask, averaged over groups of clips.

The scores per frame are AVSBench's (Zhou et al., ECCV 2022; avs_s4/utils/utility.py); every code
base has them. They differ in the map, the decision, the labels, and in how many consecutive clips
one batch of their test loader has: frames are averaged within it, F's best threshold is chosen for
it, and batches count alike.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from aavs_jax.scoring.metrics import set_sums
from aavs_jax.scoring.metrics.counting import (
    IGNORED,
    LARGEST_CLIP,
    THRESHOLDS,
    add,
    empty_sum,
    f_score,
    frames_of,
    halves,
    histogram,
    rounded_mean,
    thresholds_reached,
    to_units,
    total,
)
from aavs_jax.scoring.metrics.protocols import Protocol


class Regions(NamedTuple):
    """Pixels of each frame, int32 [N]: in both masks, in the predicted, in the wanted; and all.
    Ignored ones are in none of them."""

    overlap: jax.Array
    predicted: jax.Array
    wanted: jax.Array
    pixels: jax.Array


def init(rows: Sequence[Protocol], clips: int) -> dict[str, Any]:
    """Empty state of some protocols, by name."""
    return {row.name: _init(row, clips) for row in rows}


def _init(row: Protocol, clips: int) -> dict[str, Any]:
    if row.unit == "set":
        return set_sums.init(2, ("all",))
    return init_clips() if row.clips_per_group == 1 else _init_groups(row, clips)


def update(
    states: Mapping[str, Any],
    rows: Sequence[Protocol],
    prediction: jax.Array,
    labels: Mapping[str, jax.Array],
    valid: jax.Array,
    position: jax.Array,
    maps: Mapping[str, jax.Array],
) -> dict[str, Any]:
    """Adds a batch; arguments as for `metrics.update`, labels by rule, the states' rows.

    Raises:
      ValueError: a map is missing, frames or clips are too large.
    """
    if missing := {row.map for row in rows} - {"", *maps}:
        raise ValueError(f"protocols {', '.join(states)} need the map {missing.pop()!r}")
    check_length(valid)
    scores = {name: frames_of(found, jnp.float32) for name, found in maps.items()}
    truth = {rule: frames_of(found) for rule, found in labels.items()}
    masks = {name: found > 0.5 for name, found in scores.items()}
    masks[""] = frames_of(prediction) != 0
    # What several protocols count is counted once.
    decided = {row.name: (row.map if row.decision == "map" else "", row.labels) for row in rows}
    laid = {(row.map, row.labels): None for row in rows if row.map}
    regions = {key: count(masks[key[0]], truth[key[1]]) for key in dict.fromkeys(decided.values())}
    curves = {key: f_curves(scores[key[0]], truth[key[1]]) for key in laid}
    new = {}
    for row in rows:
        state, found = states[row.name], regions[decided[row.name]]
        if row.unit == "set":
            new[row.name] = _add_to_set(state, found, valid)
        elif row.clips_per_group == 1:
            new[row.name] = add_clips(state, found, curves[row.map, row.labels], valid)
        else:
            group = position // row.clips_per_group
            new[row.name] = _add_to_groups(state, found, curves[row.map, row.labels], valid, group)
    return new


def result(row: Protocol, state: Mapping[str, Any]) -> dict[str, float | int]:
    """Scores of one protocol from its state on the host."""
    if row.unit == "set":
        return {**_SET_FIGURES[row.name](state["all"]), **set_sums.counts(state)}
    return result_clips(state) if row.clips_per_group == 1 else _result_groups(row, state)


# ------------------------------------------------------------------------------ per frame


def check_length(valid: jax.Array) -> None:
    """Raises ValueError where a clip has more frames than an int32 has room for."""
    frames = valid.shape[1]
    if frames > LARGEST_CLIP:
        raise ValueError(f"a clip has {frames} frames; binary metrics take at most {LARGEST_CLIP}")


def count(positive: jax.Array, labels: jax.Array) -> Regions:
    """Regions of masks, bool [N, P], and labels, integer or bool [N, P]."""
    counted = labels != IGNORED
    wanted = (labels != 0) & counted
    masks = (positive & wanted, positive & counted, wanted, counted)
    return Regions(*(jnp.sum(x, axis=1, dtype=jnp.int32) for x in masks))


def j_units(regions: Regions) -> jax.Array:
    """J of each frame in units, int32 [N]: intersection / union; where the target is empty, the
    share of pixels that are rejected."""
    overlap, predicted, wanted, pixels = regions
    whole = jnp.where(wanted == 0, pixels, predicted + wanted - overlap)
    # Nothing is left only of a frame that is ignored from edge to edge, which nobody counts.
    return to_units(jnp.where(wanted == 0, pixels - predicted, overlap) / jnp.maximum(whole, 1))


def f_curves(scores: jax.Array, labels: jax.Array) -> jax.Array:
    """F of each frame at each threshold in units, int32 [N, 255], from scores float32 [N, P] and
    labels [N, P]. Positive is what is not below the threshold; beta^2 = 0.3."""
    # One histogram over the thresholds, target pixels apart, tells what all 255 comparisons would;
    # ignored pixels go into a bin of their own.
    levels = THRESHOLDS + 1
    counted = labels != IGNORED
    wanted = (labels != 0) & counted
    level = thresholds_reached(scores)
    bins = jnp.where(counted, level + levels * wanted, 2 * levels)
    found = histogram(bins, 2 * levels + 1)[:, : 2 * levels].reshape(-1, 2, levels)
    above = jnp.cumsum(found[..., ::-1], axis=-1)[..., ::-1][..., 1:]
    size = jnp.sum(wanted, axis=1)
    return to_units(f_score(above[:, 1], above.sum(axis=1), size[:, None]))


def _sums_over_frames(regions: Regions, curves: jax.Array, valid: jax.Array):
    """Per clip: sum of J [B], sum of F at each threshold [B, 255], how many frames in each [B]."""
    clips, frames = valid.shape
    per_frame = j_units(regions).reshape(clips, frames)
    usable = valid & (regions.wanted > 0).reshape(clips, frames)
    curves = curves.reshape(clips, frames, THRESHOLDS)
    return (
        jnp.sum(jnp.where(valid, per_frame, 0), axis=1),
        jnp.sum(jnp.where(usable[..., None], curves, 0), axis=1),
        jnp.sum(valid, axis=1, dtype=jnp.int32),
        jnp.sum(usable, axis=1, dtype=jnp.int32),
    )


# ------------------------------------------------------------------------------ per clip


def init_clips() -> dict[str, jax.Array]:
    """Empty state of means over clips."""
    zero = jnp.zeros((), jnp.int32)
    return {"J": empty_sum(()), "F": empty_sum(()), "clips": zero, "frames": zero}


def add_clips(
    state: Mapping[str, jax.Array], regions: Regions, curves: jax.Array, valid: jax.Array
) -> dict[str, jax.Array]:
    """J of a clip is the mean over its frames. F is averaged over the frames whose target is not
    empty at each threshold, then the best threshold is taken; 0 if no frame has a target."""
    sum_j, sum_f, real, usable = _sums_over_frames(regions, curves, valid)
    return {
        "J": add(state["J"], rounded_mean(sum_j, real)),
        "F": add(state["F"], rounded_mean(jnp.max(sum_f, axis=1), usable)),
        "clips": state["clips"] + jnp.sum(real > 0, dtype=jnp.int32),
        "frames": state["frames"] + jnp.sum(valid, dtype=jnp.int32),
    }


def result_clips(state: Mapping[str, Any]) -> dict[str, float | int]:
    """{"J", "F", "J&F"} (NaN if no clip was seen), {"clips", "frames"}."""
    clips = int(state["clips"])
    j, f = (float(total(state[name]) / clips) if clips else float("nan") for name in "JF")
    return {"J": j, "F": f, "J&F": (j + f) / 2, "clips": clips, "frames": int(state["frames"])}


# ------------------------------------------------------------------------------ per group


def _init_groups(row: Protocol, clips: int) -> dict[str, jax.Array]:
    """Sums of each group; those of F at each threshold, for the best is known at the end only."""
    groups = -(-clips // row.clips_per_group)
    zeros = jnp.zeros((groups,), jnp.int32)
    return {
        "J": empty_sum((groups,)),
        "F": empty_sum((groups, THRESHOLDS)),
        "frames": zeros,
        "usable": zeros,
        "clips": zeros,
        "all_clips": jnp.zeros((), jnp.int32),
    }


def _add_to_groups(state, regions: Regions, curves, valid, group) -> dict[str, jax.Array]:
    sum_j, sum_f, real, usable = _sums_over_frames(regions, curves, valid)
    seen = (real > 0).astype(jnp.int32)
    return {
        "J": state["J"].at[:, group].add(halves(sum_j)),
        "F": state["F"].at[:, group].add(halves(sum_f)),
        "frames": state["frames"].at[group].add(real),
        "usable": state["usable"].at[group].add(usable),
        "clips": state["clips"].at[group].add(seen),
        "all_clips": state["all_clips"] + jnp.sum(seen),
    }


def _result_groups(row: Protocol, state: Mapping[str, Any]) -> dict[str, float | int]:
    """Of a group like of a clip; groups count alike, however many clips or frames they have."""
    clips = int(state["all_clips"])
    # A scatter drops what is out of bounds without a word.
    if state["clips"].sum() != clips or (state["clips"] > row.clips_per_group).any():
        raise ValueError("clips have positions outside their split, or share one")
    seen = state["frames"] > 0
    j = total(state["J"])[seen] / state["frames"][seen]
    f = total(state["F"])[seen].max(axis=1) / np.maximum(state["usable"][seen], 1)
    j, f = (float(x.mean()) if clips else float("nan") for x in (j, f))
    frames = int(state["frames"].sum())
    return {"J": j, "F": f, "J&F": (j + f) / 2, "clips": clips, "frames": frames}


# ------------------------------------------------------------------------------ per set


def _add_to_set(state, regions: Regions, valid: jax.Array) -> dict[str, Any]:
    """Background and foreground are two classes."""
    overlap, predicted, wanted, all_pixels = regions
    neither = all_pixels - predicted - wanted + overlap
    pixels = {
        "overlap": jnp.stack([neither, overlap], axis=-1),
        "predicted": jnp.stack([all_pixels - predicted, predicted], axis=-1),
        "wanted": jnp.stack([all_pixels - wanted, wanted], axis=-1),
    }
    return set_sums.add_frames(state, pixels, valid, {"all": valid.reshape(-1)})


def _cavp(sums: Mapping[str, Any]) -> dict[str, float]:
    """CAVP's J is the mean IoU of both classes."""
    scores = set_sums.cavp(sums)
    return {"J": scores.pop("mIoU"), **scores}


def _data_set(sums: Mapping[str, Any]) -> dict[str, float]:
    """J and F of the foreground; the mean IoU is that of both classes."""
    iou, f = (float(x[1]) for x in set_sums.per_class(sums))
    return {"J": iou, "F": f, "J&F": (iou + f) / 2, "mIoU": set_sums.data_set(sums)["mIoU"]}


_SET_FIGURES = {"cavp": _cavp, "data_set": _data_set}
