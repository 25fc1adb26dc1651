"""The whole command, on tiny networks; each side's work; and wrong requests."""

import json
import re
import sys

import numpy as np
import pytest

from aavs_jax.benchmark import __main__ as command
from aavs_jax.benchmark import cases, measure, worker
from aavs_jax.benchmark.cases import Case

METRICS = {"seconds", "cpu_seconds", "peak_bytes", "frames_per_second", "flops_per_second"}


def measured(out) -> dict[tuple, dict]:
    """(what, size, side, metric) -> row."""
    rows = json.loads((out / "benchmark.json").read_text())
    named = {tuple(row[key] for key in ("what", "size", "side", "metric")): row for row in rows}
    assert len(named) == len(rows)
    return named


@pytest.mark.slow
def test_this_program_alone(tiny, here, tmp_path, capsys):
    flags = ["--sizes", "small", "--what", "inference,train,loss", "--rounds", "5", "--frames", "1"]
    assert command.main([*flags, "--scaling", "none", "--out", str(tmp_path / "out")]) == 0
    rows = measured(tmp_path / "out")
    for what in ("inference", "train", "loss"):
        found = {metric for kind, *_, metric in rows if kind == what}
        assert found == METRICS - ({"flops_per_second"} if what == "loss" else set())
    for (what, _, side, _), row in rows.items():
        assert side == "aavs_jax" and row["rounds"] == (1 if what == "machine" else 5)
        assert 0 < row["low"] <= row["median"] <= row["high"]
    # A step is the loss and more.
    seconds = {what: rows[what, "small", "aavs_jax", "seconds"]["low"] for what in cases.WHAT[:3]}
    assert seconds["train"] > seconds["loss"]
    said = capsys.readouterr().out
    assert re.search(r"the loss with matching takes [\d.]+% of the step", said)
    page = (tmp_path / "out" / "index.html").read_text()
    assert "Roofline" in page and "train all, small, 1 frame" in page


@pytest.mark.slow
@pytest.mark.parametrize("task", cases.TASKS)
def test_beside_torch(task, tiny, here, tmp_path, monkeypatch, capsys):
    torch = pytest.importorskip("torch")

    def cannot(function):
        raise RuntimeError("no compiler\nand a traceback")

    monkeypatch.setattr(torch, "compile", cannot)
    flags = ["--sizes", "full", "--what", "inference,train,loss", "--rounds", "2", "--task", task]
    flags += ["--frames", "2", "--phases", "b", "--scaling", "none", "--against", "torch"]
    assert command.main([*flags, "--out", str(tmp_path / "out")]) == 0
    rows = measured(tmp_path / "out")
    sides = {(what, side) for what, _, side, _ in rows}
    both = {(what, side) for what in ("inference", "train", "loss") for side in worker.SIDES[:2]}
    assert sides - {("machine", side) for side in worker.SIDES[:2]} == both
    said = capsys.readouterr().out
    # Not of other numbers: class and mask logits are the same on both sides.
    errors = re.findall(r"relative error of class logits (\S+) .*and mask logits (\S+) ", said)
    assert errors and all(float(error) < 1e-4 for error in errors[0])
    assert re.search(r"train b, full, .*torch_compile could not be measured: RuntimeError", said)
    trained = re.search(r"([\d,]+) numbers train, ([\d,]+) of aavs_jax", said)
    assert trained[1] == trained[2]


@pytest.mark.slow
def test_sides_that_differ_are_told(tiny, here, monkeypatch):
    bench = measure.Bench(("aavs_jax", "torch_eager"), 1, lambda _: None)
    inputs = cases.inputs

    class Other(worker.Local):
        def __init__(self, side, case, weights):
            super().__init__("aavs_jax", case, weights)
            self.factor = 1.0 if side == "aavs_jax" else 1.01

        def outputs(self):
            return {name: self.factor * array for name, array in super().outputs().items()}

    monkeypatch.setattr(worker, "Local", Other)
    assert inputs(Case("inference", "small"))["frames"].shape == (1, 1, 32, 32, 3)
    bench.case(Case("inference", "small"))
    assert bench.failed
    assert "torch_eager does not compute the same: relative error of class" in bench.remarks[0]


