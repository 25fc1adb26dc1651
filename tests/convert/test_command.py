"""The command: what it says and reports, what it makes, and how it fails."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from aavs_jax.convert import exporting, importing
from aavs_jax.convert.windows import resize_positions
from aavs_jax.errors import UserError
from aavs_jax.methods.aavs.config import AAVSConfig
from aavs_jax.methods.aavs.network import abstract_model
from aavs_jax.methods.functional import initial_parameters
from aavs_jax.state.checkpoint import SCORE, PhaseCheckpoints
from aavs_jax.state.parameter_folders import load_left_over
from aavs_jax.weights import card as cards

REPOSITORY = Path(__file__).parents[2]


def everything_in(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


# -------------------------------------------------------------------------- what it says and makes


def test_what_is_said_of_a_mask2former(published, convert, tmp_path):
    said = convert(published["mask2former"], "--out", tmp_path / "new" / "m2f").out
    assert "a Mask2Former (4 classes, 6 queries), a Swin (embed_dim 8, depths 1/1/2/1" in said
    assert "window 3" in said and "safetensors" in said
    assert re.search(r"mapped +200 tensors to 208 arrays", said)
    assert "criterion.empty_weight" in said and "left over" in said
    assert "--config.stages.localise.model.backbone.mlp_ratio=2.0" in said


def test_what_is_said_of_aavs(published, convert, tmp_path):
    said = convert(published["aavs_s4_wrapped"], "--out", tmp_path / "out")
    assert "the binary network of AAVS (2 classes, 5 queries)" in said.out
    assert "'state_dict'" in said.out and "'module.'" in said.out and "epoch" in said.out
    given = f"--evaluate={tmp_path / 'out'} --config.init.vggish=DIR"
    assert f"configs/s4.py:/data/avsbench {given}  # or" in said.out
    assert "configs/ms3.py" in said.out
    assert "DIR: of vggish-10086976.pth, with python -m aavs_jax.convert" in said.out
    assert "100%" in said.err  # the bar
    said = convert(published["aavs_avss"], "--out", tmp_path / "avss").out
    assert "semantic" in said and "configs/avss.py" in said


def test_the_card(published, convert, tmp_path):
    convert(published["mask2former_half"], "--out", tmp_path / "out")
    card = cards.read(tmp_path / "out")
    assert (card.kind, card.classes) == ("mask2former", ("wall", "dog", "piano", "sky"))
    assert card.network["backbone"]["window_size"] == 3 and card.network["num_queries"] == 6
    file = published["mask2former_half"] / "model.safetensors"
    (said,) = card.origin["files"]
    assert (said["name"], said["bytes"]) == (file.name, file.stat().st_size)
    assert card.left_over.keys() == load_left_over(tmp_path / "out").keys()
    assert "criterion.empty_weight" in card.left_over
    assert set(card.stored_as.values()) == {"float16"} and len(card.stored_as) == 200
    assert card.new == {}
    parameters, _ = cards.weights(tmp_path / "out")  # checks the digest
    assert {value.dtype for value in parameters.values()} == {np.dtype(np.float32)}


def test_the_report_as_a_table(published, convert, tmp_path):
    said = convert(published["vggish_pca"], "--out", tmp_path / "out", "--report").out
    row = next(line for line in said.splitlines() if line.startswith("features.3.weight"))
    ours = "audio_encoder/blocks/1/0/kernel"
    assert row.split()[:6] == ["features.3.weight", ours, "2x2x3x3", "->", "3x3x2x2", "float32"]
    assert "mapped" in row and re.search(r"\b[0-9a-f]{12}\b", row)
    assert re.search(r"^ +18 mapped$", said, re.M) and re.search(r"^ +2 left over$", said, re.M)
    assert re.search(r"pproc.pca_means .*left over .*post-processing", said)


def test_the_report_as_json(published, convert, tmp_path, read_json, tensors_of):
    convert(
        published["mask2former_bin"],
        "--out",
        tmp_path / "out",
        "--report",
        tmp_path / "report.json",
    )
    report = read_json(tmp_path / "report.json")
    fates = {fate["theirs"]: fate for fate in report["read"]}
    tensors = tensors_of(published["mask2former_bin"])
    assert fates.keys() == tensors.keys()
    assert {tuple(fates[name]["shape"]) == value.shape for name, value in tensors.items()} == {True}
    stacked = next(fate for name, fate in fates.items() if name.endswith("cross_attn.in_proj_bias"))
    assert len(stacked["ours"]) == 3 and stacked["our_shapes"] == [[32]] * 3
    assert report["read_counts"] == {"mapped": 200, "left over": 8}
    assert report["kind"] == "mask2former" and report["sources"][0]["format"] == "mask2former"
    parameters, _ = cards.weights(tmp_path / "out")
    assert sorted(path for fate in report["read"] for path in fate["ours"]) == sorted(parameters)


def test_the_same_again_and_something_else(published, convert, tmp_path):
    out = tmp_path / "out"
    convert(published["vggish"], "--out", out)
    before = everything_in(out)
    assert "there already" in convert(published["vggish"], "--out", out).out
    assert "overwritten" in convert(published["vggish_pca"], "--out", out, code=2).err
    assert "overwritten" in convert(published["vggish"], "--out", out, "--allow", "x", code=2).err
    assert everything_in(out) == before
    shutil.rmtree(out / "parameters")
    assert "overwritten" in convert(published["vggish"], "--out", out, code=2).err


# ------------------------------------------------------------------------------------ its options


def test_window(published, convert, same, tmp_path):
    said = convert(published["mask2former_bin"], "--window=5", "--out", tmp_path / "wide").out
    assert "stage 2: the relative positions of 2 blocks resized from 5x5 to 9x9" in said
    convert(published["mask2former_bin"], "--out", tmp_path / "as_it_is")
    before, _ = cards.weights(tmp_path / "as_it_is")
    after, card = cards.weights(tmp_path / "wide")
    assert card.network["backbone"]["window_size"] == 5 and card.origin["window"] == 5
    for path, value in before.items():
        if path.endswith("relative_position_bias"):
            value = resize_positions(value, 5)
        same({path: value}, {path: after[path]})
    # What was computed from the old window has gone, and the export says the new one.
    assert "criterion.empty_weight" in load_left_over(tmp_path / "wide")
    assert not any(name.endswith("index") for name in load_left_over(tmp_path / "wide"))
    convert(tmp_path / "wide", "--to=huggingface", "--out", tmp_path / "back")
    assert (
        json.loads((tmp_path / "back" / "config.json").read_text())["backbone_config"][
            "window_size"
        ]
        == 5
    )
    convert(tmp_path / "back", "--out", tmp_path / "again")
    same(cards.weights(tmp_path / "again")[0], after)


def test_fit(published, convert, same, tmp_path):
    sources = published["mask2former"], published["vggish"]
    said = convert(*sources, "--fit=semantic", "--seed=7", "--out", tmp_path / "out").out
    parameters, card = cards.weights(tmp_path / "out")
    config = AAVSConfig.from_dict(card.network)
    assert (config.task, config.num_classes, config.num_queries) == ("semantic", 71, 100)
    assert config.prior and config.feature_size == 32 and config.audio.blocks[0] == (2,)
    fresh = initial_parameters(abstract_model(config), 7)
    assert parameters.keys() == fresh.keys()
    same({path: parameters[path] for path in card.new}, {path: fresh[path] for path in card.new})
    for place in ("decoder/class_predictor/kernel", "decoder/query_features", "audio_proj/"):
        assert any(path.startswith(place) for path in card.new)
    assert "[32, 5] in the origin, [32, 72] here" in card.new["decoder/class_predictor/kernel"]
    assert "seed 7" in card.new["decoder/sounding_embed"] and "key vectors (3)" in said
    convert(published["mask2former"], "--out", tmp_path / "m2f")
    convert(published["vggish"], "--out", tmp_path / "vggish")
    given = cards.weights(tmp_path / "m2f")[0] | cards.weights(tmp_path / "vggish")[0]
    taken = parameters.keys() - card.new.keys()
    same({path: parameters[path] for path in taken}, {path: given[path] for path in taken})
    assert given.keys() - taken == card.new.keys() & given.keys() != set()
    # It is a network of AAVS now, and goes where such go.
    convert(tmp_path / "out", "--to=aavs", "--out", tmp_path / "out.pth")
    convert(tmp_path / "out.pth", tmp_path / "out.vggish.pth", "--out", tmp_path / "again")
    same(cards.weights(tmp_path / "again")[0], parameters)


def test_fit_of_what_fits_draws_the_missing_only(published, convert, tmp_path):
    sound = published["vggish"]  # without it the full VGGish would be made, of 72 M numbers
    convert(published["swin"], sound, "--fit=binary", "--out", tmp_path / "swin")
    card = cards.read(tmp_path / "swin")
    assert not any("/attention/query/" in path for path in card.new if "backbone" in path)
    assert any(path.startswith("pixel_decoder/") for path in card.new)
    convert(published["aavs_s4"], sound, "--fit=binary", "--out", tmp_path / "s4")
    new = set(cards.read(tmp_path / "s4").new)  # its 5 queries are not the paper's 30
    assert new == {"decoder/query_features", "decoder/query_positions"}


def test_a_trained_phase(convert, published, same, tmp_path):
    """<run>/<stage>/<phase>: the best of its checkpoints, under the names of AAVS."""
    import optax

    from aavs_jax.state.train_state import TrainState

    convert(published["aavs_s4"], "--out", tmp_path / "start")
    parameters, card = cards.weights(tmp_path / "start")
    frozen = {path: value for path, value in parameters.items() if path.startswith("backbone/")}
    phase = tmp_path / "run" / "localise" / "a"
    with PhaseCheckpoints(phase) as checkpoints:
        checkpoints.save_frozen(frozen)
        for step, score in ((1, 0.9), (2, 0.1)):
            trained = {
                path: value + np.float32(step)
                for path, value in parameters.items()
                if path not in frozen
            }
            state = TrainState.create(trained, frozen, optax.sgd(0.1))
            checkpoints.save(_at(state, step), _data(), {SCORE: score})
    cards.write(phase, cards.Card("aavs", card.network, origin={"run": "x", "phase": "a"}))
    before = everything_in(phase)
    convert(phase, "--to=aavs", "--out", tmp_path / "trained.pth")
    convert(tmp_path / "trained.pth", "--out", tmp_path / "again")
    found, _ = cards.weights(tmp_path / "again")
    same(
        found,
        {p: v if p in frozen else v + np.float32(1) for p, v in parameters.items()},
    )
    assert everything_in(phase) == before
    assert "name one of them" in convert(tmp_path / "run", "--out", tmp_path / "x", code=2).err
    assert "cannot be written" in convert(phase, "--to=origin", "--out", tmp_path / "x", code=2).err


def _at(state, step):
    import dataclasses

    import jax.numpy as jnp

    return dataclasses.replace(state, step=jnp.asarray(step, jnp.int32))


def _data():
    import grain

    return iter(grain.MapDataset.range(4).to_iter_dataset())


def test_parameters_without_a_place_are_named(published, convert, tmp_path):
    """None that the command reads can have such; networks that somebody changed may."""
    convert(published["vggish"], "--out", tmp_path / "out")
    parameters, card = cards.weights(tmp_path / "out")
    parameters["audio_encoder/tail/kernel"] = np.ones((2, 2), np.float32)
    weights, target = importing.Weights(parameters, {}, card), tmp_path / "back.pth"
    with pytest.raises(UserError, match="no place for audio_encoder/tail/kernel: .*--allow"):
        exporting.makers(target, weights, "vggish", ())
    found, fates = exporting.makers(target, weights, "vggish", (".*/tail/.*",))
    assert list(found) == [target] and fates[-1].what == "left behind"


# ------------------------------------------------------------------------------------- its errors


def _orbax_without_a_card(published, convert, tmp_path):
    convert(published["vggish"], "--out", tmp_path / "old")
    (tmp_path / "old" / cards.FILE).unlink()
    return [tmp_path / "old"]


def _orbax_damaged(published, convert, tmp_path):
    convert(published["vggish"], "--out", tmp_path / "damaged")
    for path in (tmp_path / "damaged" / "parameters").rglob("*"):
        if path.is_file() and path.stat().st_size > 5000:
            path.write_bytes(path.read_bytes()[:100])
    return [tmp_path / "damaged"]


def _changed_card(change):
    def make(published, convert, tmp_path):
        convert(published["vggish"], "--out", tmp_path / "card")
        path = tmp_path / "card" / cards.FILE
        values = json.loads(path.read_text())
        change(values)
        path.write_text(json.dumps(values))
        return [tmp_path / "card", "--to=vggish"]

    return make


def _bad_config(published, convert, tmp_path):
    shutil.copytree(published["mask2former"], tmp_path / "bad")
    (tmp_path / "bad" / "config.json").write_text("{")
    return [tmp_path / "bad"]


def _html(published, convert, tmp_path):
    (tmp_path / "page.pth").write_text("<!DOCTYPE html><html>not found</html>")
    return [tmp_path / "page.pth"]


def _stranger(published, convert, tmp_path):
    from safetensors.numpy import save_file

    save_file({"what.weight": np.ones(3, np.float32)}, tmp_path / "stranger.safetensors")
    return [tmp_path / "stranger.safetensors"]


def _ours_without_a_card(published, convert, tmp_path):
    from safetensors.numpy import save_file

    save_file({"decoder/norm/scale": np.ones(3, np.float32)}, tmp_path / "ours.safetensors")
    return [tmp_path / "ours.safetensors"]


ERRORS = {
    "nothing there": (lambda p, *_: ["/nowhere/x.pth"], "/nowhere/x.pth"),
    "html": (_html, "HTML|page"),
    "stranger": (_stranger, "no known format"),
    "ours without a card": (_ours_without_a_card, "no card"),
    "an old folder": (_orbax_without_a_card, "without a card.json"),
    "a damaged folder": (_orbax_damaged, "no readable Orbax|not those its card"),
    "a later card": (_changed_card(lambda v: v.update(version=99)), "card version 99"),
    "a damaged card": (_changed_card(lambda v: v.pop("kind")), "card.json is damaged"),
    "a wrong digest": (_changed_card(lambda v: v.update(digest="0" * 64)), "digests differ"),
    "a bad config": (_bad_config, "config.json"),
    "m2f to aavs": (lambda p, *_: [p["mask2former"], "--to=aavs"], "--fit"),
    "m2f to vggish": (lambda p, *_: [p["mask2former"], "--to=vggish"], "choose .*huggingface"),
    "aavs to hf": (lambda p, *_: [p["aavs_s4"], "--to=huggingface"], "choose .*aavs"),
    "aavs to vggish": (lambda p, *_: [p["aavs_s4"], "--to=vggish"], "without an audio encoder"),
    "vggish to hf": (lambda p, *_: [p["vggish"], "--to=huggingface"], "choose .*vggish"),
    "vggish to aavs": (lambda p, *_: [p["vggish"], "--to=aavs"], "choose .*vggish"),
    "fit of vggish": (lambda p, *_: [p["vggish"], "--fit=binary"], "too little"),
    "no network": (lambda p, *_: [p["mask2former"], p["vggish"]], "--fit"),
    "twice the same": (
        lambda p, *_: [p["vggish"], p["vggish_pca"], p["swin"], "--fit=binary"],
        "vggish.pth and .*vggish_pca.pth both hold audio_encoder/.* and 17 more",
    ),
    "overlapping": (
        lambda p, *_: [p["mask2former"], p["swin"], "--fit=binary"],
        "both hold backbone/",
    ),
    "window of vggish": (lambda p, *_: [p["vggish"], "--window=7"], "--window"),
    "window of nothing": (lambda p, *_: [p["swin"], "--window=1"], "at least 2"),
    "unknown option": (lambda p, *_: [p["swin"], "--wombat"], "--wombat"),
    "unknown target": (lambda p, *_: [p["swin"], "--to=onnx"], "onnx"),
    "seed alone": (lambda p, *_: [p["swin"], "--seed=3"], "--fit"),
    "negative seed": (lambda p, *_: [p["swin"], "--fit=binary", "--seed=-1"], "--seed"),
    "a pattern of nothing": (
        lambda p, *_: [p["vggish"], "--allow", r"features\.1\..*"],
        "features.* matches none of the",
    ),
    "a bad pattern": (lambda p, *_: [p["swin"], "--allow", "("], "regular expression"),
    "a report over a source": (lambda p, *_: [p["swin"], "--report", p["vggish"]], "json"),
    "no folder for it": (lambda p, *_: [p["swin"], "--report", "/nowhere/x.json"], "/nowhere"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name, published, convert, tmp_path):
    make, message = ERRORS[name]
    arguments = make(published, convert, tmp_path)
    folder = tmp_path / "target"
    folder.mkdir()
    said = convert(*arguments, "--out", folder / "out", code=2).err
    last = said.strip().splitlines()[-1]
    assert re.search(message, last), last
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("features.6.bias"), "features.6.bias.*missing|missing.*features.6.bias"),
        (lambda s: s.update(extra=s["features.6.bias"]), "extra has no place.*--allow"),
        (lambda s: s.update({"features.6.bias": s["features.6.bias"].double()}), "float64"),
        (lambda s: s.update({"features.6.bias": s["features.6.bias"][:2]}), "features.6.bias"),
        (lambda s: s["features.6.bias"].fill_(float("nan")), "NaN"),
    ],
)
def test_what_does_not_fit_is_named(changed, convert, tmp_path, change, message):
    path = changed("vggish", change)
    said = convert(path, "--out", tmp_path / "out", code=2).err
    assert re.search(message, said) and not (tmp_path / "out").exists()


def test_nothing_mapped_is_nothing_converted(changed, convert, tmp_path):
    path = changed("vggish", lambda s: s.update({name: value.int() for name, value in s.items()}))
    said = convert(path, "--out", tmp_path / "out", "--allow", ".*", code=2).err
    assert "nothing of it was mapped" in said and not (tmp_path / "out").exists()


def test_out_is_no_place_in_a_source(published, convert, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(published["swin"], source)
    for out in (source, source / "x", tmp_path / "other" / ".." / "source" / "x"):
        assert "inside the source" in convert(source, "--out", out, code=2).err
    assert everything_in(source) == everything_in(published["swin"])


def test_nothing_is_overwritten(published, convert, tmp_path):
    """Neither files nor folders, nor the second file of an export."""
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes").write_text("mine")
    (tmp_path / "net.vggish.pth").write_text("mine")
    (tmp_path / "r.json").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    before = everything_in(tmp_path)
    both = published["aavs_s4"], published["vggish"]
    for arguments in (
        (published["vggish"], "--out", tmp_path / "file"),
        (published["vggish"], "--out", tmp_path / "folder"),
        (published["vggish"], "--out", tmp_path / "link", "--to=vggish"),
        (published["vggish"], "--out", tmp_path / "new", "--report", tmp_path / "r.json"),
        (published["vggish"], "--out", tmp_path / "file", "--to=safetensors"),
        (*both, "--to=aavs", "--out", tmp_path / "net.pth"),
    ):
        convert(*arguments, code=2)
        assert everything_in(tmp_path) == before
    (tmp_path / "empty").mkdir()  # which is as good as none
    convert(published["vggish"], "--to=vggish", "--out", tmp_path / "empty", code=2)
    convert(published["vggish"], "--out", tmp_path / "empty")
    assert cards.read(tmp_path / "empty").kind == "vggish"


@pytest.mark.parametrize("place", ["out", "out/r.json", "x/../out/r.json", "gone/r.json"])
def test_places_of_a_report(published, convert, tmp_path, place):
    (tmp_path / "out").mkdir()
    (tmp_path / "x").mkdir()
    arguments = ("--out", tmp_path / "out", "--report", tmp_path / place)
    said = convert(published["vggish"], *arguments, code=2).err
    assert "--report" in said and "--workdir" not in said
    assert everything_in(tmp_path) == {}


def test_a_failed_run_leaves_no_report(published, convert, changed, tmp_path):
    wrong = changed("vggish", lambda state: state.pop("features.6.bias"))
    before = everything_in(tmp_path)
    convert(wrong, "--out", tmp_path / "out", "--report", tmp_path / "r.json", code=2)
    assert everything_in(tmp_path) == before and not list(tmp_path.glob("*.partial"))


# As somebody else than the owner of everything: (arguments), run by uid 65534. Who has no rights
# may not be able to read the libraries either, so each way is gone once before they are given away.
_AS_NOBODY = """
import os, shutil, sys
from aavs_jax.weights import card
from aavs_jax.convert.__main__ import main
versions = card._versions()
card._versions = lambda: versions
os.chdir(sys.argv[1])
assert main("v.pth --out warm --report warm.json".split()) == 0
assert main("warm --out warm.pth --to=vggish".split()) == 0
shutil.rmtree("warm"); os.remove("warm.pth"); os.remove("warm.json")
os.setgroups([]); os.setgid(65534); os.setuid(65534)
for line in sys.argv[2:]:
    print(main(line.split()))
