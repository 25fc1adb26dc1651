"""AVSBench's unified release, read from a skeleton with the structure of the published one."""

import dataclasses
import json
import os
import re
from collections import Counter

import pytest

from data_pipelines.errors import DataError
from data_pipelines.facts import avsbench
from data_pipelines.reading import tables
from data_pipelines.reading.layouts import unified
from data_pipelines.reading.layouts.single_plus import CLASS_NAMES, single_plus
from data_pipelines.reading.recognise import read_table

# The published clips by the hundred, rounded up.
REDUCED = {key: -(-count // 100) for key, count in avsbench.PUBLISHED_CLIPS.items()}
# Uses of the tokens of a_obj that are no class names in the published table.
ODD_TOKENS = {"off-the-screen": 27, "background": 5, "h orse": 1}


def table_rows(counts):
    """Rows like the published ones: names as of YouTube, odd tokens among the several sources."""
    odd = [token for token, uses in ODD_TOKENS.items() for _ in range(uses)]
    rows = []
    for (subset, split), count in counts.items():
        for number in range(count):
            stem = f"-{subset}{split[:2]}{number:06d}"
            uid = f"{stem}_0" if subset == "v1m" else f"{stem}_{number}000_{number + 5}000"
            objects = ["wolf" if subset == "v1s" else "man"]
            if subset == "v2":
                objects.append(odd.pop() if odd else "emergency-car")
            rows.append([stem, uid, 0, number, "_".join(objects), split, subset])
    return rows


def write_table(root, rows):
    root.mkdir(exist_ok=True)
    lines = [",".join(avsbench.METADATA_COLUMNS), *(",".join(map(str, row)) for row in rows)]
    (root / avsbench.METADATA_NAME).write_text("\n".join(lines) + "\n")
    ids = {name: index for index, name in enumerate(avsbench.CLASS_NAMES, start=1)}
    (root / avsbench.LABEL2IDX_NAME).write_text(json.dumps(ids))
    for subset in avsbench.SUBSETS:
        (root / subset).mkdir(exist_ok=True)


def counts(table):
    return Counter((clip.subset, clip.split) for clip in table.clips)


@pytest.fixture(scope="module")
def skeleton(tmp_path_factory):
    root = tmp_path_factory.mktemp("unified") / "AVSBench-semantic"
    rows = table_rows(REDUCED)
    write_table(root, rows)
    for number, (_, uid, _, _, _, split, subset) in enumerate(rows):
        folder = avsbench.clip_dir(root, subset, uid)
        for name in ("frames", "labels_rgb", "labels_semantic"):
            (folder / name).mkdir(parents=True)
        for t in range(avsbench.SUBSET_SECONDS[subset]):
            (folder / "frames" / f"{t}{'.png' if number % 7 == 0 else '.jpg'}").write_bytes(b"x")
        for t in range(avsbench.labelled_seconds(subset, split)):
            avsbench.rgb_label_path(root, subset, uid, t).write_bytes(b"x")
        avsbench.audio_path(root, subset, uid).write_bytes(b"x")
    return root


@pytest.fixture
def small(tmp_path):
    """A table alone, of which the readers of rows make the best."""
    rows = [
        ["a", "a_0_5000", 0, 0, "cat", "train", "v1s"],
        ["b", "b_0", 0, 0, "cat_dog", "val", "v1m"],
        ["c", "c_0_10000", 0, 0, "man", "test", "v2"],
    ]
    write_table(tmp_path / "small", rows)
    return tmp_path / "small"


def test_every_file_of_a_complete_copy(skeleton):
    table = read_table(skeleton)
    assert table.layout == unified.NAME and table.findings == ()
    assert counts(table) == REDUCED
    assert table.class_names == avsbench.CLASS_NAMES and len(table.class_names) == 71
    for clip in table.clips:
        assert len(clip.frames) == clip.seconds == avsbench.SUBSET_SECONDS[clip.subset]
        seconds = 1 if (clip.subset, clip.split) == ("v1s", "train") else clip.seconds
        assert [second for second, _ in clip.labels] == list(range(seconds))
        files = [*clip.frames, *(p for _, p in clip.labels), *(s.path for s in clip.sounds)]
        assert all(path.is_file() for path in files)
    names = {avsbench.CLASS_NAMES[i] for clip in table.clips for i in clip.objects}
    assert names == {"wolf", "man", "emergency-car", "horse"}


def test_counts_of_the_published_table(tmp_path):
    write_table(tmp_path / "full", table_rows(avsbench.PUBLISHED_CLIPS))
    table = read_table(tmp_path / "full")
    assert len(table.clips) == 11_356 and table.findings == ()
    assert counts(table) == avsbench.PUBLISHED_CLIPS == table.expected
    totals = Counter(clip.subset for clip in table.clips)
    assert totals == {"v1s": 4932, "v1m": 424, "v2": 6000}
    splits = Counter(clip.split for clip in table.clips)
    assert splits == {"train": 8498, "val": 1304, "test": 1554}
    labelled = Counter()
    for clip in table.clips:
        labelled[clip.subset, clip.split] += len(clip.labels)
    assert labelled["v1s", "train"] == 3452 and labelled["v2", "train"] == 47_500
    assert sum(n for (_, split), n in labelled.items() if split == "train") == 52_432
    assert sum(n for (_, split), n in labelled.items() if split == "test") == 11_520
    tokens = (tmp_path / "full" / "metadata.csv").read_text()
    assert {token: tokens.count(token) for token in ODD_TOKENS} == ODD_TOKENS


def test_a_copy_without_a_subset(skeleton, tmp_path):
    root = tmp_path / "partial"
    root.mkdir()
    for name in (avsbench.METADATA_NAME, avsbench.LABEL2IDX_NAME, "v1m"):
        os.symlink(skeleton / name, root / name)
    table = read_table(root, follow_links=True)
    assert counts(table) == {k: n for k, n in REDUCED.items() if k[0] == "v1m"}
    assert [(f.kind, f.clip, f.code) for f in table.findings] == [
        ("noticed", "v1s", "subset absent"),
        ("noticed", "v2", "subset absent"),
    ]
    assert "(51 clips)" in table.findings[0].message
    assert table.fingerprint != read_table(skeleton).fingerprint


def test_classes_without_their_table(small):
    (small / avsbench.LABEL2IDX_NAME).unlink()
    table = read_table(small)
    assert table.class_names == avsbench.CLASS_NAMES
    assert [f.code for f in table.findings] == ["no class table"]
    assert table.clips[1].objects == (12, 17)


def test_copies_that_keep_index_masks_only(small):
    (small / "v2" / "c_0_10000" / "labels_semantic").mkdir(parents=True)
    clip = read_table(small).clips[2]
    assert clip.label_encoding == "ids" and clip.label_ids is None
    assert clip.labels[9][1] == small / "v2" / "c_0_10000" / "labels_semantic" / "9.png"


def test_a_small_set_of_ones_own_is_no_bad_copy(small):
    assert read_table(small).expected == {}


ROWS = {
    "parent": (b"d,../../x,0,0,cat,train,v1s", "bad name", r"line 5: uid '\.\./\.\./x' cannot be"),
    "absolute": (b"d,/etc/x,0,0,cat,train,v1s", "bad name", "is a path"),
    "backslash": (b"d,a\\b,0,0,cat,train,v1s", "bad name", "is a path"),
    "dots": (b"d,..,0,0,cat,train,v1s", "bad name", "is a path"),
    "nul": (b"d,a\0b,0,0,cat,train,v1s", "bad name", "control characters"),
    "escape": (b"d,\x1b[31m,0,0,cat,train,v1s", "bad name", "control characters"),
    "empty": (b"d,,0,0,cat,train,v1s", "bad name", "is empty"),
    "long": (b"d," + b"u" * 300 + b",0,0,cat,train,v1s", "bad name", "longer than 255 bytes"),
    "long in bytes": ("d,{},0,0,cat,train,v1s".format("ж" * 128).encode(), "bad name", "255"),
    "latin 1": (b"d,caf\xe9,0,0,cat,train,v1s", "unreadable row", "line 5: .* not valid UTF-8"),
    "subset": (b"d,d,0,0,cat,train,v9", "unknown subset", "label 'v9' is no subset"),
    "split": (b"d,d,0,0,cat,exam,v1s", "unknown split", "split 'exam' is none of train"),
    "class": (b"d,d,0,0,yeti,train,v1s", "unknown class", "a_obj names 'yeti'"),
    "twice": (b"d,a_0_5000,0,0,dog,test,v1s", "listed twice", "stands in the table twice"),
    "short": (b"d,d", "unknown subset", "label ''"),
    "long line": (b"x" * 3_000_000, "unreadable row", "longer than 1048576 bytes"),
    "long field": (b"d," + b"x" * 500_000, "unreadable row", "cannot be parsed"),
    "open quote": (b'd,"d,0,0,cat,train,v1s', "unknown subset", "line 5"),
    "carriage return": (b"d,d,0\r0,0,cat,train,v1s", "unreadable row", "cannot be parsed"),
}


@pytest.mark.parametrize("name", ROWS)
def test_a_bad_row_is_named_and_the_rest_goes_on(small, name):
    row, code, message = ROWS[name]
    with (small / avsbench.METADATA_NAME).open("ab") as file:
        file.write(row + b"\ne,e_0,0,0,dog,test,v1m\n")
    table = read_table(small)
    assert [clip.uid for clip in table.clips] == ["a_0_5000", "b_0", "c_0_10000", "e_0"]
    assert [(f.kind, f.code) for f in table.findings] == [("left out", code)]
    assert re.search(message, table.findings[0].message)
    assert len(table.findings[0].message) < 600 + len(str(small))
    assert table.findings[0].message.isprintable()


def test_quotes_marks_and_line_ends(small):
    path = small / avsbench.METADATA_NAME
    before = read_table(small)
    text = path.read_text().replace("cat_dog", '"cat_dog"').replace(",uid,", ',"uid" ,')
    path.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n\r\n").encode())
    after = read_table(small)
    assert after.clips == before.clips and after.findings == ()
    assert after.fingerprint != before.fingerprint


def test_names_in_any_alphabet(small):
    with (small / avsbench.METADATA_NAME).open("a", encoding="utf-8") as file:
        file.write("d,собака 犬,0,0,dog,test,v1m\n")
    assert read_table(small).clips[-1].uid == "собака 犬"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        ("vid,uid,s_min,s_sec,a_obj,split,label\n".encode("utf-16"), "is not valid UTF-8"),
        (b"vid,uid,split,label\n", "lacks the columns a_obj"),
        (b"vid,uid,s_min,s_sec,a_obj,split,label\n", "its table has no rows"),
        (b"uid," * 300_000, "longer than"),
        (b"vid,uid,s_min,s_sec,a_obj,split,label\nd,/,0,0,cat,train,v1s\n", "no clips .* line 2"),
    ],
)
def test_tables_that_cannot_be_used(small, content, message):
    (small / avsbench.METADATA_NAME).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_table(small)


