"""Learning curves as inline SVG: from the lines of `metrics.jsonl` to a pair of charts a stage."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

# Told apart by readers with any kind of colour vision, on white and on near-black.
SERIES_COLOURS = ("#2f6fde", "#e07a1f", "#12957f", "#b04fb8", "#8a8f98")
CURVE_POINTS = 300  # points drawn of a line; more cannot be told apart


@dataclass(frozen=True)
class Curve:
    """One line of a chart: `segments` of (x, y) arrays that are not joined to each other."""

    name: str
    segments: list[tuple[np.ndarray, np.ndarray]]
    colour: int = 0  # index into SERIES_COLOURS, modulo
    width: float = 1.8
    opacity: float = 1.0
    markers: bool = False  # a dot, with the value as its tooltip, at each point


def learning_curves(metrics: Sequence[Mapping]) -> str:
    """HTML of the charts of every stage: training loss beside validation figures.

    Args:
      metrics: the lines of `metrics.jsonl`; scalars missing in some of them are fine.

    Returns:
      `<figure>` elements for the report's page; empty if there is nothing to draw.
    """
    charts = []
    for stage in dict.fromkeys(line["stage"] for line in metrics):
        pair = _stage_charts(stage, [line for line in metrics if line["stage"] == stage])
        charts.append(f'<div class="charts">{pair}</div>')
    return "".join(charts)


def _stage_charts(stage: str, lines: Sequence[Mapping]) -> str:
    """Loss and validation figures of a stage, its phases one after the other on one step axis."""
    starts, at = {}, 0
    for phase in dict.fromkeys(line["phase"] for line in lines):
        starts[phase] = at
        at += max(line["step"] for line in lines if line["phase"] == phase)
    boundaries = [(x, name) for name, x in starts.items()] if len(starts) > 1 else []
    train = _names(lines, "train")
    losses = [n for n in train if n == "loss"] + [n for n in train if n.startswith("loss/")]
    figures = [n for n in _names(lines, "val") if "/" not in n and "loss" not in n][:4]
    axis = {"x_label": "optimiser step", "boundaries": boundaries}
    charts = ""
    curves, faint, values = [], [], []
    for index, name in enumerate(losses):
        segments = [_segment(lines, "train", phase, name, starts[phase]) for phase in starts]
        values += [y for _, y in segments]
        width = 2.2 if name == "loss" else 1.5
        faint += [Curve(name, _thin(segments), index, 0.9, 0.35)]
        curves += [Curve(name, _thin(_smooth(segments)), index, width)]
    if curves:
        shown = np.concatenate(values)
        shown = shown[np.isfinite(shown) & (shown > 0)]
        log = len(shown) > 0 and shown.max() > 12 * shown.min()
        label = "training loss" + ", logarithmic" * bool(log)
        chart = line_chart(faint + curves[::-1], y_label=label, log=bool(log), **axis)
        charts += _chart_panel(f"{stage.capitalize()}: training loss", curves, chart)
    curves, best = [], None
    for index, name in enumerate(figures):
        segments = [_segment(lines, "val", phase, name, starts[phase]) for phase in starts]
        curves.append(Curve(name, segments, index, 2.2 if index == 0 else 1.5, markers=True))
        if index == 0:
            x, y = (np.concatenate(part) for part in zip(*segments, strict=True))
            if np.isfinite(y).any():
                best = (x[np.nanargmax(y)], np.nanmax(y))
    if curves:
        chart = line_chart(
            curves[::-1], y_label="validation, 0 to 1", unit_range=True, highlight=best, **axis
        )
        remark = f"best {figures[0]} {best[1]:.3f} at step {best[0]:.0f}" if best else ""
        charts += _chart_panel(f"{stage.capitalize()}: validation", curves, chart, remark)
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


def _chart_panel(title: str, curves: Sequence[Curve], chart: str, remark: str = "") -> str:
    keys = "".join(
        f'<li><span class="dash" style="background:{series_colour(c.colour)}"></span>'
        f"{escape(c.name.replace('_', ' '))}</li>"
        for c in curves
    )
    return (
        f'<figure class="panel"><figcaption><header><h3>{escape(title)}</h3>'
        f'<span class="quiet">{escape(remark)}</span></header><ul class="legend">{keys}</ul>'
        f'</figcaption><div class="scroll">{chart}</div></figure>'
    )


def series_colour(index: int) -> str:
    """A CSS colour; a page may replace it by its own `--series-<index>`."""
    index %= len(SERIES_COLOURS)
    return f"var(--series-{index}, {SERIES_COLOURS[index]})"


def line_chart(
    curves: Sequence[Curve],
    *,
    x_label: str,
    y_label: str,
    boundaries: Sequence[tuple[float, str]] = (),
    log: bool = False,
    unit_range: bool = False,
    highlight: tuple[float, float] | None = None,
) -> str:
    """Draws curves as one inline SVG element, in the text colour of the page around it.

    Args:
      curves: what to draw; the first lie below the later ones. Points that are not finite (or, on
        a logarithmic axis, not positive) interrupt their line.
      x_label, y_label: axis titles, with unit.
      boundaries: (x, name) of the vertical lines where something new begins.
      log: logarithmic y axis.
      unit_range: y from 0 to at most 1, for fractions.
      highlight: a point (x, y) to ring.
    """
    width, height, left, right, top, bottom = 540, 270, 52, 14, 22, 42

    def usable(y):
        return np.isfinite(y) & ((y > 0) if log else True)

    points = [(x[usable(y)], y[usable(y)]) for c in curves for x, y in c.segments]
    xs = np.concatenate([x for x, _ in points] or [[]])
    ys = np.concatenate([y for _, y in points] or [[]])
    if not len(xs):
        xs, ys = np.array([0.0, 1.0]), np.array([1.0, 2.0])
    x_ticks = _linear_ticks(0, xs.max() or 1, 6)
    x_low, x_high = 0.0, max(xs.max(), 1e-9)
    if unit_range:
        y_ticks = _linear_ticks(0, max(min(ys.max() * 1.05, 1.0), 0.1), 5)
        if y_ticks[-1] < ys.max():
            y_ticks.append(y_ticks[-1] + y_ticks[1] - y_ticks[0])
        y_low, y_high = 0.0, y_ticks[-1]
    elif log:
        y_low, y_high = ys.min() / 1.1, ys.max() * 1.1
        y_ticks = _log_ticks(y_low, y_high)
    else:
        y_low, y_high = min(0.0, ys.min()), ys.max() * 1.05 or 1.0
        y_ticks = _linear_ticks(y_low, y_high, 5)
    scale = np.log if log else np.asarray

    def to_x(x):
        return left + (np.asarray(x) - x_low) / (x_high - x_low) * (width - left - right)

    def to_y(y):
        share = (scale(y) - scale(y_low)) / (scale(y_high) - scale(y_low))
        return height - bottom - share * (height - top - bottom)

    base = height - bottom
    out = [
        f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" font-size="11.5" '
        f'fill="currentColor" aria-label="{escape(y_label)} over {escape(x_label)}">'
    ]
    for tick in y_ticks:
        y = float(to_y(tick))
        out.append(
            f'<path d="M{left} {y:.1f}H{width - right}" stroke="currentColor" '
            f'stroke-opacity="{0.35 if y > base - 0.5 else 0.12}"/>'
            f'<text x="{left - 7}" y="{y + 4:.1f}" text-anchor="end">{_tick_text(tick)}</text>'
        )
    for tick in x_ticks:
        x = float(to_x(tick))
        out.append(
            f'<path d="M{x:.1f} {base}v4" stroke="currentColor" stroke-opacity=".35"/>'
            f'<text x="{x:.1f}" y="{base + 17}" text-anchor="middle">{_tick_text(tick)}</text>'
        )
    for at, name in boundaries:
        x = float(to_x(at))
        out.append(
            f'<path d="M{x:.1f} {top - 8}V{base}" stroke="currentColor" stroke-opacity=".45" '
            f'stroke-dasharray="3 3"/><text x="{x + 4:.1f}" y="{top - 8}" opacity=".75">'
            f"{escape(name)}</text>"
        )
    for curve in curves:
        colour = series_colour(curve.colour)
        for x, y in curve.segments:
            d = _path(to_x(x), np.where(usable(y), y, np.nan), to_y)
            out.append(
                f'<path d="{d}" fill="none" style="stroke:{colour}" stroke-width="{curve.width}" '
                f'stroke-opacity="{curve.opacity}" stroke-linejoin="round" '
                'stroke-linecap="round"/>'
            )
            for px, py in zip(x, y, strict=True) if curve.markers else ():
                if np.isfinite(py):
                    out.append(
                        f'<circle cx="{to_x(px):.1f}" cy="{to_y(py):.1f}" r="2.6" '
                        f'style="fill:{colour}"><title>{escape(curve.name)} {py:.3f} at '
                        f"{px:.0f}</title></circle>"
                    )
    if highlight is not None:
        x, y = float(to_x(highlight[0])), float(to_y(highlight[1]))
        out.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5.5" fill="none" stroke="currentColor" '
            'stroke-width="1.5"/>'
        )
    out.append(
        f'<text x="{(left + width - right) / 2}" y="{height - 6}" text-anchor="middle" '
        f'opacity=".75">{escape(x_label)}</text><text transform="translate(12 '
        f'{(top + base) / 2}) rotate(-90)" text-anchor="middle" opacity=".75">'
        f"{escape(y_label)}</text></svg>"
    )
    return "".join(out)


def _path(x: np.ndarray, y: np.ndarray, to_y) -> str:
    commands, pen_down = [], False
    for px, value in zip(x, y, strict=True):
        if np.isnan(value):
            pen_down = False
            continue
        commands.append(f"{'L' if pen_down else 'M'}{px:.1f} {to_y(value):.1f}")
        pen_down = True
    return "".join(commands)


def _linear_ticks(low: float, high: float, count: int) -> list[float]:
    """Round numbers in [low, high], about `count` of them."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 2.5, 5, 10) if s * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """1, 2, 5 of each power of ten in [low, high]; of many powers, only the 1s."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if math.log10(high / low) <= 3 else (1,)
    ticks = [f * 10.0**p for p in powers for f in factors]
    return [tick for tick in ticks if low <= tick <= high]


def _tick_text(value: float) -> str:
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    return f"{round(value, 10):g}"
