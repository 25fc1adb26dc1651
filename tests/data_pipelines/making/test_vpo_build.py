"""VPO made from a small COCO-shaped folder of drawn rectangles and from tones."""

import collections
import csv
import filecmp
import json
import os
import shutil

import av
import numpy as np
import pytest
import soundfile
from PIL import Image

from data_pipelines.errors import DataError
from data_pipelines.facts.vpo import CLASS_NAMES, COCO_IDS, PEOPLE
from data_pipelines.loader import eval_loader, train_loader
from data_pipelines.loading.front_ends import LogMel
from data_pipelines.loading.read_clip import ReadClip
from data_pipelines.loading.request import Request
from data_pipelines.make import main
from data_pipelines.making.vpo import build, compose
from data_pipelines.making.vpo.coco import Object
from data_pipelines.making.vpo.outlines import OutlineError, rasterise
from data_pipelines.making.vpo.recordings import read_middle
from data_pipelines.prepare import prepare
from data_pipelines.prepared.source import open_source
from data_pipelines.preparing.read import ReadOptions, read_clip
from data_pipelines.reading.recognise import read_table

WIDTH, HEIGHT = 320, 200
RATE = 16000
# COCO's own numbers, one that VPO does not use, and `person`.
CATEGORIES = {"person": 1, "car": 3, "dog": 18, "cat": 17, "chair": 62}
LEFT, MIDDLE, RIGHT = (20, 40, 80, 120), (130, 50, 190, 150), (240, 30, 300, 170)  # x, y, x, y
TINY = (5, 5, 25, 25)


def polygon(box):
    x0, y0, x1, y1 = box
    return [[x0, y0, x1, y0, x1, y1, x0, y1]]


def box_mask(box):
    x0, y0, x1, y1 = box
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[y0:y1, x0:x1] = True
    return mask


def runs(mask):
    """Lengths of outside and inside by turns, column by column."""
    flat = np.concatenate([[0], mask.T.ravel(), [2]])
    changes = np.flatnonzero(np.diff(flat.astype(int)) != 0)
    return np.diff(np.concatenate([[0], changes])).tolist()


def compressed(lengths):
    """COCO's text form of run lengths."""
    text = ""
    for i, length in enumerate(lengths):
        rest = length - (lengths[i - 2] if i > 2 else 0)
        more = True
        while more:
            bits = rest & 31
            rest >>= 5
            more = rest != (-1 if bits & 16 else 0)
            text += chr(bits + (32 if more else 0) + 48)
    return text


def rle(counts):
    return {"size": [HEIGHT, WIDTH], "counts": counts}


# picture -> objects (class, outline); annotation i of picture p has the number 100 p + i.
TRAIN = {
    1: [("dog", polygon(LEFT)), ("chair", polygon(RIGHT))],
    2: [("dog", polygon(LEFT)), ("cat", polygon(MIDDLE)), ("car", polygon(RIGHT))],
    3: [("dog", polygon(LEFT)), ("dog", polygon(RIGHT)), ("cat", polygon(MIDDLE))],
    4: [("cat", polygon(LEFT)), ("dog", "crowd")],
    5: [("dog", rle(runs(box_mask(RIGHT))))],
    6: [("dog", rle(compressed(runs(box_mask(MIDDLE)))))],
    7: [("dog", polygon(LEFT))],  # its picture is missing
    8: [("person", polygon(RIGHT))],
    9: [("dog", polygon(LEFT))],  # its name leads outside
    10: [("dog", [polygon(LEFT)[0][:-1]])],
    11: [("dog", rle([*runs(box_mask(LEFT)), 10**9]))],
    12: [("dog", polygon((20, 40, 60, 120))), ("dog", polygon((50, 40, 70, 160)))],  # too near
    13: [("dog", polygon(TINY))],
    14: [("dog", polygon(LEFT))],  # its picture is cut off
    15: [("cat", polygon(LEFT)), ("cat", polygon(TINY))],
    16: [("person", polygon(LEFT)), ("person", polygon(RIGHT))],
    17: [("cat", polygon(LEFT)), ("cat", None), ("dog", polygon(RIGHT))],
    18: [("dog", polygon(TINY)), ("cat", polygon(MIDDLE)), ("car", polygon(RIGHT))],
    19: [("dog", polygon(LEFT)), ("dog", polygon(MIDDLE)), ("dog", "crowd")],
    21: [("dog", polygon(LEFT))],  # its picture has been made smaller
    20: [("dog", polygon(LEFT)), ("dog", polygon(RIGHT)), ("dog", [polygon(MIDDLE)[0][1:]])],
}
VAL = {
    51: [("dog", polygon(LEFT)), ("cat", polygon(RIGHT))],
    52: [("cat", polygon(LEFT)), ("cat", polygon(RIGHT))],
}
GOOD_SS, GOOD_MS, GOOD_MSMI = {1, 2, 5, 6, 18, 51}, {2, 18, 51}, {3, 52}