"""


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="gives rights away")
def test_without_rights(published):
    cases = {
        "closed --out new": "closed",
        "closed/v.pth --out new": "closed/v.pth",
        "v.pth --out closed/new": "closed/new",
        "v.pth --out fixed/new": "fixed/new",
        "v.pth --out fixed/new.pth --to=vggish": "fixed/new.pth",
        "v.pth --out new --report fixed/r.json": "fixed/r.json",
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        shutil.copy(published["vggish"], folder / "v.pth")
        (folder / "v.pth").chmod(0o644)
        (folder / "closed").mkdir(mode=0o700)
        (folder / "fixed").mkdir(mode=0o555)
        found = subprocess.run(
            [sys.executable, "-c", _AS_NOBODY, name, *cases],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert found.returncode == 0, found.stderr
        codes = [line for line in found.stdout.splitlines() if line.isdigit()]
        assert codes == ["2"] * len(cases)
        said = [line for line in found.stderr.splitlines() if line.startswith("error: ")]
        for line, place in zip(said, cases.values(), strict=True):
            assert place in line and "Permission denied" in line and "--workdir" not in line
            written = place.startswith("fixed/")  # closed is not even looked into
            assert ("make the folder writable" in line) == written
            assert "space" not in line and ("permissions" in line) != written
        assert sorted(os.listdir(folder)) == ["closed", "fixed", "v.pth"]
        assert os.listdir(folder / "fixed") == []


@pytest.mark.parametrize("out", ["loop", "loop/x", "x" * 300, ".", "..", "x/..", "u\udcff"])
def test_names_that_cannot_be(published, convert, tmp_path, monkeypatch, out):
    (tmp_path / "loop").symlink_to(tmp_path / "pool")
    (tmp_path / "pool").symlink_to(tmp_path / "loop")
    monkeypatch.chdir(tmp_path)
    convert(published["vggish"], "--out", out, code=2)
    if out not in (".", "..", "x/.."):
        convert(out, "--out", "new", code=2)
    assert sorted(os.listdir()) == ["loop", "pool"]


# ---------------------------------------------------------------------------- what is around a file


def test_a_folder_of_somebody_elses_with_a_card(published, convert, tmp_path):
    """A file of weights says what a folder is, whatever else lies in it."""
    theirs = shutil.copytree(published["swin"], tmp_path / "theirs")
    (theirs / "card.json").write_text('{"title": "a model card"}')
    (theirs / "checkpoints").mkdir()
    convert(theirs, "--out", tmp_path / "out")
    assert cards.read(tmp_path / "out").kind == "swin"
    (tmp_path / "other" / "checkpoints").mkdir(parents=True)
    shutil.copy(published["swin_timm"], tmp_path / "other" / "weights")
    convert(tmp_path / "other", "--out", tmp_path / "out2")


def test_files_of_a_folder_given_alone(published, convert, tmp_path, same):
    """With the config.json beside, which has the names of the classes."""
    convert(published["mask2former"], "--out", tmp_path / "whole")
    whole, _ = cards.weights(tmp_path / "whole")
    index = published["mask2former_shards"] / "model.safetensors.index.json"
    for number, file in enumerate((published["mask2former"] / "model.safetensors", index)):
        out = tmp_path / str(number)
        assert f"config.json beside it, {file.parent}" in convert(file, "--out", out).out
        parameters, card = cards.weights(out)
        assert card.classes == ("wall", "dog", "piano", "sky")
        same(parameters, whole)
    alone = shutil.copy(file.parent.parent / "mask2former" / "model.safetensors", tmp_path)
    assert "config.json" not in convert(alone, "--out", tmp_path / "alone").out
    assert cards.read(tmp_path / "alone").classes == ()


def test_a_disk_that_is_full(published, tmp_path):
    """Files may have 20 kB each, as a stand-in; the weights have 400."""
    command = [sys.executable, "-m", "aavs_jax.convert", str(published["mask2former"])]
    found = subprocess.run(
        ["bash", "-c", 'ulimit -f 20; exec "$@"', "-", *command, "--out", str(tmp_path / "out")],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert found.returncode == 2 and not found.stderr.count("Traceback"), found.stderr
    (line,) = [line for line in found.stderr.splitlines() if line.startswith("error: ")]
    assert str(tmp_path / "out") in line and "File too large" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("to", ["safetensors", "huggingface", "aavs"])
def test_other_layouts_on_a_disk_that_is_full(published, convert, tmp_path, to):
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    source = published["aavs_s4" if to == "aavs" else "mask2former"]
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        said = convert(source, f"--to={to}", "--out", tmp_path / "out", code=2).err
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert f"cannot write {tmp_path / 'out'} (File too large)" in said
    assert list(tmp_path.iterdir()) == []


# Kills the process when something is renamed to what PATTERN matches, before it is done.
_FATAL = """
import os, re, runpy, signal, sys

