"""The command: whatever a user gets wrong is one sentence and exit code 2, and nothing is lost."""

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import aavs_jax.main
from aavs_jax.errors import UserError
from aavs_jax.evaluate import evaluate_masks, evaluate_weights
from aavs_jax.run.stopping import Stopped
from aavs_jax.schedule import train_and_evaluate
from configs import avss
from data_pipelines.errors import DataError
from data_pipelines.facts import avsbench
from data_pipelines.making import audible_shapes
from data_pipelines.prepare import main as prepare_command

REPOSITORY = Path(__file__).parents[1]
AVSS = f"--config={REPOSITORY}/configs/avss.py"


def error_of(*arguments: str, cwd: Path) -> str:
    """Runs the command, which has to fail as it should; returns its one sentence."""
    done = subprocess.run(
        [sys.executable, "-m", "aavs_jax.main", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    # Progress may stand before it, in lines of its own.
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and done.stderr.splitlines()[-1] == lines[0], done.stderr
    return lines[0]


# ---- mistakes in the command itself: no jax, nothing written


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["--config=FILE is missing", "--config=configs/avss.py"]),
        (["--config=none/such.py"], ["none/such.py"]),
        ([AVSS, "--config.seeds=1"], ["no key 'seeds'", "Did you mean", "seed"]),
        (
            [AVSS, "--config.stages.localise.phases.all.optimizer.learning_rat=1e-3"],
            ["learning_rat", "Did you mean", "learning_rate"],
        ),
        ([AVSS, "--config.stages.localise.foo.bar=1"], ["the config has no key 'foo'"]),
        ([AVSS, "--wokdir=x"], ["wokdir", "Did you mean", "workdir"]),
        ([AVSS, "--config.seed=many"], ["config.seed", "many"]),
        ([AVSS, "stray"], ["'stray'", "Options start with --"]),
        ([AVSS + ":/x,smal"], ["there is no option 'smal'", "FOLDER[,small]"]),
        (
            [AVSS, "--evaluate=x", "--evaluate_masks=y"],
            ["--evaluate and --evaluate-masks exclude each other"],
        ),
        (
            [AVSS, "--evaluate-masks=y", "--save_masks"],
            ["--save-masks has nothing to save where masks are given"],
        ),
        (
            [AVSS, "--masks_kind=soft"],
            ["--masks-kind is of given masks: name them with --evaluate-masks=DIR"],
        ),
        ([AVSS, "--evaluate-masks="], ["--evaluate-masks names no folder: give"]),
        ([AVSS, "--evaluate= ,"], ["--evaluate names no folder: give --evaluate=DIR"]),
        ([AVSS, "--workdir="], ["--workdir names no folder"]),
        ([AVSS, "--evaluate=none"], ["there is no folder of weights at none: check the path"]),
    ],
    ids=[
        *("config", "file", "key", "deep_key", "no_key", "flag", "type", "stray", "option"),
        *("both", "no_masks", "kind_of_none", "empty_masks", "empty_weights", "empty_workdir"),
        "no_weights",
    ],
)
def test_a_mistake_in_the_command(tmp_path, arguments, words):
    said = error_of(*arguments, cwd=tmp_path)
    for word in words:
        assert word in said
    assert "\\" not in said  # nobody's repr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "runs/avss"),
        (["--evaluate=weights/aavs_s4"], "runs/avss-aavs_s4"),
        (["--evaluate=a/one/,../two"], "runs/avss-one-two"),
        (["--evaluate=runs/mine/.."], "runs/avss-runs"),
        (["--evaluate=/"], "runs/avss-root"),
        (["--evaluate=runs/mine/localise/b"], "runs/avss-mine-localise-b"),
        (["--config.data.folder=x/../raw"], "runs/avss-raw"),
        ([":/data/prepared/"], "runs/avss-prepared"),
        ([":/data/prepared,small"], "runs/avss-prepared-small"),
        ([":/data/prepared", "--evaluate=weights/aavs_s4"], "runs/avss-prepared-aavs_s4"),
        (["--evaluate_masks=theirs/pred_masks"], "runs/avss-pred_masks"),
    ],
)
def test_an_evaluation_has_a_folder_of_its_own(tmp_path, arguments, expected):
    (tmp_path / "runs/mine/localise/b/checkpoints").mkdir(parents=True)
    config = AVSS + "".join(text for text in arguments if text.startswith(":"))
    arguments = [config, *(text for text in arguments if not text.startswith(":"))]
    program = (
        "import sys; from aavs_jax import main; main.parse(['main', *sys.argv[1:]]); "
        "print(main.default_workdir())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == expected, done.stderr


# ---- by the whole command


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """A sound data folder, not to be changed."""
    return audible_shapes.make(
        tmp_path_factory.mktemp("data") / "raw", clips=9, size=32, progress=False
    )


@pytest.mark.slow
def test_a_missing_data_folder_and_then_the_mended_command(tmp_path, raw):
    run = f"--workdir={tmp_path / 'runs' / 'mine'}"
    said = error_of(f"{AVSS}:{tmp_path}/none,small", run, cwd=tmp_path)
    assert f"there is no data folder {tmp_path}/none: check the path" in said
    # The same folder resumes with the right path: it gets as far as the next mistake.
    said = error_of(
        f"{AVSS}:{raw},small",
        run,
        "--config.stages.localise.phases.all.trains=('nothing_like_this',)",
        cwd=tmp_path,
    )
    assert "'nothing_like_this' of 'localise/all trains' matches none" in said
    assert not list(tmp_path.rglob("*.array_record*"))


# ---- in this process, for what is behind the flags


def test_ctrl_c_is_one_line_and_an_exit_code_of_its_own(monkeypatch, capsys):
    def stopped():
        raise Stopped("the same command resumes localise/all from step 3")

    monkeypatch.setattr(aavs_jax.main, "_run", stopped)
    with pytest.raises(SystemExit) as ended:
        aavs_jax.main.main([])
    assert ended.value.code == 130
    said = capsys.readouterr()
    assert said.err == "\nstopped: the same command resumes localise/all from step 3\n"
    assert not said.out


def small_config(folder, **changes) -> dict:
    config = avss.get_config(f"{folder},small")
    config.update_from_flattened_dict(changes)
    return config.to_dict()


# Found after the data.
NEXT_MISTAKE = {"stages.localise.data.seconds": 2}


def after_data():
    return pytest.raises(DataError, match="seconds is 2, but clips sampled by frame need 1")


def run_on(folder, root, **changes):
    return train_and_evaluate(small_config(folder, **changes), root / "runs" / "avss", "avss")


def nothing_but_the_record(root) -> bool:
    """Neither a data set nor a trace of training."""
    files = [path.name for path in (root / "runs").rglob("*") if path.is_file()]
    return set(files) <= {".lock", "config.json", "avs_clips.lock"}


def some_clip(folder) -> tuple[str, str]:
    with open(folder / avsbench.METADATA_NAME, newline="") as file:
        row = next(row for row in csv.DictReader(file) if row["label"] == "v2")
    return row["label"], row["uid"]


def corrupt_frame(folder):
    path = avsbench.frame_path(folder, *some_clip(folder), 3)
    path.write_bytes(path.read_bytes()[:100])
    return f"corrupt frame: {path}"


def missing_frame(folder):
    path = avsbench.frame_path(folder, *some_clip(folder), 3)
    path.unlink()
    return f"frames missing in {path.parent}: 3.jpg"


def missing_sound(folder):
    path = avsbench.audio_path(folder, *some_clip(folder))
    path.unlink()
    return str(path)


def label_out_of_range(folder):
    path = avsbench.rgb_label_path(folder, *some_clip(folder), 1)
    colours = np.asarray(Image.open(path).convert("RGB")).copy()
    colours[0, 0] = avsbench.palette()[200]
    Image.fromarray(colours).save(path)
    return f"label value out of range: {path}"


def no_table(folder):
    (folder / avsbench.METADATA_NAME).unlink()
    return f"{avsbench.METADATA_NAME} missing in {folder}"


def nothing_at_all(folder):
    for entry in folder.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    return f"no data set recognised in {folder}"


def empty_table(folder):
    path = folder / avsbench.METADATA_NAME
    path.write_text(path.read_text().splitlines()[0] + "\n")
    return f"no clips in {folder}"


@pytest.mark.parametrize(
    "spoil",
    [
        corrupt_frame,
        missing_frame,
        missing_sound,
        label_out_of_range,
        no_table,
        nothing_at_all,
        empty_table,
    ],
    ids=lambda f: f.__name__,
)
def test_a_fault_in_the_data_names_the_file(tmp_path, raw, spoil):
    folder = shutil.copytree(raw, tmp_path / "raw")
    words = spoil(folder)
    with pytest.raises(DataError) as error:
        run_on(folder, tmp_path)
    assert words in str(error.value) and "\n" not in str(error.value)
    of_a_clip = spoil not in (no_table, nothing_at_all, empty_table)
    way_out = f"; python -m data_pipelines.prepare {folder} --out DIR leaves such clips out"
    assert (way_out in str(error.value)) == of_a_clip
    assert nothing_but_the_record(tmp_path)


def test_prepared_data_go_in_place_of_the_folder(tmp_path, raw):
    """As the sentence about a faulty clip says; nothing is prepared again."""
    folder = shutil.copytree(raw, tmp_path / "raw")
    corrupt_frame(folder)
    assert prepare_command([str(folder), "--out", str(tmp_path / "data")]) == 3
    with after_data():  # it gets as far as the next mistake
        run_on(tmp_path / "data", tmp_path, **NEXT_MISTAKE)
    assert not (tmp_path / "runs" / "data").exists()


def test_a_value_that_cannot_be_is_found_before_data_is_made(tmp_path, raw):
    with pytest.raises(
        UserError, match="optimizer.schedule is 'linear': give one of constant, cos"
    ):
        run_on(raw, tmp_path, **{"stages.localise.phases.all.optimizer.schedule": "linear"})
    assert not (tmp_path / "runs").exists()


def test_a_key_that_nothing_reads_is_found_before_data_is_made(tmp_path, raw):
    config = small_config(raw)
    config["chekpoint_every"] = 5
    with pytest.raises(UserError, match="did you mean 'checkpoint_every'"):
        train_and_evaluate(config, tmp_path / "runs" / "avss", "avss")
    assert not (tmp_path / "runs").exists()


def test_an_unknown_protocol_is_found_before_data_is_made(tmp_path, raw):
    with pytest.raises(UserError, match="eval.protocols is 'j': no protocol 'j'; there are"):
        run_on(raw, tmp_path, **{"eval.protocols": "j"})
    assert nothing_but_the_record(tmp_path)


def test_an_fsdp_that_does_not_divide_the_devices(tmp_path, raw):
    with pytest.raises(UserError, match=r"mesh\.fsdp is 7, but there are \d+ devices"):
        run_on(raw, tmp_path, **{"mesh.fsdp": 7})
    assert nothing_but_the_record(tmp_path)


def test_a_workdir_made_by_another_config(tmp_path, raw):
    root = tmp_path / "runs" / "avss"
    with after_data():
        run_on(raw, tmp_path, **NEXT_MISTAKE)
    (root / "metrics.jsonl").write_text("")  # it trained
    before = (root / "config.json").read_bytes()
    with pytest.raises(UserError, match=r"made by another config \(seed was 3407, is 1\)"):
        run_on(raw, tmp_path, **{**NEXT_MISTAKE, "seed": 1})
    assert (root / "config.json").read_bytes() == before


def test_a_full_disk(tmp_path, raw):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(disk)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        with pytest.raises((UserError, DataError), match="No space left on device") as error:
            train_and_evaluate(small_config(raw), disk / "run", "avss")
        assert str(disk) in str(error.value)
        # Nothing that looks like a prepared data set.
        assert not list(disk.glob("data/*/avs_clips/1.*"))
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_file_where_the_workdir_should_be(tmp_path, raw):
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(UserError, match=f"cannot write {tmp_path}/runs/avss.*--workdir"):
        run_on(raw, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    assert (tmp_path / "runs").read_text() == "a file"


@pytest.mark.parametrize(
    ("evaluation", "changes", "words"),
    [
        (evaluate_weights, {"eval.protocols": "all,combo"}, "'all,combo': 'all' stands alone"),
        (
            evaluate_masks,
            {"stages.understand.data.label_size": 0},
            "config.stages.understand.data.label_size is 0: give 1 to 4096 pixels",
        ),
    ],
    ids=["all", "size"],
)
def test_a_config_that_cannot_be_evaluated(tmp_path, evaluation, changes, words):
    config = avss.get_config()
    config.update_from_flattened_dict(changes)
    with pytest.raises(UserError, match=words):
        evaluation(config.to_dict(), tmp_path / "run", "avss", str(tmp_path / "x"))
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="a folder that not even root can write")
def test_an_unwritable_workdir(raw):
    with pytest.raises(UserError, match=r"cannot write /proc/runs/avss"):
        train_and_evaluate(small_config(raw), Path("/proc/runs/avss"), "avss")