def write_annotations(path, pictures):
    images, annotations = [], []
    for number, objects in pictures.items():
        name = "../../secret.jpg" if number == 9 else f"{number:012d}.jpg"
        images.append({"id": number, "file_name": name, "height": HEIGHT, "width": WIDTH})
        for i, (name, outline) in enumerate(objects):
            crowd = outline == "crowd"
            annotations.append(
                {
                    "id": 100 * number + i,
                    "image_id": number,
                    "category_id": CATEGORIES[name],
                    "iscrowd": int(crowd),
                    "segmentation": rle(runs(box_mask(RIGHT))) if crowd else outline,
                }
            )
    categories = [{"id": i, "name": name} for name, i in CATEGORIES.items()]
    path.parent.mkdir(parents=True, exist_ok=True)
    table = {"images": images, "annotations": annotations, "categories": categories}
    path.write_text(json.dumps(table))


def write_pictures(folder, numbers):
    folder.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    for number in numbers:
        path = folder / f"{number:012d}.jpg"
        Image.fromarray(noise).save(path, quality=90)
        if number == 21:
            Image.fromarray(noise[::2, ::2]).save(path)
        if number == 14:
            path.write_bytes(path.read_bytes()[:3000])


def write_tone(path, hertz, seconds=4.0, rate=RATE):
    path.parent.mkdir(parents=True, exist_ok=True)
    times = np.arange(int(seconds * rate)) / rate
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * hertz * times), rate)


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """(COCO folder, folder of sounds)."""
    root = tmp_path_factory.mktemp("raw")
    coco, sounds = root / "deep" / "coco", root / "sounds"
    write_annotations(coco / "annotations" / "instances_train2017.json", TRAIN)
    write_annotations(coco / "annotations" / "instances_val2017.json", VAL)
    write_pictures(coco / "train2017", TRAIN.keys() - {7, 9})
    write_pictures(coco / "val2017", VAL)
    write_pictures(root, [9])
    (root / f"{9:012d}.jpg").rename(root / "secret.jpg")
    for i, suffix in enumerate(("wav", "flac", "ogg", "wav", "wav")):
        write_tone(sounds / "dog" / f"{i}.{suffix}", 300 + 50 * i, rate=(RATE, 44100)[i % 2])
        write_tone(sounds / "cat" / f"{i}.{suffix}", 1000 + 50 * i)
    write_tone(sounds / "car" / "only.wav", 2000, seconds=14)
    write_tone(sounds / "Male" / "0.wav", 3000)
    write_tone(sounds / "Male" / "1.wav", 3100)
    (sounds / "dog" / "broken.wav").write_bytes(b"RIFF and nothing more")
    soundfile.write(sounds / "cat" / "silent.wav", np.zeros(4 * RATE), RATE)
    write_tone(sounds / "chair" / "0.wav", 100)
    return coco, sounds


@pytest.fixture(scope="module")
def made(raw, tmp_path_factory):
    """(output folder, report) of a run with the default settings."""
    out = tmp_path_factory.mktemp("out") / "set"
    report = build.build(*raw, out, progress=False)
    return out, report


def rows_of(out, setting):
    folder = out / "VPO" / f"VPO-{setting.upper()}"
    with open(folder / f"vpo_{setting}_data_stereo.csv", newline="") as file:
        return list(csv.DictReader(file))


def pictures_of(out, setting):
    return {int(row["img_Id"]) for row in rows_of(out, setting)}


def mask_of(out, setting, row):
    if setting == "msmi" and row["multi_instance"] == "0":
        setting = "ms"
    return np.asarray(Image.open(files_read_by_cavp(out, setting, row)[1]))


def files_read_by_cavp(out, setting, row):
    """Picture and mask of a row of a table, as the loaders of VPO's authors name them."""
    picture = str(int(row["img_Id"])).zfill(12)
    folder = out / "VPO" / f"VPO-{setting.upper()}"
    if setting == "ss":
        mask = f"{picture}_{str(int(row['ann_Ids'])).zfill(12)}.png"
        data = folder / "data" / row["cateName"] / f"{picture}.jpg"
        return data, folder / "mask" / row["cateName"] / mask
    return folder / "data" / f"{picture}.jpg", folder / "mask" / f"{picture}.png"


def test_the_facts_fit_together():
    assert len(CLASS_NAMES) == 22 and set(COCO_IDS) == set(CLASS_NAMES[1:])
    assert len(set(COCO_IDS.values())) == 21 and set(PEOPLE) < set(CLASS_NAMES)


