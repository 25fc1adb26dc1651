"""python -m aavs_jax.predict: what it writes, what it says of clips that cannot be used."""

import errno
import json
import re
import threading

import av
import numpy as np
import pytest
import soundfile
from PIL import Image
from pycocotools import mask as coco
from tqdm import TMonitor

import aavs_jax
from aavs_jax import predict
from aavs_jax.prediction import clip_folder, outputs
from aavs_jax.prediction.painting import Painter
from aavs_jax.scoring import mask_folders, mask_pictures
from data_pipelines.media import MediaError
from data_pipelines.media.sound_stream import SoundStream

SECONDS, RATE = 3, 8


@pytest.fixture(scope="module")
def clips(tmp_path_factory, write_noise):
    """Folder with a video that has a sound, a picture that has one, and things that are neither."""
    folder = tmp_path_factory.mktemp("clips")
    random = np.random.default_rng(0)
    sound = (0.2 * random.normal(size=16000 * SECONDS)).clip(-1, 1).astype(np.float32)
    soundfile.write(folder / "photo.wav", sound, 16000)
    Image.fromarray(random.integers(0, 256, (50, 71, 3)).astype(np.uint8)).save(
        folder / "photo.png"
    )
    write_noise(folder / "film.mp4", SECONDS, RATE)
    return folder


def run(*arguments) -> int:
    return predict.main([str(argument) for argument in arguments])


def test_everything_is_written_and_agrees(tiny_run, clips, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(clips / "film.mp4", f"--weights={tiny_run[0]}", f"--out={out}", "--fps=2") == 0
    assert "film: 6 masks; found: " in capsys.readouterr().out
    names = ["index.html", "masks", "objects.json", "overlay.mp4", "summary.json"]
    assert sorted(path.name for path in out.iterdir()) == names
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    summary = json.loads((out / "summary.json").read_text())
    model = aavs_jax.load(tiny_run[0])
    assert summary["classes"] == list(model.classes) and summary["masks"] == 6
    results = list(model.stream(clips / "film.mp4", fps=2))
    np.testing.assert_allclose(summary["seconds"], [result.seconds for result in results])
    rows = json.loads((out / "objects.json").read_text())
    for result in results:
        picture = Image.open(out / "masks" / f"{result.index}.png")
        assert picture.mode == "P" and picture.size == (64, 48)
        np.testing.assert_array_equal(np.asarray(picture), result.mask)
        mine = [row for row in rows if row["image_id"] == result.index]
        assert [row["category_id"] for row in mine] == [o.class_id for o in result.objects]
        for row in mine:
            here = coco.decode(row["segmentation"])
            np.testing.assert_array_equal(here, result.mask == row["category_id"])
            assert row["area"] == here.sum() and 0 < row["score"] <= 1
    with av.open(str(out / "overlay.mp4")) as film:
        assert {stream.type for stream in film.streams} == {"video", "audio"}
        assert sum(1 for _ in film.decode(video=0)) == SECONDS * RATE


def test_a_list_goes_on_and_leaves_out_what_cannot_be_used(tiny_run, clips, tmp_path, capsys):
    (tmp_path / "text.mp4").write_text("no film")
    listed = tmp_path / "list.txt"
    listed.write_text(f"{clips / 'photo.png'}\n{tmp_path / 'text.mp4'}\nnone.mp4\n")
    out = tmp_path / "out"
    weights = f"--weights={tiny_run[0] / 'localise' / 'all'}"
    assert run(listed, weights, f"--out={out}", "--only=masks") == 3
    error = capsys.readouterr().err
    assert "error: video cannot be read" in error and "2 of 3 clips could not be used" in error
    assert f"error: video missing: {tmp_path / 'none.mp4'}" in error
    assert [path.name for path in out.iterdir()] == ["photo"]
    assert sorted(path.name for path in (out / "photo").iterdir()) == ["masks", "summary.json"]
    # Such a folder is what --evaluate-masks reads.
    tables, pictures, _ = mask_folders._tables(out, {"photo"})
    ((place, _), table) = next(iter(tables.items()))
    (files,) = table["photo"].values()
    assert place == "masks" and pictures == SECONDS and sorted(files) == [0, 1, 2]
    kind = mask_pictures.kind_of(files.values(), "binary")
    values, _ = mask_pictures.read(files[0], kind, "binary", 32, 2)
    expected = np.asarray(Image.open(out / "photo" / "masks" / "0.png")).any()
    assert values.any() == expected


def test_an_earlier_prediction_is_replaced_and_nothing_else(tiny_run, clips, tmp_path, capsys):
    weights = f"--weights={tiny_run[0] / 'localise' / 'all'}"
    out = tmp_path / "out"
    arguments = (clips / "photo.png", weights, f"--out={out}", "--only=objects")
    assert run(*arguments) == 0 and run(*arguments, "--silence") == 0
    assert json.loads((out / "summary.json").read_text())["sound"] is None
    other = tmp_path / "holiday"
    other.mkdir()
    (other / "photo.jpg").write_bytes(b"mine")
    assert run(clips / "photo.png", weights, f"--out={other}") == 2
    assert "holds something else than what aavs_jax.predict wrote" in capsys.readouterr().err
    assert (other / "photo.jpg").read_bytes() == b"mine"


def test_a_link_stays_and_the_folder_that_it_points_to_is_replaced(tmp_path):
    there, link = tmp_path / "disk" / "there", tmp_path / "link"
    there.mkdir(parents=True)
    link.symlink_to(there)
    for written in ("first", "second"):
        with outputs.whole(link) as partial:
            (partial / written).touch()
            outputs.write_summary(partial, {})
    assert link.is_symlink() and [path.name for path in there.parent.iterdir()] == ["there"]
    assert sorted(path.name for path in there.iterdir()) == ["second", "summary.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "link"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{clips}/film.mp4", "--fps=fast"], "--fps=fast: give a number"),
        (["{clips}/film.mp4", "--only=masks,movie"], "'movie' is none of masks, objects"),
        (["{clips}/film.mp4", "--start=-3"], "start is -3.0: give seconds, from 0"),
        (["{clips}/film.mp4", "--start=60"], "is 3.0 s long, and --start=60 is beyond"),
        (["{clips}/film.mp4", "--sound={clips}/none.wav"], "none.wav"),
        (["{clips}/film.mp4", "--sound=x", "--silence"], "not allowed with argument"),
        (["{clips}/film.mp4", "--batch-frames=-1"], "give 1 or more"),
        (["{clips}/nothing.mp4"], "there is no file or folder .*nothing.mp4: check the path"),
        ([], "the following arguments are required: CLIP"),
    ],
)
def test_faults_are_one_sentence(tiny_run, clips, tmp_path, capsys, arguments, message):
    given = [argument.format(clips=clips) for argument in arguments]
    phase = tiny_run[0] / "localise" / "all"
    assert run(*given, f"--weights={phase}", f"--out={tmp_path / 'out'}") == 2
    error = capsys.readouterr().err
    assert re.search(f"^error: .*{message}", error, re.M) and "Traceback" not in error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("place", "name", "fault", "code", "message"),
    [
        (outputs, "palette_picture", OSError(errno.ENOSPC, "full"), 2, "(full): free some space"),
        pytest.param(
            *(Painter, "paint", MediaError("", "cannot write overlay.mp4"), 2),
            "cannot write overlay",
            marks=pytest.mark.slow,
        ),
        (SoundStream, "read", MediaError("", "the sound ends"), 2, "error: the sound ends"),
        (clip_folder._Course, "add", KeyboardInterrupt(), 130, "stopped: of the clip in work"),
    ],
)
def test_a_fault_in_any_thread_ends_all_of_them(
    tiny_run, clips, tmp_path, capsys, monkeypatch, place, name, fault, code, message
):
    def fail(*_):
        raise fault

    monkeypatch.setattr(place, name, fail)

    def threads():
        return {thread for thread in threading.enumerate() if not isinstance(thread, TMonitor)}

    phase, before = tiny_run[0] / "localise" / "all", threads()
    out = tmp_path / "out"
    assert run(clips / "film.mp4", f"--weights={phase}", f"--out={out}", "--fps=all") == code
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert not list(tmp_path.iterdir()) and threads() == before


