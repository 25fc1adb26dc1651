"""Streaming metrics by the protocol of each public code base, in one pass over the predictions.

    state = metrics.init("semantic", ("stepping_stones", "cavp"), num_classes=71, clips=1554)
    update = jax.jit(metrics.update)
    for batch in batches:
        state = update(state, prediction, labels, valid, position)
    metrics.result(state)["cavp"]["mIoU"]

Code bases of audio-visual segmentation average differently under the same names, so a score goes
with its protocol: `PROTOCOLS` says as data what each does. Counts of pixels per frame, class and
threshold are made once and shared; a protocol is a small function of them.

A state is a tree of int32 arrays on the device. Values in [0, 1] are summed as integers in units of
2^-24, pixels as they are, and integer sums do not depend on their order: batch size, padding,
splitting, number of devices and the other protocols asked for leave every bit of a result as it is
(a score per frame is one float32 division of integers, which leaves a compiler no choice; where an
accelerator divides less exactly, it is one unit of 2^-24 off). Against the definition in real
numbers a mean is off by 1.5e-7 at most. Results are computed on the host in float64.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from aavs_jax.scoring.metrics import binary, semantic
from aavs_jax.scoring.metrics.counting import (
    IGNORED,
    LARGEST_CLIP,
    LARGEST_COUNT,
    scored,
    thresholds,
)
from aavs_jax.scoring.metrics.protocols import (
    PROTOCOL,
    PROTOCOLS,
    TASKS,
    Protocol,
    labels_used,
    parse,
)

__all__ = [
    "IGNORED",
    "LARGEST_CLIP",
    "LARGEST_COUNT",
    "PROTOCOL",
    "PROTOCOLS",
    "Protocol",
    "TASKS",
    "from_grey",
    "init",
    "labels_used",
    "parse",
    "result",
    "thresholds",
    "update",
]

# {task: {protocol: arrays}}: the keys tell `update` and `result` what is wanted.
State = dict[str, dict[str, Any]]


def init(task: str, protocols: Iterable[str], *, num_classes: int, clips: int) -> State:
    """Empty state of some protocols.

    Args:
      task: "binary" or "semantic".
      protocols: names in `PROTOCOLS`, see `parse`.
      num_classes: K, background included; the binary task has two whatever is said here.
      clips: in the whole split, of all processes: positions are below it. At most LARGEST_COUNT,
        with at most as many frames.

    Raises:
      ValueError: a task or protocol that there is not, no protocol, or too many clips.
    """
    if task not in TASKS:
        raise ValueError(f"no task {task!r}; there are {', '.join(TASKS)}")
    if clips > LARGEST_COUNT:
        raise ValueError(f"{clips} clips; sums have room for {LARGEST_COUNT}")
    rows = [PROTOCOLS[name] for name in parse(",".join(protocols))]
    states = binary.init(rows, clips) if task == "binary" else semantic.init(rows, num_classes)
    # Each number in a buffer of its own, that callers may donate them.
    return {task: jax.tree.map(jnp.array, states)}


def update(
    state: State,
    prediction: jax.Array,
    labels: jax.Array,
    valid: jax.Array,
    position: jax.Array,
    *,
    maps: Mapping[str, jax.Array] | None = None,
    labels_nearest: jax.Array | None = None,
) -> State:
    """Adds a batch of clips to all protocols of the state. Pure; give it to `jax.jit`.

    A clip comes whole, in one batch, and once. Batches come in any order.

    Args:
      state: from `init`.
      prediction: integer or bool [B, T, G, G], the classes predicted: the argmax of the scores;
        binary: not 0 is foreground. Ids of K and above belong to no class.
      labels: integer or bool [B, T, G, G]. Semantic: class ids, resized by nearest. Binary: not 0
        is foreground, "touched" labels (docs/method.md, section 1). Pixels of IGNORED (255;
        semantic: of any id of K and above) are left out of all scores, and with them whatever is
        predicted there; a frame of nothing else counts like one without a label.
      valid: bool [B, T], real frames that have a label. A clip without any is not counted.
      position: int32 [B], the clip's place in the split's list of clips, from 0: it decides with
        which clips it is averaged. Clips without valid frames may have any.
      maps: binary task only, float [B, T, G, G] in [0, 1], those that `PROTOCOLS` name: from the
        scores s_0 and s_1 of background and foreground "stepping_stones", sigmoid(2 s_1 - s_0), and
        "softmax", sigmoid(s_1 - s_0). NaN is positive at no threshold.
      labels_nearest: binary task only: labels like `labels`, but resized by nearest, as
        `labels_used` tells. None: the labels are the same.

    Returns:
      The new state.

    Raises:
      ValueError: a map is missing, frames of more than 2^24 pixels or clips of more than
        LARGEST_CLIP frames.
    """
    ((task, states),) = state.items()
    rows = [PROTOCOLS[name] for name in states]
    valid = scored(labels, valid)
    if task == "semantic":
        return {task: semantic.update(states, rows, prediction, labels, valid)}
    by_rule = {
        "touched": labels,
        "nearest": labels if labels_nearest is None else labels_nearest,
    }
    position = jnp.asarray(position, jnp.int32)
    new = binary.update(states, rows, prediction, by_rule, valid, position, maps or {})
    return {task: new}


def result(state: State) -> dict[str, dict[str, Any]]:
    """Scores of all protocols, on the host.

    Returns:
      By protocol, in the order of `PROTOCOLS`: what its `scores` name, as fractions (NaN where
      nothing was there to count), and the counts "clips" and "frames". Besides, where semantic
      scores are means over frames, "mIoU_per_class" and "F_per_class", float64 [K], with
      "frames_per_class", int64 [K], the divisors; of `data_set` "classes", how many take part in
      its means; of `cavp` "frames_multi_source", how many take part in the scores of that name.

    Raises:
      ValueError: positions outside the split, too many clips on one, or too many frames.
    """
    ((task, states),) = state.items()
    states = jax.device_get(states)
    for found in states.values():
        frames = found["all"]["frames"] if "all" in found else found["frames"]
        if frames.sum() > LARGEST_COUNT:
            raise ValueError(f"{frames.sum()} frames; sums have room for {LARGEST_COUNT}")
    find = binary.result if task == "binary" else semantic.result
    return {name: find(row, states[name]) for name, row in PROTOCOLS.items() if name in states}


def from_grey(grey: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
    """What `update` takes as prediction and maps, of masks read from files.

    Args:
      grey: uint8 [...], 0 to 255; hard masks have 0 and 255 only.

    Returns:
      The prediction, bool [...]: above one half; and both maps, float32 [...]: grey / 255.
    """
    # Looked up, for a compiler may divide by a constant in its own way.
    values = jnp.asarray(np.arange(256, dtype=np.float32) / np.float32(255))[grey]
    return values > 0.5, {"stepping_stones": values, "softmax": values}
