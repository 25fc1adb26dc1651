"""Audible Stamps: made from packages that the tests draw, and once from the real ones."""

import csv
import json
import os
import shutil
import wave
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_pipelines.errors import DataError
from data_pipelines.facts import avsbench
from data_pipelines.make import main
from data_pipelines.making.audible_stamps import make, notes, sounds, write
from data_pipelines.making.audible_stamps import media as media_files
from data_pipelines.making.audible_stamps.plan import MIN_CLIPS, plans
from data_pipelines.making.audible_stamps.scene import draw
from data_pipelines.making.audible_stamps.stamps import BACKGROUNDS, TABLE, in_split

SEED, CLIPS, SIZE = 5, 24, 32
NAMES = sorted({stamp.name for stamp in TABLE})
REAL = os.environ.get("AAVS_STAMPS")  # where the real packages were unpacked


@pytest.fixture(scope="session")
def media(packages):
    return media_files.load(media_files.find(packages), SIZE)


@pytest.fixture(scope="module")
def made(packages, tmp_path_factory):
    return make(
        tmp_path_factory.mktemp("made") / "stamps",
        packages=packages,
        clips=CLIPS,
        size=SIZE,
        seed=SEED,
        workers=1,
        progress=False,
    )


@pytest.fixture(scope="module")
def clips(media):
    return [draw(SEED, plan, media, 64) for plan in plans(SEED, 30, media.stamps)]


@pytest.fixture(scope="module")
def default_plans():
    return list(plans(0, write.DEFAULT_CLIPS, TABLE))


def _files(root):
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(Path(root).rglob("*"))
        if path.is_file()
    }


# The table


def test_classes_are_avsbench_s():
    assert set(NAMES) <= set(avsbench.CLASS_NAMES[1:])
    assert len(NAMES) >= 19
    assert len({stamp.picture for stamp in TABLE}) == len(TABLE)
    assert not any("_desc" in stamp.recording for stamp in TABLE)


def test_stamps_kept_for_the_test_are_met_nowhere_else():
    train, val, test = (in_split(TABLE, s, True) for s in ("train", "val", "test"))
    assert train == val
    held = {stamp for stamp in TABLE if stamp.held_out}
    assert held and not held & set(train) and held <= set(test)
    for name in NAMES:
        pictures = [{s.picture for s in part if s.name == name} for part in (train, test)]
        heard = [{s.recording for s in part if s.name == name} for part in (train, test)]
        assert all(pictures) and all(heard)
        if name in {stamp.name for stamp in held}:
            assert not pictures[0] & pictures[1]
            # A recording in both splits is the only one that the class has.
            if heard[0] & heard[1]:
                assert len({s.recording for s in TABLE if s.name == name}) == 1
        else:
            assert pictures[0] == pictures[1]
    assert in_split(TABLE, "train", False) == TABLE


def test_a_class_of_which_only_one_side_is_there_is_in_every_split():
    only_held = tuple(stamp for stamp in TABLE if stamp.name != "dog" or stamp.held_out)
    only_others = tuple(stamp for stamp in TABLE if stamp.name != "dog" or not stamp.held_out)
    for part in (only_held, only_others):
        for split in avsbench.SPLITS:
            assert "dog" in {stamp.name for stamp in in_split(part, split, True)}


# Files


