"""`python -m aavs_jax.export`: a folder that jax and numpy alone load and run."""

import dataclasses
import hashlib
import importlib.util
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from jax import export as jax_export
from PIL import Image

import aavs_jax
from aavs_jax.errors import UserError
from aavs_jax.export import main
from aavs_jax.prediction import exported_loader, exporting
from aavs_jax.weights.card_method import method_of
from data_pipelines.prepared.source import open_source

HOP = 15_360  # samples from one log-mel example to the next
# Runs a folder's own loader where nothing of this repository can be imported.
ELSEWHERE = """
import importlib.abc, sys

class Refusing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"aavs_jax", "data_pipelines", "flax", "optax", "orbax"}:
            raise ImportError(f"{name} is refused")

sys.meta_path.insert(0, Refusing())
try:
    import aavs_jax
except ImportError as error:
    assert "refused" in str(error)
else:
    raise AssertionError("aavs_jax can be imported")

folder, clip, out = sys.argv[1:]
sys.path.insert(0, folder)
import numpy as np
from load import load

model = load(folder)
clip = np.load(clip)
masks, confidence = model.predict(clip["frames"], clip["seconds"])
one = model(clip["frames"][1:2], clip["seconds"][1:2])
np.savez(out, masks=masks, confidence=confidence, one=one)
"""


@pytest.fixture(scope="module")
def network(marking_tiny_run):
    return marking_tiny_run


@pytest.fixture(scope="module")
def exported(network, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "below" / "exported"
    exporting.write(network, folder)
    return folder


@pytest.fixture(scope="module")
def clip(tiny_run):
    """Frames and sound of a clip of the test split, three seconds of each."""
    (data_dir,) = (tiny_run[0].parent / "data").glob("audible_shapes-*")
    source = open_source(data_dir, "test")
    record = source[next(i for i, clip in enumerate(source.clips) if not clip.still)]
    frames = [np.asarray(Image.open(io.BytesIO(frame))) for frame in record["frames"][:3]]
    return np.stack(frames), record["waveform"][:48000].reshape(-1) / np.float32(32768)


@pytest.fixture
def copy(exported, tmp_path):
    """A copy of the export, to be spoilt."""
    return Path(shutil.copytree(exported, tmp_path / "copy"))


@pytest.mark.slow
def test_elsewhere_it_says_what_the_network_says(network, exported, clip, tmp_path):
    frames, sound = clip
    seconds = np.stack([sound[t * HOP : t * HOP + 16000] for t in range(3)])
    np.savez(tmp_path / "clip.npz", frames=frames, seconds=seconds)
    arguments = [str(exported), str(tmp_path / "clip.npz"), str(tmp_path / "out.npz")]
    subprocess.run([sys.executable, "-c", ELSEWHERE, *arguments], cwd=tmp_path, check=True)
    found = np.load(tmp_path / "out.npz")
    expected = network.predict(frames, sound)
    masks = np.asarray(expected.classes[0])
    assert found["masks"].dtype == np.uint8 and len(np.unique(masks)) > 1
    assert len(np.unique(network.before.predict(frames, sound).classes)) == 2
    np.testing.assert_array_equal(found["masks"], masks)
    np.testing.assert_array_equal(found["one"], masks[1:2])
    confidence = np.asarray(expected.maps["confidence"][0])
    np.testing.assert_allclose(found["confidence"], confidence, atol=1e-5)


def test_the_folder_says_what_it_is(exported):
    assert {path.name for path in exported.iterdir()} == set(exporting.FILES)
    assert [path.name for path in exported.parent.iterdir()] == ["exported"]
    model = exported_loader.load(exported)
    program = jax_export.deserialize(bytearray((exported / exporting.PROGRAM).read_bytes()))
    assert list(program.platforms) == model.card["platforms"] == ["cpu", "cuda", "tpu"]
    assert model.card["task"] == "semantic" and model.card["classes"][0] == "background"
    assert (model.card["frames"], model.card["waveform"]) == ([32, 32, 3], [16000])
    readme = (exported / "README.md").read_text()
    assert "frames`: uint8 [N,32,32,3]" in readme and model.card["loads_until"] in readme


def test_what_the_loader_is_not_to_take_is_a_sentence(exported, clip):
    frames, sound = clip
    model = exported_loader.load(exported)
    with pytest.raises(ValueError, match=r"frames is float64 \[3, 32, .* give uint8 \[N, 32"):
        model(frames / 255, np.zeros((3, 16000), np.float32))
    with pytest.raises(ValueError, match=r"waveform is float32 \[48000\], of 3 frames: give"):
        model(frames, sound)


def test_a_damaged_folder_is_a_sentence(copy):
    program = copy / exporting.PROGRAM
    program.write_bytes(program.read_bytes()[:-1] + b"?")
    with pytest.raises(ValueError, match=r"copy is damaged \(program.jaxexport is not as it was"):
        exported_loader.load(copy)
    card = json.loads((copy / "export.json").read_text())
    program.write_bytes(b"of another time")
    card["sha256"][program.name] = hashlib.sha256(program.read_bytes()).hexdigest()
    (copy / "export.json").write_text(json.dumps(card))
    with pytest.raises(ValueError, match=r"jax \S+ cannot load \S+copy, which jax \S+ wrote on"):
        exported_loader.load(copy)
    (copy / "export.json").write_text("{")
    with pytest.raises(ValueError, match="copy is damaged"):
        exported_loader.load(copy)


def test_one_stage_takes_the_place_of_an_earlier_export(tiny_run, copy):
    (copy / "__pycache__").mkdir()  # as of an import of its loader
    assert main([str(tiny_run[0] / "localise" / "all"), f"--out={copy}"]) == 0
    model = exported_loader.load(copy)
    assert model.card["task"] == "binary" and model.card["classes"] == ["background", "sounding"]
    assert {path.name for path in copy.iterdir()} == set(exporting.FILES)
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]


