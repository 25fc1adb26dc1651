"""Evaluation without training: the figures of a run's weights are the run's own, to the last bit,
and so are those of the masks that it leaves; what does not fit is one sentence."""

import ast
import dataclasses
import json
import re
import shlex
import shutil
import types
from pathlib import Path

import grain
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
from PIL import Image

from aavs_jax import evaluate
from aavs_jax.errors import UserError
from aavs_jax.plan.own_data import own_data
from aavs_jax.plan.stage import make_stage
from aavs_jax.scoring import metrics
from aavs_jax.state.checkpoint import SCORE, PhaseCheckpoints
from aavs_jax.state.parameter_folders import save_parameters
from aavs_jax.state.train_state import TrainState
from aavs_jax.weights import card, given_weights, pretrained
from aavs_jax.weights.card import Card
from configs import avss, avss_end_to_end, s4
from data_pipelines.errors import DataError
from data_pipelines.prepare import prepare

DECIDED = {"J", "mIoU", "mIoU_no_background", "F_no_background", "FDR", "F1"}  # not by soft maps


def config_of(flags) -> dict:
    """The config that `--config.KEY=VALUE` flags make."""
    config = avss.get_config()
    values = dict(flag.removeprefix("--config.").split("=", 1) for flag in flags)
    for key, value in values.items():
        is_literal = value[0] in "(0123456789"
        config.update_from_flattened_dict({key: ast.literal_eval(value) if is_literal else value})
    return config.to_dict()


def rows_of(folder) -> list[dict]:
    return json.loads((folder / "results.json").read_text())


@pytest.fixture(scope="module")
def evaluated(tiny_run, command):
    """The tiny run's weights, evaluated by all protocols: (its folder, its output)."""
    run, flags, _ = tiny_run
    folder = run.parent / "evaluated"
    everything = ("--config.eval.protocols=all", "--save_masks", f"--workdir={folder}")
    return folder, command(*flags, f"--evaluate={run}", *everything)


@pytest.fixture
def config(tiny_run):
    return config_of(tiny_run[1][1:])


# ---- weights


def test_figures_are_those_of_the_run(tiny_run, evaluated):
    theirs = [row for row in rows_of(tiny_run[0]) if row["split"] == "test"]
    mine = rows_of(evaluated[0])
    weights = {row["stage"]: row.pop("weights") for row in mine}
    assert [row for row in mine if row["protocol"] == "stepping_stones"] == theirs
    assert weights == {name: str(tiny_run[0] / name / "all") for name in weights}
    assert len(weights) == 2
    assert {row["protocol"] for row in mine} == set(metrics.PROTOCOLS)


def test_it_leaves_masks_and_a_report(tiny_run, evaluated):
    folder, output = evaluated
    names = {path.relative_to(folder) for path in folder.rglob("masks*")}
    assert {str(name) for name in names} == {
        "localise/masks",
        "localise/masks-soft",  # which stage two takes
        "understand/masks",
        "understand/masks-true",
    }
    for path in (folder / "localise/masks").rglob("*.png"):
        theirs = tiny_run[0] / path.relative_to(folder)
        assert path.read_bytes() == theirs.read_bytes()
    clips = {path.parent for path in (folder / "localise/masks").rglob("*.png")}
    assert len(clips) == 3  # of the test split alone
    page = (folder / "report/index.html").read_text()
    for protocol in metrics.PROTOCOLS.values():
        assert protocol.name in page and protocol.title in page
    assert "docs/protocols.md" in page and str(tiny_run[0] / "understand/all") in page
    assert page.count("data:image/png") >= 2 * 5 * 9
    assert not list(folder.rglob("checkpoints"))
    for words in ("stage localise", "stage understand", str(folder / "report/index.html")):
        assert words in output


