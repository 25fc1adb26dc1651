"""From a folder in the unified layout to array_record, and every way in which that can fail.

The command, its report and its worker processes are in test_prepare_command.py.
"""

import io
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image
from tensorflow_datasets.core import shuffle

from data_pipelines.errors import DataError
from data_pipelines.facts import avsbench
from data_pipelines.loader import open_source
from data_pipelines.loading.front_ends import LOG_MEL
from data_pipelines.prepare import Builder, prepare
from data_pipelines.prepared.avs_clips import avs_clips_dataset_builder

ROOT = Path(__file__).parents[3]
FORM = str(Builder.VERSION)  # in which data are stored


def run_python(code, *arguments):
    code = textwrap.dedent(code)
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True
    )


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def pixels(file):
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB"))


def test_every_clip_comes_back(raw_dir, data_dir, clips):
    for split in avsbench.SPLITS:
        source = open_source(data_dir, split)
        expected = [(subset, uid) for subset, uid, s, _ in clips if s == split]
        assert [(c.subset, c.uid) for c in source.clips] == expected
        assert source.num_classes == 5 and source.class_names[3] == "emergency-car"
        for index, (subset, uid) in enumerate(expected):
            record = source[index]
            folder = avsbench.clip_dir(raw_dir, subset, uid)
            seconds = avsbench.SUBSET_SECONDS[subset]
            frames = [next((folder / "frames").glob(f"{t}.*")).read_bytes() for t in range(seconds)]
            assert list(record["frames"]) == frames
            labels = avsbench.labelled_seconds(subset, split)
            assert len(record["labels"]) == labels
            for t, label in enumerate(record["labels"]):
                came = pixels(folder / "labels_rgb" / f"{t}.png")
                np.testing.assert_array_equal(pixels(io.BytesIO(label)), came)
            assert source.clips[index].labelled == tuple(range(labels))
            np.testing.assert_array_equal(
                record["waveform"][:, 0], soundfile.read(folder / "audio.wav", dtype="int16")[0]
            )


def test_objects_tolerate_the_tables_odd_tokens(data_dir):
    source = open_source(data_dir, "test")
    objects = {clip.uid: clip.objects for clip in source.clips}
    assert objects["m3_0"] == (1,)  # cat_off-the-screen
    assert objects["m4_0"] == (4,)  # background_h orse
    assert objects["m5_0"] == ()  # off-the-screen
    assert objects["w3_0_10000"] == (1, 2)


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    "name, damage",
    [
        ("*train.array_record*", cut),
        ("*test.array_record*", Path.unlink),
        ("*train.array_record*", lambda path: path.write_bytes(bytes(path.stat().st_size))),
        ("metadata.json", cut),
        ("metadata.json", Path.unlink),
        ("dataset_info.json", cut),
        ("dataset_info.json", Path.unlink),
    ],
)
def test_a_damaged_data_set_is_one_sentence(small_raw_dir, tmp_path, name, damage):
    data = tmp_path / "data"
    folder = prepare(small_raw_dir, data, progress=False)
    (path,) = folder.glob(name)
    same_size = path.stat().st_size
    damage(path)
    with pytest.raises(DataError, match="is damaged .*: delete it and prepare again"):
        open_source(data, "train")[0]
    if not path.exists() or path.stat().st_size != same_size:
        with pytest.raises(DataError, match="is damaged .*: delete it and prepare again"):
            prepare(small_raw_dir, data, progress=False)
    shutil.rmtree(folder)
    prepare(small_raw_dir, data, progress=False)
    assert len(open_source(data, "train")[0]["frames"]) == 5


def test_what_is_known_of_labels_without_reading_them(data_dir, clips):
    source = open_source(data_dir, "train")
    shown = {uid: 1 + (objects != "off-the-screen") for _, uid, _, objects in clips}
    assert {clip.uid: clip.classes for clip in source.clips} == {
        clip.uid: shown[clip.uid] for clip in source.clips
    }
    assert not source.ignores and not any(clip.ignored for clip in source.clips)


def test_data_of_an_older_version_are_prepared_anew(small_raw_dir, tmp_path):
    data = tmp_path / "data"
    prepare(small_raw_dir, data, progress=False).rename(data / "avs_clips" / "1.0.0")
    message = r"avs_clips/1\.0\.0 has the form 1\.0\.0 .* reads .*: delete it and .* FOLDER --out "
    with pytest.raises(DataError, match=message + str(data)):
        open_source(data, "train")
    prepare(small_raw_dir, data, progress=False)
    assert len(open_source(data, "train")) == 2


