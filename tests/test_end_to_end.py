"""The command, from nothing to its report, with a network and a data set of next to nothing."""

import importlib.metadata
import json
import re
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aavs_jax.inputs.batches import on_data, train_batches
from aavs_jax.methods import make_method
from aavs_jax.methods.aavs.config import AAVSConfig
from aavs_jax.methods.aavs.network import abstract_model
from aavs_jax.methods.functional import initial_parameters
from aavs_jax.plan.stage import make_stage
from aavs_jax.run.logging_writer import read_metrics
from aavs_jax.scoring import metrics
from aavs_jax.state.checkpoint import PhaseCheckpoints
from aavs_jax.state.parameter_folders import load_parameters, save_parameters
from aavs_jax.state.sharding import make_mesh
from aavs_jax.weights import card
from aavs_jax.weights.keeping import best_parameters
from configs import avss
from configs.aavs import BACKBONE_ADAPTERS, BINARY_TRAINS, SEMANTIC_TRAINS
from data_pipelines.facts import avsbench
from data_pipelines.making import audible_shapes
from data_pipelines.making.audible_shapes.shapes import CLASS_NAMES
from data_pipelines.prepare import prepare

SIZE = 32  # pixels of frames and labels
SPLITS = ("train", "val", "test")
VIEWS = ("both", "true")  # priors with which stage two is scored
WRITERS = ("localise", "localise_earlier")  # of masks


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A folder as a user may have one: the same twelve clips, 48 pixels, in AVSBench's layout."""
    path = tmp_path_factory.mktemp("user") / "avsbench"
    return audible_shapes.make(path, clips=12, size=48, seed=5, progress=False)


def rows_of(run: Path) -> list[dict]:
    return json.loads((run / "results.json").read_text())


def kinds(rows: list[dict]) -> list[tuple]:
    """(stage, split, sound, prior) in the order of the rows."""
    return list(dict.fromkeys((r["stage"], r["split"], r["sound"], r["prior"]) for r in rows))


def snapshot(folder: Path) -> dict[Path, tuple]:
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*")}


def masks_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.png")}


# ---- what a run leaves


def test_rows(tiny_run):
    rows = rows_of(tiny_run[0])
    keys = "stage split sound prior protocol metric value clips frames label_size".split()
    assert all(list(row) == keys for row in rows)
    assert all(row["protocol"] == metrics.PROTOCOL == "stepping_stones" for row in rows)
    assert all(0 <= row["value"] <= 1 for row in rows)
    sounds = ("right", "other", "silence")
    assert kinds(rows) == [
        *(("localise", "test", sound, "none") for sound in sounds),
        ("localise", "val", "right", "none"),
        ("localise_earlier", "train", "right", "none"),
        *(("understand", "test", s, prior) for prior in VIEWS for s in sounds),
    ]
    # 12 clips are four of each subset: two train, one val, one test; of 5, 5 and 10 seconds. Of
    # v1s only the first second of a training clip is labelled.
    counts = {(r["stage"], r["split"]): (r["clips"], r["frames"]) for r in rows}
    assert counts == {
        ("localise", "test"): (3, 20),
        ("localise", "val"): (3, 20),
        ("localise_earlier", "train"): (6, 2 * (1 + 5 + 10)),
        ("understand", "test"): (3, 20),
    }
    binary = [row["metric"] for row in rows if row["stage"].startswith("localise")]
    assert binary == ["J", "F", "J&F"] * 5
    means = ("mIoU", "F", "mIoU_no_background", "F_no_background")
    semantic = [row["metric"] for row in rows if row["stage"] == "understand"]
    assert all(semantic.count(metric) == 3 * len(VIEWS) for metric in means)
    # Of single classes those that occur, in the truth or in what was predicted with a sound.
    names = {avsbench.BACKGROUND, *CLASS_NAMES}
    for kind in kinds(rows)[5:]:
        mine = [row["metric"] for row in rows if kinds([row]) == [kind]]
        single = [metric.split("/") for metric in mine if metric not in means]
        classes = {name for _, name in single}
        assert len(classes) > 1 and classes <= names
        assert len(single) == len({tuple(pair) for pair in single}) == 2 * len(classes)
        assert {part for part, _ in single} == {"IoU", "F"}