@pytest.mark.slow
def test_the_same_command_again_shows_the_figures(tiny_run, evaluated, command):
    run, flags, _ = tiny_run
    folder, output = evaluated
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    arguments = ("--config.eval.protocols=all", "--save-masks", f"--workdir={folder}")
    again = command(*flags, f"--evaluate={run}", *arguments)
    assert f"{folder} is complete already" in again
    assert again[again.index("stage ") :] in output
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


# ---- on which data


def a_run(root, **data):
    """The record of a run, which is all that is asked here."""
    config = avss.get_config().to_dict()
    config["data"] |= data
    (root / "localise" / "all").mkdir(parents=True)
    (root / "config.json").write_text(json.dumps({"config": config}))
    return root


def test_a_run_is_scored_on_its_own_data_unless_told_otherwise(tmp_path):
    (tmp_path / "clips").mkdir()
    on_clips = a_run(tmp_path / "one", folder=str(tmp_path / "clips"))
    on_shapes = a_run(tmp_path / "two", clips=12)
    usual = avss.get_config().data.to_dict()
    for given in (on_clips, on_clips / "localise" / "all"):
        assert own_data(usual, str(given)) == usual | {"folder": str(tmp_path / "clips")}
    assert own_data(usual, str(on_shapes))["clips"] == 12
    for told in ({"folder": "/mine"}, {"clips": 100}):
        assert own_data(usual | told, str(on_clips)) == usual | told
    # Of converted weights nobody knows what they were trained on.
    assert own_data(usual, str(tmp_path / "clips")) == usual
    with pytest.raises(UserError, match="two were trained on different data: say on which"):
        own_data(usual, f"{on_clips},{on_shapes}")
    (tmp_path / "clips").rmdir()
    with pytest.raises(UserError, match="was trained on .*clips, and there is no such folder now"):
        own_data(usual, str(on_clips))


def test_it_says_what_it_scores_on(evaluated):
    assert "scores on Audible Shapes, 12 clips, split test" in evaluated[1]


@pytest.mark.parametrize("stage", ["localise", "understand"])
def test_masks_give_the_figures_of_the_network_that_wrote_them(stage, evaluated, config):
    folder = evaluated[0]
    config["schedule"] = (stage,)
    config["eval"] |= {"protocols": "all"}
    masks = folder / stage / "masks"
    rows = evaluate.evaluate_masks(config, folder.parent / f"{stage}_masks", "avss", masks)
    first = config["stages"][stage]["prior"]["evaluate"][0]
    theirs = {
        (row["protocol"], row["metric"]): row
        for row in rows_of(folder)
        if (row["stage"], row["sound"], row["prior"]) == (stage, "right", first)
    }
    assert {(row["protocol"], row["metric"]) for row in rows} == theirs.keys()
    compared = 0
    for row in rows:
        assert (row["sound"], row["prior"], row["masks"]) == ("given", "none", str(masks))
        other = theirs[row["protocol"], row["metric"]]
        decided = stage == "understand" or not metrics.PROTOCOLS[row["protocol"]].map
        if decided or row["metric"] in DECIDED:
            compared += 1
            assert row["value"] == other["value"], (row["protocol"], row["metric"])
        assert (row["clips"], row["frames"]) == (other["clips"], other["frames"])
    assert compared > 8
    page = (folder.parent / f"{stage}_masks/report/index.html").read_text()
    assert "<dt>layout</dt>" in page and "<dt>kind</dt>" in page and "stray" not in page
    assert re.search(r"<dt>labels</dt>\s*<dd>32 pixels</dd>", page)
    assert {row["label_size"] for row in rows} == {32}
    assert "masks as given" in page and page.count("data:image/png") >= 2 * 5 * 3