def test_choice_of_subsets(data_dir, clips):
    source = open_source(data_dir, "train", ["v1m", "v2"])
    assert [c.uid for c in source.clips] == [
        uid for subset, uid, split, _ in clips if split == "train" and subset != "v1s"
    ]
    assert source[3]["frames"][0] == open_source(data_dir, "train", ["v2"])[0]["frames"][0]
    with pytest.raises(DataError, match=r"no clips of v1m in split 'val'"):
        open_source(data_dir, "val", ["v1m"])
    with pytest.raises(DataError, match=r"no clip .* in split 'exam': it only has train and val"):
        open_source(data_dir, "exam")
    with pytest.raises(DataError, match="no prepared data set in"):
        open_source(data_dir / "elsewhere", "train")


def test_described_for_the_catalogue(data_dir):
    info = Builder(data_dir=data_dir).info
    assert info.name == "avs_clips" and "first one" in info.description
    assert "Audio-Visual Segmentation" in info.citation
    assert info.splits["train"].num_examples == 11


def test_prepared_once_and_the_same_each_time(raw_dir, data_dir, tmp_path):
    before = {p: p.stat().st_mtime_ns for p in data_dir.rglob("*.array_record*")}
    prepare(raw_dir, data_dir, progress=False)
    assert before and {p: p.stat().st_mtime_ns for p in data_dir.rglob("*.array_record*")} == before
    again = prepare(raw_dir, tmp_path / "again", progress=False)
    records = {k: v for k, v in contents(again).items() if "array_record" in k.name}
    first = contents(data_dir / "avs_clips" / FORM)
    assert len(records) == 3 and all(first[name] == value for name, value in records.items())


def test_any_amount_of_data_is_stored_without_tensorflow(raw_dir, data_dir, tmp_path, monkeypatch):
    """TFDS's own way needs TensorFlow where a split has more than 1000 MB; here more than none."""
    monkeypatch.setattr(shuffle, "MAX_MEM_BUFFER_SIZE", 0)
    monkeypatch.setattr(avs_clips_dataset_builder, "PIECE", 1)  # a temporary file for each clip
    prepare(raw_dir, tmp_path)
    assert contents(tmp_path / "avs_clips") == contents(data_dir / "avs_clips")


def test_plain_tfds_reads_it(data_dir):
    """Without this package, and without TensorFlow."""
    done = run_python(
        """
        import sys
        import tensorflow_datasets as tfds
        builder = tfds.builder_from_directory(sys.argv[1])
        first = builder.as_data_source("train")[0]
        for name, count in (("frames", 5), ("labels", 1)):
            assert [(i.shape, i.dtype) for i in first[name]] == [((32, 32, 3), "uint8")] * count
        assert first["labels"][0][0, 0].tolist() == [128, 0, 0]
        assert list(first["labelled"]) == [True, False, False, False, False]
        assert first["waveform"].shape == (80000, 1) and first["waveform"].dtype == "int16"
        assert list(first["objects"]) == [1] and first["uid"] == b"s0_0_5000"
        assert len(builder.as_data_source("test")) == 7
        for name in ("tensorflow", "torch", "jax", "data_pipelines"):
            assert name not in sys.modules, name
        """,
        data_dir / "avs_clips" / FORM,
    )
    assert done.returncode == 0, done.stderr


def test_other_files_are_not_taken_for_the_prepared_ones(small_raw_dir, raw_dir, tmp_path):
    prepare(small_raw_dir, tmp_path / "data", progress=False)
    with pytest.raises(DataError, match="was prepared from other files than"):
        prepare(raw_dir, tmp_path / "data", progress=False)


def test_prepared_data_need_not_be_writable(small_raw_dir, tmp_path):
    """A shared, read-only copy serves, as long as nothing has to be written."""
    data = prepare(small_raw_dir, tmp_path / "data", progress=False).parents[1]
    lock = data / "avs_clips.lock"
    lock.unlink()
    lock.mkdir()  # whoever tries to lock fails, even the superuser
    prepare(small_raw_dir, data, progress=False)
    with pytest.raises(DataError, match="cannot prepare"):
        shutil.rmtree(data / "avs_clips")
        prepare(small_raw_dir, data, progress=False)