def test_each_setting_has_the_pictures_that_its_rule_allows(made):
    out, _ = made
    assert pictures_of(out, "ss") == GOOD_SS
    assert pictures_of(out, "ms") == GOOD_MS
    assert pictures_of(out, "msmi") == GOOD_MS | GOOD_MSMI
    for setting in ("ss", "ms", "msmi"):
        by_picture = collections.defaultdict(list)
        for row in rows_of(out, setting):
            by_picture[row["img_Id"]].append(row["cateName"])
            assert row["split"] == ("train" if int(row["img_Id"]) < 50 else "val")
            assert int(row["cateId"]) == COCO_IDS[row["cateName"]]
        for number, names in by_picture.items():
            if setting == "ss":
                assert len(names) == 1
            else:
                assert len(names) >= 2
                assert (len(set(names)) < len(names)) == (int(number) in GOOD_MSMI)


def test_the_table_has_the_published_columns_and_files(made):
    out, _ = made
    named = set()
    for setting in ("ss", "ms", "msmi"):
        for row in rows_of(out, setting):
            assert list(
                row
            ) == "cateName cateId img_Id ann_Ids vgg_file split audio_pos".split() + [
                "multi_instance"
            ]
            assert row["multi_instance"] == str(int(int(row["img_Id"]) in GOOD_MSMI))
            own = "ms" if setting == "msmi" and row["multi_instance"] == "0" else setting
            named |= set(files_read_by_cavp(out, own, row))
            assert (out / "VGGSound" / "audios" / f"{row['vgg_file']}.wav").is_file()
    written = {path for path in (out / "VPO").rglob("*") if path.suffix in (".jpg", ".png")}
    assert named == written
    own = {p.name for p in (out / "VPO" / "VPO-MSMI" / "data").iterdir()}
    assert own == {f"{number:012d}.jpg" for number in GOOD_MSMI}


def test_pictures_come_as_they_were(made, raw):
    out, _ = made
    name = f"{1:012d}.jpg"
    copy = out / "VPO" / "VPO-SS" / "data" / "dog" / name
    assert filecmp.cmp(copy, raw[0] / "train2017" / name, shallow=False)


def test_the_mask_shows_the_sources_and_nothing_else(made):
    out, _ = made
    boxes = {2: {"dog": [LEFT], "cat": [MIDDLE], "car": [RIGHT]}}
    boxes |= {3: {"dog": [LEFT, RIGHT], "cat": [MIDDLE]}, 1: {"dog": [LEFT]}}
    boxes |= {18: {"cat": [MIDDLE], "car": [RIGHT]}}
    boxes |= {5: {"dog": [RIGHT]}, 6: {"dog": [MIDDLE]}}
    boxes |= {51: {"dog": [LEFT], "cat": [RIGHT]}, 52: {"cat": [LEFT, RIGHT]}}
    for setting in ("ss", "ms", "msmi"):
        rows = rows_of(out, setting)
        for number in pictures_of(out, setting):
            own = [row for row in rows if int(row["img_Id"]) == number]
            expected = np.zeros((HEIGHT, WIDTH), np.uint8)
            for row in own:
                left, _, right, _ = centre = min(
                    boxes[number][row["cateName"]],
                    key=lambda b: abs((b[0] + b[2]) / 2 / WIDTH - float(row["audio_pos"])),
                )
                assert float(row["audio_pos"]) == pytest.approx(
                    (left + right) / 2 / WIDTH, abs=2e-3
                )
                expected[box_mask(centre)] = COCO_IDS[row["cateName"]]
            mask = mask_of(out, setting, own[0])
            assert len({row["ann_Ids"] for row in own}) == len(own)  # each source has its own
            # Outlines may differ by the pixels they run through.
            assert np.mean(mask != expected) < 0.01
            assert set(np.unique(mask)) == set(np.unique(expected))


def test_silent_rivals_stay_in_the_picture_as_background(made):
    out, _ = made
    (row,) = [row for row in rows_of(out, "ss") if row["img_Id"] == "2"]
    assert set(np.unique(mask_of(out, "ss", row))) == {0, int(row["cateId"])}


def test_a_recording_of_train_is_not_heard_in_val(made):
    out, report = made
    heard = collections.defaultdict(set)
    for setting in ("ss", "ms", "msmi"):
        for row in rows_of(out, setting):
            heard[row["split"], row["cateName"]].add(row["vgg_file"])
            assert row["vgg_file"].startswith(row["cateName"])
    assert heard["train", "dog"] and heard["val", "dog"] and heard["val", "cat"]
    assert not heard["train", "dog"] & heard["val", "dog"]
    assert not heard["train", "cat"] & heard["val", "cat"]
    copies = {path.stem for path in (out / "VGGSound" / "audios").iterdir()}
    assert copies == set().union(*heard.values())
    assert report.recordings == len(copies)
    assert [f.clip for f in report.findings if f.code == "recordings shared by the splits"] == [
        "car"
    ]