def test_other_weights_or_a_training_run_have_folders_of_their_own(tiny_run, evaluated, config):
    run, folder = tiny_run[0], evaluated[0]
    before = (folder / "config.json").read_bytes()
    config["eval"] |= {"protocols": "all", "save_masks": True}
    with pytest.raises(UserError, match="another config .evaluate.understand was '.*', is None"):
        evaluate.evaluate_weights(config, folder, "avss", str(run / "localise/all"))
    with pytest.raises(UserError, match="was made by another config .*choose another"):
        evaluate.evaluate_weights(config, run, "avss", str(run))
    assert (folder / "config.json").read_bytes() == before


@pytest.mark.slow
def test_other_protocols_are_computed_in_the_same_folder(tiny_run, evaluated, config, capsys):
    # Beside the data, as the folder it is copied from.
    folder = shutil.copytree(evaluated[0], evaluated[0].with_name("evaluated_again"))
    masks = {path: path.read_bytes() for path in folder.rglob("masks/**/*.png")}
    config["eval"] |= {"protocols": "cavp", "save_masks": True}
    evaluate.evaluate_weights(config, folder, "avss", str(tiny_run[0]))
    assert "eval.protocols was 'all', is 'cavp': scores are computed" in capsys.readouterr().out
    theirs = [row for row in rows_of(evaluated[0]) if row["protocol"] == "cavp"]
    assert [row for row in rows_of(folder) if "/" not in row["metric"]] == theirs
    assert masks and {path: path.read_bytes() for path in folder.rglob("masks/**/*.png")} == masks


@pytest.fixture(scope="module")
def converted(tiny_run, tmp_path_factory):
    """The run's first stage as a converted AAVS file would be, without its audio encoder, and the
    encoder beside it."""
    parameters, found = card.weights(tiny_run[0] / "localise/all")
    folder = tmp_path_factory.mktemp("weights")
    network = dict(found.network)
    audio = network.pop("audio")
    parts = {
        "aavs": Card("aavs", network, image_size=32, label_size=32),
        "vggish": Card("vggish", {"audio": audio}),
    }
    for name, part in parts.items():
        mine = {
            path: jnp.asarray(value)
            for path, value in parameters.items()
            if path.startswith("audio_encoder/") == (name == "vggish")
        }
        save_parameters(folder / name, mine)
        card.write(folder / name, part)
    return folder


@pytest.mark.slow
def test_an_aavs_file_takes_the_audio_encoder_beside_it(tiny_run, evaluated, converted, command):
    """The network hears embeddings, whose last bits are their own: some pixels change sides."""
    run, flags, _ = tiny_run
    folder = run.parent / "converted"
    output = command(
        "--config=configs/s4.py",
        *(flag for flag in flags[1:] if "understand" not in flag),
        "--config.stages.localise.data.subsets=()",
        "--config.stages.localise.model.num_queries=7",
        f"--evaluate={converted}/aavs",
        f"--workdir={folder}",
    )
    assert f"lacks from {converted}/vggish" in output
    assert "model.num_queries 4 (not 7)" in output
    assert "hears embeddings, of the audio encoder" in output
    theirs = [row for row in rows_of(evaluated[0]) if row["stage"] == "localise"]
    theirs = [row for row in theirs if row["protocol"] == "stepping_stones"]
    for mine, other in zip(rows_of(folder), theirs, strict=True):
        assert mine["weights"] == f"{converted}/aavs"
        assert mine["value"] == pytest.approx(other["value"], abs=0.02)


# ---- phases that are not whole or not ready


def of_run(tiny_run, tmp_path, name="localise/all"):
    """A copy of a run's config and of one of its phases: its folder."""
    run = tmp_path / "run"
    shutil.copytree(tiny_run[0] / name, run / name)
    shutil.copy(tiny_run[0] / "config.json", run)
    return run / name


