"""VPO in the two layouts in which it is passed on, read from skeletons."""

import shutil
from collections import Counter

import pytest

from data_pipelines.errors import DataError
from data_pipelines.facts.vpo import CLASS_NAMES, COCO_IDS
from data_pipelines.media.labels import IGNORED
from data_pipelines.reading.recognise import read_table

HEADER = "cateName,cateId,img_Id,ann_Ids,vgg_file,split,audio_pos,multi_instance"
# Pictures by subset and split, a hundredth of what the authors are said to publish.
COUNTS = {
    ("ss", "train"): 113,
    ("ss", "val"): 9,
    ("ms", "train"): 92,
    ("ms", "val"): 6,
    ("msmi", "train"): 121,
    ("msmi", "val"): 8,
}
FOREGROUND = CLASS_NAMES[1:]


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")


def row(name, picture, annotation, split, position, multi):
    sound = f"{name.replace(' ', '')}_{picture % 5}"
    return f"{name},{COCO_IDS[name]},{picture},{annotation},{sound},{split},{position},{multi}"


def write_published(home, pictures=True):
    """Two sources a picture, but one in SS; every third of MSMI is a picture of MS."""
    number = 1
    for (name, split), count in COUNTS.items():
        folder = home / f"VPO-{name.upper()}"
        rows = []
        for i in range(count):
            of_ms = name == "msmi" and i % 3 == 0
            picture, annotation = number * 7, number * 11
            number += 1
            place = home / "VPO-MS" if of_ms else folder
            first = FOREGROUND[i % 21]
            if pictures and name == "ss":
                touch(place / "data" / first / f"{picture:012d}.jpg")
                touch(place / "mask" / first / f"{picture:012d}_{annotation:012d}.png")
            elif pictures:
                touch(place / "data" / f"{picture:012d}.jpg")
                touch(place / "mask" / f"{picture:012d}.png")
            second = first if name == "msmi" and not of_ms else FOREGROUND[(i + 1) % 21]
            multi = int(name == "msmi" and not of_ms)
            for source, position in ((first, 0.25), (second, 0.875))[: 1 if name == "ss" else 2]:
                rows.append(row(source, picture, annotation, split, position, multi))
                annotation += 1  # in MS and MSMI each source's own, which names no file
                touch(home.parent / "VGGSound" / "audios" / f"{rows[-1].split(',')[4]}.wav")
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"vpo_{name}_data_stereo.csv"
        before = path.read_text() if path.exists() else HEADER + "\n"
        path.write_text(before + "\n".join(rows) + "\n")


@pytest.fixture
def published(tmp_path):
    write_published(tmp_path / "data" / "VPO")
    return tmp_path / "data"


@pytest.fixture
def tables_alone(tmp_path):
    """Without pictures, which are not looked at before they are read."""
    write_published(tmp_path / "data" / "VPO", pictures=False)
    return tmp_path / "data"


def counts(table):
    return Counter((clip.subset, clip.split) for clip in table.clips)


def check_counts(table):
    assert table.findings == ()
    assert counts(table) == {
        (f"vpo_{name}", "test" if split == "val" else split): count
        for (name, split), count in COUNTS.items()
    }


def test_every_file_of_a_complete_copy(published):
    table = read_table(published)
    check_counts(table)
    assert table.layout == "VPO, as published" and table.stereo and table.expected == {}
    assert table.class_names == CLASS_NAMES and len(CLASS_NAMES) == 22
    for clip in table.clips:
        assert clip.seconds == 3 and clip.centred and len(clip.frames) == 1
        assert [second for second, _ in clip.labels] == [0, 1, 2]
        assert len(clip.sounds) == (1 if clip.subset == "vpo_ss" else 2)
        files = [*clip.frames, *(path for _, path in clip.labels), *(s.path for s in clip.sounds)]
        assert all(path.is_file() for path in files)
    one = next(clip for clip in table.clips if clip.subset == "vpo_ms")
    assert [sound.position for sound in one.sounds] == [0.25, 0.875]
    assert one.objects == (1, 2)
    same_class = [clip for clip in table.clips if clip.subset == "vpo_msmi"][1]
    assert len(same_class.objects) == 1 and "VPO-MSMI" in str(same_class.frames[0])
    assert "VPO-MS/" in [c for c in table.clips if c.subset == "vpo_msmi"][0].frames[0].as_posix()


def test_ids_of_the_masks(tables_alone):
    ids = dict(read_table(tables_alone).clips[0].label_ids)
    assert len(ids) == 21 + 2 and ids[0] == 0 and ids[255] == IGNORED
    named = {"airplane": 5, "keyboard": 76, "male": 92, "female": 93, "baby": 94, "zebra": 24}
    assert {CLASS_NAMES[ids[number]]: number for number in named.values()} == named
    assert sorted(set(ids.values())) == [*range(22), IGNORED]


