"""Plain folders of one's own, as people have them and as they should not."""

import json
from collections import Counter

import av
import numpy as np
import pytest
from PIL import Image

from data_pipelines.errors import DataError
from data_pipelines.reading.layouts import clip_folder, folders
from data_pipelines.reading.recognise import read_table


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")


def write_video(path, seconds, sound=True):
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=4)
        video.width = video.height = 16
        audio = container.add_stream("aac", rate=16000) if sound else None
        for _ in range(round(4 * seconds)):
            picture = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
            container.mux(video.encode(picture))
        container.mux(video.encode())
        if sound:
            for number in range(int(seconds * 16000) // 1000):
                samples = np.zeros((1, 1000), np.float32)
                frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
                frame.sample_rate, frame.pts = 16000, 1000 * number
                container.mux(audio.encode(frame))
            container.mux(audio.encode())


def write_clip(folder, seconds=3, labels=(), mode="RGB", sound="audio.wav"):
    for second in range(seconds):
        touch(folder / "frames" / f"{second}.jpg")
    for second in labels:
        (folder / "labels").mkdir(exist_ok=True)
        Image.new(mode, (4, 4)).save(folder / "labels" / f"{second}.png")
    if sound:
        touch(folder / sound)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Video files by name, made once."""
    root = tmp_path_factory.mktemp("videos")
    write_video(root / "four.mp4", 4)
    write_video(root / "long.mkv", 23)
    write_video(root / "silent.mp4", 2, sound=False)
    return root


def codes(table):
    return [(f.kind, f.clip, f.code) for f in table.findings]


def test_frames_sound_and_labels(tmp_path):
    write_clip(tmp_path / "a", 3, labels=(0, 2))
    write_clip(tmp_path / "б 犬", 12, sound="audio.flac")
    write_clip(tmp_path / "c", 2, labels=(1,), mode="L", sound="audio.ogg")
    (tmp_path / "classes.json").write_text(json.dumps({"background": 0, "dog": 1, "cat": 2}))
    table = read_table(tmp_path)
    assert table.layout == folders.NAME and table.class_names == ("background", "dog", "cat")
    a, c, *others = table.clips
    assert (a.name, a.seconds, a.label_encoding, a.objects) == ("clips/a", 3, "colours", None)
    assert [(second, path.name) for second, path in a.labels] == [(0, "0.png"), (2, "2.png")]
    assert (c.label_encoding, c.label_ids, c.sounds[0].path.name) == ("ids", None, "audio.ogg")
    assert [(clip.uid, clip.start, clip.seconds) for clip in others] == [
        ("б 犬@0", 0, 10),
        ("б 犬@10", 10, 2),
    ]
    assert [path.stem for path in others[0].frames] == [str(t) for t in range(10)]
    assert [path.stem for path in others[1].frames] == ["10", "11"]
    assert {clip.split for clip in others} == {"train"}  # without labels nothing is measured
    assert codes(table) == [("noticed", "clips/б 犬", "no labels")]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "1", "L"])
def test_without_classes_it_is_object_or_background(tmp_path, mode):
    write_clip(tmp_path / "a", labels=(0,), mode=mode)
    table = read_table(tmp_path)
    assert table.class_names == ("background", "object")
    assert (table.clips[0].label_encoding, table.clips[0].foreground) == ("foreground", 1)
    (tmp_path / "classes.json").write_text('["background", "dog"]')
    clip = read_table(tmp_path).clips[0]
    assert clip.label_encoding == ("colours" if mode in ("RGB", "RGBA") else "ids")
    assert clip.foreground is None


def test_labels_are_cut_with_their_clip(tmp_path):
    write_clip(tmp_path / "a", 25, labels=(0, 9, 10, 24))
    first, second, third = read_table(tmp_path).clips
    assert [[s for s, _ in clip.labels] for clip in (first, second, third)] == [[0, 9], [0], [4]]
    assert third.labels[0][1].name == "24.png" and third.start == 20


def test_videos(videos, tmp_path):
    for name in ("a.mp4", "b/video.mp4", "b/other.mp4", "c/whatever.MP4", "d/v.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((videos / "four.mp4").read_bytes())
    touch(tmp_path / "d" / "audio.wav")
    write_clip(tmp_path / "e", 2, sound=None)
    (tmp_path / "e" / "x.mkv").write_bytes((videos / "long.mkv").read_bytes())
    table = read_table(tmp_path)
    found = {clip.uid: clip for clip in table.clips}
    assert list(found) == ["a", "b", "c", "d", "e"]
    assert {clip.split for clip in table.clips} == {"test"}
    [finding] = table.findings
    assert (finding.kind, finding.clip, finding.code) == ("noticed", "", "no labels")
    assert finding.message == "no labels: all clips are test, there is nothing to train on"
    assert all(found[uid].seconds == 4 and not found[uid].frames for uid in "abcd")
    assert found["a"].video == found["a"].sounds[0].path == tmp_path / "a.mp4"
    assert found["b"].video.name == "video.mp4" and found["c"].video.name == "whatever.MP4"
    assert found["d"].sounds[0].path.name == "audio.wav"
    assert found["e"].video is None and found["e"].sounds[0].path.name == "x.mkv"


def test_long_videos_and_their_labels(videos, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.mkv").write_bytes((videos / "long.mkv").read_bytes())
    for second in (0, 19, 22, 99):
        touch(tmp_path / "a" / "labels" / f"{second}.png")
    table = read_table(tmp_path)
    assert [(c.uid, c.start, c.seconds) for c in table.clips] == [
        ("a@0", 0, 10),
        ("a@10", 10, 10),
        ("a@20", 20, 3),
    ]
    assert [[s for s, _ in clip.labels] for clip in table.clips] == [[0], [9], [2]]
    assert codes(table) == [("noticed", "clips/a", "label without frame")]


def test_splits_by_folder(tmp_path):
    for split, names in (("train", "ab"), ("val", "c"), ("test", "ad")):
        for name in names:
            write_clip(tmp_path / split / name, labels=(0,))
    table = read_table(tmp_path)
    assert [(clip.split, clip.uid) for clip in table.clips] == [
        ("train", "train-a"),
        ("train", "b"),
        ("val", "c"),
        ("test", "test-a"),
        ("test", "d"),
    ]


def test_a_clip_may_be_called_like_a_split(tmp_path):
    for name in ("train", "dog", "cat"):
        write_clip(tmp_path / name, labels=(0,))
    assert [clip.uid for clip in read_table(tmp_path).clips] == ["cat", "dog", "train"]


def test_splits_by_digest(tmp_path):
    for number in range(200):
        write_clip(tmp_path / f"clip{number}", 1, labels=(0,))
    clips = read_table(tmp_path).clips
    counts = Counter(clip.split for clip in clips)
    assert abs(counts["train"] - 160) < 20 and min(counts.values()) >= 8
    assert clips[2].uid == "clip2" and clips[10].uid == "clip10"
    # Three are enough for one of each, whatever their names; and names are all that counts.
    for start in range(0, 30, 3):
        names = dict.fromkeys((f"clip{number}" for number in range(start, start + 3)), True)
        splits = folders._splits(names)
        assert set(splits.values()) == {"train", "val", "test"}
        assert folders._splits(dict(reversed(names.items()))) == splits
        # However many others there are without labels.
        others = {f"other{number}": False for number in range(50)}
        assert folders._splits(others | names) == dict.fromkeys(others, "train") | splits


def test_what_lies_beside_the_splits_is_named(tmp_path):
    write_clip(tmp_path / "train" / "a", labels=(0,))
    write_clip(tmp_path / "test" / "b", labels=(0,))
    assert read_table(tmp_path).findings == ()
    write_clip(tmp_path / "stray")
    write_clip(tmp_path / "valid" / "c", labels=(0,))
    [finding] = read_table(tmp_path).findings
    assert (finding.kind, finding.clip, finding.code) == ("noticed", "", "not taken")
    assert finding.message == "not taken: stray, valid (beside train, test)"
    for number in range(20):
        write_clip(tmp_path / f"x{number}")
    [finding] = read_table(tmp_path).findings
    assert finding.message.endswith("x6, x7 and 12 more (beside train, test)")


def test_labels_are_all_colours_or_all_ids(tmp_path):
    write_clip(tmp_path / "a", labels=(0, 1))
    write_clip(tmp_path / "b", labels=(0, 1), mode="L")
    write_clip(tmp_path / "c", labels=(0, 1))
    Image.new("L", (4, 4)).save(tmp_path / "c" / "labels" / "1.png")
    assert len(read_table(tmp_path).clips) == 3  # not black is the object in both
    (tmp_path / "classes.json").write_text('["background", "dog"]')
    table = read_table(tmp_path)
    assert [(c.uid, c.label_encoding) for c in table.clips] == [("a", "colours"), ("b", "ids")]
    assert codes(table) == [("left out", "clips/c", "labels mixed")]


def test_labels_in_jpeg_are_named(tmp_path):
    write_clip(tmp_path / "a", labels=(0,))
    for name in ("1.jpg", "2.JPEG"):
        touch(tmp_path / "a" / "labels" / name)
    table = read_table(tmp_path)
    assert [second for second, _ in table.clips[0].labels] == [0]
    assert codes(table) == [("noticed", "clips/a", "label no PNG")]
    assert "labels must be PNG" in table.findings[0].message


def test_labels_are_matched_by_number(tmp_path):
    for name in ("00000", "00001", "00002"):
        touch(tmp_path / "a" / "frames" / f"{name}.jpg")
    touch(tmp_path / "a" / "audio.wav")
    for name in ("0", "1", "00001", "7"):
        touch(tmp_path / "a" / "labels" / f"{name}.png")
    table = read_table(tmp_path)
    found = [(second, path.name) for second, path in table.clips[0].labels]
    assert found == [(0, "0.png"), (1, "00001.png")]
    assert codes(table) == [("noticed", "clips/a", "label without frame")]
    # Where numbers are not all that the names of frames hold they say nothing.
    touch(tmp_path / "a" / "frames" / "x3.jpg")
    [clip] = read_table(tmp_path).clips
    assert [path.name for _, path in clip.labels] == ["00001.png"]


def test_what_is_no_clip(videos, tmp_path):
    write_clip(tmp_path / "good")
    (tmp_path / "empty").mkdir()
    (tmp_path / "no frames" / "frames").mkdir(parents=True)
    write_clip(tmp_path / "no sound", sound=None)
    touch(tmp_path / "only sound" / "audio.wav")
    for name in ("x.mp4", "y.mp4"):
        touch(tmp_path / "several" / name)
    touch(tmp_path / "broken.mp4")
    (tmp_path / "silent.mp4").write_bytes((videos / "silent.mp4").read_bytes())
    (tmp_path / "playlist.mp4").write_text("#EXTM3U\n#EXTINF:10,\nhttp://127.0.0.1:9/a.ts\n")
    touch(tmp_path / ".hidden" / "frames" / "0.jpg")
    touch(tmp_path / "__MACOSX" / "frames" / "0.jpg")
    touch(tmp_path / "notes.txt")
    table = read_table(tmp_path)
    assert [clip.uid for clip in table.clips] == ["good"]
    assert sorted(codes(table)) == [
        ("left out", "clips/broken", "corrupt video"),
        ("left out", "clips/no frames", "no pictures"),
        ("left out", "clips/no sound", "no sound"),
        ("left out", "clips/only sound", "no pictures"),
        ("left out", "clips/playlist", "corrupt video"),
        ("left out", "clips/several", "several videos"),
        ("left out", "clips/silent", "no sound"),
        ("noticed", "", "no labels"),
        ("noticed", "clips/empty", "no clip"),
    ]


def test_too_long(videos, tmp_path, monkeypatch):
    write_clip(tmp_path / "a", 2)
    (tmp_path / "b.mp4").write_bytes((videos / "four.mp4").read_bytes())
    write_clip(tmp_path / "c", 4)
    monkeypatch.setattr(clip_folder, "LONGEST", 3)
    table = read_table(tmp_path)
    assert [clip.uid for clip in table.clips] == ["a"]
    assert [f.code for f in table.findings] == ["too long", "too long", "no labels"]


def test_strange_names(tmp_path):
    write_clip(tmp_path / "good", 1)
    write_clip(tmp_path / "a\nb", 1)
    write_clip(tmp_path / "back\\slash", 1)
    write_clip(tmp_path / "caf\udce9", 1)
    write_clip(tmp_path / ("u" * 252), 1)
    (tmp_path / "good.mp4").write_bytes(b"x")
    table = read_table(tmp_path)
    assert [clip.uid for clip in table.clips] == ["good"]
    assert sorted(f.code for f in table.findings) == [
        *["bad name"] * 4,
        "listed twice",
        "no labels",
    ]
    assert all(f.message.isprintable() for f in table.findings)


def test_links_that_lead_outside(tmp_path):
    root, outside = tmp_path / "root", tmp_path / "outside"
    write_clip(outside / "clip", labels=(0,))
    touch(outside / "v.mp4")
    write_clip(root / "good", labels=(0,))
    (root / "clip").symlink_to(outside / "clip")
    (root / "v.mp4").symlink_to(outside / "v.mp4")
    for name in ("frames", "labels"):
        write_clip(root / name[0], sound="audio.wav", seconds=0 if name == "frames" else 1)
        (root / name[0]).mkdir(exist_ok=True)
        (root / name[0] / name).symlink_to(outside / "clip" / name)
    (root / "loop").symlink_to(root / "loop")
    (root / "same").symlink_to(root / "good")
    table = read_table(root)
    assert [clip.uid for clip in table.clips] == ["good", "same"]
    assert [f.code for f in table.findings] == ["link leads outside"] * 4
    assert len(read_table(root, follow_links=True).clips) == 5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "no JSON file"),
        ('"dog"', "should map class names"),
        ('["dog", "background"]', "should be 'background', it is 'dog'"),
        ('["background", "dog", "dog"]', "each once"),
        ('["background", 1]', "names of classes"),
        ('{"background": 1, "dog": 2}', r"should run 0, 1, 2"),
    ],
)
def test_class_tables_that_cannot_be_used(tmp_path, content, message):
    write_clip(tmp_path / "a")
    (tmp_path / "classes.json").write_text(content)
    with pytest.raises(DataError, match=message):
        read_table(tmp_path)


def test_the_fingerprint_tells_folders_apart(tmp_path):
    write_clip(tmp_path / "one" / "a", 2)
    write_clip(tmp_path / "two" / "a", 2)
    prints = [read_table(tmp_path / name).fingerprint for name in ("one", "two")]
    assert prints[0] == prints[1]
    write_clip(tmp_path / "two" / "a", 3)
    assert read_table(tmp_path / "two").fingerprint != prints[0]
