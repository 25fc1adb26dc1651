"""The paper's recipe whole, at full size: from published files to the figures of two stages.

    python -m pytest -m slower -n 0 -s tests/test_recipe.py     # -s shows times and memory

A Mask2Former as transformers saves it and a VGGish as torch.hub has it, with random weights, are
converted and trained from by the commands of the README, a few steps in each phase, on whole clips
of 5 and of 10 seconds; that the arithmetic is right is tested elsewhere, on networks of no size.
Ten to thirty minutes on two cores.

RECIPE_CLIPS=DIR takes other clips, in AVSBench's layout, with its 71 classes.
"""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from aavs_jax.run.logging_writer import read_metrics
from aavs_jax.state.parameter_folders import load_parameters
from aavs_jax.weights import card
from aavs_jax.weights.keeping import best_parameters
from configs.aavs import BACKBONE_ADAPTERS, BINARY_TRAINS, SEMANTIC_TRAINS
from data_pipelines.facts import avsbench
from data_pipelines.making import audible_shapes

pytestmark = pytest.mark.slower

ROOT = Path(__file__).parents[1]
MEMORY = 6 * 2**30  # bytes, at most, of any command
AUDIO_MLP, VGGISH = 197_376, 72_141_184
# Stage: patterns that train, parameters without the audio encoder, of which train in a and in b.
STAGES = {
    "localise": (BINARY_TRAINS, 114_354_299, 512_451, 7_522_115),
    "understand": (SEMANTIC_TRAINS, 114_408_640, 541_192, 7_550_856),
}
CLIPS = {"train": ("v1s", "v1m", "v2"), "val": ("v1s",), "test": ("v2",)}  # split -> subsets