def test_giant_tables_are_refused_before_they_are_read(small, monkeypatch):
    with (small / avsbench.METADATA_NAME).open("ab") as file:
        file.truncate(2**30)  # a hole: no disk is filled
    with pytest.raises(DataError, match=r"metadata\.csv is bigger than 256 MiB"):
        read_table(small)
    write_table(small, [["r", f"r{i}", 0, 0, "cat", "train", "v2"] for i in range(20)])
    monkeypatch.setattr(tables, "MAX_ROWS", 10)
    with pytest.raises(DataError, match="more than 10 rows"):
        read_table(small)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read: it is no JSON file"),
        ("[" * 100_000, "cannot be read"),
        ('{"background": 1, "cat": 3}', "without gap"),
        ('{"background": 1, "cat": 2.5}', "whole numbers"),
        ('{"background": 1, "cat": true}', "whole numbers"),
        ('{"cat": 1, "dog": 2}', "should be 'background', it is 'cat'"),
        ("[]", "should map class names"),
        (json.dumps({str(i): i for i in range(1, 400)}), "255 at most"),
    ],
)
def test_class_tables_that_cannot_be_used(small, content, message):
    (small / avsbench.LABEL2IDX_NAME).write_text(content)
    with pytest.raises(DataError, match=message):
        read_table(small)


