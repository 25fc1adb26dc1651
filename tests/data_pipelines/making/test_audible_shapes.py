"""Audible Shapes: what is promised about its clips, its files and its command."""

import csv
import errno
import hashlib
import json
import os
import subprocess
import sys
import wave
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, JpegImagePlugin

from data_pipelines.errors import DataError
from data_pipelines.facts import avsbench
from data_pipelines.loading.front_ends import log_mel_examples
from data_pipelines.make import main
from data_pipelines.making import drawing, writer
from data_pipelines.making.audible_shapes import make, sounds, write
from data_pipelines.making.audible_shapes.plan import MIN_CLIPS, plans
from data_pipelines.making.audible_shapes.scene import draw
from data_pipelines.making.audible_shapes.shapes import (
    CLASS_NAMES,
    HUE_SPREAD,
    NUM_SHAPES,
    SHAPES,
    rasterise,
)

SEED, CLIPS, SIZE = 5, 24, 32


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make(
        tmp_path_factory.mktemp("made") / "shapes",
        clips=CLIPS,
        size=SIZE,
        seed=SEED,
        progress=False,
    )


@pytest.fixture(scope="module")
def clips():
    return [draw(SEED, plan, 64) for plan in plans(SEED, 30)]


@pytest.fixture(scope="module")
def default_plans():
    return list(plans(0, write.DEFAULT_CLIPS))


def _files(root):
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(Path(root).rglob("*"))
        if path.is_file()
    }


def _hues(pixels):
    """Degrees of uint8 [n, 3], by another route than the code's hsv_to_rgb."""
    r, g, b = np.moveaxis(pixels.astype(float), -1, 0)
    return np.degrees(np.arctan2(np.sqrt(3) * (g - b), 2 * r - g - b)) % 360


def _apart(a, b):
    return np.abs((a - b + 180) % 360 - 180)


# The layout's facts


def test_palette_is_the_voc_bit_rule():
    colours = avsbench.palette(71)
    assert colours.shape == (71, 3) and colours.dtype == np.uint8
    known = {
        0: (0, 0, 0),
        1: (128, 0, 0),
        2: (0, 128, 0),
        3: (128, 128, 0),
        4: (0, 0, 128),
        7: (128, 128, 128),
        8: (64, 0, 0),
        41: (192, 0, 64),
        70: (32, 128, 128),
    }
    assert {i: tuple(int(c) for c in colours[i]) for i in known} == known
    assert len(np.unique(avsbench.palette(256), axis=0)) == 256