def test_two_of_a_class_have_two_recordings(made):
    out, _ = made
    for number in ("3", "52"):
        rows = [row for row in rows_of(out, "msmi") if row["img_Id"] == number]
        names = [row["vgg_file"] for row in rows]
        assert len(set(names)) == len(names)


def test_copies_are_16_khz_mono_and_at_most_10_s_of_the_middle(made, raw):
    out, _ = made
    for path in (out / "VGGSound" / "audios").iterdir():
        info = soundfile.info(path)
        assert (info.samplerate, info.channels) == (RATE, 1)
        expected = 10 if path.stem.startswith("car") else 4
        assert info.frames == pytest.approx(expected * RATE, abs=20)
    with open(out / "VGGSound" / "recordings.csv", newline="") as file:
        sources = {row["vgg_file"]: row["recording"] for row in csv.DictReader(file)}
    for name, source in sources.items():
        copy, _ = soundfile.read(out / "VGGSound" / "audios" / f"{name}.wav")
        recording, rate = soundfile.read(raw[1] / source)
        pitches = [
            np.fft.rfftfreq(len(x), 1 / r)[np.abs(np.fft.rfft(x)).argmax()]
            for x, r in ((copy, RATE), (recording, rate))
        ]
        assert pitches[0] == pytest.approx(pitches[1], abs=1)


def test_what_is_broken_is_left_out_and_named(made):
    _, report = made
    named = collections.defaultdict(set)
    for finding in report.findings:
        if finding.kind == "left out":
            named[finding.code].add(finding.clip)
    assert named["picture unusable"] == {"7", "9", "14", "21"}
    assert named["annotation unusable"] == {"1000", "1100", "2002"}
    assert named["recording unusable"] <= {"dog/broken.wav", "cat/silent.wav"}
    assert not report.complete
    text = "".join(report.lines())
    assert "a path outside" in " ".join(finding.message for finding in report.findings)
    assert "persons are of unknown kind" in text


def test_people_sound_where_it_is_said_what_they_are(raw, tmp_path):
    people = tmp_path / "people.json"
    people.write_text(json.dumps({"800": "male", "1600": "male"}))
    build.build(*raw, tmp_path / "out", settings=["ss"], people=people, progress=False)
    rows = {row["img_Id"]: row for row in rows_of(tmp_path / "out", "ss")}
    assert rows["8"]["cateName"] == "male" and rows["8"]["cateId"] == "92"
    assert "16" not in rows  # the other person might be a man, too
    assert rows["8"]["vgg_file"].startswith("male_")


@pytest.mark.parametrize("text", ["[1]", '{"x": "male"}', '{"800": "boy"}', "{", '{"800": ["a"]}'])
def test_a_people_file_that_says_something_else_is_refused(raw, tmp_path, text):
    (tmp_path / "people.json").write_text(text)
    with pytest.raises(DataError):
        build.build(*raw, tmp_path / "out", people=tmp_path / "people.json", progress=False)
    assert not (tmp_path / "out").exists()


