"""The command that prepares a folder: its worker processes, its report and its exit codes."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from data_pipelines.facts import avsbench
from data_pipelines.prepare import main, prepare
from data_pipelines.prepared.source import heard, open_source, splits
from data_pipelines.preparing import clip_files, folder_page, folder_report, jobs, report_text
from data_pipelines.preparing.clip_files import Record, Task
from data_pipelines.preparing.read import ReadOptions
from data_pipelines.reading.raw import Finding, RawClip, RawTable, Sound
from data_pipelines.reading.recognise import read_table

ROOT = Path(__file__).parents[2]
MANY = 70  # clips


@pytest.fixture(scope="module")
def many(make_folder, tmp_path_factory):
    """A folder with enough clips for worker processes, one of them without its sound."""
    splits = ("train", "val", "test")
    rows = [("v1s", f"s{i}_0_5000", splits[i % 3], "dog") for i in range(MANY)]
    folder = make_folder(tmp_path_factory.mktemp("many") / "raw", rows, 16)
    avsbench.audio_path(folder, "v1s", "s50_0_5000").unlink()
    return folder


@pytest.fixture(scope="module")
def many_prepared(many, tmp_path_factory):
    """That folder, prepared by one process."""
    out = tmp_path_factory.mktemp("one") / "data"
    prepare(many, out, workers=1, strict=False, progress=False)
    return out


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def run_code(code, *arguments, **environment):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


# ---- worker processes


def test_same_bytes_with_any_number_of_workers(many, many_prepared, tmp_path):
    code = """
        import sys
        from data_pipelines.prepare import prepare
        prepare(sys.argv[1], sys.argv[2], workers=3, strict=False)
        """
    # In a process of its own, too: nothing may depend on where things lie in memory.
    done = run_code(code, many, tmp_path / "data")
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "data") == contents(many_prepared)
    assert sum(splits(many_prepared).values()) == MANY - 1


def test_a_killed_run_goes_on_where_it_was(many, many_prepared, tmp_path):
    code = """
        import multiprocessing, os, signal, sys
        from data_pipelines import prepare
        from data_pipelines.preparing import jobs
        read, after = jobs.read_clips, int(sys.argv[3])
        def deadly(tasks, workers):
            for number, record in enumerate(read(tasks, workers)):
                if number == after:
                    print(*[child.pid for child in multiprocessing.active_children()], flush=True)
                    os.kill(os.getpid(), signal.SIGKILL)
                yield record
        jobs.read_clips = deadly
        prepare.prepare(sys.argv[1], sys.argv[2], workers=2, strict=False)
        """
    out = tmp_path / "data"
    killed = run_code(code, many, out, 30)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    children = [int(pid) for pid in killed.stdout.split()]
    assert children
    deadline = time.monotonic() + 20
    while any(alive(pid) for pid in children):  # they must not wait for work for ever
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (work,) = out.glob(".work-*")
    first = {p.name: p.stat().st_mtime_ns for p in work.glob("*.npz")}
    assert len(first) >= 30
    killed = run_code(code, many, out, 60)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    second = {p.name: p.stat().st_mtime_ns for p in work.glob("*.npz")}
    assert len(second) >= 60 and first.items() <= second.items()
    prepare(many, out, workers=2, strict=False, progress=False)
    assert contents(out) == contents(many_prepared)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.parametrize("name", [pytest.param("SIGKILL", marks=pytest.mark.slow), "SIGSEGV"])
def test_a_clip_that_no_process_survives(many, tmp_path, name):
    """The others, among them those that were under way in the same moment, are prepared."""
    (tmp_path / "sitecustomize.py").write_text(
        textwrap.dedent(
            f"""
            import os, signal, sys
            def see(event, arguments):
                if event == "open" and "s40_0_5000/audio.wav" in str(arguments[0]):
                    os.kill(os.getpid(), signal.{name})
            if "--multiprocessing-fork" in sys.argv:
                sys.addaudithook(see)
            """
        )
    )
    done = subprocess.run(
        [sys.executable, "-m", "data_pipelines.prepare", many, "--dry-run", "--workers=2"]
        + ["--json=-"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr
    report = json.loads(done.stdout)
    assert report["clips"]["usable"] == MANY - 2
    (died,) = [f for f in report["findings"] if f["code"] == "process died"]
    assert died["clip"] == "v1s/s40_0_5000"
    assert ("want of memory" if name == "SIGKILL" else name) in died["message"]


@pytest.mark.slow
def test_from_a_script_without_a_guard(many, tmp_path):
    """Worker processes don't run the main module again, nor look for it where there is none."""
    code = f"""
        from data_pipelines.prepare import prepare
        print("once")
        prepare({str(many)!r}, {str(tmp_path / "data")!r}, workers=2, strict=False)
        """
    (tmp_path / "script.py").write_text(textwrap.dedent(code))
    arguments = dict(cwd=ROOT, capture_output=True, text=True, timeout=120)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    script = [sys.executable, str(tmp_path / "script.py")]
    done = subprocess.run(script, env=environment, **arguments)
    assert (done.returncode, done.stdout) == (0, "once\n"), done.stderr
    shutil.rmtree(tmp_path / "data")
    piped = textwrap.dedent(code)
    done = subprocess.run([sys.executable, "-"], input=piped, env=environment, **arguments)
    assert (done.returncode, done.stdout) == (0, "once\n"), done.stderr