def test_a_phase_without_its_audio_encoder_takes_no_other(tiny_run, converted, tmp_path, config):
    config["init"]["vggish"] = str(converted / "vggish")
    phase = of_run(tiny_run, tmp_path)
    with PhaseCheckpoints(phase, reading=True) as checkpoints:
        parameters = checkpoints.best_parameters()
    kept = {p: v for p, v in parameters.items() if not p.startswith("audio_encoder/")}
    shutil.rmtree(phase / "checkpoints")
    with PhaseCheckpoints(phase) as checkpoints:
        data = iter(grain.MapDataset.range(3).to_iter_dataset())
        values = {path: jnp.asarray(value) for path, value in kept.items()}
        checkpoints.save(TrainState(jnp.asarray(1), values, {}, {}, ()), data, {SCORE: 0.5})
    words = f"{phase} lacks .* of the audio encoder, .*: put its folder {phase}/frozen back"
    with pytest.raises(UserError, match=words):
        given_weights.read(config, "avss", str(phase))


@pytest.mark.parametrize("left", ["nothing", "damaged figures"])
def test_a_phase_that_cannot_be_read_yet(tiny_run, tmp_path, config, left):
    phase = of_run(tiny_run, tmp_path)
    for step in (phase / "checkpoints").iterdir():
        if left == "nothing":
            shutil.rmtree(step)
        elif (step / "metrics/metrics").exists():
            (step / "metrics/metrics").write_bytes(b"")
    words = "has been validated yet: wait" if left == "nothing" else "cannot be read"
    with pytest.raises(UserError, match=words) as error:
        given_weights.read(config, "avss", str(phase))
    assert "delete" not in str(error.value)


def test_another_size_of_labels_is_said(tiny_run, tmp_path, config, capsys):
    config["stages"]["localise"]["data"]["label_size"] = 48
    config["stages"]["localise"]["model"]["backbone"] |= {
        "drop_path_rate": 0.5,
        "drop_path_schedule": "linear",
        "drop_path_branches": "both",
    }
    given_weights.read(config, "avss", str(tiny_run[0] / "localise/all"))
    said = capsys.readouterr().out
    assert "is of the sizes" not in said  # no drop-path in an evaluation
    assert "[localise] is scored at 48 pixels; it was trained and judged at 32" in said
    config["stages"]["localise"]["data"]["label_size"] = 32
    given_weights.read(config, "avss", str(tiny_run[0] / "localise/all"))
    assert "scored at" not in capsys.readouterr().out


def test_another_kind_of_prior_masks_is_said(tiny_run, config, capsys):
    given_weights.read(config, "avss", str(tiny_run[0]))
    assert "is told" not in capsys.readouterr().out
    config["stages"]["understand"]["prior"]["kind"] = "hard"
    given_weights.read(config, "avss", str(tiny_run[0]))
    said = capsys.readouterr().out
    assert "[understand] is told hard masks; it was trained and judged with soft ones" in said
    assert "--config.stages.understand.prior.kind=soft would be" in said


def copy_of(converted, tmp_path, part="aavs", **changes):
    """The weights with some parameters of others' shapes, or None for none of that name."""
    folder = tmp_path / part
    parameters, found = card.weights(converted / part)
    parameters |= changes
    kept = {path: jnp.asarray(value) for path, value in parameters.items() if value is not None}
    save_parameters(folder, kept)
    card.write(folder, found)
    return folder