def test_what_lies_there_and_is_no_export_is_left_alone(tiny_run, copy, capsys):
    notes = copy / "notes.txt"
    notes.write_text("mine")
    for out, fault in (
        (copy, "copy holds notes.txt besides an earlier export: move that away"),
        (notes, "notes.txt is a file"),
        (copy.parent, "holds something else than what aavs_jax.export wrote earlier"),
        (tiny_run[0] / "exported", "is no new folder outside the weights"),
        ("/", "is no new folder outside the weights"),
    ):
        assert fault in _said(capsys, tiny_run[0], "--out", out)
    assert notes.read_text() == "mine" and len(list(copy.iterdir())) == 6


def test_what_cannot_be_exported_leaves_the_earlier_export(tiny_run, exported, tmp_path, capsys):
    nothing, alone = tmp_path / "nothing", tiny_run[0] / "understand" / "all"
    assert "there is no folder of weights" in _said(capsys, nothing, "--out", exported)
    assert "is told where it sounds: export" in _said(capsys, alone, "--out", exported)
    assert "the following arguments are required: --out" in _said(capsys, alone)
    assert exported_loader.load(exported).card["task"] == "semantic"


def _said(capsys, *arguments) -> str:
    """The one sentence of a command that ends with exit code 2."""
    assert main([str(argument) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    return error


def test_without_flatbuffers_it_is_said_what_to_install(tiny_run, tmp_path, capsys, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda *name: None if "flatbuffers" in name else find(*name)
    )
    assert "pip install flatbuffers" in _said(capsys, tiny_run[0], "--out", tmp_path / "new")


def test_sounds_have_two_channels_where_a_stage_hears_left_and_right(network):
    sizes = {**network.card.network, "audio": {**network.card.network["audio"], "channels": 2}}
    method = method_of(dataclasses.replace(network.card, network=sizes))
    stereo = dataclasses.replace(network, method=method, parameters=method.initial(0))
    waveform = exporting.exported(stereo).in_avals[-1]
    assert (waveform.shape[1:], waveform.dtype) == ((16000, 2), np.float32)


class OfNumPy:
    """A front end that knows of no other."""

    channels = 1

    def __init__(self, takes_xp: bool):
        if takes_xp:
            self.hear = lambda waveform, seconds, xp=np: np.asarray(waveform)
        else:
            self.hear = lambda waveform, seconds: waveform

    def __call__(self, *arguments, **named):
        return self.hear(*arguments, **named)

    def __repr__(self):
        return "OfNumPy()"


@pytest.mark.parametrize("takes_xp", [False, True])
def test_a_front_end_of_numpy_alone_is_a_sentence(tiny_run, takes_xp):
    network = aavs_jax.load(tiny_run[0] / "localise" / "all")
    method = dataclasses.replace(network.method, front_end=OfNumPy(takes_xp))
    with pytest.raises(UserError, match=r"OfNumPy\(\) cannot be exported \(.*\): let it"):
        exporting.exported(dataclasses.replace(network, method=method))