def test_what_was_kept_of_changed_clips_and_damaged_files_is_read_again(
    small_raw_dir, tmp_path, monkeypatch
):
    told = []
    usual = clip_files.read_clip
    monkeypatch.setattr(clip_files, "read_clip", lambda c, *rest: told.append(1) or usual(c, *rest))
    table = read_table(small_raw_dir)
    task = Task(table.clips[1], ReadOptions(), 5, table.roots, tmp_path / "1.npz")
    first = clip_files.read(task)
    assert clip_files.read(task) == first and not first.left_out and len(told) == 1
    avsbench.audio_path(small_raw_dir, "v1m", "b").write_bytes(b"no sound")
    assert clip_files.read(task).left_out and len(told) == 2
    task.path.write_bytes(task.path.read_bytes()[:500])
    assert clip_files.read(task).left_out and len(told) == 3
    assert set(os.listdir(tmp_path)) == {"1.npz", "small"}


def test_a_fault_nobody_foresaw_leaves_one_clip_out(small_raw_dir, monkeypatch):
    def read(clip, *rest):
        raise MemoryError("so many bytes")

    monkeypatch.setattr(clip_files, "read_clip", read)
    table = read_table(small_raw_dir)
    record = clip_files.read(Task(table.clips[1], ReadOptions(), 5, table.roots))
    assert record.left_out
    assert record.findings[0].message == "MemoryError: so many bytes: clip v1m/b"


# ---- what is prepared


def spoil(folder):
    avsbench.audio_path(folder, "v1m", "c").write_bytes(b"RIFF")


def test_a_bad_clip_among_good_ones(small_raw_dir, tmp_path, capsys):
    spoil(small_raw_dir)
    arguments = [str(small_raw_dir), "--out", str(tmp_path / "data")]
    assert main(arguments) == 3
    said = capsys.readouterr().out
    assert "v1m/c" in said and "1 left out" in said
    # It was the only one of its split.
    assert splits(tmp_path / "data") == {"train": 2}
    assert [clip.uid for clip in open_source(tmp_path / "data", "train").clips] == ["a", "b"]
    # The same again: nothing is done, and the same is said.
    before = contents(tmp_path / "data")
    assert main(arguments) == 3
    again = capsys.readouterr()
    assert again.out == said and "already holds" in again.err
    # Without its report it can still be said.
    (tmp_path / "data" / "report.json").unlink()
    assert main(arguments) == 3
    assert capsys.readouterr().out.splitlines()[:5] == said.splitlines()[:5]
    assert main([*arguments, "--strict"]) == 2
    (tmp_path / "data" / "report.json").write_bytes(before["report.json"])
    assert main([*arguments, "--strict"]) == 2
    assert contents(tmp_path / "data") == before