def test_absent_subsets_are_left_out_and_named(raw_dir, tmp_path, capsys):
    partial = tmp_path / "partial"
    shutil.copytree(raw_dir, partial)
    shutil.rmtree(partial / "v2")
    prepare(partial, tmp_path / "data")
    assert "no folder for: v2 (5 clips)" in capsys.readouterr().err
    assert {c.subset for c in open_source(tmp_path / "data", "train").clips} == {"v1s", "v1m"}


def test_real_sounds(small_raw_dir, tmp_path):
    """44.1 kHz stereo as recorded, and a sound cut short: its last second is heard again."""
    time = np.arange(5 * 44100) / 44100
    tone = 0.3 * np.sin(2 * np.pi * 440 * time)
    stereo = avsbench.audio_path(small_raw_dir, "v1s", "a")
    soundfile.write(stereo, np.stack([tone, tone], 1), 44100)
    short = avsbench.audio_path(small_raw_dir, "v1m", "b")
    soundfile.write(short, soundfile.read(short)[0][: 4 * 16000], 16000)
    prepare(small_raw_dir, tmp_path / "data", progress=False)
    source = open_source(tmp_path / "data", "train")
    mono = 0.3 * np.sin(2 * np.pi * 440 * np.arange(5 * 16000) / 16000)
    inside = slice(500, -500)  # resampling rings at the ends
    np.testing.assert_allclose(
        source[0]["waveform"][inside, 0] / 32768, mono[inside], atol=1.5 / 32768
    )
    assert source[1]["waveform"].shape == (64000, 1) and source.clips[1].seconds == 5
    heard = LOG_MEL(source[1]["waveform"] / np.float32(32768), 5)
    np.testing.assert_array_equal(heard[4], heard[3])
    assert (heard[3] != heard[2]).any()


def replace(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def recolour(root, colour, size=32):
    label = np.zeros((size, size, 3), np.uint8)
    label[3, 4] = colour
    Image.fromarray(label).save(avsbench.rgb_label_path(root, "v1m", "b", 2))


def truncate(path):
    """Half of a picture whose header is whole: it opens, and fails only when it is decoded."""
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 + 400])
    Image.open(path)