@pytest.mark.slow
def test_a_process_that_dies_is_told_and_the_others_are_measured(monkeypatch):
    with worker.opened("aavs_jax", Case("loss", "small"), None) as remote:
        first = remote.round()
        assert first["seconds"] > 0 and first["peak_bytes"] > 50e6
        assert remote.told()["loss"] > 0
        remote.process.kill()
        with pytest.raises(worker.Failure, match="killed, .* when memory runs out"):
            remote.round()
    assert not remote.process.is_alive()


@pytest.mark.slow
def test_the_loader(tiny, here):
    bench = measure.Bench(("aavs_jax", "torch_eager"), 1, lambda _: None)
    bench.case(Case("loader", "small"))
    assert not bench.failed, bench.remarks
    assert {row["side"] for row in bench.rows} == {"aavs_jax"}
    row = {row["metric"]: row["median"] for row in bench.rows}
    # Batches of 20 clips, a frame each: more than can have been read ahead.
    batches = row["frames_per_second"] * row["seconds"] / 20
    assert batches == pytest.approx(48)


def test_wrong_requests_are_one_sentence(tmp_path, capsys, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("")
    out = ["--out", str(tmp_path / "out")]
    for flags, words in (
        (["--sizes", "huge"], "'huge' is none of small, full"),
        (["--what", ""], "nothing is named"),
        (["--rounds", "0"], "'0' is no whole number from 1 up"),
        (["--frames", "1,x"], "'x' is no whole number"),
        (["--frames-per-pass", "-3"], "no whole number from 0 up"),
        (["--against", "jax"], "invalid choice"),
        (["--sizes", "small", "--what", "train", "--phases", "a"], "(small: all)"),
        (["--tuning"], "--tuning"),
        (["--out", str(blocked)], f"cannot write {blocked}"),
    ):
        assert command.main([*out, *flags]) == 2
        said = capsys.readouterr()
        assert words in said.err and said.err.count("\n") == 1 and not said.out, flags
    monkeypatch.setitem(sys.modules, "torch", None)
    assert command.main([*out, "--against", "torch"]) == 2
    said = capsys.readouterr()
    assert 'pip install -e ".[test]"' in said.err and said.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_small_and_full_networks_have_the_classes_of_their_data():
    assert cases.num_classes(Case("train", "small", task="semantic")) == 9
    assert cases.num_classes(Case("train", "full", task="semantic")) == 71
    assert cases.num_classes(Case("train", "small")) == 2


def test_inputs_are_the_same_in_every_process():
    case = Case("inference", "small", task="semantic", clips=2, frames=3)
    first, second = cases.inputs(case), cases.inputs(case)
    assert set(first) == {"frames", "audio", "labels", "labelled", "valid", "prior_mask"}
    for name, array in first.items():
        assert array.shape[:2] == (2, 3)
        np.testing.assert_array_equal(array, second[name])
    assert first["frames"].std() > 30 and set(np.unique(first["labels"])) == {0, 1, 4}


def test_cases_are_those_asked_for():
    def made(**asked):
        given = {"sizes": cases.SIZES, "what": ("train",), "frames": (1, 5), "task": "binary"}
        given |= {"phases_wanted": cases.PHASES, "dtype": "float32", "frames_per_pass": 2}
        return cases.make(**(given | asked))

    steps = [(case.size, case.phase, case.frames) for case in made()]
    assert steps == [
        ("small", "all", 1),
        ("small", "all", 5),
        *(("full", phase, frames) for phase in "ab" for frames in (1, 5)),
    ]
    assert [case.name for case in made(sizes=("full",), phases_wanted=("b",))] == [
        "train b, full, 1 frame",
        "train b, full, 5 frames",
    ]
    assert {case.frames_per_pass for case in made()} == {2}
    assert len(made(what=cases.WHAT)) == 2 * 2 + 6 + 2 * 2 + 2