def test_strict_leaves_nothing(small_raw_dir, tmp_path, capsys):
    spoil(small_raw_dir)
    assert main([str(small_raw_dir), "--out", str(tmp_path / "data"), "--strict"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("error: ") and "v1m/c/audio.wav" in lines[-1]
    assert [p.name for p in (tmp_path / "data").rglob("*")] == ["avs_clips.lock"]


def test_strict_minds_what_the_table_leaves_out(small_raw_dir, tmp_path, capsys):
    with (small_raw_dir / avsbench.METADATA_NAME).open("a") as file:
        file.write("v,d,0,0,dog,exam,v1m\n")
    assert main([str(small_raw_dir), "--dry-run"]) == 3
    assert main([str(small_raw_dir), "--dry-run", "--strict"]) == 2
    assert "line 5: split 'exam'" in capsys.readouterr().err


def test_nothing_usable(small_raw_dir, tmp_path, capsys):
    for path in small_raw_dir.rglob("audio.wav"):
        path.write_bytes(b"")
    for where in (["--out", str(tmp_path / "data")], ["--dry-run"]):
        arguments = [str(small_raw_dir), *where, "--json", str(tmp_path / "j")]
        assert main(arguments) == 2
        said = capsys.readouterr()
        assert "error: nothing usable in" in said.err.splitlines()[-1]
        assert "0 usable" in said.out
        report = json.loads((tmp_path / "j").read_text())
        assert report["exit_code"] == 2 and report["clips"]["left_out"] == 3
    assert [p.name for p in (tmp_path / "data").rglob("*")] == ["avs_clips.lock"]


def test_a_dry_run_writes_nothing(small_raw_dir, tmp_path, capsys):
    spoil(small_raw_dir)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    assert main([str(small_raw_dir), "--dry-run", "--json", "-"]) == 3
    report = json.loads(capsys.readouterr().out)
    assert report["written"] is None and report["clips"]["usable"] == 2
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before
    # It says the same as when something is written.
    prepare(small_raw_dir, tmp_path / "data", strict=False, progress=False)
    written = json.loads((tmp_path / "data" / "report.json").read_text())
    assert written.pop("written")["bytes"] > 0
    report.pop("written")
    assert written == report


def test_where_nothing_may_be_written(small_raw_dir, tmp_path, capsys):
    (tmp_path / "link").symlink_to(small_raw_dir)
    before = contents(small_raw_dir)
    for out in (small_raw_dir, small_raw_dir / "deep" / "er", tmp_path / "link" / "data"):
        assert main([str(small_raw_dir), "--out", str(out)]) == 2
        assert "inside the data folder" in capsys.readouterr().err
    assert contents(small_raw_dir) == before
    (tmp_path / "file").write_text("")
    assert main([str(small_raw_dir), "--out", str(tmp_path / "file")]) == 2
    assert "cannot prepare" in capsys.readouterr().err
    assert main([str(small_raw_dir), "--dry-run", "--html", str(tmp_path / "no" / "page")]) == 2
    assert "cannot write the report" in capsys.readouterr().err
    for option in ("--json", "--html"):
        arguments = [str(small_raw_dir), "--out", str(tmp_path / "data"), option]
        for path, words in (
            (small_raw_dir / "report", "inside the data folder"),
            (tmp_path / "link" / "report", "inside the data folder"),
            (tmp_path / "no" / "report", "no folder"),
            (tmp_path, "is no file"),
            ("", "is no file"),
        ):
            assert main([*arguments, str(path)]) == 2
            assert words in capsys.readouterr().err
    assert main([str(small_raw_dir), "--out", ""]) == 2
    assert "empty name" in capsys.readouterr().err
    assert contents(small_raw_dir) == before and not (tmp_path / "data").exists()
    # A report beside the prepared data, in a folder that is not there yet.
    page = tmp_path / "data" / "page.html"
    assert main([str(small_raw_dir), "--out", str(tmp_path / "data"), "--html", str(page)]) == 0
    assert page.is_file()


def test_options_that_cannot_be(small_raw_dir, tmp_path, capsys):
    for flags, words in (
        (["--size=0"], "size is 0"),
        (["--workers=0"], "workers is 0"),
        (["--subsets", "v1s", "v3"], "no clips of v3 in"),
    ):
        assert main([str(small_raw_dir), "--dry-run", *flags]) == 2
        assert words in capsys.readouterr().err
    assert main([str(tmp_path / "none"), "--dry-run"]) == 2
    assert "data folder missing" in capsys.readouterr().err


def test_size_and_subsets(raw_dir, tmp_path):
    out = tmp_path / "data"
    assert main([str(raw_dir), "--out", str(out), "--size", "24", "--subsets", "v1s", "v1m"]) == 0
    source = open_source(out, "train")
    assert {clip.subset for clip in source.clips} == {"v1s", "v1m"}
    picture = tmp_path / "frame.jpg"
    picture.write_bytes(source[0]["frames"][0])
    with Image.open(picture) as image:
        assert image.size == (24, 24) and image.format == "JPEG"
    # What was made with other options is something else.
    assert main([str(raw_dir), "--out", str(out), "--subsets", "v1s", "v1m"]) == 2


def test_a_folder_without_labels(tmp_path):
    for name in ("one", "two"):
        (tmp_path / "raw" / name / "frames").mkdir(parents=True)
        for t in range(3):
            path = tmp_path / "raw" / name / "frames" / f"{t}.png"
            Image.new("RGB", (20, 10), (9, 9, 9 * t)).save(path)
        noise = np.random.default_rng(0).normal(size=48000) / 10
        soundfile.write(tmp_path / "raw" / name / "audio.wav", noise, 16000)
    prepare(tmp_path / "raw", tmp_path / "data", progress=False)
    source = open_source(tmp_path / "data", next(iter(splits(tmp_path / "data"))))
    assert source.clips[0].labelled == () and source.clips[0].seconds == 3
    assert len(source[0]["frames"]) == 3 and len(source[0]["labels"]) == 0


def test_stills_in_stereo(tmp_path):
    """One picture for all seconds, and a source that stands on the left."""
    Image.new("RGB", (20, 10)).save(tmp_path / "still.png")
    label = np.zeros((10, 20), np.uint8)
    label[:, :5] = 1
    Image.fromarray(label).save(tmp_path / "label.png")
    noise = np.random.default_rng(0).normal(size=48000) / 10
    soundfile.write(tmp_path / "sound.wav", noise, 16000)
    clip = RawClip(
        subset="vpo_ss",
        uid="x",
        split="test",
        seconds=3,
        frames=(tmp_path / "still.png",),
        labels=((0, tmp_path / "label.png"),),
        label_encoding="ids",
        sounds=(Sound(tmp_path / "sound.wav", position=0.125),),
        centred=True,
    )
    table = RawTable("test", (tmp_path,), ("background", "dog"), (clip,), "00", stereo=True)
    job = jobs.Job(tmp_path, table, ReadOptions(stereo=True), progress=False)
    jobs.store(job, tmp_path / "data")
    source = open_source(tmp_path / "data", "test")
    assert source.stereo and source.binary_only == ()
    assert source.clips[0].still and source.clips[0].seconds == 3
    assert source.clips[0].objects == (1,) and source.clips[0].labelled == (0,)
    record = source[0]
    assert len(record["frames"]) == len(record["labels"]) == 1
    assert record["waveform"].shape == (48000, 2) and source.clips[0].mono_is_sum
    left, right = record["waveform"].T.astype(int)
    np.testing.assert_allclose(left, 7 * right, atol=4)
    mono = heard(source.clips[0], record["waveform"], 1)
    np.testing.assert_allclose(mono[:, 0], noise, atol=2 / 32768)


# ---- the report


def a_clip(name, split, **changes):
    subset, uid = name.split("/")
    path = Path("x")
    given = dict(seconds=5, frames=(path,) * 5, labels=((0, path),), sounds=(Sound(path),))
    return RawClip(subset=subset, uid=uid, split=split, **{**given, **changes})


def a_record(sound, frames=("f",), silent=0, pixels=None, objects=(1,), findings=()):
    facts = {
        "pixels": pixels or {"0": 90, "1": 10},
        "label_pixels": 100,
        "ignored_pixels": 100 - sum((pixels or {"0": 100}).values()),
        "classes": 2,
        "empty_masks": 0,
        "silent_seconds": silent,
        "seconds": 5,
        "repaired_seconds": 0,
        "mono_is_sum": False,
        "sound_digest": sound,
        "frame_digests": [sound + frame for frame in frames],
        "objects": list(objects),
        "stored_frames": 5,
    }
    return Record(findings, facts)


def report_of(clips, records, **changes):
    table = RawTable("a layout", (Path("x"),), ("background", "dog", "cat"), tuple(clips), "00")
    table = RawTable(**{**table.__dict__, **changes})
    return folder_report.gather(
        Path("folder"),
        table,
        records,
        fingerprint="00",
        options={"size": None, "stereo": False},
        written=None,
    )


def test_duplicates_across_splits():
    names = {
        "v1s/abc_1000_6000": ("train", "1"),
        "v1s/xyz_0_5000": ("test", "1"),  # the same sound and frames
        "v1m/abc_0": ("val", "2"),  # the same video
        "v2/abc_9_0_10000": ("test", "3"),  # another video, whose name begins alike
        "v2/rst_0_10000": ("test", "4"),
        "v2/rst_9_19": ("test", "5"),  # the same video, but in one split
    }
    clips = [a_clip(name, split) for name, (split, _) in names.items()]
    records = [a_record(sound) for _, sound in names.values()]
    found = {(d["what"], *d["clips"]) for d in report_of(clips, records)["duplicates"]}
    assert found == {
        ("sound", "train: v1s/abc_1000_6000", "test: v1s/xyz_0_5000"),
        ("frame", "train: v1s/abc_1000_6000", "test: v1s/xyz_0_5000"),
        ("video", "train: v1s/abc_1000_6000", "val: v1m/abc_0"),
    }
    # Silence is the same everywhere.
    records = [a_record(sound, frames=(), silent=5) for _, sound in names.values()]
    assert {d["what"] for d in report_of(clips, records)["duplicates"]} == {"video"}


def test_counts_and_shares():
    findings = (Finding("repaired", "v1m/b", "sound short", "why"),) * 2
    clips = [
        a_clip("v1s/a", "train"),
        a_clip("v1m/b", "train", labels=((0, Path("x")), (4, Path("y")))),
        a_clip("v1m/c", "test"),
    ]
    records = [
        a_record("1"),
        a_record("2", pixels={"0": 50, "2": 50}, objects=(2,), findings=findings, silent=2),
        Record((Finding("left out", "v1m/c", "no sound", "why"),), {}),
    ]
    expected = {("v1s", "train"): 3, ("v1m", "train"): 1, ("v2", "val"): 9}
    outside = (Finding("left out", "v1m/d", "bad name", "why"),)
    report = report_of(clips, records, expected=expected, findings=outside)
    assert report["clips"] == {"found": 4, "usable": 2, "left_out": 2, "repaired": 1}
    assert report["exit_code"] == 3
    keys = ("subset", "split", "clips", "published", "frames", "labelled", "left_out")
    rows = [tuple(row[key] for key in keys) for row in report["subsets"]]
    assert rows == [
        ("v1s", "train", 1, 3, 5, 1, 0),
        ("v1m", "train", 1, 1, 5, 2, 0),
        ("v1m", "test", 0, None, 0, 0, 1),
        ("v2", "val", 0, 9, 0, 0, 0),
        ("v1m", "not known", 0, None, 0, 0, 1),
    ]
    assert [(c["share"], c["clips"]) for c in report["classes"]] == [(0.7, 0), (0.05, 1), (0.25, 1)]
    assert (report["seconds"], report["silent_seconds"], report["label_maps"]) == (10, 2, 3)
    assert report["counts"]["repaired"] == {"sound short": 2}
    said = report_text.text(report, "there")
    assert "2 missing" in said and "complete" in said and "9 missing" in said
    assert "2 usable (1 of them repaired), 2 left out" in said
    assert report_text.table_lines(report)[-1].split() == ["all", "2", "10", "3", "2"]
    assert "<td>not known</td>" in folder_page.page(report, ())
    assert json.loads(json.dumps(report)) == report


def test_ignored_pixels_are_told_apart():
    clips = [a_clip("vpo_ss/a", "train"), a_clip("vpo_ss/b", "train")]
    report = report_of(clips, [a_record("1", pixels={"0": 30, "1": 10}), a_record("2")])
    assert (report["ignored_pixels"], report["ignored_share"]) == (60, 0.3)
    shares = [c["share"] for c in report["classes"]]
    assert shares == [120 / 140, 20 / 140, 0]
    assert "; 30.0% of the pixels are ignored" in report_text.text(report, "there")
    assert "<dd>30.0% of the pixels" in folder_page.page(report, ())
    none = report_of(clips, [a_record("1"), a_record("2")])
    assert "ignored" not in report_text.text(none, "") + folder_page.page(none, ())


def test_what_was_mended_in_vain_is_not_told():
    clips = [a_clip("v1s/a", "train"), a_clip("v1s/b", "train")]
    findings = [Finding(kind, "v1s/b", "a fault", "why") for kind in ("repaired", "left out")]
    nowhere = Finding("left out", "", "no name", "why")
    records = [a_record("1"), Record(tuple(findings), {})]
    report = report_of(clips, records, findings=(nowhere,))
    assert report["counts"]["repaired"] == {} and report["clips"]["repaired"] == 0
    assert [row["left_out"] for row in report["subsets"]] == [1, 1]
    assert report["subsets"][1]["subset"] == report["subsets"][1]["split"] == "not known"
    assert sum(report["counts"]["left out"].values()) == report["clips"]["left_out"] == 2


def test_text_stays_short():
    findings = [
        Finding(kind, f"v2/{i}", f"code {i % 5}", f"message {i}")
        for i in range(300)
        for kind in folder_report.KINDS
    ]
    clips = [
        a_clip(f"{subset}/{i}_0_{split}", split)
        for i in range(20)
        for subset in ("v1s", "v1m", "v2")
        for split in ("train", "val", "test")
    ]
    records = [a_record(clip.uid[:2]) for clip in clips]
    report = report_of(clips, records, findings=tuple(findings))
    lines = report_text.text(report, "report.json").splitlines()
    assert len(lines) <= 45
    assert "  ... and 295 more, see report.json" in lines


def test_strange_names_in_text_and_page():
    nasty = "\x1b[31m<script>alert('\udcff\u202e日本')</script>&\n"
    finding = (Finding("noticed", nasty, "code", nasty),)
    clips = [
        dataclasses.replace(a_clip("v2/a", split), uid=nasty + split) for split in ("train", "test")
    ]
    more = {"layout": nasty, "class_names": ("background", nasty)}
    records = [a_record("1", objects=(1,), pixels={"1": 5})] * 2
    report = report_of(clips, records, findings=finding, **more)
    assert report["duplicates"]
    said = report_text.text(report, "there")
    sample = folder_page.Sample(nasty, "v2", (np.zeros((4, 4, 3), np.uint8),), np.zeros(8))
    page = folder_page.page(report, [sample])
    for text in (said, page, json.dumps(report)):
        text.encode("utf-8")
        assert "\x1b" not in text and "\u202e" not in text
    assert "日本" in said and "日本" in page
    assert "<script" not in page and page.count("&lt;script&gt;") == 9


def test_page_is_complete_in_itself(raw_dir, tmp_path):
    path = tmp_path / "page.html"
    assert main([str(raw_dir), "--dry-run", "--html", str(path)]) == 0
    page = path.read_text(encoding="utf-8")
    assert page.count("<figure ") >= 3 * 3 and page.count("data:image/jpeg;base64,") > 20
    assert "emergency-car" in page and "http" not in page.replace("http-equiv", "")
    assert "{{" not in page and "{%" not in page
    assert page.count("<style>") == 1 and "prefers-color-scheme: dark" in page


def test_labels_lie_over_frames(raw_dir):
    table = read_table(raw_dir)
    sample = folder_page.samples(table, ReadOptions())[0]
    frame = sample.frames[0].astype(int)
    # A cat, (128, 0, 0), in the left half; clip 0 is (0, 0, 100) all over.
    assert abs(frame[16, 4] - (70, 0, 45)).max() < 8
    assert frame[16, 15].min() > 200  # the outline
    assert abs(frame[16, 28] - (0, 0, 100)).max() < 8
    assert 0.1 < sample.loudness.max() <= 1
