"""The page of a benchmark: tables and plots for people."""

import os
import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from aavs_jax.benchmark import plots, results
from aavs_jax.benchmark.measure import Bench
from aavs_jax.report.learning_curves import FRAME
from aavs_jax.run.files import replace_file
from data_pipelines.pages import render
from data_pipelines.preparing.jobs import cores

FILE = "index.html"


def write(path: Path, bench: Bench, command: str, advice: str) -> None:
    """Writes the page, which needs no other file.

    Args:
      path: of the file; replaced in one go.
      bench: what was measured.
      command: what was typed.
      advice: what else to do where it cannot be written.

    Raises:
      UserError: it cannot be written.
    """
    found = results.by_case(bench.rows)
    notes = {case.name: results.notes_on(sides) for case, sides in found.items()}
    roofline = plots.roofline(bench.rows, bench.intensities)
    said = (
        "FLOP per byte is XLA's estimate for the compiled program of aavs_jax; the others are "
        "drawn at the same place"
    )
    page = render(
        Path(__file__).with_name("benchmark.html"),
        title="What it costs",
        facts=facts(bench, command),
        head=results.HEAD,
        blocks=[(name, lines, notes[name]) for name, lines in results.lines(bench.rows)],
        rounds=bench.rounds,
        remarks=[*results.shares(bench.rows), *bench.remarks],
        roofline=roofline and roofline | {"said": said + "."},
        growth=plots.growth(bench.rows),
        frame=FRAME,
    )
    replace_file(path, page.encode(), advice)


def facts(bench: Bench, command: str) -> list[tuple[str, str]]:
    """Label and value of what was run, and on what."""
    speeds = [
        f"{row['side']} {row['median'] / 1e9:,.4g} {unit}"
        for metric, unit in (("flops_per_second", "GFLOP/s"), ("bytes_per_second", "GB/s"))
        for row in bench.rows
        if row["what"] == "machine" and row["metric"] == metric
    ]
    return [
        ("Command", command),
        ("Machine", f"{processor()}, {cores()} cores; computes on {bench.device or 'cpu'}"),
        ("Matrix product, copy", "; ".join(speeds)),
        ("Versions", ", ".join(versions(bench.sides))),
    ]


def processor() -> str:
    """The processor's name as far as the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine() or os.name


def versions(sides: Sequence[str]) -> list[str]:
    """Of what computes."""
    packages = ["jax", "flax", "optax", *["torch", "transformers"] * (len(sides) > 1)]
    return [f"{package} {metadata.version(package)}" for package in packages]
