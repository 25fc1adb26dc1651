"""The protocol `stepping_stones` by itself (docs/method.md, section 6).

The definitions are those of the evaluation published with "Stepping Stones" (ECCV 2024, arXiv
2407.11820), itself descended from AVSBench (Zhou et al., ECCV 2022).
"""

from typing import Any

import jax
import jax.numpy as jnp

from aavs_jax.scoring.metrics import binary, semantic
from aavs_jax.scoring.metrics.counting import frames_of, scored

PROTOCOL = "stepping_stones"


def binary_init() -> dict[str, jax.Array]:
    """Empty state of the binary metrics (S4, MS3)."""
    return binary.init_clips()


def binary_update(
    state: dict[str, jax.Array],
    scores_fmap: jax.Array,
    masks: jax.Array,
    labels: jax.Array,
    valid: jax.Array,
) -> dict[str, jax.Array]:
    """Adds a batch of clips to the binary metrics.

    J per frame: intersection / union; where the target is empty, the share of pixels that are
    rejected. Per clip: mean over its frames. F per frame: beta^2 = 0.3 at 255 thresholds, positive
    where map >= threshold. Per clip: mean over the frames whose target is not empty, at each
    threshold, then the best threshold; 0 if no frame has a target. Clips count alike. NaN in
    the map is positive at no threshold.

    Args:
        state: from `binary_init`, at most LARGEST_COUNT clips.
        scores_fmap: float [B, T, G, G], the map for F in [0, 1] (docs/method.md, section 5).
        masks: integer or bool [B, T, G, G], the predicted mask.
        labels: integer or bool [B, T, G, G], not 0 is foreground, 255 is not looked at.
        valid: bool [B, T], real frames. A clip without any is not counted.

    Returns:
        The new state.

    Raises:
        ValueError: clips of more than LARGEST_CLIP frames.
    """
    valid = scored(labels, valid)
    binary.check_length(valid)
    truth = frames_of(labels)
    regions = binary.count(frames_of(masks) != 0, truth)
    curves = binary.f_curves(frames_of(scores_fmap, jnp.float32), truth)
    return binary.add_clips(state, regions, curves, valid)


def binary_result(state: dict[str, Any]) -> dict[str, float | int]:
    """Scores of the binary metrics, on the host.

    Returns:
        {"J", "F", "J&F"} as fractions (NaN if no clip was seen), {"clips", "frames"} as counts.
    """
    return binary.result_clips(state)


def semantic_init(num_classes: int) -> dict[str, jax.Array]:
    """Empty state of the semantic metrics (AVSS) for K classes."""
    return semantic.init_frames(num_classes)


def semantic_update(
    state: dict[str, jax.Array], prediction: jax.Array, labels: jax.Array, valid: jax.Array
) -> dict[str, jax.Array]:
    """Adds a batch of clips to the semantic metrics.

    Per frame and class, background included: IoU and F (beta^2 = 0.3), summed over frames; counted
    are the frames in which the class occurs in prediction or label.

    Args:
        state: from `semantic_init`, at most LARGEST_COUNT frames.
        prediction: integer [B, T, G, G], class ids.
        labels: integer [B, T, G, G], class ids. Pixels of K and above, as 255, are not looked at.
        valid: bool [B, T], real frames.

    Returns:
        The new state.
    """
    counts = semantic.count(prediction, labels, state["seen"].shape[0])
    return semantic.add_frames(state, counts, scored(labels, valid))


def semantic_result(state: dict[str, Any]) -> dict[str, Any]:
    """Scores of the semantic metrics, on the host.

    A class that no frame showed or predicted has score 0 and takes part in the means; without any
    frame at all the scores are NaN.

    Returns:
        {"mIoU", "F"}: means over all K classes; {"mIoU_no_background", "F_no_background"}: over
        classes from 1; {"mIoU_per_class", "F_per_class"}: float64 [K]; "frames_per_class": int64
        [K], the divisors; {"frames", "clips"}: counts.
    """
    return semantic.result_frames(state, no_background=0)