def run(*arguments: object) -> str:
    """A command of the package, to its end, and what it printed.

    Shows each line with the time since the start and the peak of memory since the line before.
    """
    began, lines, peak = time.monotonic(), [], 0
    print(f"\n{' '.join(map(str, arguments))}", flush=True)
    with subprocess.Popen(
        [sys.executable, "-m", *map(str, arguments)],
        cwd=ROOT,
        # Without the tests' own settings: what is measured here is what users have.
        env={
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "0",
            "XLA_FLAGS": "",
            "JAX_COMPILATION_CACHE_DIR": "",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        for line in process.stdout:
            lines.append(line)
            since = peak_memory(process.pid)
            peak = max(peak, since)
            shown = f"{time.monotonic() - began:7.1f} s {since / 2**30:5.1f} GiB  {line}"
            print(shown, end="", flush=True)
    print(f"{time.monotonic() - began:7.1f} s in all, at most {peak / 2**30:.1f} GiB", flush=True)
    assert process.returncode == 0, "".join(lines)
    assert peak < MEMORY
    return "".join(lines)


def peak_memory(pid: int) -> int:
    """Bytes that a process held at most since this was asked last; 0 once it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # forgets the peak
    except OSError:
        return 0
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return 1024 * int(found[1]) if found else 0


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Both folders of weights, converted from what users download."""
    import torch
    import transformers

    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    backbone = transformers.SwinConfig(
        embed_dim=128,
        depths=[2, 2, 18, 2],
        num_heads=[4, 8, 16, 32],
        window_size=12,
        image_size=384,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    sizes = transformers.Mask2FormerConfig(backbone_config=backbone, num_labels=150)
    name = "mask2former-swin-base-ade-semantic"
    transformers.Mask2FormerForUniversalSegmentation(sizes).save_pretrained(folder / name)
    features, channels = {}, 1
    for index, width in zip((0, 3, 6, 8, 11, 13), (64, 128, 256, 256, 512, 512), strict=True):
        features[f"features.{index}"] = torch.nn.Conv2d(channels, width, 3)
        channels = width
    for index, sides in zip((0, 2, 4), ((12288, 4096), (4096, 4096), (4096, 128)), strict=True):
        features[f"embeddings.{index}"] = torch.nn.Linear(*sides)
    torch.save(
        {
            f"{part}.{k}": v
            for part, module in features.items()
            for k, v in module.state_dict().items()
        },
        folder / "vggish-10086976.pth",
    )
    del features
    run("aavs_jax.convert", folder / name, "--out", folder / "m2f_swin_b")
    run("aavs_jax.convert", folder / "vggish-10086976.pth", "--out", folder / "vggish")
    return folder


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """A few clips, in AVSBench's layout and with its classes."""
    folder = tmp_path_factory.mktemp("clips")
    source = os.environ.get("RECIPE_CLIPS")
    if source is None:
        source = audible_shapes.make(folder / "made", clips=12, size=224, progress=False)
        names = list(json.loads((source / avsbench.LABEL2IDX_NAME).read_text()))
        names += [f"class-{index}" for index in range(len(names), 71)]
        indices = {name: index for index, name in enumerate(names, start=1)}
        (source / avsbench.LABEL2IDX_NAME).write_text(json.dumps(indices))
    source, chosen = Path(source).absolute(), folder / "chosen"
    chosen.mkdir()
    (chosen / avsbench.LABEL2IDX_NAME).write_bytes((source / avsbench.LABEL2IDX_NAME).read_bytes())
    with open(source / avsbench.METADATA_NAME, newline="") as file:
        rows = list(csv.DictReader(file))
    with open(chosen / avsbench.METADATA_NAME, "w", newline="") as file:
        writer = csv.DictWriter(file, avsbench.METADATA_COLUMNS)
        writer.writeheader()
        for split, subsets in CLIPS.items():
            for subset in subsets:
                # Where a split has no such clip, one of the training split is as good here.
                fitting = [row for row in rows if row["label"] == subset]
                fitting.sort(key=lambda row, split=split: row["split"] != split)
                rows.remove(fitting[0])
                writer.writerow(fitting[0] | {"split": split})
                place = Path(subset) / fitting[0]["uid"]
                shutil.copytree(source / place, chosen / place)
    return chosen


def flags_of(clips: Path, weights: Path, name: str, *more: str) -> list[str]:
    return [
        "aavs_jax.main",
        f"--config=configs/{name}.py:{clips}",
        f"--config.init.mask2former={weights / 'm2f_swin_b'}",
        f"--config.init.vggish={weights / 'vggish'}",
        "--config.log_every=1",
        "--config.eval.sounds=('right',)",
        "--config.eval.examples=1",
        *more,
    ]


@pytest.fixture(scope="module")
def recipe(weights, clips, tmp_path_factory):
    """The run of both stages: its folder and what it printed."""
    folder = tmp_path_factory.mktemp("runs") / "avss"
    keys = ["phases.a.epochs=1.0", "phases.b.epochs=1.0"]
    flags = [f"--config.stages.{stage}.{key}" for stage in STAGES for key in keys]
    return folder, run(*flags_of(clips, weights, "avss", *flags), f"--workdir={folder}")


def matching(paths, *patterns: str) -> set[str]:
    return {path for path in paths if any(re.fullmatch(pattern, path) for pattern in patterns)}


def size_of(parameters) -> int:
    return sum(value.size for value in parameters.values())


def test_what_is_said_of_where_each_phase_starts(recipe):
    _, text = recipe
    (a,) = re.findall(r"\[localise/a\] takes.*", text)
    assert "m2f_swin_b, a Mask2Former (150 classes, 100 queries) and " in a
    for words in (
        "the class predictor (2 classes, not 150)",
        "the query positions (30 queries, not 100), the query features (30 queries, not 100)",
        "the audio MLP (not in the pretrained weights)",
        "set to zero: 192 arrays of the backbone adapters",
    ):
        assert words in a
    assert "without a place" not in a
    (a,) = re.findall(r"\[understand/a\] takes.*", text)
    assert (
        "the class predictor (71 classes, not 150)" in a and "quer" not in a.split("at random")[1]
    )
    for stage in STAGES:
        (b,) = re.findall(rf"\[{stage}/b\] takes.*", text)
        assert b.endswith("seed 3407: 192 arrays of the backbone adapters (as the phase asks)")
        assert text.count(f"[{stage}] hears embeddings") == 1
    assert "has written its masks" in text


def test_embeddings_are_computed_once(recipe):
    _, text = recipe
    assert len(re.findall(r"^embeddings: .*\(100%\)", text, re.MULTILINE)) == 1
    places = re.findall(r"hears embeddings, .*, from (.*)", text)
    assert len(places) == 2 and len(set(places)) == 1


@pytest.mark.parametrize("stage", STAGES)
def test_what_trained_and_what_stayed(recipe, weights, stage):
    folder, _ = recipe
    patterns, total, *trained = STAGES[stage]
    given = card.weights(weights / "m2f_swin_b")[0] | card.weights(weights / "vggish")[0]
    before = None
    for phase, count in zip("ab", trained, strict=True):
        parameters = best_parameters(folder / stage / phase)
        assert size_of(parameters) == total + AUDIO_MLP + VGGISH
        changing = matching(parameters, *patterns, *((BACKBONE_ADAPTERS,) if phase == "b" else ()))
        assert size_of({p: parameters[p] for p in changing}) == count + AUDIO_MLP
        frozen = load_parameters(folder / stage / phase / "frozen")
        assert frozen.keys() == parameters.keys() - changing
        adapters = matching(parameters, BACKBONE_ADAPTERS)
        assert len(adapters) == 192
        for path, value in frozen.items():
            if path in adapters:
                assert not value.any(), path
            else:
                np.testing.assert_array_equal(value, given[path], err_msg=path)
        for path in adapters if phase == "b" else ():
            # A bias starts at zero, and drop-path may have left its block out of both steps.
            assert path.endswith("bias") or parameters[path].any(), path
        if before is not None:
            moved = [path for path in changing if (parameters[path] != before[path]).any()]
            assert len(moved) > 0.8 * len(changing)
        before = parameters
        said = card.read(folder / stage / phase)
        assert (said.kind, said.image_size, said.label_size) == ("aavs", 384, 224)
        assert said.network["num_classes"] == len(said.classes) == (71, 2)[stage == "localise"]
        assert said.origin["stage"] == stage and said.origin["phase"] == phase


def test_figures_and_masks(recipe):
    folder, _ = recipe
    rows = json.loads((folder / "results.json").read_text())
    kinds = {(row["stage"], row["split"], row["prior"]) for row in rows}
    assert kinds == {
        *(("localise", split, "none") for split in ("train", "val", "test")),
        *(("understand", "test", prior) for prior in ("predicted", "true")),
    }
    assert {(row["clips"], row["frames"]) for row in rows if row["split"] == "test"} == {(1, 10)}
    assert len(list((folder / "localise/masks").rglob("*.png"))) == 5 + 5 + 10 + 5 + 10
    train = [line for line in read_metrics(folder / "metrics.jsonl") if line["kind"] == "train"]
    steps = [(stage, phase, step) for stage in STAGES for phase in "ab" for step in range(1, 4)]
    assert [(line["stage"], line["phase"], line["step"]) for line in train] == steps
    assert all(np.isfinite(line["loss"]) and line["gradient_norm"] > 0 for line in train)


@pytest.mark.parametrize(("name", "trained_on"), [("s4", "v1s"), ("ms3", "v1m")])
def test_steps_of_the_other_recipes(name, trained_on, weights, clips, tmp_path):
    """On one clip: the data has no other of this subset, nor a split val or test."""
    alone = tmp_path / "clips"
    header, *rows = (clips / avsbench.METADATA_NAME).read_text().splitlines()
    (row,) = [row for row in rows if f"train,{trained_on}" in row]
    place = Path(trained_on) / row.split(",")[1]
    shutil.copytree(clips / place, alone / place)
    shutil.copy(clips / avsbench.LABEL2IDX_NAME, alone)
    (alone / avsbench.METADATA_NAME).write_text(f"{header}\n{row}\n")
    keys = ["phases.a.epochs=1.0", "phases.b.epochs=1.0"]
    run_folder = tmp_path / "run"
    run(
        *flags_of(alone, weights, name, *(f"--config.stages.localise.{key}" for key in keys)),
        f"--workdir={run_folder}",
    )
    lines = read_metrics(run_folder / "metrics.jsonl")
    assert [line["phase"] for line in lines] == ["a", "b"]
    assert all(np.isfinite(line["loss"]) and line["gradient_norm"] > 0 for line in lines)
    patterns = {"a": BINARY_TRAINS, "b": (*BINARY_TRAINS, BACKBONE_ADAPTERS)}
    for (phase, trains), count in zip(patterns.items(), STAGES["localise"][2:], strict=True):
        parameters = best_parameters(run_folder / "localise" / phase)
        changing = matching(parameters, *trains)
        assert size_of({path: parameters[path] for path in changing}) == count + AUDIO_MLP