def see(event, arguments):
    if event == "os.rename" and re.search(os.environ["PATTERN"], str(arguments[1])):
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(see)
runpy.run_module("aavs_jax.convert", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize("pattern", ["/out$", pytest.param("card.json$", marks=pytest.mark.slow)])
def test_killed_and_started_again(published, convert, tmp_path, pattern):
    out = tmp_path / "out"
    found = subprocess.run(
        [sys.executable, "-c", _FATAL, str(published["vggish"]), "--out", str(out)],
        cwd=REPOSITORY,
        capture_output=True,
        env={**os.environ, "PATTERN": pattern},
        timeout=120,
    )
    assert found.returncode == -signal.SIGKILL and not out.exists()
    (left,) = tmp_path.iterdir()
    assert re.fullmatch(r"out\..+\.partial", left.name)
    convert(published["vggish"], "--out", out)
    assert set(tmp_path.iterdir()) == {out, left}  # which may be another's that still runs
    cards.weights(out)


def test_two_at_once(published, convert, tmp_path, monkeypatch):
    """The one that is done first is there in the end, whole; the other is told, and leaves none."""
    save, out = exporting.save_parameters, tmp_path / "out"

    def overtaken(*arguments):
        monkeypatch.setattr(exporting, "save_parameters", save)
        convert(published["vggish"], "--out", out)
        save(*arguments)

    monkeypatch.setattr(exporting, "save_parameters", overtaken)
    said = convert(published["vggish_pca"], "--out", out, code=2).err
    assert "nothing is overwritten" in said and list(tmp_path.iterdir()) == [out]
    assert cards.weights(out)[1].left_over == {}


def test_as_a_command(published, convert, tmp_path):
    """Exit codes, streams, and that neither PyTorch nor TensorFlow is needed."""
    with pytest.raises(SystemExit) as stopped:
        convert("--help")
    assert stopped.value.code == 0
    said = convert(code=2)
    assert said.err.startswith("error: ") and said.err.count("\n") == 1 and not said.out
    program = (
        "import sys; sys.modules.update(dict.fromkeys(('torch', 'transformers', 'tensorflow')));"
        "from aavs_jax.convert.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    arguments = [str(published["aavs_s4"]), "--out", str(tmp_path / "out")]
    found = subprocess.run([sys.executable, "-c", program, *arguments], cwd=REPOSITORY, timeout=120)
    assert found.returncode == 0 and (tmp_path / "out" / cards.FILE).exists()