def test_files_are_the_unified_layout(made):
    with open(made / "metadata.csv", newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    assert tuple(reader.fieldnames) == avsbench.METADATA_COLUMNS
    assert len(rows) == CLIPS == len({row["uid"] for row in rows})
    expected = {"metadata.csv", "label2idx.json", "LICENSE-MEDIA.md", "stamps.json"}
    for row in rows:
        seconds = {"v1s": 5, "v1m": 5, "v2": 10}[row["label"]]
        labelled = 1 if (row["label"], row["split"]) == ("v1s", "train") else seconds
        folder = f"{row['label']}/{row['uid']}"
        expected |= {f"{folder}/frames/{t}.jpg" for t in range(seconds)}
        expected |= {f"{folder}/labels_rgb/{t}.png" for t in range(labelled)}
        expected |= {f"{folder}/labels_semantic/{t}.png" for t in range(labelled)}
        expected.add(f"{folder}/audio.wav")
        assert set(row["a_obj"].split("_")) <= {*NAMES, "off-the-screen"}
        with wave.open(str(made / folder / "audio.wav")) as file:
            assert file.getparams()[:4] == (1, 2, 16000, 16000 * seconds)
    assert set(_files(made)) == expected
    label2idx = json.loads((made / "label2idx.json").read_text())
    assert len(label2idx) == 71
    assert (label2idx["background"], label2idx["accordion"], label2idx["woman"]) == (1, 2, 71)
    assert label2idx["sheep"] == 53


def test_files_hold_what_was_drawn(made, media):
    colours = avsbench.palette(71)
    for plan in plans(SEED, CLIPS, media.stamps):
        clip = draw(SEED, plan, media, SIZE)
        where = (made, plan.subset, plan.uid)
        for t in range(avsbench.labelled_seconds(plan.subset, plan.split)):
            rgb = np.asarray(Image.open(avsbench.rgb_label_path(*where, t)))
            np.testing.assert_array_equal(rgb, colours[clip.labels[t]])
        with wave.open(str(avsbench.audio_path(*where))) as file:
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        np.testing.assert_array_equal(samples, clip.waveform)


def test_licence_and_stamps_are_named(made):
    licence = (made / "LICENSE-MEDIA.md").read_text()
    for words in ("GNU General Public License", "tuxpaint-stamps-default 1:2.3-4", "tuxpaint-data"):
        assert words in licence
    content = json.loads((made / "stamps.json").read_text())
    assert content["seed"] == SEED and not content["held_out_stamps"] and not content["missing"]
    assert content["packages"]["tuxpaint-data"] == "1:2.3-4"
    assert [entry["picture"] for entry in content["stamps"]] == [s.picture for s in TABLE]
    assert all(entry["splits"] == list(avsbench.SPLITS) for entry in content["stamps"])


def test_files_do_not_depend_on_workers_or_on_how_many_clips_there_are(made, packages, tmp_path):
    kwargs = {"packages": packages, "size": SIZE, "seed": SEED, "progress": False}
    fewer = _files(make(tmp_path / "few", clips=18, workers=2, **kwargs))
    all_files = _files(made)
    for name, content in fewer.items():
        if name not in ("metadata.csv", "stamps.json"):
            assert all_files[name] == content, name
    lines = fewer["metadata.csv"].splitlines()
    assert all_files["metadata.csv"].splitlines()[: len(lines)] == lines


# What is seen


def test_labels_are_what_sounds_and_is_seen(clips):
    for clip in clips:
        ids = np.array([0] + [item.class_id for item in clip.plan.objects])
        for t in range(clip.plan.seconds):
            sounding = np.array([False] + [bool(item.active[t]) for item in clip.plan.objects])
            owners = clip.owners[t]
            np.testing.assert_array_equal(clip.labels[t], np.where(sounding, ids, 0)[owners])
            assert set(np.unique(owners)) >= set(range(1, len(ids)))  # none is fully hidden


def test_labels_lie_on_the_cutout_and_not_on_its_holes(media):
    """The drawn discs have a hole in the middle, through which the background is seen."""
    plan = next(p for p in plans(SEED, 99, media.stamps) if len(p.objects) == 1)
    clip = draw(SEED, plan, media, 96)
    mask = clip.owners[0] > 0
    rows, columns = np.nonzero(mask)
    middle = round(rows.mean()), round(columns.mean())
    assert not mask[middle]
    # Outside the mask the frame does not depend on the object, inside it has one colour.
    inside = clip.frames[0][mask].astype(int)
    assert np.median(inside.std(axis=0)) < 25 < clip.frames[0][~mask].astype(int).std()


def test_sizes_are_sensible(clips):
    areas = [
        (clip.owners[t] == i + 1).mean()
        for clip in clips
        for t in range(clip.plan.seconds)
        for i in range(len(clip.plan.objects))
    ]
    assert 0.15**2 < np.mean(areas) < 0.5**2 and max(areas) < (0.5 * 1.2) ** 2
    for clip in clips:
        assert not np.array_equal(clip.owners[0], clip.owners[-1])  # they drift


def test_thin_things_fit_into_the_frame(media):
    rgba = np.zeros((200, 20, 4), np.uint8)
    rgba[2:-2, 2:-2] = 255
    thin = media_files.Media(
        media.stamps,
        (rgba,) * len(media.stamps),
        media.recordings,
        media.backgrounds,
        media.background_names,
        (),
    )
    plan = next(p for p in plans(SEED, 99, thin.stamps) if len(p.objects) == 1)
    rows = np.nonzero(draw(SEED, plan, thin, 64).owners[0])[0]
    assert np.ptp(rows) < 60


# What is heard


def test_it_is_silent_where_nothing_sounds(clips):
    seen = Counter()
    for clip in clips:
        sources = clip.plan.objects + clip.plan.off_screen
        seconds = clip.waveform.reshape(-1, 16000) / 32768.0
        for t in range(clip.plan.seconds):
            level = np.sqrt(np.mean(seconds[t] ** 2))
            count = sum(bool(source.active[t]) for source in sources)
            assert (level < 0.004) if count == 0 else (0.015 < level < 0.5)
            seen[min(count, 2)] += 1
    assert all(seen[count] for count in (0, 1, 2))


def test_pauses_are_cut_and_every_second_is_heard():
    rate = 16000
    tone = np.sin(np.arange(rate // 2))
    pause = np.zeros(2 * rate)
    sound = media_files.tidy(np.concatenate([pause, tone, pause, tone, pause]), Path("x"))
    assert 1.1 * rate < len(sound) < 1.3 * rate
    assert np.sqrt(np.mean(sound**2)) == pytest.approx(1, rel=1e-3)
    with pytest.raises(DataError, match="silence"):
        media_files.tidy(np.zeros(rate), Path("x"))


def test_no_two_sources_are_the_same_samples():
    rng = np.random.Generator(np.random.PCG64(0))
    recording = rng.standard_normal(24000).astype(np.float32)
    a, b = (sounds.source(recording, rng, 5) for _ in range(2))
    for track in (a, b):
        levels = np.sqrt(np.mean(track.reshape(5, -1) ** 2, axis=1))
        assert levels.min() > 0.5  # repeated until the end
    one, other = a.reshape(-1, 800), b.reshape(-1, 800)
    same = (one[:, None] == other[None]).all(axis=-1) & (np.abs(one).sum(axis=-1) > 0)[:, None]
    assert not same.any()


# Who is in the clips


def test_subsets_and_splits_have_their_shares(default_plans):
    counts = Counter((plan.subset, plan.split) for plan in default_plans)
    for subset, share in (("v1s", 0.20), ("v1m", 0.30), ("v2", 0.50)):
        total = sum(counts[subset, split] for split in avsbench.SPLITS)
        assert total == pytest.approx(share * len(default_plans), abs=1)
        for split, part in (("train", 0.70), ("val", 0.15), ("test", 0.15)):
            assert counts[subset, split] == pytest.approx(part * total, abs=1)
    for few, all_there in ((MIN_CLIPS, True), (MIN_CLIPS - 1, False)):
        assert (len({(p.subset, p.split) for p in plans(0, few, TABLE)}) == 9) == all_there


def test_classes_are_even_in_every_split_and_role(default_plans):
    for split in avsbench.SPLITS:
        sounding, silent = Counter(), Counter()
        for plan in default_plans:
            if plan.split == split:
                for item in plan.objects:
                    (sounding if item.active.any() else silent)[item.name] += 1
        for counts in (sounding, silent):
            values = [counts[name] for name in NAMES]
            assert max(values) - min(values) <= 3


def test_eyes_alone_cannot_solve_it(default_plans):
    rival = [any(not item.active.any() for item in plan.objects) for plan in default_plans]
    assert np.mean(rival) > 0.7
    off_screen = [bool(plan.off_screen) for plan in default_plans if plan.subset != "v1s"]
    assert 0.06 < np.mean(off_screen) < 0.2
    for plan in default_plans:
        names = [source.name for source in plan.objects + plan.off_screen]
        assert len(set(names)) == len(names)  # no class twice
        assert 1 <= len(plan.objects) <= 3
    assert len({plan.uid for plan in default_plans}) == len(default_plans)


def test_held_out_plans_follow_the_table():
    for plan in plans(0, 200, TABLE, held_out=True):
        allowed = in_split(TABLE, plan.split, True)
        assert all(TABLE[s.index] in allowed for s in plan.objects + plan.off_screen)
        assert all(TABLE[s.index].name == s.name for s in plan.objects + plan.off_screen)


# The packages


def test_packages_may_be_unpacked_apart(packages, tmp_path):
    share = packages / "usr/share/tuxpaint"
    for name, folders in (("a", ["stamps"]), ("b", ["templates", "starters"])):
        for folder in folders:
            shutil.copytree(share / folder, tmp_path / name / "usr/share/tuxpaint" / folder)
    media = media_files.load(media_files.find(tmp_path), SIZE)
    assert len(media.stamps) == len(TABLE) and media.background_names == BACKGROUNDS
    assert notes.version(media_files.find(tmp_path), "tuxpaint-data") == "version not known"


def test_another_version_of_the_packages_leaves_stamps_out(packages, tmp_path):
    shutil.copytree(packages, tmp_path / "old")
    stamps = tmp_path / "old/usr/share/tuxpaint/stamps"
    (stamps / "animals/birds/crow.png").unlink()
    next((stamps / "animals/mammals").glob("elephant.[ow]*")).unlink()
    media = media_files.load(media_files.find(tmp_path / "old"), SIZE)
    assert [stamp.picture for stamp in media.missing] == [
        "animals/birds/crow",
        "animals/mammals/elephant",
    ]
    assert "elephant" not in {stamp.name for stamp in media.stamps}
    shutil.rmtree(stamps / "animals")
    with pytest.raises(DataError, match="whole copies"):
        media_files.load(media_files.find(tmp_path / "old"), SIZE)


def test_missing_packages_are_one_sentence_with_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(media_files, "INSTALLED", tmp_path / "share")
    out = tmp_path / "data"
    (tmp_path / "empty").mkdir()
    for extra in ([], [f"--packages={tmp_path / 'empty'}"]):
        assert main(["stamps", f"--out={out}", *extra]) == 2
        message = capsys.readouterr().err
        assert message.count("\n") == 1
        assert "apt-get install tuxpaint-stamps-default tuxpaint-data" in message
    assert main(["stamps", f"--out={out}", f"--packages={tmp_path / 'none'}"]) == 2
    assert not out.exists()


def test_a_broken_picture_is_named(packages, tmp_path, capsys):
    shutil.copytree(packages, tmp_path / "broken")
    path = tmp_path / "broken/usr/share/tuxpaint/stamps/animals/birds/crow.png"
    path.write_bytes(b"no picture")
    out = tmp_path / "data"
    assert main(["stamps", f"--out={out}", f"--packages={tmp_path / 'broken'}", "--clips=13"]) == 2
    message = capsys.readouterr().err
    assert str(path) in message and message.count("\n") == 1
    assert os.listdir(tmp_path) == ["broken"]


# The command


def test_command_makes_data_and_sheet(packages, tmp_path, capsys):
    command = [
        "stamps",
        f"--out={tmp_path / 'data'}",
        f"--packages={packages}",
        "--clips=13",
        "--size=16",
    ]
    command += ["--seed=3", "--held-out-stamps", "--workers=1", f"--show={tmp_path / 's.png'}"]
    assert main(command) == 0
    assert "13/13" in capsys.readouterr().err  # the bar
    image = np.asarray(Image.open(tmp_path / "s.png"))
    assert len(np.unique(image @ [1 << 16, 1 << 8, 1])) > 1000  # colours
    content = json.loads((tmp_path / "data/stamps.json").read_text())
    splits = {entry["picture"]: entry["splits"] for entry in content["stamps"]}
    assert splits["animals/birds/drake"] == ["test"]
    assert splits["animals/birds/duck"] == ["train", "val"]
    assert splits["animals/birds/gander"] == ["train", "val", "test"]
    assert sorted(os.listdir(tmp_path)) == ["data", "s.png"]


@pytest.mark.parametrize(
    "option",
    ["--clips=12", "--size=2", "--size=1025", "--seed=-1", "--clips=1000000", "--workers=0"],
)
def test_numbers_out_of_range_are_refused(packages, tmp_path, capsys, option):
    assert main(["stamps", f"--out={tmp_path / 'data'}", f"--packages={packages}", option]) == 2
    assert option.split("=")[0] in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_folder_in_use_is_refused_and_left_alone(packages, tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("keep")
    assert (
        main(["stamps", f"--out={tmp_path}", f"--packages={packages}", "--clips=13", "--size=16"])
        == 2
    )
    assert "not empty" in capsys.readouterr().err
    assert _files(tmp_path) == {"mine.txt": b"keep"}


@pytest.mark.parametrize("workers", [1, 2])
def test_nothing_half_written_remains(packages, tmp_path, monkeypatch, workers):
    def fail(*_, **__):
        raise OSError(28, "No space left")

    # Workers are fresh processes, so it is the tables that fail for both.
    monkeypatch.setattr(write.notes, "write", fail)
    with pytest.raises(DataError, match="No space left"):
        make(
            tmp_path / "data",
            packages=packages,
            clips=MIN_CLIPS,
            size=16,
            workers=workers,
            progress=False,
        )
    assert not list(tmp_path.iterdir())


# The real packages


@pytest.mark.skipif(
    not REAL and not (media_files.INSTALLED / "tuxpaint" / "stamps").is_dir(),
    reason="tuxpaint-stamps-default is not installed, and AAVS_STAMPS names no unpacked copy",
)
def test_the_real_packages_hold_what_the_table_says(tmp_path):
    places = media_files.find(REAL)
    media = media_files.load(places, 64)
    assert not media.missing and media.background_names == BACKGROUNDS
    for stamp, cutout, recording in zip(media.stamps, media.cutouts, media.recordings, strict=True):
        assert min(cutout.shape[:2]) > 8 and 0.05 < (cutout[..., 3] > 127).mean() < 0.9, stamp
        # However it is looped, no second is without it.
        track = sounds.source(recording, np.random.Generator(np.random.PCG64(0)), 10)
        levels = np.sqrt(np.mean(track.reshape(10, -1) ** 2, axis=1))
        assert levels.min() > 0.1, stamp
    assert notes.version(places, "tuxpaint-stamps-default") != "version not known"
    options = dict(clips=20, size=64, workers=1, progress=False, show=tmp_path / "s.png")
    make(tmp_path / "data", packages=REAL, **options)