FAULTS = {
    "no table": (lambda r: (r / "metadata.csv").unlink(), r"metadata\.csv missing in .*small"),
    "broken classes": (
        lambda r: (r / "label2idx.json").write_text("{"),
        r"label2idx\.json cannot be read",
    ),
    "gap in classes": (
        lambda r: replace(r / "label2idx.json", '"dog": 3', '"dog": 9'),
        r"label2idx\.json: indices should run",
    ),
    "no rows": (
        lambda r: (r / "metadata.csv").write_text("vid,uid,s_min,s_sec,a_obj,split,label\n"),
        r"no clips in .*small: its table has no rows",
    ),
    "no subset": (
        lambda r: [shutil.rmtree(r / s) for s in ("v1s", "v1m")],
        r"no clips in .*small: folders missing: v1s, v1m",
    ),
    "column": (
        lambda r: replace(r / "metadata.csv", "a_obj", "objects"),
        r"metadata\.csv lacks the columns a_obj",
    ),
    "outside the folder": (
        lambda r: replace(r / "metadata.csv", "v,b,", "v,../b,"),
        r"metadata\.csv, line 3: uid '\.\./b' cannot be the name of a folder",
    ),
    "twice": (
        lambda r: replace(r / "metadata.csv", "v,c,", "v,b,"),
        r"line 4: clip v1m/b stands in the table twice",
    ),
    "split": (
        lambda r: replace(r / "metadata.csv", "dog,test", "dog,exam"),
        r"line 4: split 'exam' is none of train, val, test",
    ),
    "subset": (
        lambda r: replace(r / "metadata.csv", "train,v1s", "train,v9"),
        r"line 2: label 'v9' is no subset",
    ),
    "object": (
        lambda r: replace(r / "metadata.csv", "cat,train", "yeti,train"),
        r"line 2: a_obj names 'yeti'",
    ),
    "clip": (lambda r: shutil.rmtree(r / "v1m/b"), r"clip folder missing: .*v1m.b"),
    "frames": (
        lambda r: [(r / f"v1s/a/frames/{t}.jpg").unlink() for t in (1, 3)],
        r"frames missing in .*frames: 1\.jpg, 3\.jpg \(the clip has 5 seconds\)",
    ),
    "truncated frame": (
        lambda r: truncate(r / "v1s/a/frames/2.jpg"),
        r"corrupt frame: .*v1s.a.frames.2\.jpg \(no whole JPEG or PNG image\)",
    ),
    "truncated label": (
        lambda r: truncate(r / "v1m/b/labels_rgb/0.png"),
        r"corrupt label: .*v1m.b.labels_rgb.0\.png",
    ),
    "empty frame": (
        lambda r: (r / "v1s/a/frames/2.jpg").write_bytes(b""),
        r"corrupt frame: .*2\.jpg \(the file is empty\)",
    ),
    "label": (
        lambda r: (r / "v1m/c/labels_rgb/4.png").unlink(),
        r"label missing: .*v1m.c.labels_rgb.4\.png",
    ),
    "corrupt label": (
        lambda r: (r / "v1m/c/labels_rgb/4.png").write_bytes(b"no png"),
        r"corrupt label: .*v1m.c.labels_rgb.4\.png",
    ),
    "label value": (
        lambda r: recolour(r, (128, 0, 128)),  # class id 5 of 0..4
        r"label value out of range: .*v1m.b.labels_rgb.2\.png holds colour \(128, 0, 128\) of "
        r"class id 5, .* 0 to 4",
    ),
    "label size": (
        lambda r: recolour(r, (128, 0, 0), 16),
        r"label of wrong size: .*b.labels_rgb.2\.png is 16x16, those before it in the clip 32x32",
    ),
    "label shape": (
        lambda r: Image.new("RGB", (32, 20)).save(r / "v1s/a/labels_rgb/0.png"),
        r"label of wrong size: .*a.labels_rgb.0\.png is 32x20, its frame 32x32",
    ),
    "no sound": (lambda r: (r / "v1m/b/audio.wav").unlink(), r"sound file missing: .*b.audio\.wav"),
    "bad sound": (
        lambda r: (r / "v1m/b/audio.wav").write_bytes(b"RIFF?"),
        r"sound file cannot be read: .*b.audio\.wav",
    ),
    "short sound": (
        lambda r: soundfile.write(r / "v1m/b/audio.wav", np.zeros(8000), 16000),
        r"too short for a log-mel example: .*b.audio\.wav",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_stop_with_one_sentence_and_leave_nothing(fault, small_raw_dir, tmp_path):
    damage, message = FAULTS[fault]
    damage(small_raw_dir)
    with pytest.raises(DataError, match=message) as caught:
        prepare(small_raw_dir, tmp_path / "data", progress=False)
    assert "\n" not in str(caught.value)
    assert [p for p in contents(tmp_path / "data") if p.name != "avs_clips.lock"] == []


def test_colours_of_no_class_are_no_fault(small_raw_dir, tmp_path):
    """Anything off the palette becomes background, as in the field's other readers."""
    recolour(small_raw_dir, (17, 201, 3))
    prepare(small_raw_dir, tmp_path / "data", progress=False)


def test_missing_and_unwritable_folders(tmp_path, small_raw_dir):
    with pytest.raises(DataError, match="data folder missing: .*nowhere"):
        prepare(tmp_path / "nowhere", tmp_path / "data", progress=False)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot prepare .*small in .*file"):
        prepare(small_raw_dir, tmp_path / "file" / "data", progress=False)


@pytest.mark.parametrize("moment", ["reading", "writing"])
def test_no_room_to_write(small_raw_dir, tmp_path, moment):
    """A limit on file sizes stands in for a full disk: the writer fails in the same place."""
    done = run_python(
        """
        import resource, sys
        from data_pipelines.preparing import jobs
        from data_pipelines.errors import DataError
        from data_pipelines.prepare import prepare
        limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (30000, 30000))
        if sys.argv[3] == "reading":
            limit()
        else:
            build = jobs.build
            jobs.build = lambda *given, **named: [limit(), build(*given, **named)]
        try:
            prepare(sys.argv[1], sys.argv[2], progress=False)
        except DataError as fault:
            print(fault)
        """,
        small_raw_dir,
        tmp_path / "data",
        moment,
    )
    assert done.returncode == 0, done.stderr
    assert "cannot prepare" in done.stdout and "File too large" in done.stdout
    assert done.stdout.count("\n") == 1
    assert list((tmp_path / "data").glob("avs_clips/*")) == []
    prepare(small_raw_dir, tmp_path / "data", progress=False)  # once there is room
    assert set(os.listdir(tmp_path / "data")) == {"avs_clips", "avs_clips.lock", "report.json"}


@pytest.mark.parametrize("moment", ["v1s/a", "v1m/c", "build", "_report"])
def test_killed_while_preparing(small_raw_dir, tmp_path, moment):
    """Killed at a clip, before the data set is written, and when it is but has no report yet: the
    next call prepares what is missing and clears away what was left."""
    data = tmp_path / "data"
    killed = run_python(
        """
        import os, signal, sys
        from data_pipelines import prepare
        from data_pipelines.preparing import clip_files, jobs
        moment = sys.argv[3]
        die = lambda *given, **named: os.kill(os.getpid(), signal.SIGKILL)
        if "/" in moment:
            read = clip_files.read_clip
            clip_files.read_clip = lambda clip, *r: (die if clip.name == moment else read)(clip, *r)
        else:
            setattr(jobs, moment, die)
        prepare.prepare(sys.argv[1], sys.argv[2])
        """,
        small_raw_dir,
        data,
        moment,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert list(data.glob(".work-*"))
    if moment != "_report":
        with pytest.raises(DataError, match="no prepared data set"):
            open_source(data, "train")
    prepare(small_raw_dir, data, progress=False)
    assert len(open_source(data, "train")) == 2 and len(open_source(data, "test")) == 1
    assert set(os.listdir(data)) == {"avs_clips", "avs_clips.lock", "report.json"}
    assert os.listdir(data / "avs_clips") == [FORM]
    assert contents(data) == contents(prepare(small_raw_dir, tmp_path / "other").parents[1])


def test_killed_while_array_record_is_written(small_raw_dir, tmp_path):
    data = tmp_path / "data"
    killed = run_python(
        """
        import os, signal, sys
        from data_pipelines import prepare
        from data_pipelines.preparing import jobs
        def deadly(*given):
            yield from ()
            os.kill(os.getpid(), signal.SIGKILL)
        jobs._examples = deadly
        prepare.prepare(sys.argv[1], sys.argv[2])
        """,
        small_raw_dir,
        data,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert list((data / "avs_clips").glob("incomplete.*"))
    prepare(small_raw_dir, data, progress=False)
    assert os.listdir(data / "avs_clips") == [FORM]


def test_no_tensorflow_no_torch_no_jax(small_raw_dir, tmp_path):
    """Written, read and batched without TensorFlow or torch, and with jax impossible to import.

    Grain takes jax where it finds it, so jax is hidden: none of this package needs it.
    """
    done = run_python(
        """
        import sys
        sys.modules["jax"] = None
        from data_pipelines import loader
        from data_pipelines import prepare
        prepare.prepare(sys.argv[1], sys.argv[2])
        source = loader.open_source(sys.argv[2], "train")
        sizes = dict(task="semantic", image_size=16, label_size=8, prior="true")
        batches = loader.train_loader(
            source, batch_size=2, seconds=1, sampling="frame", seed=0, **sizes)
        assert next(batches)["frames"].shape == (2, 1, 16, 16, 3)
        [batch] = loader.eval_loader(source, frames_per_batch=10, **sizes)
        assert batch["valid"].all()
        for name in ("tensorflow", "torch"):
            assert name not in sys.modules, name
        """,
        small_raw_dir,
        tmp_path / "data",
    )
    assert done.returncode == 0, done.stderr


def test_a_mended_sound_is_another_data_set_to_embeddings(small_raw_dir, tmp_path):
    """Tables and names do not tell of it, but embeddings that were kept would be wrong."""
    prepare(small_raw_dir, tmp_path / "before", progress=False)
    before = open_source(tmp_path / "before", "train").fingerprint
    soundfile.write(small_raw_dir / "v1s/a/audio.wav", np.zeros(80000), 16000)
    prepare(small_raw_dir, tmp_path / "after", progress=False)
    assert open_source(tmp_path / "after", "train").fingerprint != before