def test_a_missing_audio_encoder_says_what_is_needed(converted, tmp_path, config):
    config["schedule"] = ("localise",)
    alone = copy_of(converted, tmp_path)
    with pytest.raises(UserError) as error:
        given_weights.read(config, "s4", str(alone))
    for words in (
        f"{alone} has no audio encoder",
        "vggish-10086976.pth",
        "python -m aavs_jax.convert",
        "--config.init.vggish=DIR",
        f"{tmp_path}/vggish",
        "configs/s4.py without data",
    ):
        assert words in str(error.value)
    config["init"]["vggish"] = str(converted / "vggish")
    given = given_weights.read(config, "s4", str(alone))["localise"]
    assert given.digest == given_weights.read(config, "s4", f"{converted}/aavs")["localise"].digest
    config["init"]["vggish"] = str(alone)
    with pytest.raises(UserError, match="lacks an audio encoder: give one"):
        given_weights.read(config, "s4", str(alone))


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("decoder/query_positions", None, "lacks the query positions"),
        ("decoder/heads", np.ones(3), "holds what the network has not: decoder/heads"),
        (
            "decoder/query_positions",
            np.ones((5, 32)),
            "does not fit the network: .*shape .5, 32., not .4, 32.",
        ),
    ],
    ids=["missing", "too_many", "misfitting"],
)
def test_nothing_is_drawn_in_silence(converted, tmp_path, config, path, value, words):
    config["schedule"] = ("localise",)
    config["init"]["vggish"] = str(converted / "vggish")
    spoilt = copy_of(converted, tmp_path, **{path: value})
    with pytest.raises(UserError, match=f"{spoilt} {words}"):
        given_weights.read(config, "s4", str(spoilt))


SEMANTIC = {"task": "semantic", "num_classes": 71, "num_queries": 100, "prior": True}
SWIN = {"embed_dim": 8, "depths": [1] * 4, "num_heads": [1] * 4, "window_size": 2}
BINARY = {"task": "binary", "num_classes": 2, "num_queries": 30, "prior": False}


@pytest.mark.parametrize(
    ("module", "found", "words"),
    [
        (
            s4,
            Card("aavs", SEMANTIC),
            "is the semantic network of AAVS .71 classes, 100 queries., and the config x asks "
            "where it sounds: use --config=configs/avss.py",
        ),
        (
            avss_end_to_end,
            Card("aavs", SEMANTIC),
            "asks what it is without prior masks: use --config=configs/avss.py",
        ),
        (
            avss,
            Card("aavs", SEMANTIC | {"prior": False}),
            "asks what it is with prior masks: use --config=configs/avss_end_to_end.py",
        ),
        (
            avss_end_to_end,
            Card("aavs", BINARY),
            "asks what it is: use --config=configs/s4.py or configs/ms3.py",
        ),
        (
            s4,
            Card("mask2former", {"num_classes": 150, "num_queries": 100}),
            r"is a Mask2Former .150 classes, 100 queries.: a start for training "
            r"\(--config.init.mask2former=.*\) and no network that can be evaluated",
        ),
        (s4, Card("swin", {"backbone": SWIN}), "a Swin backbone alone: a start .*init.mask2former"),
        (
            s4,
            Card("vggish", {"audio": {"fully_connected": [8]}}),
            "an audio encoder alone: a start .*init.vggish",
        ),
    ],
    ids=["avss", "prior", "no_prior", "binary", "mask2former", "swin", "vggish"],
)
def test_the_wrong_network_is_named_with_what_fits(tmp_path, module, found, words):
    card.write(_folder(tmp_path / "weights"), found)
    with pytest.raises(UserError, match=f"{tmp_path}/weights .*{words}") as error:
        evaluate.evaluate_weights(
            module.get_config().to_dict(), tmp_path / "run", "x", str(tmp_path / "weights")
        )
    assert "\n" not in str(error.value) and not (tmp_path / "run").exists()


def _folder(path):
    path.mkdir()
    return path


def test_folders_that_hold_no_weights(tmp_path):
    config = s4.get_config().to_dict()

    def refused(folders, words):
        with pytest.raises(UserError, match=words):
            given_weights.read(config, "s4", folders)

    refused(f"{tmp_path}/none", "there is no folder of weights at .*none")
    refused(str(tmp_path), "has no card.json, so it is no folder of weights")
    refused(" , ", "--evaluate names no folder")
    (tmp_path / "all/checkpoints").mkdir(parents=True)
    refused(f"{tmp_path}/all", "/all has lost its card.json, .*: put the file back")
    run = _folder(tmp_path / "run")
    stage = {"task": "binary", "order": ["x", "y"], "best_over_phases": "last"}
    record = {"config": {"schedule": ["a"], "stages": {"a": stage}}}
    (run / "config.json").write_text(json.dumps(record))
    refused(str(run), "run holds no trained network: .* such as .*run/a/y")
    (run / "config.json").write_text("{")
    refused(str(run), "config.json is damaged")
    (run / "config.json").write_text('{"model_type": "mask2former"}')  # its weights are elsewhere
    refused(str(run), "config.json is not the record of a run: give --evaluate a folder that")
    for name in "bc":
        card.write(_folder(tmp_path / name), Card("aavs", BINARY))
    refused(f"{tmp_path}/b,{tmp_path}/c", "/b and .*/c are both for the stage localise")


