"""How the cost of an inference grows, and whether as expected."""

import dataclasses
import math
from collections.abc import Sequence

from aavs_jax.benchmark import cases
from aavs_jax.benchmark.cases import Case
from aavs_jax.benchmark.results import OURS, Row

# Axis -> what the page calls it, and what is expected of the time as it grows.
AXES = {
    "frames": ("frames of a clip", "linear: every frame is computed by itself"),
    "clips": ("clips", "linear: every clip is computed by itself"),
    "image_size": (
        "side of a frame in pixels",
        "quadratic: windows are of one size, so all parts grow with the number of pixels",
    ),
    "queries": ("queries", "less than linear: the pixels' part is the same for any number"),
    "devices": (
        "simulated devices",
        "none: they share the batch, and the same cores; each has a program of its own to run",
    ),
}
SLACK = 0.25  # by which two exponents may differ
POINTS = {
    "small": {
        "frames": (1, 2, 4, 8),
        "clips": (1, 2, 4, 8),
        "image_size": (64, 128, 192, 256),
        "queries": (10, 20, 40, 80),
        "devices": (1, 2, 4),
    },
    "full": {
        "frames": (1, 2, 4),
        "clips": (1, 2, 4),
        "image_size": (192, 384, 576),
        "queries": (30, 60, 120),
        "devices": (1, 2),
    },
}


def make(size: str, task: str, dtype: str) -> list[tuple[str, Case]]:
    """(axis, case) of all that is measured; devices share a batch of twice the most there are."""
    base = Case("inference", size, task, dtype=dtype)
    found = []
    for axis, points in POINTS[size].items():
        clips = 2 * max(points) if axis == "devices" else 1
        for value in points:
            found.append((axis, dataclasses.replace(base, **{"clips": clips} | {axis: value})))
    return found


def series(rows: Sequence[Row]) -> dict[str, list[tuple[int, Row, float]]]:
    """axis -> (value, row of the seconds, FLOPs of a run or 0), in ascending order."""
    flops = {
        (row["axis"], row[row["axis"]]): row["median"]
        for row in rows
        if row["axis"] and row["metric"] == "flops_per_second"
    }
    found: dict[str, list] = {}
    for row in rows:
        if row["axis"] and row["metric"] == "seconds" and row["side"] == OURS:
            value = row[row["axis"]]
            amount = row["median"] * flops.get((row["axis"], value), 0.0)
            found.setdefault(row["axis"], []).append((value, row, amount))
    return {axis: sorted(points, key=lambda p: p[0]) for axis, points in found.items()}


def exponent(xs: Sequence[float], ys: Sequence[float]) -> float:
    """p of the curve y = c x^p that is nearest to some points, by least squares of logarithms."""
    logs = [(math.log(x), math.log(y)) for x, y in zip(xs, ys, strict=True)]
    x_mean, y_mean = (sum(values) / len(logs) for values in zip(*logs, strict=True))
    together = sum((x - x_mean) * (y - y_mean) for x, y in logs)
    return together / sum((x - x_mean) ** 2 for x, _ in logs)


def sentences(rows: Sequence[Row]) -> dict[str, str]:
    """axis -> what is expected, what was measured, and where they differ why."""
    found = {}
    for axis, points in series(rows).items():
        if len(points) < 2:
            continue
        values = [value for value, _, _ in points]
        time = exponent(values, [row["median"] for _, row, _ in points])
        amounts = [amount for _, _, amount in points]
        words, expected = AXES[axis]
        said = f"Expected: {expected}. Measured: the time grows as {words} ^ {time:.2f}"
        if axis == "devices":
            agrees = abs(time) < SLACK
            why = (
                "; each device computes a smaller batch in less effective loops and waits for the "
                "others, all on the same cores"
            )
            found[axis] = f"{said}{', as expected' if agrees else why}."
        elif all(amounts):
            work = exponent(values, amounts)
            found[axis] = f"{said}, the arithmetic as ^ {work:.2f}: {_judged(time, work)}."
        else:
            found[axis] = f"{said}."
    return found


def _judged(time: float, work: float) -> str:
    if abs(time - work) <= SLACK:
        return "as expected"
    if time < work:
        return (
            "less, because what every run costs whatever its size (starting operations, small "
            "products that leave cores idle) is a large share of the smallest ones"
        )
    return (
        "more, because what lies between the operations no longer fits the processor's caches, and "
        "moving it takes longer than computing with it"
    )


def known_sizes() -> tuple[str, ...]:
    """For the option: none, or a size."""
    return ("none", *cases.SIZES)