def test_sounds_where_people_have_them(tables_alone, tmp_path):
    home, sounds = tables_alone / "VPO", tables_alone / "VGGSound"
    before = read_table(home)  # beside the folder named
    check_counts(before)
    (tables_alone / "vggsound_bench").mkdir()
    shutil.move(sounds, tables_alone / "vggsound_bench" / "VGGSound")
    check_counts(read_table(tables_alone))
    shutil.move(tables_alone / "vggsound_bench", tmp_path / "elsewhere")
    with pytest.raises(DataError, match="no sounds found in or beside .*--sounds"):
        read_table(tables_alone)
    audios = tmp_path / "elsewhere" / "VGGSound" / "audios"
    for folder in (audios, audios.parents[1], audios.parent):
        table = read_table(tables_alone, sounds=folder)
        check_counts(table)
        assert audios.resolve() in table.roots
    with pytest.raises(DataError, match="folder of sounds missing: .*nowhere"):
        read_table(tables_alone, sounds=tmp_path / "nowhere")
    (tables_alone / "audios").symlink_to(tmp_path.parent)
    (tables_alone.parent / "audios").mkdir()
    check_counts(read_table(tables_alone, sounds=audios))


def test_sounds_behind_a_link_are_not_found_unasked(tmp_path):
    home = tmp_path / "a" / "b" / "VPO"
    write_published(home, pictures=False)
    shutil.move(home.parent / "VGGSound" / "audios", tmp_path / "recordings")
    (home.parent / "VGGSound" / "audios").symlink_to(tmp_path / "recordings")
    with pytest.raises(DataError, match="leads out .*--sounds"):
        read_table(home)
    check_counts(read_table(home, follow_links=True))
    check_counts(read_table(home, sounds=tmp_path / "recordings"))


def test_one_setting_alone(tables_alone):
    shutil.rmtree(tables_alone / "VPO" / "VPO-SS")
    shutil.rmtree(tables_alone / "VPO" / "VPO-MSMI")
    table = read_table(tables_alone)
    assert {clip.subset for clip in table.clips} == {"vpo_ms"}
    assert {(f.kind, f.clip) for f in table.findings} == {
        ("noticed", "vpo_ss"),
        ("noticed", "vpo_msmi"),
    }


