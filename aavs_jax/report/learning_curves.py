"""Learning curves: from the lines of `metrics.jsonl` to a pair of charts a stage.

What is computed here is where everything lies; the report's template draws it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# Of a chart, and of what lies within its axes; units of the SVG element, y downwards.
FRAME = {"width": 540, "height": 270, "left": 52, "right": 526, "top": 22, "bottom": 228}
COLOURS = 8  # that the style sheet has for curves
CURVE_POINTS = 300  # points drawn of a line; more cannot be told apart


@dataclass(frozen=True)
class Curve:
    """One line of a chart: `segments` of (x, y) arrays that are not joined to each other."""

    name: str
    segments: list[tuple[np.ndarray, np.ndarray]]
    colour: int = 0  # of COLOURS, modulo
    kind: str = ""  # "main", "faint" (behind the others, not in the legend), or neither
    markers: bool = False  # a dot, with the value as its tooltip, at each point


def learning_curves(metrics: Sequence[Mapping]) -> list[list[dict[str, Any]]]:
    """Of every stage the charts: training loss beside validation scores.

    Args:
      metrics: the lines of `metrics.jsonl`; scalars missing in some of them are fine.

    Returns:
      For each stage at most two charts, laid out in FRAME. A chart is a dict of `title`, `remark`,
      `y_label`, `legend` [(name, colour)], `x_ticks` and `y_ticks` [(where, text)], `starts`
      [(x, phase)], `curves` (dicts of `path`, the `d` of an SVG path, `colour`, `kind`, and `dots`
      [(x, y, tooltip)]) and `ring`, the (x, y) of the best score or None.
    """
    return [
        _stage_charts(stage, [line for line in metrics if line["stage"] == stage])
        for stage in dict.fromkeys(line["stage"] for line in metrics)
    ]


def _stage_charts(stage: str, lines: Sequence[Mapping]) -> list[dict[str, Any]]:
    """Loss and validation scores of a stage, its phases one after the other on one step axis."""
    starts, at = {}, 0
    for phase in dict.fromkeys(line["phase"] for line in lines):
        starts[phase] = at
        at += max(line["step"] for line in lines if line["phase"] == phase)
    train = _names(lines, "train")
    losses = [n for n in train if n == "loss"] + [n for n in train if n.startswith("loss/")]
    scores = [n for n in _names(lines, "val") if "/" not in n and "loss" not in n][:4]
    charts, title = [], stage.capitalize()
    curves, faint, values = [], [], []
    for index, name in enumerate(losses):
        segments = [_segment(lines, "train", phase, name, starts[phase]) for phase in starts]
        values += [y for _, y in segments]
        kind = "main" if name == "loss" else ""
        faint.append(Curve(name, _thin(segments), index, "faint"))
        curves.append(Curve(name, _thin(_smooth(segments)), index, kind))
    if curves:
        shown = np.concatenate(values)
        shown = shown[np.isfinite(shown) & (shown > 0)]
        log = len(shown) > 0 and bool(shown.max() > 12 * shown.min())
        label = "training loss" + ", logarithmic" * log
        chart = {"title": f"{title}: training loss", "remark": "", "y_label": label}
        charts.append(chart | layout(faint + curves[::-1], starts, log=log))
    curves = []
    for index, name in enumerate(scores):
        segments = [_segment(lines, "val", phase, name, starts[phase]) for phase in starts]
        curves.append(Curve(name, segments, index, "" if index else "main", markers=True))
    if curves:
        x, y = (np.concatenate(part) for part in zip(*curves[0].segments, strict=True))
        best, remark = None, ""
        if np.isfinite(y).any():
            best = (x[np.nanargmax(y)], np.nanmax(y))
            remark = f"best {scores[0]} {best[1]:.3f} at step {best[0]:.0f}"
        label = "validation, 0 to 1"
        chart = {"title": f"{title}: validation", "remark": remark, "y_label": label}
        charts.append(chart | layout(curves[::-1], starts, fractions=True, best=best))
    return charts


def _names(lines: Sequence[Mapping], kind: str) -> list[str]:
    names = dict.fromkeys(name for line in lines if line["kind"] == kind for name in line)
    return [name for name in names if name not in ("stage", "phase", "step", "kind")]


def _segment(lines, kind: str, phase: str, name: str, start: int) -> tuple[np.ndarray, np.ndarray]:
    """(steps, values) of one scalar in one phase; a step written twice counts as written last."""
    points = {
        line["step"]: line[name]
        for line in lines
        if line["kind"] == kind and line["phase"] == phase and line.get(name) is not None
    }
    steps = sorted(points)
    return np.array(steps, float) + start, np.array([points[s] for s in steps], float)


def _smooth(segments):
    """Means under a bell that reaches over about a fifteenth of each phase, to both sides alike.

    A running mean would lag behind the steep start.
    """
    smoothed = []
    for x, y in segments:
        sigma = len(y) / 60
        reach = math.ceil(3 * sigma)
        bell = np.exp(-0.5 * (np.arange(-reach, reach + 1) / max(sigma, 1e-3)) ** 2)
        finite = np.isfinite(y).astype(float)
        # Of the full product, since mode "same" would lengthen lines shorter than the bell.
        inner = slice(reach, reach + len(y))
        total = np.convolve(np.where(finite > 0, y, 0), bell)[inner]
        weight = np.convolve(finite, bell)[inner]
        means = np.divide(total, weight, out=np.full(len(y), np.nan), where=finite > 0)
        smoothed.append((x, means))
    return smoothed


def _thin(segments):
    chosen = []
    for x, y in segments:
        index = np.unique(np.linspace(0, len(x) - 1, min(len(x), CURVE_POINTS)).astype(int))
        chosen.append((x[index], y[index]))
    return chosen


def layout(
    curves: Sequence[Curve],
    starts: Mapping[str, int],
    *,
    log: bool = False,
    fractions: bool = False,
    best: tuple[float, float] | None = None,
) -> dict[str, Any]:
    """Where everything of a chart lies.

    Args:
      curves: the first lie below the later ones. Points that are not finite (or, on a logarithmic
        axis, not positive) interrupt their line.
      starts: the step at which each phase begins; marked if there are several.
      log: logarithmic y axis.
      fractions: y from 0 to at most 1.
      best: a point (step, value) to ring.
    """
    width, height = FRAME["right"] - FRAME["left"], FRAME["bottom"] - FRAME["top"]

    def usable(y):
        return np.isfinite(y) & ((y > 0) if log else True)

    points = [(x[usable(y)], y[usable(y)]) for c in curves for x, y in c.segments]
    xs = np.concatenate([x for x, _ in points])
    ys = np.concatenate([y for _, y in points])
    if not len(xs):
        xs, ys = np.array([0.0, 1.0]), np.array([1.0, 2.0])
    x_high = xs.max() or 1.0
    if fractions:
        y_ticks = _linear_ticks(0, max(min(ys.max() * 1.05, 1.0), 0.1), 5)
        if y_ticks[-1] < ys.max():
            y_ticks.append(y_ticks[-1] + y_ticks[1] - y_ticks[0])
        y_low, y_high = 0.0, y_ticks[-1]
    elif log:
        y_low, y_high = ys.min() / 1.1, ys.max() * 1.1
        y_ticks = log_ticks(y_low, y_high)
    else:
        y_low, y_high = min(0.0, ys.min()), ys.max() * 1.05 or 1.0
        y_ticks = _linear_ticks(y_low, y_high, 5)
    scale = np.log if log else np.asarray

    def to_x(x):
        return np.round(FRAME["left"] + x / x_high * width, 1)

    def to_y(y):
        share = (scale(y) - scale(y_low)) / (scale(y_high) - scale(y_low))
        return np.round(FRAME["bottom"] - share * height, 1)

    def drawn(curve, x, y):
        dots = [
            (to_x(px), to_y(py), f"{curve.name} {py:.3f} at {px:.0f}")
            for px, py in zip(x, y, strict=True)
            if curve.markers and np.isfinite(py)
        ]
        path = svg_path(to_x(x), to_y(np.where(usable(y), y, np.nan)))
        return {"path": path, "dots": dots, "colour": curve.colour % COLOURS, "kind": curve.kind}

    legend = sorted((c.colour, c.name.replace("_", " ")) for c in curves if c.kind != "faint")
    return {
        "legend": [(name, colour % COLOURS) for colour, name in legend],
        "x_ticks": [(to_x(tick), tick_text(tick)) for tick in _linear_ticks(0, x_high, 6)],
        "y_ticks": [(to_y(tick), tick_text(tick)) for tick in y_ticks],
        "starts": [(to_x(x), name) for name, x in starts.items()] if len(starts) > 1 else [],
        "curves": [drawn(curve, x, y) for curve in curves for x, y in curve.segments],
        "ring": best and (to_x(best[0]), to_y(best[1])),
    }


def svg_path(x: np.ndarray, y: np.ndarray) -> str:
    """The `d` of an SVG path through the points; where y is NaN, the pen is lifted."""
    commands, pen_down = [], False
    for px, py in zip(x, y, strict=True):
        if np.isnan(py):
            pen_down = False
            continue
        commands.append(f"{'L' if pen_down else 'M'}{px} {py}")
        pen_down = True
    return "".join(commands)


def _linear_ticks(low: float, high: float, count: int) -> list[float]:
    """Round numbers in [low, high], about `count` of them."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 2.5, 5, 10) if s * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2, 5 of each power of ten in [low, high]; of many powers, only the 1s."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if math.log10(high / low) <= 3 else (1,)
    ticks = [f * 10.0**p for p in powers for f in factors]
    return [tick for tick in ticks if low <= tick <= high]


def tick_text(value: float) -> str:
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    return f"{round(value, 10):g}"