@pytest.fixture(scope="module")
def first_of_the_paper():
    """The stage of s4, at full size, which takes a second to describe."""
    return make_stage(s4.get_config("/no/data").to_dict(), "localise", Path("unused"))


ZIP, SAFETENSORS = b"PK\3\4" + bytes(60), b"\x08" + bytes(7) + b"{}      "


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("s4.pth", {"": ZIP}),
        ("pytorch_model.bin", {"": ZIP}),
        ("model.safetensors", {"": SAFETENSORS}),
        ("m2f", {"config.json": b'{"model_type": "x"}', "model.safetensors": SAFETENSORS}),
        ("shards", {"model.safetensors.index.json": b"{}", "config.json": b"{}"}),
        ("named", {"my weights": ZIP}),
        ("with a card", {"card.json": b'{"title": "x"}', "pytorch_model.bin": ZIP}),
    ],
)
def test_weights_of_others_are_to_be_converted_first(
    first_of_the_paper, tmp_path, monkeypatch, name, content
):
    """Also where the path is written in a long way, and as the start of training."""
    monkeypatch.chdir(tmp_path)
    for inner, text in content.items():
        path = tmp_path / name / inner if inner else tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text)
    config = s4.get_config("/no/data").to_dict()
    convert = f"convert it first with python -m aavs_jax.convert {shlex.quote(name)} --out DIR"
    with pytest.raises(UserError) as error:
        given_weights.read(config, "s4", f"x/..//./{name}")
    assert f"{convert}, then give --evaluate=DIR" in str(error.value)
    for key in ("mask2former", "vggish"):
        config["init"] = {"mask2former": "", "vggish": "", "allow": (), key: name}
        stage = dataclasses.replace(first_of_the_paper, config=config)
        with pytest.raises(UserError) as error:
            pretrained.check_pretrained(stage, stage.phases[0])
        assert f"{convert}, then give --config.init.{key}=DIR" in str(error.value)


def test_other_classes_than_the_datas(capsys):
    def check(names, count):
        network = SEMANTIC | {"num_classes": count}
        given = types.SimpleNamespace(
            stage={"task": "semantic"}, card=Card("aavs", network, names), folder="weights/x"
        )
        source = types.SimpleNamespace(num_classes=3, class_names=("background", "cat", "dog"))
        given_weights.check_classes("understand", given, source)

    with pytest.raises(UserError, match="weights/x is .*71 classes.* and the data has 3 classes"):
        check((), 71)
    check((), 3)
    check(("background", "cat", "dog"), 3)
    assert not capsys.readouterr().out
    check(("background", "dog", "cat"), 3)
    assert "class 1 is 'dog' there and 'cat' here" in capsys.readouterr().out


# ---- one of two stages


@pytest.fixture
def passes(monkeypatch):
    """What would be evaluated: [(stage, priors, where they lie, whether masks are written)]."""
    seen = []

    def stage_scores(stage, *_, **named):
        prior = stage.keys["prior"]
        seen.append((stage.name, prior["evaluate"], prior["masks"], stage.keys["writes_masks"]))
        return []

    monkeypatch.setattr("aavs_jax.schedule.stage_scores", stage_scores)
    monkeypatch.setattr("aavs_jax.report.presentation.present", lambda *_, **__: None)
    return seen


