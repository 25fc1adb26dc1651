"""Published networks at their true sizes: from a file of the original to each of its outputs.

    python -m pytest -m slower -n 0 -s tests/parity/test_full_size.py      # -s shows the tables

The weights are random, in the layout and by the means of the original: transformers' Mask2Former
through `save_pretrained`, AAVS through `torch.save(state_dict)`. `python -m aavs_jax.convert`
converts, and both networks look at the same 384x384 frame, in float32.

AAVS holds a whole Mask2Former. What it adds is taken out to run one by itself: no values of a
decoder-side adapter, a bottleneck without a residual, would let pass what comes in. What is left
has exactly the parameters that the converted file has, which is checked, too.

A decoder layer attends where the mask of the prediction before it is at least 0.5. Of the 900,000
such choices a network makes, rounding turns one now and then, whose logit is zero to six digits:
one pixel more or less that a query looks at changes outputs by up to 1e-4, where all else differs
by 3e-6. How many choices differ is in the table, and how far both networks are from PyTorch's in
float64, which tells whose rounding it was.

Every step runs in a process of its own on the same two processors, so that what it takes is its
own and is given back: `full_size_steps.py` has them.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

STEPS = Path(__file__).with_name("full_size_steps.py")
TOLERANCE = 1e-3  # of the largest value of each output
MEMORY = 2.5  # times the file, at most, to convert it, beside the libraries themselves
SIZES = ("tiny", "small", "base", "large")
# Tensors and parameters of the public code's files (docs/method.md, section 2).
AAVS = {"avs": (1038, 114_354_299 + 197_376), "avss": (1041, 114_408_640 + 197_376)}
GRIDS = (12, 24, 48)  # that the decoder's layers attend to, in turn


class Room:
    """A folder whose steps run one by one, each in a process of its own."""

    def __init__(self, folder: Path):
        self.folder = folder

    def run(self, step: str, *arguments) -> dict:
        """Runs a step with the folder and more arguments, for its figures."""
        request = json.dumps([step, str(self.folder), *arguments])
        done = subprocess.run([sys.executable, STEPS, request], capture_output=True, text=True)
        assert done.returncode == 0, f"{request}\n{done.stdout}\n{done.stderr}"
        return json.loads(done.stdout.splitlines()[-1])

    def outputs(self, of: str) -> dict[str, np.ndarray]:
        with np.load(self.folder / f"{of}.npz") as arrays:
            return dict(arrays)


@pytest.fixture
def room(tmp_path):
    if not Path("/proc/self/status").exists():
        pytest.skip("needs Linux's /proc to measure memory")
    yield Room(tmp_path)
    shutil.rmtree(tmp_path)  # gigabytes, which pytest would keep


COLUMNS = {
    "network": "{}",
    "parameters": "{:,}",
    "file MB": "{:.0f}",
    "convert s": "{:.1f}",
    "convert MB": "{:.0f}",
    "of which libraries": "{:.0f}",
    "back s": "{:.1f}",
    "compile s": "{:.0f}",
    "our run s": "{:.2f}",
    "our MB": "{:.0f}",
    "PyTorch's run s": "{:.2f}",
    "PyTorch's MB": "{:.0f}",
    "backbone": "{:.0e}",
    "levels": "{:.0e}",
    "mask features": "{:.0e}",
    "classes": "{:.0e}",
    "masks": "{:.0e}",
    "ours to float64": "{:.0e}",
    "PyTorch's to float64": "{:.0e}",
    "choices that differ": "{} of {:,}",
    "nearest to 0": "{:.0e}",
}


@pytest.fixture(scope="module")
def table():
    """Collects a dict per network and prints them, in Markdown, a line per figure."""
    rows = []
    yield rows
    print("\n\nRelative errors are of the largest value of each output.\n")
    for name, form in COLUMNS.items():
        cells = [form.format(*np.atleast_1d(np.array(row[name], object))) for row in rows]
        print(f"| {name} | {' | '.join(cells)} |")
        if name == "network":
            print(f"|---|{'---|' * len(rows)}")


def relative_errors(ours: dict, theirs: dict) -> dict[str, float]:
    """The largest difference of each output by its largest value."""
    assert ours.keys() == theirs.keys()
    errors = {}
    for name, expected in theirs.items():
        assert ours[name].shape == expected.shape, name
        errors[name] = float(np.abs(ours[name] - expected).max() / np.abs(expected).max())
    return errors


def attention_logits(outputs: dict, *, first: int) -> list[np.ndarray]:
    """The mask logits as decoder layers `first`, ... see them: their signs choose the pixels."""
    import torch

    return [
        torch.nn.functional.interpolate(
            torch.from_numpy(outputs[f"mask_logits/{layer}"]).double(),
            size=(GRIDS[layer % 3],) * 2,
            mode="bilinear",
        ).numpy()
        for layer in range(first, 9)
    ]


def compare(room: Room, *, has_prior: bool) -> dict:
    """Holds our outputs against theirs; the table's figures about it."""
    ours, theirs, truth = (room.outputs(of) for of in ("ours", "theirs", "truth"))
    errors = relative_errors(ours, theirs)
    assert len(errors) == 4 + 3 + 1 + 2 * 10
    assert max(errors.values()) < TOLERANCE, errors
    for x in theirs.values():
        assert np.isfinite(x).all()
        assert x.std() > 0.05 * np.abs(x).max()  # there is something to compare

    logits, expected = (attention_logits(x, first=has_prior) for x in (ours, theirs))
    for x in expected:
        assert 0.1 < (x > 0).mean() < 0.9  # both are common
    differ = [(x < 0) != (y < 0) for x, y in zip(logits, expected, strict=True)]

    def worst(of: dict, kind: str = "") -> float:
        return max(error for name, error in of.items() if name.startswith(kind))

    return {
        "backbone": worst(errors, "backbone"),
        "levels": worst(errors, "multi_scale"),
        "mask features": worst(errors, "mask_features"),
        "classes": worst(errors, "class_logits"),
        "masks": worst(errors, "mask_logits"),
        "ours to float64": worst(relative_errors(ours, truth)),
        "PyTorch's to float64": worst(relative_errors(theirs, truth)),
        "choices that differ": (sum(x.sum() for x in differ), sum(x.size for x in differ)),
        "nearest to 0": min(np.abs(x).min() / np.abs(x).max() for x in expected),
    }


