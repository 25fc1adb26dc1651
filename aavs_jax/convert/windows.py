"""A Swin's tables of relative positions, resized for attention windows of another size."""

import dataclasses
import functools
import math
import re
from collections.abc import Mapping

import numpy as np

from aavs_jax.convert.engine import Fate
from aavs_jax.convert.importing import Weights
from aavs_jax.errors import UserError

TABLE = re.compile(r"backbone/stages/(\d+)/blocks/\d+/attention/relative_position_bias")
# Left over of a file, and of no use with windows of another size.
STALE = ("relative_position_index", "attn_mask")
LARGEST = 64  # a table has (2 window - 1)^2 rows; no published Swin has more than 24


def resized(weights: Weights, window: int) -> tuple[Weights, list[str]]:
    """A Swin's or Mask2Former's relative-position tables for attention windows of another size.

    Returns:
      The weights, with fates that tell of it, and for each stage what was done.

    Raises:
      UserError: there is no backbone in it, or the weights are of a whole AAVS, or there can be no
        such window.
    """
    card = weights.card
    if card.kind not in ("swin", "mask2former"):
        raise UserError(
            f"--window resizes the tables of a Swin or a Mask2Former, and this is "
            f"{card.describe()}: leave --window out"
        )
    if not 2 <= window <= LARGEST:
        raise UserError(f"--window is {window}: give at least 2 tokens, at most {LARGEST}")
    tables: dict[str, list[str]] = {}
    for path in weights.parameters:
        if match := TABLE.fullmatch(path):
            tables.setdefault(match[1], []).append(path)
    old = (math.isqrt(len(weights.parameters[tables["0"][0]])) + 1) // 2
    if window == old:
        return weights, []
    parameters = weights.parameters | {
        path: resize_positions(weights.parameters[path], window)
        for paths in tables.values()
        for path in paths
    }
    change = f"resized from {2 * old - 1}x{2 * old - 1} to {2 * window - 1}x{2 * window - 1}"
    done = [
        f"stage {stage}: the relative positions of {len(paths)} blocks {change}"
        for stage, paths in tables.items()
    ]
    backbone = {**card.network.get("backbone", {}), "window_size": window}
    card = dataclasses.replace(
        card,
        network={**card.network, "backbone": backbone},
        left_over={name: why for name, why in card.left_over.items() if not name.endswith(STALE)},
        huggingface=None,
    )
    kept = {name: v for name, v in weights.left_over.items() if not name.endswith(STALE)}
    fates = tuple(_resized(fate, parameters, change, window) for fate in weights.fates)
    return Weights(parameters, kept, card, fates), done


def _resized(fate: Fate, parameters: Mapping[str, np.ndarray], change: str, window: int) -> Fate:
    """What became of a tensor where windows have another size now."""
    if fate.what == "left over" and fate.theirs.endswith(STALE):
        reason = f"{fate.reason}, which is {window} now"
        return dataclasses.replace(fate, what="left behind", reason=reason)
    if not any(TABLE.fullmatch(path) and path in parameters for path in fate.ours):
        return fate
    return dataclasses.replace(
        fate,
        our_shapes=tuple(parameters[path].shape for path in fate.ours),
        reason="; ".join(filter(None, (fate.reason, change))),
    )


def resize_positions(table: np.ndarray, window: int) -> np.ndarray:
    """A table of relative position biases for another window, by bicubic interpolation.

    As PyTorch's `interpolate(mode='bicubic', align_corners=False)` does it, which is how the Swin
    authors carry a table from one window to another.

    Args:
      table: float32 [(2w-1)^2, heads], rows in the order of `swin.relative_position_index`.
      window: tokens per side of the new window, at least 1.

    Returns:
      float32 [(2 window - 1)^2, heads].
    """
    rows, heads = table.shape
    matrix = _bicubic_matrix(math.isqrt(rows), 2 * window - 1)
    square = table.astype(np.float64).reshape(math.isqrt(rows), math.isqrt(rows), heads)
    # Rows, then columns: all at once would be a sum over both for each number.
    resized = matrix @ np.tensordot(matrix, square, 1)
    return resized.reshape(-1, heads).astype(np.float32)


@functools.cache
def _bicubic_matrix(size: int, new_size: int) -> np.ndarray:
    """float64 [new_size, size]: half-pixel centres, edges repeated, Keys' kernel with a = -0.75."""
    a = -0.75
    matrix = np.zeros((new_size, size))
    for row in range(new_size):
        centre = (row + 0.5) * size / new_size - 0.5
        for tap in range(math.floor(centre) - 1, math.floor(centre) + 3):
            x = abs(tap - centre)
            if x <= 1:
                weight = (a + 2) * x**3 - (a + 3) * x**2 + 1
            else:
                weight = a * (x**3 - 5 * x**2 + 8 * x - 4)
            matrix[row, min(max(tap, 0), size - 1)] += weight
    return matrix