def test_both_stages_hand_masks_over(tiny_run, config, passes, tmp_path):
    run = tiny_run[0]
    folders = f"{run}/understand/all, {run}/localise/all"  # in any order
    root = run.parent / tmp_path.name
    evaluate.evaluate_weights(config, root, "avss", folders)
    assert passes == [
        ("localise", ("none",), "", True),
        ("understand", ("both", "true"), "localise", False),
    ]


@pytest.mark.slow
def test_the_semantic_network_alone_has_true_masks_or_those_of_a_folder(
    tiny_run, config, passes, tmp_path, capsys
):
    run = tiny_run[0]
    weights = str(run / "understand/all")
    evaluate.evaluate_weights(config, run.parent / tmp_path.name, "avss", weights)
    assert passes.pop() == ("understand", ("true",), "localise", False)
    said = capsys.readouterr().out
    assert "[localise] is left out" in said
    assert "prior masks are true ones only: no weights of the stage localise" in said
    assert "--config.stages.understand.prior.masks=DIR" in said
    prior = config["stages"]["understand"]["prior"]
    masks = f"{run}/localise/masks"
    config["stages"]["understand"]["prior"] = {**prior, "masks": masks}
    evaluate.evaluate_weights(config, run.parent / f"{tmp_path.name}-b", "avss", weights)
    assert passes.pop() == ("understand", ("both", "true"), masks, False)
    # Other masks in the same place are another evaluation.
    again = str(shutil.copytree(masks, tmp_path / "masks"))
    config["stages"]["understand"]["prior"]["masks"] = again
    evaluate.evaluate_weights(config, run.parent / f"{tmp_path.name}-e", "avss", weights)
    picture = next((tmp_path / "masks").rglob("0.png"))
    picture.write_bytes(b"")
    with pytest.raises(UserError, match="another config .evaluate.understand prior masks was"):
        evaluate.evaluate_weights(config, run.parent / f"{tmp_path.name}-e", "avss", weights)
    passes.clear()
    for picture in sorted((tmp_path / "masks").rglob("0.png")):
        picture.unlink()
    with pytest.raises(UserError, match="masks', which lacks 3 of 20 masks of split test"):
        evaluate.evaluate_weights(config, run.parent / f"{tmp_path.name}-f", "avss", weights)
    config["stages"]["understand"]["prior"]["masks"] = f"{tmp_path}/none"
    with pytest.raises(UserError, match="prior.masks is '.*none', and there is no such folder"):
        evaluate.evaluate_weights(config, run.parent / f"{tmp_path.name}-c", "avss", weights)
    config["stages"]["understand"]["prior"] |= {"masks": "localise", "evaluate": ("predicted",)}
    with pytest.raises(UserError, match="understand needs predicted prior masks: no weights"):
        evaluate.evaluate_weights(config, run.parent / f"{tmp_path.name}-d", "avss", weights)


def test_data_without_a_test_split(tiny_run, config, passes, tmp_path, monkeypatch):
    def opened(data_dir, split, stage):
        raise DataError(f"no clip of the data set is in split {split!r}: it only has train")

    monkeypatch.setattr("aavs_jax.inputs.batches.open_split", opened)
    run = tiny_run[0]
    with pytest.raises(DataError, match="in split 'test': it only has train"):
        evaluate.evaluate_weights(config, run.parent / tmp_path.name, "avss", str(run))
    assert not passes


def test_clips_without_labels_are_to_be_predicted(tiny_run, config, passes, tmp_path):
    clip = tmp_path / "raw" / "walk"
    (clip / "frames").mkdir(parents=True)
    for second in range(2):
        Image.new("RGB", (32, 32), (9, 90, 200)).save(clip / "frames" / f"{second}.jpg")
    soundfile.write(clip / "audio.wav", np.zeros(32000), 16000)
    prepare(tmp_path / "raw", tmp_path / "data")
    config["data"]["folder"] = str(tmp_path / "data")
    with pytest.raises(UserError, match="no labels, so there is nothing to score: .*predict"):
        evaluate.evaluate_weights(config, tmp_path / "run", "avss", str(tiny_run[0]))
    assert not passes