def test_files_are_the_unified_layout(made):
    with open(made / "metadata.csv", newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    assert tuple(reader.fieldnames) == ("vid", "uid", "s_min", "s_sec", "a_obj", "split", "label")
    assert len(rows) == CLIPS == len({row["uid"] for row in rows})
    expected = {"metadata.csv", "label2idx.json"}
    for row in rows:
        seconds = {"v1s": 5, "v1m": 5, "v2": 10}[row["label"]]
        labelled = 1 if (row["label"], row["split"]) == ("v1s", "train") else seconds
        folder = f"{row['label']}/{row['uid']}"
        expected |= {f"{folder}/frames/{t}.jpg" for t in range(seconds)}
        expected |= {f"{folder}/labels_rgb/{t}.png" for t in range(labelled)}
        expected |= {f"{folder}/labels_semantic/{t}.png" for t in range(labelled)}
        expected.add(f"{folder}/audio.wav")
        start = 1000 * (60 * int(row["s_min"]) + int(row["s_sec"]))
        tail = "0" if row["label"] == "v1m" else f"{start}_{start + 1000 * seconds}"
        assert row["uid"] == f"{row['vid']}_{tail}"
        assert len(row["vid"]) == 11
        tokens = row["a_obj"].split("_")
        assert set(tokens) <= {*CLASS_NAMES, "off-the-screen"} and len(tokens) == len(set(tokens))
    assert set(_files(made)) == expected
    label2idx = json.loads((made / "label2idx.json").read_text())
    assert label2idx["background"] == 1
    assert [label2idx[name] for name in CLASS_NAMES] == list(range(2, NUM_SHAPES + 2))
    assert NUM_SHAPES >= 8


def test_files_hold_what_was_drawn(made):
    colours = avsbench.palette(NUM_SHAPES + 1)
    for plan in plans(SEED, CLIPS):
        clip = draw(SEED, plan, SIZE)
        where = (made, plan.subset, plan.uid)
        for t in range(plan.seconds):
            with Image.open(avsbench.frame_path(*where, t)) as frame:
                assert JpegImagePlugin.get_sampling(frame) == 0  # full colour resolution
                difference = np.asarray(frame).astype(int) - clip.frames[t]
            assert np.abs(difference).mean() < 3
        for t in range(avsbench.labelled_seconds(plan.subset, plan.split)):
            rgb = Image.open(avsbench.rgb_label_path(*where, t))
            index = Image.open(avsbench.semantic_label_path(*where, t))
            assert (rgb.mode, index.mode) == ("RGB", "L")
            np.testing.assert_array_equal(np.asarray(index), clip.labels[t])
            np.testing.assert_array_equal(np.asarray(rgb), colours[clip.labels[t]])
        with wave.open(str(avsbench.audio_path(*where))) as file:
            assert file.getparams()[:4] == (1, 2, 16000, 16000 * plan.seconds)
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        np.testing.assert_array_equal(samples, clip.waveform)


# The same everywhere


def test_two_makes_are_byte_identical(made, tmp_path):
    options = dict(size=SIZE, seed=SEED, progress=False)
    again = make(tmp_path / "again", clips=CLIPS, workers=2, **options)
    assert _files(again) == _files(made)
    other = make(tmp_path / "other", clips=MIN_CLIPS, size=SIZE, seed=SEED + 1, progress=False)
    common = {k: v for k, v in _files(other).items() if k.endswith("audio.wav")}
    assert common and not set(common.values()) & set(_files(made).values())


def test_each_process_has_clips_that_are_worth_it(monkeypatch, tmp_path):
    seen = []

    def written(plans, arguments, workers):
        seen.append(workers)
        yield from plans

    monkeypatch.setattr(writer, "_written", written)
    for cores, clips in ((8, 20), (8, 200), (2, 200), (None, 200)):
        monkeypatch.setattr("os.cpu_count", lambda cores=cores: cores)
        make(tmp_path / f"{cores}-{clips}", clips=clips, size=16, progress=False)
    assert seen == [1, 4, 2, 1]


def test_a_clip_does_not_depend_on_how_many_there_are(made, tmp_path):
    fewer = _files(make(tmp_path / "few", clips=10, size=SIZE, seed=SEED, progress=False))
    all_files = _files(made)
    for name, content in fewer.items():
        if name != "metadata.csv":
            assert all_files[name] == content
    lines = fewer["metadata.csv"].splitlines()
    assert all_files["metadata.csv"].splitlines()[: len(lines)] == lines


def test_arrays_are_the_same_on_every_machine():
    digest = hashlib.sha256()
    for plan in plans(0, 6):
        clip = draw(0, plan, 48)
        for array in (clip.frames, clip.labels, clip.waveform.astype("<i2")):
            digest.update(np.ascontiguousarray(array).tobytes())
        digest.update(f"{plan.uid} {plan.split} {plan.a_obj}".encode())
    assert digest.hexdigest() == (
        "afef90bb26fd5dd73faac47b6941b75e4c6a7f8a4bd93cbb075334b8a374321b"
    )


# What is seen


def test_labels_are_what_sounds_and_is_seen(clips):
    for clip in clips:
        ids = np.array([0] + [item.index + 1 for item in clip.plan.objects])
        for t in range(clip.plan.seconds):
            sounding = np.array([False] + [bool(item.active[t]) for item in clip.plan.objects])
            owners = clip.owners[t]
            np.testing.assert_array_equal(clip.labels[t], np.where(sounding, ids, 0)[owners])
            assert set(np.unique(owners)) >= set(range(1, len(ids)))  # none is fully hidden


def test_labels_lie_on_objects_of_their_class_colour(clips):
    for clip in clips:
        labelled = clip.labels > 0
        # Only pixels whose neighbours agree: those on an outline mix two colours.
        inside = labelled.copy()
        for axis in (1, 2):
            for step in (-1, 1):
                inside &= np.roll(clip.labels, step, axis) == clip.labels
        hues = np.array([np.nan] + [shape.hue for shape in SHAPES])[clip.labels[inside]]
        wrong = _apart(_hues(clip.frames[inside]), hues) > HUE_SPREAD + 4
        assert wrong.mean() < 0.01


def test_hues_are_spread():
    hues = np.array([shape.hue for shape in SHAPES])
    apart = _apart(hues[:, None], hues[None])[~np.eye(NUM_SHAPES, dtype=bool)]
    assert apart.min() - 2 * HUE_SPREAD > 25


def test_backgrounds_are_dull_and_textured(clips):
    for clip in clips:
        pixels = clip.frames[clip.owners == 0].astype(float) / 255
        saturation = 1 - pixels.min(-1) / np.maximum(pixels.max(-1), 1e-6)
        assert np.median(saturation) < 0.35
        assert pixels.mean(-1).std() > 0.015


def test_objects_drift_and_are_big_enough(clips):
    areas = []
    for clip in clips:
        assert not np.array_equal(clip.owners[0], clip.owners[-1])
        areas += [
            (clip.owners[t] == i + 1).mean()
            for t in range(clip.plan.seconds)
            for i in range(len(clip.plan.objects))
        ]
    assert min(areas) > 0.02 and 0.06 < np.mean(areas) < 0.12


@pytest.mark.parametrize("shape", range(NUM_SHAPES), ids=CLASS_NAMES)
def test_shapes_are_drawn_whole_and_alike_in_size(shape):
    rows, columns, coverage, _, u, v = rasterise(shape, 96, (0.5, 0.5), 0.3, 0.4)
    area = coverage.sum() / 96**2 / 0.3**2
    assert 1.7 < area < 2.7
    # The border of the patch is empty: nothing was cut off by the slices.
    assert max(coverage[0].max(), coverage[-1].max()) == 0
    assert max(coverage[:, 0].max(), coverage[:, -1].max()) == 0
    # Antialiasing: more sub-samples change little.
    fine = rasterise(shape, 96, (0.5, 0.5), 0.3, 0.4, samples=9)[2]
    assert np.abs(fine - coverage).max() < 0.35 and np.abs(fine - coverage).mean() < 0.01


# What is heard


def test_it_is_silent_where_nothing_sounds(clips):
    seen = Counter()
    for clip in clips:
        sources = clip.plan.objects + clip.plan.off_screen
        seconds = clip.waveform.reshape(-1, 16000) / 32768.0
        for t in range(clip.plan.seconds):
            loudness = np.sqrt(np.mean(seconds[t] ** 2))
            count = sum(bool(source.active[t]) for source in sources)
            assert (loudness < 0.004) if count == 0 else (0.015 < loudness < 0.4)
            seen[min(count, 2)] += 1
    assert all(seen[count] for count in (0, 1, 2))


def test_switch_is_exactly_off_and_has_no_clicks():
    active = np.array([False, True, True, False, True])
    envelope = drawing.switch(active)
    per_second = envelope.reshape(5, 16000)
    assert not per_second[~active].any()
    assert (per_second[active].mean(axis=1) > 0.98).all()
    assert envelope[2 * 16000 - 5 : 2 * 16000 + 5].min() == 1  # no dip within a run
    assert np.abs(np.diff(envelope)).max() < 0.02


def _features(seed, count):
    """Mean log-mel of every example of single sources: float [n, 64], and their classes."""
    rng = np.random.Generator(np.random.PCG64(seed))
    rows, classes = [], []
    for shape in range(NUM_SHAPES):
        for _ in range(count):
            waveform = drawing.mix([(shape, np.ones(2, bool))], 2, rng, sounds.synthesise)
            examples = log_mel_examples(waveform / np.float32(32768))
            rows += list(examples.mean(axis=1))
            classes += [shape] * len(examples)
    return np.array(rows), np.array(classes)


def test_timbres_are_told_apart_by_their_log_mel():
    train, train_classes = _features(1, 6)
    test, test_classes = _features(2, 6)
    means = np.stack([train[train_classes == k].mean(0) for k in range(NUM_SHAPES)])
    nearest = ((test[:, None] - means[None]) ** 2).sum(-1).argmin(1)
    assert (nearest == test_classes).mean() > 0.95


def test_sources_of_a_class_are_not_one_waveform():
    rng = np.random.Generator(np.random.PCG64(0))
    for shape in range(NUM_SHAPES):
        a, b = (sounds.synthesise(shape, rng, 1) for _ in range(2))
        assert np.abs(np.corrcoef(a, b)[0, 1]) < 0.5
        assert np.sqrt(np.mean(a**2)) == pytest.approx(1)


# Who is in the clips


def test_subsets_and_splits_have_their_shares(default_plans):
    counts = Counter((plan.subset, plan.split) for plan in default_plans)
    for subset, share in (("v1s", 0.35), ("v1m", 0.30), ("v2", 0.35)):
        total = sum(counts[subset, split] for split in avsbench.SPLITS)
        assert total == pytest.approx(share * len(default_plans), abs=1)
        for split, part in (("train", 0.70), ("val", 0.08), ("test", 0.22)):
            assert counts[subset, split] == pytest.approx(part * total, abs=1)
    few = Counter((plan.subset, plan.split) for plan in plans(0, MIN_CLIPS))
    assert len(few) == 9


def test_classes_are_even_in_every_split(default_plans):
    for split in avsbench.SPLITS:
        sounding, silent = Counter(), Counter()
        for plan in default_plans:
            if plan.split == split:
                for item in plan.objects:
                    (sounding if item.active.any() else silent)[item.index] += 1
        for counts in (sounding, silent):
            values = [counts[shape] for shape in range(NUM_SHAPES)]
            assert max(values) - min(values) <= 3


def test_eyes_alone_cannot_solve_it(default_plans):
    rival = [any(not item.active.any() for item in plan.objects) for plan in default_plans]
    assert np.mean(rival) > 0.8
    for plan in default_plans:
        shapes = [source.index for source in plan.objects + plan.off_screen]
        assert len(set(shapes)) == len(shapes)  # no class twice
        assert 1 <= len(plan.objects) <= 4
        assert len(plan.off_screen) == ("off-the-screen" in plan.a_obj)
    # Neither drawing order nor class gives the sounding one away.
    first = [plan.objects[0].active.any() for plan in default_plans]
    last = [plan.objects[-1].active.any() for plan in default_plans]
    assert abs(np.mean(first) - np.mean(last)) < 0.1


def test_activity_follows_the_subset(default_plans):
    off_screen, empty, several, several_sources = [], [], [], []
    for plan in default_plans:
        active = np.array([item.active for item in plan.objects])
        sources = int(active.any(axis=1).sum())
        if plan.subset == "v1s":
            assert sources == 1 and active.any(axis=0).all() and not plan.off_screen
            assert active.sum() == 5
            continue
        assert 1 <= sources <= 3
        off_screen.append(bool(plan.off_screen))
        several_sources.append(sources > 1)
        empty += list(~active.any(axis=0))
        several += list(active.sum(axis=0) > 1)
        for source in plan.objects + plan.off_screen:
            edges = np.flatnonzero(np.diff(source.active.astype(int))) + 1
            runs = np.diff([0, *edges, plan.seconds])
            assert runs.min() >= 2
    assert 0.12 < np.mean(off_screen) < 0.35
    assert 0.05 < np.mean(empty) < 0.2
    assert 0.25 < np.mean(several) and 0.4 < np.mean(several_sources)


# The command


def test_sheet_shows_frames_and_activity(tmp_path):
    path = tmp_path / "new" / "sheet.png"
    make(tmp_path / "data", clips=30, size=SIZE, seed=SEED, progress=False, show=path)
    image = np.asarray(Image.open(path).convert("RGB"))
    assert image.shape[0] > 1000 and image.shape[1] > 1000
    assert len(np.unique(image @ [1 << 16, 1 << 8, 1])) > 1000  # colours
    # Bars in the class colours stand below the legend.
    colours = [
        np.all(image[100:] == write.colours(k + 1)[0], axis=-1).sum() for k in range(NUM_SHAPES)
    ]
    assert min(colours) > 100


def test_command_makes_data_and_sheet(tmp_path):
    command = [
        sys.executable,
        "-m",
        "data_pipelines.make",
        "shapes",
        f"--out={tmp_path / 'data'}",
    ]
    command += ["--clips", "9", "--size", "16", "--seed", "3", "--show", str(tmp_path / "s.png")]
    root = Path(write.__file__).parents[3]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr
    assert "9/9" in done.stderr  # the bar
    assert (tmp_path / "s.png").stat().st_size > 1000
    same = make(tmp_path / "same", clips=9, size=16, seed=3, progress=False)
    assert _files(tmp_path / "data") == _files(same)
    assert sorted(os.listdir(tmp_path)) == ["data", "s.png", "same"]


def test_a_folder_in_use_is_refused_and_left_alone(tmp_path, capsys):
    out = tmp_path / "data"
    out.mkdir()
    (out / "mine.txt").write_text("keep")
    assert main(["shapes", f"--out={out}", "--clips=9", "--size=16"]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and str(out) in message and "not empty" in message
    assert _files(tmp_path) == {"data/mine.txt": b"keep"}
    (tmp_path / "file").write_text("")
    assert main(["shapes", f"--out={tmp_path / 'file'}"]) == 2
    assert main(["shapes", f"--out={tmp_path / 'file' / 'below'}"]) == 2


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "data").mkdir()
    make(tmp_path / "data", clips=9, size=16, progress=False)
    assert (tmp_path / "data" / "metadata.csv").exists()


@pytest.mark.parametrize(
    "option", ["--clips=8", "--size=2", "--seed=-1", "--clips=1000000", "--workers=0"]
)
def test_numbers_out_of_range_are_refused(tmp_path, capsys, option):
    assert main(["shapes", f"--out={tmp_path / 'data'}", option]) == 2
    assert option.split("=")[0] in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("fault", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
def test_nothing_half_written_remains(tmp_path, monkeypatch, fault):
    calls = []
    whole = writer.write_clip

    def fail_at_third(root, clip, num_classes):
        calls.append(clip)
        if len(calls) == 3:
            raise fault
        whole(root, clip, num_classes)

    monkeypatch.setattr(writer, "write_clip", fail_at_third)
    expected = DataError if isinstance(fault, OSError) else KeyboardInterrupt
    with pytest.raises(expected) as caught:
        make(tmp_path / "data", clips=9, size=16, progress=False)
    if expected is DataError:
        assert "No space left" in str(caught.value) and str(tmp_path) in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_what_a_killed_run_left_is_replaced(tmp_path):
    (tmp_path / ".data.partial").mkdir()
    (tmp_path / ".data.partial" / "old").write_text("half")
    make(tmp_path / "data", clips=9, size=16, progress=False)
    assert os.listdir(tmp_path) == ["data"] and not (tmp_path / "data" / "old").exists()