def row(name: str, files: list[Path], made, converted, back, ours, theirs) -> dict:
    """The table's figures about time and memory; what converting may take is checked."""
    size, mega = sum(file.stat().st_size for file in files), 1e-6
    for figures in (converted, back):
        assert figures["memory"] < figures["libraries"] + MEMORY * size, figures
    return {
        "network": name,
        "parameters": made["parameters"],
        "file MB": mega * size,
        "convert s": converted["seconds"],
        "convert MB": mega * converted["memory"],
        "of which libraries": mega * converted["libraries"],
        "back s": back["seconds"],
        "compile s": ours["compile"],
        "our run s": ours["run"],
        "our MB": mega * ours["memory"],
        "PyTorch's run s": theirs["run"],
        "PyTorch's MB": mega * theirs["memory"],
    }


@pytest.mark.slower
@pytest.mark.parametrize("size", SIZES)
def test_mask2former(size, room, table):
    made = room.run("make_mask2former", size)
    converted = room.run("convert", "theirs", "--out", "ours")
    back = room.run("convert", "ours", "--out", "back", "--to", "huggingface")
    room.run("check_mask2former_came_back")

    theirs = room.run("run_mask2former_in_torch")
    ours = room.run("run_ours", True)
    files = [room.folder / "theirs" / "model.safetensors"]
    figures = row(f"Mask2Former, Swin {size}", files, made, converted, back, ours, theirs)
    table.append(figures | compare(room, has_prior=False))


@pytest.mark.slower
@pytest.mark.parametrize("task", AAVS)
def test_aavs(task, room, table):
    made = room.run("make_aavs", task)
    assert (made["tensors"], made["parameters"]) == AAVS[task]
    converted = room.run("convert", "theirs.pth", "--out", "ours")
    back = room.run("convert", "ours", "--out", "back.pth", "--to", "aavs")
    room.run("check_aavs_came_back", task)

    theirs = room.run("run_aavs_in_torch", task)
    ours = room.run("run_ours", False)
    name = {"avs": "AAVS, S4 and MS3", "avss": "AAVS, AVSS"}[task]
    figures = row(name, [room.folder / "theirs.pth"], made, converted, back, ours, theirs)
    table.append(figures | compare(room, has_prior=task == "avss"))