def files_of(root):
    return {p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_the_seed_decides_every_byte(made, raw, tmp_path):
    build.build(*raw, tmp_path / "same", progress=False)
    assert files_of(tmp_path / "same") == files_of(made[0])
    tables = set()
    for seed in range(1, 4):
        build.build(*raw, tmp_path / str(seed), seed=seed, progress=False)
        tables.add(str(rows_of(tmp_path / str(seed), "msmi")))
    assert len(tables | {str(rows_of(made[0], "msmi"))}) > 1


def test_msmi_alone_brings_the_pictures_of_ms(made, raw, tmp_path):
    build.build(*raw, tmp_path / "out", settings=["msmi"], progress=False)
    vpo = tmp_path / "out" / "VPO"
    assert [r["img_Id"] for r in rows_of(tmp_path / "out", "msmi")] == [
        r["img_Id"] for r in rows_of(made[0], "msmi")
    ]
    assert len(list((vpo / "VPO-MS" / "mask").iterdir())) == len(GOOD_MS)
    assert not list(vpo.glob("VPO-MS/*.csv")) and not (vpo / "VPO-SS").exists()


def test_max_images_bounds_each_setting(raw, tmp_path):
    build.build(*raw, tmp_path / "out", settings=["ss"], max_images=3, progress=False)
    assert len(pictures_of(tmp_path / "out", "ss")) <= 3
    assert {row["split"] for row in rows_of(tmp_path / "out", "ss")} == {"train", "val"}


def test_a_folder_with_one_split_is_divided(raw, tmp_path):
    coco = tmp_path / "coco"
    many = {number: TRAIN[2] for number in range(100, 140)}
    write_annotations(coco / "instances_val2017.json", many)
    write_pictures(coco / "images", many)
    report = build.build(
        coco, raw[1], tmp_path / "out", settings=["ms"], val_share=0.3, progress=False
    )
    counts = collections.Counter(row["split"] for row in rows_of(tmp_path / "out", "ms"))
    assert 0.1 < counts["val"] / sum(counts.values()) < 0.5
    assert "drawn for val" in "".join(report.lines())


def test_hostile_annotation_files_are_left_out(raw, tmp_path):
    coco = tmp_path / "coco"
    good = coco / "annotations" / "instances_train2017.json"
    write_annotations(good, {number: TRAIN[2] for number in range(100, 104)})
    write_pictures(coco / "train2017", range(100, 104))
    texts = ['{"images": [', "[" * 100_000, "null", '{"images": 1, "annotations": [], "c": []}']
    table = json.loads(good.read_text())
    for key, entry in (
        *(("images", entry) for entry in (1, {}, {"id": []})),
        *(("annotations", entry) for entry in (3, {"category_id": []}, {"category_id": 18})),
        ("annotations", {"id": 10**12, "image_id": 100, "category_id": 18}),
        *(("categories", entry) for entry in (7, {"id": []})),
    ):
        texts.append(json.dumps({**table, key: [*table[key], entry]}))
    for i, text in enumerate(texts):
        (coco / f"instances_{i}.json").write_text(text)
    names = ["", "/etc/passwd", "C:\\x.jpg", "..\\x.jpg", "a\0.jpg", "x" * 5000, "."]
    table["images"] += [{"id": 200 + i, "file_name": name} for i, name in enumerate(names)]
    dog = {"image_id": 100, "category_id": 18, "iscrowd": 0, "segmentation": polygon(LEFT)}
    table["annotations"] += [{**dog, "image_id": 999, "id": 1}]  # of a picture that is not there
    table["annotations"] += [{**dog, "image_id": 200 + i, "id": 50 + i} for i in range(len(names))]
    outlines = [
        [],
        [[]],
        "abc",
        [["a"] * 6],
        [{}],
        [[1e999] * 6],
        [[1e300, 0, 5, 5, 1, 9]],
        rle("\x00\x01"),
        rle("o" * 500),
        rle([-5, HEIGHT * WIDTH + 5]),
        rle(None),
        {"size": [10**9, 10**9], "counts": [0, 10**18]},
    ]
    for i, outline in enumerate(outlines):
        table["images"].append({"id": 300 + i, "file_name": f"{100:012d}.jpg"})
        table["annotations"].append(
            {**dog, "image_id": 300 + i, "id": 70 + i, "segmentation": outline}
        )
    good.write_text(json.dumps(table))
    before = {p for p in tmp_path.rglob("*")}
    report = build.build(coco, raw[1], tmp_path / "out", settings=["ss"], progress=False)
    after = {p for p in tmp_path.rglob("*") if (tmp_path / "out") not in (p, *p.parents)}
    assert after == before
    assert {100, 101, 102, 103} <= pictures_of(tmp_path / "out", "ss") <= {*range(100, 104), 306}
    counts = collections.Counter(finding.code for finding in report.findings)
    assert counts["annotation file unreadable"] == len(texts)
    assert counts["picture unusable"] == len(names)


def test_links_may_lead_outside_only_if_asked(raw, tmp_path):
    coco = tmp_path / "coco"
    write_annotations(coco / "instances_train2017.json", {1: TRAIN[1], 2: TRAIN[2]})
    (coco / "images").mkdir()
    for number in (1, 2):
        name = f"{number:012d}.jpg"
        os.symlink(raw[0] / "train2017" / name, coco / "images" / name)
    sounds = tmp_path / "sounds"
    write_tone(sounds / "dog" / "0.wav", 400)
    with pytest.raises(DataError, match="leads out"):
        build.build(coco, sounds, tmp_path / "out", progress=False)
    (sounds / "dog" / "0.wav").rename(tmp_path / "0.wav")
    os.symlink(tmp_path / "0.wav", sounds / "dog" / "0.wav")
    with pytest.raises(DataError, match="no recording of the class"):
        build.build(coco, sounds, tmp_path / "out", progress=False)
    build.build(coco, sounds, tmp_path / "out", follow_links=True, progress=False)
    assert pictures_of(tmp_path / "out", "ss") == {1, 2}


def test_the_command_tells_by_its_code(raw, tmp_path, capsys):
    out = str(tmp_path / "out")
    arguments = ["--coco", str(raw[0]), "--sounds", str(raw[1]), "--out", out]
    assert main(["vpo", *arguments]) == 3
    assert "left out: picture" in capsys.readouterr().out
    assert main(["vpo", *arguments]) == 2  # it is not empty
    assert "not empty" in capsys.readouterr().err
    clean = tmp_path / "clean"
    write_annotations(clean / "annotations" / "instances_train2017.json", {1: TRAIN[2]})
    write_pictures(clean / "train2017", [1])
    sounds = tmp_path / "sounds"
    write_tone(sounds / "dog" / "0.wav", 400)
    arguments = ["--coco", str(clean), "--sounds", str(sounds), "--out", str(tmp_path / "ok")]
    assert main(["vpo", *arguments]) == 0


def test_nothing_is_written_into_the_folders_that_are_read(raw, tmp_path, capsys):
    for folder, option in zip(raw, ("--coco", "--sounds"), strict=True):
        (tmp_path / option).symlink_to(folder)
        before = files_of(folder)
        for out in (folder, folder / "deep" / "out", tmp_path / option / "out"):
            arguments = ["--coco", str(raw[0]), "--sounds", str(raw[1]), "--out", str(out)]
            assert main(["vpo", *arguments]) == 2
            assert f"is inside {option}" in capsys.readouterr().err
        assert files_of(folder) == before


def test_small_objects_are_a_reason(raw, tmp_path):
    coco = tmp_path / "coco"
    write_annotations(coco / "instances_train2017.json", {1: [("dog", polygon(TINY))]})
    write_pictures(coco / "images", [1])
    with pytest.raises(DataError, match=r"\(too small"):
        build.build(coco, raw[1], tmp_path / "out", progress=False)


def test_names_of_any_bytes_do_no_harm(tmp_path, capfd):
    coco, sounds = tmp_path / "coco", tmp_path / "sounds"
    write_annotations(coco / "instances_train2017.json", {1: TRAIN[2]})
    write_pictures(coco / "images", [1])
    write_tone(sounds / "dog" / "0.wav", 400)
    os.rename(sounds / "dog" / "0.wav", os.fsencode(sounds / "dog") + b"/\xff\n.wav")
    write_tone(sounds / "dog" / "hund \N{DOG}.wav", 400)
    os.mkfifo(sounds / "dog" / "pipe.wav")
    with open(os.fsencode(sounds / "dog") + b"/\xfe.wav", "wb") as file:
        file.write(b"no sound")
    arguments = ["--coco", str(coco), "--sounds", str(sounds), "--out", str(tmp_path / "out")]
    assert main(["vpo", *arguments]) == 3
    assert "recording unusable" in capfd.readouterr().out


@pytest.mark.parametrize(
    "change",
    [
        {"coco_dir": "nowhere"},
        {"sounds": "nowhere"},
        {"coco_dir": "empty"},
        {"sounds": "empty"},
        {"settings": ["stereo"]},
        {"settings": []},
        {"seed": -1},
        {"max_images": 1},
        {"val_share": 1.0},
        {"sounds": "cows"},
    ],
)
def test_nothing_usable_leaves_nothing(raw, tmp_path, change):
    (tmp_path / "empty").mkdir()
    write_tone(tmp_path / "cows" / "cow" / "0.wav", 100)
    arguments = {"coco_dir": raw[0], "sounds": raw[1], "out": tmp_path / "out", **change}
    for key in ("coco_dir", "sounds"):
        arguments[key] = tmp_path / arguments[key]
    before = set(tmp_path.rglob("*"))
    with pytest.raises(DataError):
        build.build(**arguments, progress=False)
    assert set(tmp_path.rglob("*")) == before


def test_what_a_killed_run_left_is_cleared(raw, tmp_path):
    (tmp_path / ".out.partial" / "VPO").mkdir(parents=True)
    (tmp_path / ".out.partial" / "VPO" / "junk").touch()
    build.build(*raw, tmp_path / "out", settings=["ss"], progress=False)
    assert not list(tmp_path.rglob("junk")) and not (tmp_path / ".out.partial").exists()


@pytest.mark.parametrize("box", [LEFT, RIGHT, (0, 0, WIDTH, HEIGHT), (0, 0, 1, 1), TINY])
def test_runs_in_both_forms_are_exact(box):
    mask = box_mask(box)
    mask[:, ::7] = mask[:, ::7] & (np.arange(HEIGHT) % 3 == 0)[:, None]
    lengths = runs(mask)
    for counts in (lengths, compressed(lengths)):
        np.testing.assert_array_equal(rasterise(rle(counts), HEIGHT, WIDTH), mask)
    assert rasterise({"size": [2, 2], "counts": "04"}, 2, 2).all()
    with pytest.raises(OutlineError):
        rasterise(rle(lengths), WIDTH, HEIGHT)


def test_polygons_cover_the_pixels_inside_them():
    triangle = [np.array([10, 10, 110, 10, 10, 90], np.float32)]
    second = [np.array([200, 100, 220, 100, 220, 120, 200, 120], np.float32)]
    mask = rasterise(triangle + second, HEIGHT, WIDTH)
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    inside = (x > 10) & (y > 10) & ((x - 10) / 100 + (y - 10) / 80 < 1)
    inside |= (x > 200) & (x < 220) & (y > 100) & (y < 120)
    assert mask[inside].all()
    assert (mask & ~inside).sum() <= 200  # those that the outline runs through


def test_the_smaller_object_is_painted_over_the_larger():
    inner = (40, 60, 75, 100)
    sources = [
        compose.Source.of(Object(0, "dog", False, []), box_mask(inner)),
        compose.Source.of(Object(1, "cat", False, []), box_mask(LEFT)),
    ]
    for order in (sources, sources[::-1]):
        mask = compose.paint(order)
        assert (mask[box_mask(inner)] == COCO_IDS["dog"]).all()
        assert (mask == COCO_IDS["cat"]).sum() == (box_mask(LEFT) & ~box_mask(inner)).sum()


def test_a_recording_must_be_heard_in_its_middle(tmp_path):
    tone = 0.3 * np.sin(np.arange(12 * RATE, dtype=np.float32))
    path = tmp_path / "x.wav"
    soundfile.write(path, tone, RATE)
    np.testing.assert_allclose(read_middle(path) / 32768, tone[RATE : 11 * RATE], atol=1e-4)
    tone[4 * RATE : 8 * RATE] = 0
    for fault in (tone, tone[: RATE // 20]):
        soundfile.write(path, fault, RATE)
        with pytest.raises(DataError):
            read_middle(path)


def test_the_sound_track_of_a_video_is_read(tmp_path):
    path = tmp_path / "x.mp4"
    times = np.arange(4 * 44100, dtype=np.float32) / 44100
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100, layout="stereo")
        samples = np.tile(0.3 * np.sin(2 * np.pi * 500 * times), (2, 1)).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="stereo")
        frame.sample_rate = 44100
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    waveform = read_middle(path) / 32768
    assert len(waveform) == pytest.approx(4 * RATE, abs=RATE // 5)
    pitch = np.abs(np.fft.rfft(waveform)).argmax() * RATE / len(waveform)
    assert pitch == pytest.approx(500, abs=1)
    assert 0.25 < np.abs(waveform[RATE : 2 * RATE]).max() < 0.35
    for content in (b"", b"no video", path.read_bytes()[:300]):
        path.write_bytes(content)
        with pytest.raises(DataError):
            read_middle(path)


def test_objects_that_hide_one_another_do_not_sound_together():
    mask = box_mask(LEFT)
    sources = [
        compose.Source.of(Object(i, name, False, []), mask) for i, name in enumerate(("dog", "cat"))
    ]
    assert compose.paint(sources) is None
    assert compose.paint(sources[:1]) is not None


def test_msmi_draws_a_pair_and_sometimes_more():
    sources = [
        compose.Source.of(Object(i, name, False, []), box_mask((40 * i, 0, 40 * i + 35, 100)))
        for i, name in enumerate(("dog", "dog", "dog", "cat", "car"))
    ]
    counts = dict.fromkeys(("dog", "cat", "car"), 5)
    single, groups = compose.alone(sources), compose.together(sources, counts)
    assert [s.class_name for s in single] == ["cat", "car"] and len(groups) == 1
    sizes = set()
    for seed in range(60):
        chosen = compose.draw("msmi", single, groups, np.random.default_rng(seed))
        names = [source.class_name for source in chosen]
        assert names.count("dog") >= 2 and len(set(map(id, chosen))) == len(chosen)
        sizes.add(len(chosen))
    assert sizes == {2, 3, 4, 5}
    assert compose.together(sources, {"dog": 2, "cat": 1, "car": 1}) == []


@pytest.mark.parametrize("inner", ["", "VPO"])
def test_what_is_made_is_recognised_and_read(made, inner):
    out, _ = made
    table = read_table(out / inner)
    assert table.stereo and table.class_names == CLASS_NAMES and not table.findings
    clips = {(clip.subset, int(clip.uid.split("_")[0])): clip for clip in table.clips}
    expected = {"ss": GOOD_SS, "ms": GOOD_MS, "msmi": GOOD_MS | GOOD_MSMI}
    assert set(clips) == {(f"vpo_{name}", n) for name in expected for n in expected[name]}
    for (subset, number), clip in clips.items():
        assert clip.split == ("test" if number > 50 else "train")
        rows = [r for r in rows_of(out, subset[4:]) if int(r["img_Id"]) == number]
        assert [s.path.stem for s in clip.sounds] == [r["vgg_file"] for r in rows]
        assert [s.position for s in clip.sounds] == [float(r["audio_pos"]) for r in rows]
        assert set(clip.objects) == {CLASS_NAMES.index(r["cateName"]) for r in rows}
        assert all(path.is_file() for path in (*clip.frames, *(s.path for s in clip.sounds)))
        mask = np.asarray(Image.open(clip.labels[0][1]))
        seen = {dict(clip.label_ids)[value] for value in np.unique(mask)}
        assert seen - {0} == set(clip.objects)


def test_every_clip_that_is_made_can_be_read_and_is_heard_where_it_is(made):
    table = read_table(made[0])
    for clip in table.clips:
        result = read_clip(clip, ReadOptions(stereo=True), len(table.class_names), table.roots)
        assert result.example is not None and not [
            finding for finding in result.findings if finding.kind == "left out"
        ]
        assert set(result.facts["pixels"]) == {0, *clip.objects}
        if clip.subset == "vpo_ss":
            (sound,) = clip.sounds
            left, right = np.square(result.example["waveform"].astype(float)).mean(axis=0)
            assert (left > right) == (sound.position < 0.5)


def test_ignored_pixels_reach_the_batches(made, tmp_path):
    """As masks of VPO's authors have them; of the picture with one source."""
    shutil.copytree(made[0], tmp_path / "set")
    row = next(row for row in rows_of(made[0], "ss") if row["split"] == "val")
    path = files_read_by_cavp(tmp_path / "set", "ss", row)[1]
    mask = np.array(Image.open(path))
    assert mask.any()
    mask[: HEIGHT // 2] = 255
    Image.fromarray(mask).save(path)
    prepare(tmp_path / "set", tmp_path / "out", subsets=["vpo_ss"], progress=False, workers=1)
    assert not open_source(tmp_path / "out", "train").ignores
    source = open_source(tmp_path / "out", "test")
    (clip,) = source.clips
    assert source.ignores and clip.ignored == 3 * (mask == 255).sum() and clip.classes == 2
    options = {"image_size": 32, "label_size": 40, "frames_per_batch": 3}
    (batch,) = eval_loader(source, task="semantic", prior="true", **options)
    labels = batch["labels"][0]
    assert (labels[:, :20] == 255).all() and (labels[:, 20:] != 255).all()
    assert set(np.unique(labels)) == {0, 255, *clip.objects}
    np.testing.assert_array_equal(batch["prior_mask"][0], np.isin(labels, clip.objects))
    whole = (0, 1, 2)
    swapped = Request(0, whole, whole, (True,) * 3, 0, empty=True)  # another clip's sound
    emptied = ReadClip(source, "semantic", 32, 40).map(swapped)["labels"]
    np.testing.assert_array_equal(emptied, np.where(labels == 255, 255, 0))
    (batch,) = eval_loader(source, task="binary", nearest=True, **options)
    for name in ("labels", "labels_nearest"):
        assert (batch[name][0][:, :20] == 255).all()
        assert set(np.unique(batch[name][0][:, 20:])) == {0, 1}


def test_the_sound_of_a_source_follows_it_when_the_picture_is_flipped(made, tmp_path):
    prepare(made[0], tmp_path / "prepared", progress=False, workers=1)
    source = open_source(tmp_path / "prepared", "train", ("vpo_ss", "vpo_msmi"))
    options = {"task": "semantic", "image_size": 32, "label_size": 32, "front_end": LogMel(2)}
    upright = {}
    for batch in eval_loader(source, frames_per_batch=3, **options):
        upright |= {
            name: [batch[k][i] for k in ("labels", "audio")]
            for i, name in enumerate(batch["ids"])
            if name
        }
    flipped = train_loader(
        source, batch_size=1, seconds=3, sampling="clip", augment={"flip": 1.0}, **options
    )
    assert len(upright) == len(source)
    for _ in range(len(source)):
        batch = next(flipped)
        labels, audio = upright[batch["ids"][0]]
        np.testing.assert_array_equal(batch["labels"][0], labels[:, :, ::-1])
        np.testing.assert_array_equal(batch["audio"][0], audio[..., ::-1])
        if batch["ids"][0].startswith("vpo_ss"):
            # Energy is on the side of the source, before and after.
            for label, sound in ((labels, audio), (batch["labels"][0], batch["audio"][0])):
                left, right = sound.mean(axis=(0, 1, 2))
                centre = np.nonzero(label[0])[1].mean()
                if abs(centre - 15.5) > 2:  # one source is in the middle
                    assert (left > right) == (centre < 15.5)
