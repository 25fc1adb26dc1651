"""The page's plots: both axes logarithmic, laid out for the template `chart.html`."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from aavs_jax.benchmark import results, scaling
from aavs_jax.benchmark.results import Row
from aavs_jax.report.learning_curves import FRAME, log_ticks, svg_path, tick_text

COLOUR_OF = {"aavs_jax": 0, "torch_eager": 1, "torch_compile": 2}
GREY = 4  # of the style sheet's colours for curves


@dataclasses.dataclass(frozen=True)
class Line:
    """Points of a plot, all positive, each with its tooltip; joined or not."""

    name: str
    points: Sequence[tuple[float, float, str]]
    colour: int
    joined: bool = True
    dots: bool = True


def roofline(rows: Sequence[Row], intensities: dict[str, float]) -> dict[str, Any] | None:
    """GFLOP/s over FLOP per byte, below what the machine can do; None: there is nothing to show.

    Args:
      rows: all that was measured.
      intensities: of a case's name, FLOP per byte.
    """
    ceiling, bandwidth = results.peak(rows), _bandwidth(rows)
    found = results.by_case(rows)
    lines = []
    for side, colour in COLOUR_OF.items():
        points = [
            (intensities[case.name], metrics["flops_per_second"]["median"] / 1e9, case.name)
            for case, sides in found.items()
            for metrics in [sides.get(side, {})]
            if "flops_per_second" in metrics and intensities.get(case.name)
        ]
        tips = [(x, y, f"{name}, {side}: {y:.3g} GFLOP/s") for x, y, name in points]
        lines += [Line(side, tips, colour, joined=False)] * bool(tips)
    if not lines or not ceiling or not bandwidth:
        return None
    xs = [x for line in lines for x, _, _ in line.points]
    knee = ceiling / bandwidth
    ends = (min(*xs, knee) / 2, knee, max(*xs, knee) * 2)
    roof = [(x, min(x * bandwidth, ceiling) / 1e9, "") for x in ends]
    lines.append(Line("the machine", roof, GREY, dots=False))
    remark = f"matrix product {ceiling / 1e9:.3g} GFLOP/s, copy {bandwidth / 1e9:.3g} GB/s"
    return layout(lines, "Roofline", remark, "GFLOP/s", "FLOP per byte")


def growth(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """A plot for each axis of the scaling, `said` beneath it."""
    said = scaling.sentences(rows)
    plots = []
    for axis, points in scaling.series(rows).items():
        words = scaling.AXES[axis][0]
        case = results.case_of(points[0][1])
        time = [
            (value, row["median"] * 1e3, f"{row['median'] * 1e3:.3g} ms at {value}")
            for value, row, _ in points
        ]
        lines = [Line("measured", time, COLOUR_OF["aavs_jax"])]
        if all(amount for _, _, amount in points):
            # As the arithmetic grows, from the last point back.
            last, most = time[-1][1], points[-1][2]
            curve = [(value, last * amount / most, "") for value, _, amount in points]
            lines.append(Line("as the arithmetic grows", curve, GREY, dots=False))
        remark = f"{case.what}, {case.size}, {case.task}"
        plot = layout(lines, words[0].upper() + words[1:], remark, "milliseconds", words)
        plots.append(plot | {"said": said.get(axis, "")})
    return plots


def layout(
    lines: Sequence[Line], title: str, remark: str, y_label: str, x_label: str
) -> dict[str, Any]:
    """Where everything of a plot lies, as `learning_curves` has it, with `x_label` besides."""
    xs = [x for line in lines for x, _, _ in line.points]
    ys = [y for line in lines for _, y, _ in line.points]
    x_low, x_high = min(xs) / 1.15, max(xs) * 1.15
    y_low, y_high = min(ys) / 1.5, max(ys) * 1.5

    def to_x(x: float) -> float:
        share = np.log(x / x_low) / np.log(x_high / x_low)
        return round(float(FRAME["left"] + share * (FRAME["right"] - FRAME["left"])), 1)

    def to_y(y: float) -> float:
        share = np.log(y / y_low) / np.log(y_high / y_low)
        return round(float(FRAME["bottom"] - share * (FRAME["bottom"] - FRAME["top"])), 1)

    curves = []
    for line in lines:
        placed = [(to_x(x), to_y(y), tip) for x, y, tip in line.points]
        path = svg_path(*(np.array(axis) for axis in list(zip(*placed, strict=True))[:2]))
        curves.append(
            {
                "path": path if line.joined else "",
                "dots": placed if line.dots else [],
                "colour": line.colour,
                "kind": "",
            }
        )
    y_ticks = [(to_y(tick), tick_text(tick)) for tick in log_ticks(y_low, y_high)]
    return {
        "title": title,
        "remark": remark,
        "x_label": x_label,
        "y_label": y_label,
        "legend": [(line.name, line.colour) for line in lines],
        "x_ticks": [(to_x(tick), tick_text(tick)) for tick in log_ticks(x_low, x_high)],
        "y_ticks": [(FRAME["bottom"], ""), *y_ticks],  # the axis itself has no number
        "starts": [],
        "curves": curves,
        "ring": None,
    }


def _bandwidth(rows: Sequence[Row]) -> float:
    """Bytes a second of a large copy; 0 where it was not measured."""
    found = [row["median"] for row in rows if row["metric"] == "bytes_per_second"]
    return max(found, default=0.0)