def test_a_protocol_that_there_is_not(tmp_path, config):
    config["eval"]["protocols"] = "stepping_stones,tpavi"
    words = "eval.protocols is 'stepping_stones,tpavi': no protocol 'tpavi'; there are .*avsbench"
    for run in (evaluate.evaluate_weights, evaluate.evaluate_masks):
        with pytest.raises(UserError, match=words):
            run(config, tmp_path / "run", "avss", str(tmp_path))
    assert not (tmp_path / "run").exists()


# ---- masks of others


def masks_of(evaluated, tmp_path, config, subset=None):
    config["schedule"] = ("localise",)
    return shutil.copytree(evaluated[0] / "localise/masks", tmp_path / "masks")


def test_masks_that_are_missing_are_counted(evaluated, tmp_path, config):
    folder = masks_of(evaluated, tmp_path, config)
    root = evaluated[0].parent / tmp_path.name
    for path in sorted(folder.rglob("3.png")):
        path.unlink()
    with pytest.raises(UserError, match="3 of 20 masks of split test are missing, the first is"):
        evaluate.evaluate_masks(config, root, "avss", folder)
    with pytest.raises(UserError, match="there is no folder of masks at .*none"):
        evaluate.evaluate_masks(config, root, "avss", tmp_path / "none")


def test_masks_that_do_not_say_what_they_hold_need_to_be_told(evaluated, tmp_path, config):
    folder = masks_of(evaluated, tmp_path, config)
    root = evaluated[0].parent / tmp_path.name
    for path in folder.rglob("*.png"):
        Image.fromarray(np.asarray(Image.open(path)) // 255).save(path)
    with pytest.raises(UserError, match="does not say what they mean: add --masks-kind=binary"):
        evaluate.evaluate_masks(config, root, "avss", folder)
    with pytest.raises(UserError, match="kind=deep is no kind of masks: there are binary, soft"):
        evaluate.evaluate_masks(config, root, "avss", folder, "deep")
    rows = evaluate.evaluate_masks(config, root, "avss", folder, "binary")
    written = evaluated[0] / "localise/masks"
    theirs = evaluate.evaluate_masks(config, root.with_name(f"{root.name}-255"), "avss", written)
    assert [row["value"] for row in rows] == [row["value"] for row in theirs]
    # Read in another way they are another evaluation.
    with pytest.raises(UserError, match="another config .evaluate.localise was 'binary masks in"):
        evaluate.evaluate_masks(config, root, "avss", folder, "soft")


def test_a_semantic_folder_for_a_binary_stage(evaluated, config, tmp_path, capsys):
    """Not 0 is sounding, and that is said."""
    config["schedule"] = ("localise",)
    root = evaluated[0].parent / tmp_path.name
    (tmp_path / "x").mkdir()
    folder = shutil.copytree(evaluated[0] / "understand/masks-true", tmp_path / "x/masks")
    picture = Image.open(path := next(folder.rglob("*.png")))
    picture.putpixel((0, 0), 3)  # a network that was trained for so short may see background alone
    picture.save(path)
    (folder / "notes.png").write_bytes(b"not looked at")
    rows = evaluate.evaluate_masks(config, root, "avss", folder)
    said = capsys.readouterr().out
    assert "every class but background counts as sounding" in said
    assert "1 other PNG files in" in said
    assert {row["metric"] for row in rows} == {"J", "F", "J&F"}
    # Other pictures in the same place are another evaluation.
    next(folder.rglob("0.png")).write_bytes(b"")
    with pytest.raises(UserError, match="another config .evaluate.localise was"):
        evaluate.evaluate_masks(config, root, "avss", folder)