def test_masks_of_every_clip(tiny_run):
    run = tiny_run[0]
    (raw,) = (run.parent / "data").glob("*/raw")
    expected = {
        f"{clip.parent.name}/{clip.name}/{second}.png"
        for clip in raw.glob("v*/*")
        for second in range(avsbench.SUBSET_SECONDS[clip.parent.name])
    }
    assert len(expected) == 4 * (5 + 5 + 10)
    for kind in ("masks", "masks-soft"):
        found = {stage: set(masks_in(run / stage / kind)) for stage in WRITERS}
        # Half of the clips are for training, of which it is the earlier network that says masks.
        assert {len(names) for names in found.values()} == {len(expected) // 2}
        assert set.union(*found.values()) == expected
        values = set()
        for stage, names in found.items():
            for name in names:
                mask = np.asarray(Image.open(run / stage / kind / name))
                assert mask.shape == (SIZE, SIZE) and mask.dtype == np.uint8
                values |= set(np.unique(mask))
        assert (values <= {0, 255}) == (kind == "masks")
    assert not (run / "understand/masks").exists()


def test_every_phase_has_a_card(tiny_run):
    run, flags, _ = tiny_run
    for stage, classes in (
        ("localise", ("background", "sounding")),
        ("understand", (avsbench.BACKGROUND, *CLASS_NAMES)),
    ):
        said = card.read(run / stage / "all")
        assert said.kind == "aavs" and said.classes == classes
        assert said.network["num_classes"] == len(classes)
        assert (said.image_size, said.label_size) == (SIZE, SIZE)
        assert (said.origin["stage"], said.origin["phase"]) == (stage, "all")
        assert said.origin["run"].startswith("python -m aavs_jax.main --config=configs/avss.py")
        # It is enough to build the network that the checkpoints are of.
        parameters, _ = card.weights(run / stage / "all")
        config = AAVSConfig.from_dict(said.network)
        fresh = initial_parameters(abstract_model(config), 0)
        assert {p: v.shape for p, v in fresh.items()} == {p: v.shape for p, v in parameters.items()}


def test_curves_and_checkpoints(tiny_run):
    run = tiny_run[0]
    lines = read_metrics(run / "metrics.jsonl")
    for stage, figure in (("localise", "J"), ("understand", "mIoU")):
        mine = [line for line in lines if line["stage"] == stage]
        train = [line for line in mine if line["kind"] == "train"]
        val = [line for line in mine if line["kind"] == "val"]
        assert [line["step"] for line in train] == list(range(1, 37))
        assert [line["step"] for line in val] == [18, 36]
        parts = ("loss/class", "loss/mask", "loss/dice")
        for line in train:
            assert line["loss"] == pytest.approx(sum(line[part] for part in parts), rel=1e-5)
        with PhaseCheckpoints(run / stage / "all") as checkpoints:
            assert checkpoints.latest_step == 36
            best = max(val, key=lambda line: line[figure])
            assert checkpoints.best().step == best["step"]
        assert list((run / "tensorboard" / stage / "all").glob("events.out.tfevents.*"))


def test_config_says_what_was_run(tiny_run):
    run, flags, _ = tiny_run
    record = json.loads((run / "config.json").read_text())
    assert record["config_name"] == "avss"
    assert record["config"]["stages"]["understand"]["prior"]["train"] == "earlier"
    assert record["config"]["data"]["clips"] == 12
    assert record["command"].startswith("python -m aavs_jax.main --config=configs/avss.py")
    assert f"--workdir={run}" in record["command"]
    for package in ("jax", "flax", "optax", "grain"):
        assert record["versions"][package] == importlib.metadata.version(package)


def test_report_needs_no_other_file(tiny_run):
    run = tiny_run[0]
    page = (run / "report/index.html").read_text()
    links = re.findall(r"""(?:src|href)\s*=\s*["']?([^"'\s>]*)|url\(([^)]*)\)""", page)
    links = ["".join(link).strip("\"'") for link in links]
    assert not [link for link in links if not link.startswith(("data:", "#"))]
    assert "@import" not in page and "<script src" not in page
    # Two clips, each with frames, truth, three sounds, and three priors times two sounds.
    assert page.count("data:image/png") >= 2 * 5 * 11
    assert "localise" in page and "mIoU" in page
    # Of both clips their own sound and the other's; the page may play them.
    assert page.count("<audio controls") == 4 and "media-src data:" in page
    assert page.count("<figcaption>another clip&#39;s: ") == 2
    assert len(list((run / "report").glob("*.png"))) == 2


def test_last_table(tiny_run):
    run, _, output = tiny_run
    table = output[output.rindex("understand on test") :]
    for row in rows_of(run):
        if "/" not in row["metric"]:
            head = f"stage {row['stage']}, split {row['split']}, protocol {row['protocol']}: "
            (block,) = [text for text in table.split("\n\n") if text.lstrip().startswith(head)]
            lines = [line.split() for line in block.strip().splitlines()[1:]]
            (line,) = [line for line in lines if line[:2] == [row["sound"], row["prior"]]]
            assert line[lines[0].index(row["metric"])] == f"{row['value']:.3f}"
    for path in ("report/index.html", "results.json", "metrics.jsonl"):
        assert str(run / path) in table
    for message in ("=== stage localise", "=== stage understand", "has written its masks"):
        assert message in output
    for stage, score in (("localise", "J"), ("understand", "mIoU")):
        training = f"[{stage}/all] compiling the training step for batches of 4 clips of 1 s\n"
        assert output.count(training) == 1
        assert output.count(f"[{stage}/all validation] compiling the evaluation\n") == 1
        # What a validation has compiled serves the passes after it; one view of a mask is another
        # program than both.
        others = ["understand on test, sound right, prior true"] * (stage == "understand")
        assert re.findall(rf"\[({stage} on .*)\] compiling", output) == others
        words = rf"the best of phase all: step (18|36) of phase all, {score} \d\.\d\d\d; scores"
        assert re.search(rf"\[{stage}\] (keeps|hands over) {words} follow\n", output)


# ---- again


def test_complete_run_says_so_and_changes_nothing(tiny_run, command):
    run, flags, output = tiny_run
    before = snapshot(run.parent)
    again = command(*flags, f"--workdir={run}", timeout=60)
    assert f"{run} is complete already" in again
    assert again.count("stepping_stones") == output.count("stepping_stones")
    assert again[again.index("stage ") :] in output
    assert snapshot(run.parent) == before


@pytest.mark.slow
def test_same_command_same_bits(tiny_run, command, tmp_path):
    run, flags, _ = tiny_run
    other = tmp_path / "other"  # its data are made again, too
    command(*flags, f"--workdir={other}")
    for name in ("results.json", "metrics.jsonl"):
        assert (other / name).read_bytes() == (run / name).read_bytes()
    for stage in WRITERS:
        assert masks_in(other / stage / "masks-soft") == masks_in(run / stage / "masks-soft")
    (ours,) = (tmp_path / "data").glob("*/raw")
    (theirs,) = (run.parent / "data").glob("*/raw")
    for path in theirs.rglob("*.*"):
        assert (ours / path.relative_to(theirs)).read_bytes() == path.read_bytes()


@pytest.mark.slow
def test_a_complete_run_takes_other_protocols_and_more_epochs(tiny_run, command, tmp_path):
    run, flags, _ = tiny_run
    folder = shutil.copytree(run.parent, tmp_path / "copy") / run.name
    more = "--config.stages.understand.phases.all.epochs=26.0"
    output = command(*flags, more, "--config.eval.protocols=cavp", f"--workdir={folder}")
    assert "eval.protocols was 'stepping_stones', is 'cavp': scores are computed again" in output
    assert "understand/all resumes from its last state" in output
    assert "[localise/all] is complete" in output
    assert "[understand/all] resumes from step 36" in output
    lines = [line for line in read_metrics(folder / "metrics.jsonl") if line["kind"] == "train"]
    steps = [(line["stage"], line["step"]) for line in lines]
    assert steps == [
        (s, t) for s, n in (("localise", 36), ("understand", 39)) for t in range(1, n + 1)
    ]
    assert {row["protocol"] for row in rows_of(folder)} == {"cavp"}
    # What was not trained further is what it was.
    for stage in WRITERS:
        assert masks_in(folder / stage / "masks-soft") == masks_in(run / stage / "masks-soft")
    output = command(*flags, f"--workdir={folder}", code=2)
    assert "epochs was 26.0, is 24.0" in output.splitlines()[-1]


@pytest.mark.slow
def test_another_seed_is_another_run(tiny_run, command, tmp_path):
    run, flags, _ = tiny_run
    command(*flags, "--config.seed=4", f"--workdir={tmp_path / 'run'}")
    ours, theirs = (read_metrics(f / "metrics.jsonl") for f in (tmp_path / "run", run))
    both = [(x, y) for x, y in zip(ours, theirs, strict=True) if x["kind"] == "train"]
    assert all(x["step"] == y["step"] and x["loss"] != y["loss"] for x, y in both)


# ---- other ways to run


@pytest.mark.slow
@pytest.mark.parametrize("name", ["s4", "ms3"])
def test_schedules_of_one_stage(name, command, tiny_flags, tmp_path):
    flags = tiny_flags(("localise",), epochs=48.0)
    sounds = "--config.eval.sounds=('right','silence')"  # the one test clip has no other
    command(f"--config=configs/{name}.py", *flags, sounds, f"--workdir={tmp_path / 'run'}")
    rows = rows_of(tmp_path / "run")
    assert kinds(rows) == [("localise", "test", s, "none") for s in ("right", "silence")]
    assert {(row["clips"], row["frames"]) for row in rows} == {(1, 5)}
    assert not (tmp_path / "run/localise/masks").exists()


@pytest.mark.slow
def test_end_to_end_ablation(command, tiny_flags, tmp_path):
    flags = tiny_flags(("understand",))
    command("--config=configs/avss_end_to_end.py", *flags, f"--workdir={tmp_path / 'run'}")
    rows = rows_of(tmp_path / "run")
    sounds = ("right", "other", "silence")
    assert kinds(rows) == [("understand", "test", sound, "none") for sound in sounds]


@pytest.mark.slow
@pytest.mark.parametrize("prior", ["true", "mixture"])
def test_users_folder_and_foreign_masks(prior, command, tiny_flags, folder, tmp_path):
    masks = tmp_path / "foreign" / "masks"
    rng = np.random.default_rng(0)
    for clip in folder.glob("v*/*"):
        for second in range(avsbench.SUBSET_SECONDS[clip.parent.name]):
            path = avsbench.mask_path(masks, clip.parent.name, clip.name, second)
            path.parent.mkdir(parents=True, exist_ok=True)
            # Another size than ours, and grey where another tool is not sure.
            Image.fromarray(rng.integers(0, 256, (20, 28), np.uint8)).save(path)
    flags = (
        f"--config=configs/avss.py:{folder},small",
        *tiny_flags(("understand",)),
        "--config.schedule=('understand',)",
        "--config.stages.understand.phases.all.start=nothing",
        f"--config.stages.understand.prior.masks={masks}",
        f"--config.stages.understand.prior.train={prior}",
    )
    output = command(*flags, f"--workdir={tmp_path / 'run'}")
    assert "stage localise" not in output
    assert {row["prior"] for row in rows_of(tmp_path / "run")} == set(VIEWS)
    # It is these masks that are read: without one of a validation clip there is no validation.
    avsbench.mask_path(masks, "v1m", "shapes00005_0", 3).unlink()
    output = command(*flags, f"--workdir={tmp_path / 'again'}", code=2)
    assert str(masks) in output.splitlines()[-1] and "shapes00005_0" in output.splitlines()[-1]
    assert not list(folder.glob("*.partial")) and not (folder.parent / "data").exists()
    assert [path.name.split("-")[0] for path in (tmp_path / "data").iterdir()] == ["avsbench"]


@pytest.mark.slow
def test_two_processes(command, start, tiny_run, tiny_flags, tmp_path):
    """`--distributed` as Slurm starts it: every clip is evaluated once, the figures are there."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    run = tmp_path / "run"
    flags = ["--config=configs/avss.py", *tiny_flags(), "--distributed", f"--workdir={run}"]
    slurm = {
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
        "SLURM_JOB_ID": "1",
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": "2",
    }
    processes = [
        start(*flags, SLURM_PROCID=str(rank), SLURM_LOCALID="0", **slurm) for rank in (0, 1)
    ]
    try:
        outputs = [process.communicate(timeout=500)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)
    assert "[localise/all] 36 steps on 2 x cpu" in outputs[0]
    assert "stage localise" not in outputs[1]  # the first process speaks
    ours, theirs = (json.loads((f / "results.json").read_text()) for f in (run, tiny_run[0]))
    same = ("stage", "split", "sound", "prior", "metric", "clips", "frames")
    kept = [[{key: row[key] for key in same} for row in rows] for rows in (ours, theirs)]
    assert kept[0] == kept[1]
    names = [
        sorted(str(path.relative_to(f)) for path in f.glob("localise*/masks-soft/*/*/*.png"))
        for f in (run, tiny_run[0])
    ]
    assert names[0] == names[1] and len(names[0]) == 80
    assert (run / "report/index.html").exists()


@pytest.mark.slow
def test_batches_of_the_paper(folder, tmp_path):
    """One clip; Grain's endless data sets overflow in batches of one."""
    prepare(folder, tmp_path, progress=False)
    config = avss.get_config("/somewhere").to_dict()
    config["stages"]["understand"]["data"] |= {"image_size": 32, "label_size": 32}
    stage = on_data(make_stage(config, "understand", tmp_path), tmp_path, make_mesh())
    source, batches = stage.sources["train"], train_batches(stage, 0)
    shapes = {name: array.shape for name, array in next(batches).items()}
    # Of v1s, with which it begins: five seconds and no padding.
    assert shapes["frames"] == (1, 5, 32, 32, 3) and shapes["prior_mask"] == (1, 5, 32, 32)
    ids = [next(batches)["ids"][0] for _ in range(12)][-6:]  # nothing is shuffled
    assert sorted(ids) == sorted(clip.name for clip in source.clips)


@pytest.mark.slow
def test_paper_recipe(command, tiny_flags, folder, tmp_path):
    """The phases of the paper, on a network of no size: what trains, what is frozen, zero, new."""
    changes = {"loss.num_points": 64}
    flags = tiny_flags(phases=("a", "b"), epochs=1.0, **changes)
    stages = {}
    for name in ("localise", "understand"):
        config = avss.get_config(str(folder)).stages[name]
        keys = [flag.removeprefix(f"--config.stages.{name}.").split("=", 1) for flag in flags]
        model = {k: v for k, v in keys if not k.startswith("--") and not k.startswith("phases")}
        config.update_from_flattened_dict(
            {key: eval(value) for key, value in model.items()}  # flags are Python literals
        )
        stages[name] = make_method(config.to_dict(), 1 + len(CLASS_NAMES))
    # Pretrained parameters of another draw than the run's own.
    pretrained = stages["localise"].initial(1)
    vggish = {p: v for p, v in pretrained.items() if p.startswith("audio_encoder/")}
    others = {
        p: v
        for p, v in pretrained.items()
        if p.startswith(("backbone/", "pixel_decoder/", "decoder/")) and "adapter" not in p
    }
    sizes = json.loads(json.dumps(stages["localise"].network))
    for folder_name, parameters in (("vggish", vggish), ("mask2former", others)):
        save_parameters(tmp_path / folder_name, parameters)
        parts = {key: v for key, v in sizes.items() if (key == "audio") == (parameters is vggish)}
        card.write(tmp_path / folder_name, card.Card(folder_name, parts))
    given = vggish | others
    run = tmp_path / "run"
    output = command(
        f"--config=configs/avss.py:{folder}",
        *flags,
        f"--config.init.vggish={tmp_path / 'vggish'}",
        f"--config.init.mask2former={tmp_path / 'mask2former'}",
        f"--workdir={run}",
    )

    def matches(path: str, *patterns: str) -> bool:
        return any(re.fullmatch(pattern, path) for pattern in patterns)

    for name, trains in (("localise", BINARY_TRAINS), ("understand", SEMANTIC_TRAINS)):
        fresh = stages[name].initial(3407)
        a, b = (best_parameters(run / name / phase) for phase in "ab")
        assert a.keys() == b.keys() == fresh.keys()
        changed_in_a, changed_in_b = set(), set()
        for path in fresh:
            start = given[path] if path in given else fresh[path]
            if start.shape != fresh[path].shape:
                start = fresh[path]
            adapter = matches(path, BACKBONE_ADAPTERS)
            if adapter:
                # Zero and left alone in a, so the adapters do nothing there; drawn anew for b.
                np.testing.assert_array_equal(a[path], 0.0, err_msg=path)
                start_of_b = fresh[path]
            else:
                start_of_b = a[path]
                if (a[path] != start).any():
                    changed_in_a.add(path)
            if (b[path] != start_of_b).any():
                changed_in_b.add(path)
        # Exactly what is listed changes; a query that wins no target may keep its feature.
        listed = {path for path in fresh if matches(path, *trains)}
        adapters = {path for path in fresh if matches(path, BACKBONE_ADAPTERS)}
        assert changed_in_a <= listed and changed_in_b <= listed | adapters
        assert len(changed_in_a) > 0.9 * len(listed)
        # The last map is one pixel, of which GroupNorm leaves nothing: no gradient for its biases.
        assert len(changed_in_b & adapters) > 0.8 * len(adapters) > 0
        # What never trains is written once, and is what was given.
        frozen = load_parameters(run / name / "a" / "frozen")
        assert frozen.keys() == fresh.keys() - listed
    said = "initialised at random from seed 3407: 4 arrays of the pixel decoder's adapters (not in"
    assert said in output
    assert f"the class predictor ({1 + len(CLASS_NAMES)} classes, not 2)" in output
    assert "[understand/b] takes" in output and "adapters (as the phase asks)" in output
    rows = rows_of(run)
    assert {row["stage"] for row in rows} == {"localise", "understand"}
    steps = {(m["stage"], m["phase"]): m["step"] for m in read_metrics(run / "metrics.jsonl")}
    assert steps == {(stage, phase): 6 for stage in stages for phase in "ab"}