BAD = {
    "sound": (row("cat", 9000, 1, "train", 0.5, 0).replace("cat_0", "gone"), "sound file missing"),
    "sound path": (
        row("cat", 9000, 1, "train", 0.5, 0).replace("cat_0", "../audios/cat_0"),
        "sound file missing",
    ),
    "class": ("unicorn,1,9000,1,cat_0,train,0.5,0", "unknown class"),
    "split": (row("cat", 9000, 1, "exam", 0.5, 0), "unknown split"),
    "right of the picture": (row("cat", 9000, 1, "train", 1.5, 0), "bad position"),
    "no number": (row("cat", 9000, 1, "train", "left", 0), "bad position"),
    "not a number": (row("cat", 9000, 1, "train", "nan", 0), "bad position"),
    "picture": ("cat,17,../../x,1,cat_0,train,0.5,0", "bad name"),
    "not UTF-8": ("cat,17,9000,\udce9,cat_0,train,0.5,0", "unreadable row"),
    "two folders": (
        row("cat", 9000, 1, "train", 0.5, 0) + "\n" + row("dog", 9000, 2, "train", 0.5, 1),
        "rows disagree",
    ),
    "two splits": (
        row("cat", 9000, 1, "train", 0.5, 0) + "\n" + row("dog", 9000, 1, "val", 0.5, 0),
        "rows disagree",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_rows(tables_alone, name):
    text, code = BAD[name]
    path = tables_alone / "VPO" / "VPO-MS" / "vpo_ms_data_stereo.csv"
    with path.open("ab") as file:
        file.write(text.encode("utf-8", "surrogateescape") + b"\n")
    table = read_table(tables_alone)
    assert counts(table)["vpo_ms", "train"] == 92
    assert [(f.kind, f.code) for f in table.findings] == [("left out", code)]
    assert "vpo_ms_data_stereo.csv, line " in table.findings[0].message


def test_an_annotation_that_is_a_path(tables_alone):
    """In SS it names a file; elsewhere nobody looks at it."""
    for name, faults in (("ss", ["bad name"]), ("ms", [])):
        path = tables_alone / "VPO" / f"VPO-{name.upper()}" / f"vpo_{name}_data_stereo.csv"
        whole = path.read_text()
        path.write_text(whole + "cat,17,9000,/etc/x,cat_0,train,0.5,0\n")
        assert [finding.code for finding in read_table(tables_alone).findings] == faults
        path.write_text(whole)


def test_each_row_of_ss_is_a_clip(tables_alone):
    """As in the authors' loader: a second sound of the same object is not mixed with the first."""
    path = tables_alone / "VPO" / "VPO-SS" / "vpo_ss_data_stereo.csv"
    rows = [row("cell phone", 5, 6, "train", 0.5, 0), row("cat", 5, 7, "train", 0.5, 0)]
    path.write_text("\n".join([HEADER, *rows, rows[0].replace("cellphone_0", "cat_0")]) + "\n")
    clips = [clip for clip in read_table(tables_alone).clips if clip.subset == "vpo_ss"]
    assert [(clip.uid, clip.sounds[0].path.stem) for clip in clips] == [
        ("000000000005_000000000006", "cellphone_0"),
        ("000000000005_000000000007", "cat_0"),
        ("000000000005_000000000006_2", "cat_0"),
    ]
    home = tables_alone / "VPO" / "VPO-SS"
    assert clips[2].frames == (home / "data" / "cell phone" / "000000000005.jpg",)
    mask = home / "mask" / "cell phone" / "000000000005_000000000006.png"
    assert [path for _, path in clips[2].labels] == [mask] * 3


def test_several_names_in_one_row(tables_alone):
    path = tables_alone / "VPO" / "VPO-SS" / "vpo_ss_data_stereo.csv"
    path.write_text(HEADER + '\n"cat, dog","17,18",5,6,cat_0,train,,0\n')
    clip = read_table(tables_alone).clips[0]
    assert clip.uid == "000000000005_000000000006"
    assert [CLASS_NAMES[index] for index in clip.objects] == ["cat", "dog"]
    assert clip.sounds[0].position is None


@pytest.fixture(scope="module")
def rearranged(tmp_path_factory):
    root = tmp_path_factory.mktemp("rearranged") / "VPO"
    rows = ["uid,frame,mask,category,split,type"]
    number = 0
    for (name, split), count in COUNTS.items():
        kind = f"VPO-{name.upper()}"
        for _ in range(count):
            number += 1
            folder = root / kind / f"clip{number}"
            touch(folder / "frames" / f"{number}.jpg")
            touch(folder / "labels_semantic" / f"{number}_1.png")
            touch(folder / "mono_audio.wav")
            if number % 2:
                touch(folder / "stereo_audio.wav")
            uid = f"clip{number}" if number % 3 else f"{kind}/clip{number}"
            split = "test" if split == "val" else split
            ids = f'"[{1 + number % 21}, 3]"'
            rows.append(f"{uid},{number}.jpg,{number}_1.png,{ids},{split},{kind}")
    (root / "vpo_data_clean.csv").write_text("\n".join(rows) + "\n")
    return root


def test_the_rearranged_copy(rearranged):
    table = read_table(rearranged)
    check_counts(table)
    assert table.layout == "VPO, as DDESeg arranges it" and table.stereo
    assert table.class_names == CLASS_NAMES
    for number, clip in enumerate(table.clips, start=1):
        files = [*clip.frames, *(path for _, path in clip.labels), *(s.path for s in clip.sounds)]
        assert all(path.is_file() for path in files) and clip.uid == f"clip{number}"
        assert clip.sounds[0].path.name == ("stereo" if number % 2 else "mono") + "_audio.wav"
        assert clip.objects == tuple(sorted({1 + number % 21, 3}))
    ids = dict(table.clips[0].label_ids)
    assert ids == {**{index: index for index in range(22)}, 255: IGNORED}


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("../x,a.jpg,a.png,[1],train,VPO-SS", "bad name"),
        ("x,../a.jpg,a.png,[1],train,VPO-SS", "bad name"),
        ("x,a.jpg,,[1],train,VPO-SS", "bad name"),
        ("VPO-MS/x,a.jpg,a.png,[1],train,VPO-SS", "bad name"),
        ("x,a.jpg,a.png,[99999999999999999999],train,VPO-SS", "unknown class"),
        ("x,a.jpg,a.png,[1],exam,VPO-SS", "unknown split"),
        ("x,a.jpg,a.png,[1],train,VPO-XL", "unknown subset"),
        ("clip1,a.jpg,a.png,[1],train,VPO-SS", "listed twice"),
    ],
)
def test_bad_rows_of_the_rearranged_copy(rearranged, text, code):
    path = rearranged / "vpo_data_clean.csv"
    before = path.read_text()
    path.write_text(before + text + "\n")
    table = read_table(rearranged)
    path.write_text(before)
    assert len(table.clips) == sum(COUNTS.values())
    assert [(f.kind, f.code) for f in table.findings] == [("left out", code)]
