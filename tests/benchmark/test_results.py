"""Rows, table, page and verdicts of made-up measurements."""

import json
import re

import jax
import jax.numpy as jnp
import pytest

from aavs_jax.benchmark import flops, page, plots, results, scaling
from aavs_jax.benchmark.cases import Case
from aavs_jax.benchmark.measure import Bench
from aavs_jax.benchmark.results import Measured

STARTED = {"started": {"seconds": 1.0, "bytes": 5e8}}


def took(case: Case, side: str, *seconds: float, **told) -> Measured:
    rounds = [{"seconds": s, "cpu_seconds": 2 * s, "peak_bytes": 1e9} for s in seconds]
    return Measured(case, side, rounds, {**STARTED, **told})


@pytest.fixture
def bench():
    loss = Case("loss", "full", frames=5)
    step = Case("train", "full", phase="b", frames=5)
    bench = Bench(("aavs_jax", "torch_eager"), 3, lambda _: None)
    speeds = {"flops_per_second": 1e11, "bytes_per_second": 1e10}
    machine = Case("machine", "")
    bench.rows = [
        *results.machine_rows(took(machine, "aavs_jax", 1.0, **speeds)),
        *results.rows(took(step, "aavs_jax", 2.0, 1.0, 4.0), 1e11, "a note <b>"),
        *results.rows(took(step, "torch_eager", 3.0, 3.0, 3.0), 1e11, "another"),
        *results.rows(took(loss, "aavs_jax", 0.1, 0.1, 0.1)),
        *results.rows(took(Case("loader", "full"), "aavs_jax", 0.5, frames=40)),
    ]
    bench.intensities = {step.name: 4.0}
    return bench


def test_rows_are_flat_and_have_median_and_spread(bench, tmp_path):
    results.write(tmp_path / "benchmark.json", bench.rows, "")
    rows = json.loads((tmp_path / "benchmark.json").read_text())
    assert rows == bench.rows
    assert not any(isinstance(value, list | dict) for row in rows for value in row.values())
    row = next(row for row in rows if row["what"] == "train" and row["metric"] == "seconds")
    assert (row["median"], row["low"], row["high"], row["rounds"]) == (2.0, 1.0, 4.0, 3)
    assert (row["size"], row["side"], row["phase"], row["frames"]) == ("full", "aavs_jax", "b", 5)
    speeds = [r["median"] for r in rows if r["metric"] == "frames_per_second"]
    assert speeds == [5 / 2, 5 / 3, 5 / 0.1, 40 / 0.5]
    arithmetic = [r for r in rows if r["what"] == "train" and r["metric"] == "flops_per_second"]
    assert [r["median"] for r in arithmetic] == [5e10, pytest.approx(1e11 / 3)]


def test_of_the_machine_the_faster_counts(bench):
    machine, before = Case("machine", ""), len(bench.rows)
    for speed, expected in ((5e10, 1e11), (3e11, 3e11)):
        measured = took(machine, "aavs_jax", 1.0, flops_per_second=speed, bytes_per_second=1.0)
        bench.rows = results.with_faster(bench.rows, results.machine_rows(measured))
        assert results.peak(bench.rows) == expected and len(bench.rows) == before


def test_the_table(bench):
    text = results.table(bench.rows)
    ours, theirs = re.findall(r"^(?:aavs_jax|torch_eager) .*", text, re.M)[:2]
    assert ours.split() == "aavs_jax 2 1 4 4 1,000 2.5 50 50%".split()
    assert theirs.split() == "torch_eager 3 3 3 6 1,000 1.667 33.3 33% 1.50 x".split()
    assert text.index("train b, full, 5 frames") < text.index("  a note <b>") < text.index("loss")
    assert results.shares(bench.rows) == [
        "train b, full, 5 frames: the loss with matching takes 5.0% of the step",
        "train b, full, 5 frames: needs 2.5 frames a second, and the loader reads 80",
    ]


def test_the_page(bench, tmp_path):
    bench.remarks.append("torch_compile could <not> be measured")
    for axis, case in scaling.make("small", "binary", "float32"):
        grown = getattr(case, axis)
        seconds = 1.0 if axis == "devices" else 1e-3 * grown
        bench.rows += results.rows(took(case, "aavs_jax", seconds), 1e6 * grown, "", axis)
    page.write(tmp_path / "index.html", bench, "python -m it", "")
    text = (tmp_path / "index.html").read_text()
    assert "could &lt;not&gt; be measured" in text and "a note &lt;b&gt;" in text
    assert text.count("<svg") == 1 + len(scaling.AXES)
    assert text.count("as expected.") == len(scaling.AXES)
    # What is measured stays below the roof.
    roofline = plots.roofline(bench.rows, bench.intensities)
    roof = [curve for curve in roofline["curves"] if curve["path"]]
    assert len(roof) == 1 and len(roofline["curves"]) == 3
    ceiling = float(roof[0]["path"].split()[-1])
    assert all(dot[1] > ceiling for curve in roofline["curves"] for dot in curve["dots"])


def test_without_machine_or_arithmetic_there_is_no_roofline(bench):
    assert plots.roofline([], {}) is None
    assert plots.roofline(bench.rows, {}) is None
    rest = [row for row in bench.rows if row["what"] != "machine"]
    assert plots.roofline(rest, bench.intensities) is None
    assert "%" not in results.table(rest)


@pytest.mark.parametrize(
    ("axis", "power", "words"),
    [
        ("frames", 1.0, "as expected"),
        ("frames", 0.4, "less, because"),
        ("image_size", 3.0, "more, because"),
        ("devices", 0.05, "as expected"),
        ("devices", 0.9, "waits for the others"),
    ],
)
def test_growth_is_judged(axis, power, words):
    rows = []
    for name, case in scaling.make("small", "binary", "float32"):
        if name == axis:
            value = getattr(case, axis)
            work = {"image_size": value**2, "devices": 1}.get(axis, value)
            rows += results.rows(took(case, "aavs_jax", 0.01 * value**power), work, "", axis)
    (sentence,) = scaling.sentences(rows).values()
    assert words in sentence and f"^ {power:.2f}" in sentence


def test_operations_are_counted_in_loops():
    def count(function, *arguments):
        return flops.of(jax.make_jaxpr(function)(*arguments))

    x, kernel = jnp.ones((8, 8)), jnp.ones((3, 3, 4, 6))

    def looped(x):
        return jax.lax.scan(lambda c, _: (c @ c, None), x, None, length=7)[0].sum()

    once = 2 * 8**3
    assert count(looped, x) == 7 * once
    assert count(jax.grad(looped), x) == 3 * 7 * once  # and two products for each
    assert count(jax.jit(jax.checkpoint(lambda x: x @ x)), x) == once
    branches = [lambda x: x, lambda x: x @ x]
    assert count(lambda i, x: jax.lax.switch(i, branches, x), 0, x) == once
    pictures = jnp.ones((2, 10, 10, 4))

    def convolved(pictures, kernel):
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            pictures, kernel, (1, 1), "SAME", dimension_numbers=numbers
        )

    assert count(convolved, pictures, kernel) == 2 * (2 * 10 * 10 * 6) * (3 * 3 * 4)
