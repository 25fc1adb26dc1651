"""AVSBench's first release, read from a skeleton with the structure of the published one."""

import shutil
from collections import Counter

import pytest

from data_pipelines.errors import DataError
from data_pipelines.facts import avsbench
from data_pipelines.reading.layouts import first_release
from data_pipelines.reading.layouts.single_plus import single_plus
from data_pipelines.reading.recognise import read_table

# A hundredth of the published clips (S4, MS3) by split, rounded up.
S4 = {"train": 35, "val": 8, "test": 8}
MS3 = {"train": 3, "val": 1, "test": 1}
CATEGORIES = sorted(avsbench.S4_CATEGORIES)


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")


def write_s4(folder):
    rows = ["name,start time,category,split"]
    data = folder / "s4_data"
    for split, count in S4.items():
        for number in range(count):
            category = CATEGORIES[number % 23]
            name = f"-{split}{number:05d}_{number}000_{number + 5}000"
            rows.append(f"{name},{number},{category},{split}")
            inner = f"{split}/{category}"
            for i in range(1, 6):
                touch(data / "visual_frames" / inner / name / f"{name}_{i}.png")
            for i in range(1, 2 if split == "train" else 6):
                touch(data / "gt_masks" / inner / name / f"{name}_{i}.png")
            touch(data / "audio_wav" / inner / f"{name}.wav")
            touch(data / "audio_log_mel" / inner / f"{name}.pkl")
    (folder / "s4_meta_data.csv").write_text("\n".join(rows) + "\n")


def write_ms3(folder, column="video_id", suffix=""):
    rows = [f"{column},split"]
    data = folder / "ms3_data"
    for split, count in MS3.items():
        for number in range(count):
            name = f"{split}{number:06d}_0"
            rows.append(f"{name}{suffix},{split}")
            for i in range(1, 6):
                touch(data / "visual_frames" / name / f"{name}.mp4_{i}.png")
                touch(data / "gt_masks" / split / name / f"{name}_{i}.png")
            touch(data / "audio_wav" / split / f"{name}.wav")
            touch(data / "audio_log_mel" / split / f"{name}.pkl")
    folder.mkdir(exist_ok=True)
    (folder / "ms3_meta_data.csv").write_text("\n".join(rows) + "\n")


@pytest.fixture
def release(tmp_path):
    root = tmp_path / "avsbench_data"
    write_s4(root / "Single-source")
    write_ms3(root / "Multi-sources")
    return root


def check_whole(table):
    assert table.layout == first_release.NAME and table.findings == ()
    found = Counter((clip.subset, clip.split) for clip in table.clips)
    assert found == {
        **{("v1s", split): count for split, count in S4.items()},
        **{("v1m", split): count for split, count in MS3.items()},
    }
    for clip in table.clips:
        assert clip.seconds == len(clip.frames) == 5
        only_first = (clip.subset, clip.split) == ("v1s", "train")
        assert [second for second, _ in clip.labels] == list(range(1 if only_first else 5))
        files = [*clip.frames, *(path for _, path in clip.labels), clip.sounds[0].path]
        assert all(path.is_file() for path in files)
        assert not any(path.suffix == ".pkl" for path in files)


def test_both_parts(release):
    table = read_table(release)
    check_whole(table)
    assert table.class_names == avsbench.CLASS_NAMES and table.binary_only == ("v1m",)
    clip = table.clips[0]
    assert clip.frames[0].name.endswith("_1.png") and clip.frames[4].name.endswith("_5.png")
    assert avsbench.CLASS_NAMES[clip.foreground] == "emergency-car"
    assert clip.objects == (clip.foreground,) and clip.label_encoding == "foreground"
    classes = {clip.foreground for clip in table.clips if clip.subset == "v1s"}
    assert {avsbench.CLASS_NAMES[i] for i in classes} == set(avsbench.S4_CATEGORIES.values())
    multi = [clip for clip in table.clips if clip.subset == "v1m"]
    assert {(c.label_encoding, c.foreground, c.objects) for c in multi} == {
        ("foreground", None, ())
    }
    assert multi[0].frames[0].name == "train000000_0.mp4_1.png"


def test_found_from_above_and_below(release, tmp_path):
    check_whole(read_table(release.parent))
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in (*(release / "Single-source").iterdir(), *(release / "Multi-sources").iterdir()):
        shutil.copytree(path, flat / path.name) if path.is_dir() else shutil.copy(path, flat)
    check_whole(read_table(flat))
    shutil.move(flat / "ms3_data", flat / "ms3")
    (flat / "ms3_data").mkdir()
    shutil.move(flat / "ms3", flat / "ms3_data" / "ms3_data")
    check_whole(read_table(flat))


@pytest.mark.parametrize(("column", "suffix"), [("name", ""), ("video_name", ".mp4"), ("uid", "")])
def test_headers_of_the_multi_source_table(tmp_path, column, suffix):
    write_ms3(tmp_path / "Multi-sources", column, suffix)
    table = read_table(tmp_path)
    assert Counter(clip.split for clip in table.clips) == MS3
    assert all(clip.frames[0].is_file() for clip in table.clips)


def test_one_part_alone(release):
    shutil.rmtree(release / "Single-source")
    table = read_table(release)
    assert {clip.subset for clip in table.clips} == {"v1m"}
    assert [(f.kind, f.clip, f.code) for f in table.findings] == [
        ("noticed", "v1s", "subset absent")
    ]


def test_counts_of_the_published_tables(tmp_path):
    for part, table, subset in (
        ("s4_data", "s4_meta_data.csv", "v1s"),
        ("ms3_data", "ms3_meta_data.csv", "v1m"),
    ):
        (tmp_path / part).mkdir()
        rows = ["name,start time,category,split"]
        for (of, split), count in avsbench.PUBLISHED_CLIPS.items():
            if of == subset:
                rows += [f"{split}{i},0,male_speech,{split}" for i in range(count)]
        (tmp_path / table).write_text("\n".join(rows))
    table = read_table(tmp_path)
    found = Counter((clip.subset, clip.split) for clip in table.clips)
    expected = {key: n for key, n in avsbench.PUBLISHED_CLIPS.items() if key[0] != "v2"}
    assert found == expected == table.expected


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ("../../x,0,male_speech,train", "bad name"),
        ("/x,0,male_speech,train", "bad name"),
        ("x,0,../..,train", "unknown class"),
        ("x,0,yodelling,train", "unknown class"),
        ("x,0,male_speech,../val", "unknown split"),
        ("-train00000_0000_5000,0,male_speech,train", "listed twice"),
    ],
)
def test_bad_rows(release, row, code):
    path = release / "Single-source" / "s4_meta_data.csv"
    path.write_text(path.read_text() + row + "\n")
    table = read_table(release)
    assert len(table.clips) == 56
    assert [(f.kind, f.code) for f in table.findings] == [("left out", code)]
    assert "s4_meta_data.csv, line 53: " in table.findings[0].message


def test_a_table_that_is_missing(release):
    (release / "Multi-sources" / "ms3_meta_data.csv").unlink()
    with pytest.raises(DataError, match=r"ms3_meta_data\.csv missing in .*Multi-sources"):
        read_table(release)


def test_single_plus_from_s4(release):
    made = single_plus(read_table(release))
    assert len(made.clips) == 51 and made.binary_only == ()
    assert [clip.foreground for clip in made.clips[:23]] == list(range(1, 24))