@pytest.mark.slow
def test_stage_two_alone_wants_stage_one_and_takes_it(tiny_run, clips, tmp_path, capsys):
    one, two = (tiny_run[0] / name / "all" for name in ("localise", "understand"))
    arguments = (clips / "photo.png", f"--out={tmp_path / 'out'}", "--only=masks")
    assert run(*arguments, f"--weights={two}") == 2
    assert "give the run that has both stages, or the folders of both" in capsys.readouterr().err
    assert run(*arguments, f"--weights={one},{two}") == 0
    capsys.readouterr()
    assert run(*arguments, f"--weights={one},{one}") == 2
    assert "all has no use: " in capsys.readouterr().err
    masks = [
        np.asarray(Image.open(tmp_path / "out" / "masks" / f"{n}.png")) for n in range(SECONDS)
    ]
    expected = [result.mask for result in aavs_jax.load(tiny_run[0]).stream(clips / "photo.png")]
    np.testing.assert_array_equal(masks, expected)


def test_without_weights_the_newest_run_is_taken(tiny_run, clips, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = (clips / "photo.png", "--only=masks", "--duration=1")
    assert run(*arguments) == 2
    assert "there is no trained run in runs: name weights" in capsys.readouterr().err
    (tmp_path / "runs").mkdir(exist_ok=True)
    (tmp_path / "runs" / "mine").symlink_to(tiny_run[0])
    assert run(*arguments) == 0
    assert "from runs/mine" in capsys.readouterr().out
    assert (tmp_path / "photo_out" / "masks" / "0.png").exists()