def test_links_that_lead_outside(small, tmp_path):
    outside = tmp_path / "outside"
    (outside / "frames").mkdir(parents=True)
    (small / "v1m" / "b_0").symlink_to(outside)
    (small / "v2" / "c_0_10000").mkdir()
    (small / "v2" / "c_0_10000" / "frames").symlink_to(outside / "frames")
    table = read_table(small)
    assert [clip.uid for clip in table.clips] == ["a_0_5000"]
    assert [(f.clip, f.code) for f in table.findings] == [
        ("v1m/b_0", "link leads outside"),
        ("v2/c_0_10000", "link leads outside"),
    ]
    assert len(read_table(small, follow_links=True).clips) == 3
    # The folder itself may be a link, and links may lead around in it.
    (tmp_path / "alias").symlink_to(small)
    (small / "v1s" / "a_0_5000").symlink_to(small / "v1m")
    assert len(read_table(tmp_path / "alias").clips) == 1
    (small / avsbench.METADATA_NAME).rename(outside / "table")
    (small / avsbench.METADATA_NAME).symlink_to(outside / "table")
    with pytest.raises(DataError, match=r"metadata\.csv is a link that leads out"):
        read_table(small)


def test_single_plus_is_made_of_v1s(skeleton):
    table = read_table(skeleton)
    made = single_plus(table)
    assert len(CLASS_NAMES) == 24 and CLASS_NAMES[6] == "coyote_howling"
    assert made.class_names == CLASS_NAMES == ("background", *sorted(CLASS_NAMES[1:]))
    assert counts(made) == {key: n for key, n in REDUCED.items() if key[0] == "v1s"}
    assert {(c.label_encoding, c.foreground, c.objects) for c in made.clips} == {
        ("foreground", 6, (6,))
    }
    assert made.fingerprint != table.fingerprint
    others = [clip for clip in table.clips if clip.subset != "v1s"]
    with pytest.raises(DataError, match=r"no clips for Single\+"):
        single_plus(dataclasses.replace(table, clips=tuple(others)))


def test_single_plus_leaves_out_what_has_no_category(skeleton):
    table = read_table(skeleton)
    strange = dataclasses.replace(table.clips[0], objects=(1,))
    made = single_plus(dataclasses.replace(table, clips=(strange, table.clips[1])))
    assert [clip.uid for clip in made.clips] == [table.clips[1].uid]
    assert [(f.kind, f.clip) for f in made.findings] == [("left out", strange.name)]
    assert "accordion" in made.findings[0].message
