"""COCO's outlines of objects, polygons and runs, to masks."""

from typing import Any

import cv2
import numpy as np


class OutlineError(ValueError):
    """An outline that is none; the text says why."""


def rasterise(outline: Any, height: int, width: int) -> np.ndarray:
    """Fills an outline: polygons, or runs that are compressed (a string) or not (a list).

    Args:
        outline: see Object.
        height: of the picture, pixels.
        width: of the picture, pixels.

    Returns:
        bool [height, width].

    Raises:
        OutlineError: it is broken or of another size.
    """
    if isinstance(outline, list) and outline:
        mask = np.zeros((height, width), np.uint8)
        for polygon in outline:  # each by itself: where two overlap, both count
            corners = np.clip(_polygon(polygon), 0, (width, height))
            # From edges to centres of pixels, in sixteenths.
            fixed = np.round((corners - 0.5) * 16).astype(np.int32)
            cv2.fillPoly(mask, [fixed], 1, shift=4)
        return mask.astype(bool)
    if isinstance(outline, dict):
        if outline.get("size") != [height, width]:
            raise OutlineError("its runs are of another size than the picture")
        runs = outline.get("counts")
        runs = _decompress(runs) if isinstance(runs, str) else runs
        return _expand(runs, height, width)
    raise OutlineError("it has no outline")


def _polygon(polygon: np.ndarray) -> np.ndarray:
    """float32 [n, 2] (x, y)."""
    if polygon.ndim != 1 or polygon.size < 6 or polygon.size % 2:
        raise OutlineError("a polygon has an odd number of coordinates or fewer than three corners")
    if not np.isfinite(polygon).all():
        raise OutlineError("a polygon has coordinates that are no numbers")
    return polygon.reshape(-1, 2)


def _decompress(text: str) -> list[int]:
    """Lengths of runs from COCO's text form.

    A character holds five bits, lowest first, and whether more follow; the last one's fifth bit
    is the sign. From the fourth length on, the difference to the one two before is stored.
    """
    lengths: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise OutlineError("its runs cannot be decoded")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
            value = shift = 0
    if shift:
        raise OutlineError("its runs break off")
    return lengths


def _expand(runs: object, height: int, width: int) -> np.ndarray:
    """Runs of outside and inside by turns, column by column, to a mask."""
    if not isinstance(runs, list) or not all(type(n) is int and n >= 0 for n in runs):
        raise OutlineError("its runs are no lengths")
    if sum(runs) != height * width:
        raise OutlineError("its runs are longer or shorter than the picture")
    inside = np.arange(len(runs)) % 2 == 1
    return np.repeat(inside, runs).reshape(width, height).T
