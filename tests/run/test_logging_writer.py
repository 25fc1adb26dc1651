import json
import math
import os
import time

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

from aavs_jax.errors import UserError
from aavs_jax.run.files import replace_file
from aavs_jax.run.logging_writer import LoggingWriter, read_metrics


def write_steps(writer, phase, steps, loss=1.0):
    for step in steps:
        writer.write_scalars("localise", phase, step, {"loss": loss + step})


def steps_of(path, phase):
    return [line["step"] for line in read_metrics(path) if line["phase"] == phase]


def events_of(folder):
    """All events of a folder's files, oldest first, read by the record format alone."""
    events = []
    for path in sorted(folder.glob("events*"), key=lambda p: p.stat().st_mtime_ns):
        content = path.read_bytes()
        at = 0
        while at < len(content):
            length = int.from_bytes(content[at : at + 8], "little")
            events.append(Event.FromString(content[at + 12 : at + 12 + length]))
            at += 16 + length
    return events


def test_lines_hold_what_was_written(tmp_path):
    with LoggingWriter(tmp_path) as writer:
        writer.write_scalars("localise", "all", 10, {"loss": np.float32(0.5), "loss/class": 2})
        writer.write_scalars("localise", "all", 10, {"J": 0.25}, kind="val")
    assert read_metrics(tmp_path / "metrics.jsonl") == [
        dict(stage="localise", phase="all", step=10, kind="train", loss=0.5) | {"loss/class": 2},
        dict(stage="localise", phase="all", step=10, kind="val", J=0.25),
    ]


def test_two_equal_runs_write_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        with LoggingWriter(tmp_path / name) as writer:
            write_steps(writer, "all", range(3), loss=1 / 3)
        time.sleep(0.01)
    assert (tmp_path / "a/metrics.jsonl").read_bytes() == (
        tmp_path / "b/metrics.jsonl"
    ).read_bytes()


def test_numbers_that_json_lacks_survive_in_valid_json(tmp_path):
    with LoggingWriter(tmp_path) as writer:
        writer.write_scalars("s", "p", 0, {"a": math.nan, "b": math.inf, "c": -np.inf})

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=refuse)
    (line,) = read_metrics(tmp_path / "metrics.jsonl")
    assert math.isnan(line["a"]) and line["b"] == math.inf and line["c"] == -math.inf


def test_line_is_on_file_before_the_writer_is_closed(tmp_path):
    writer = LoggingWriter(tmp_path)
    write_steps(writer, "all", [0])
    assert steps_of(tmp_path / "metrics.jsonl", "all") == [0]
    writer.close()
    writer.close()


def test_rewind_drops_later_steps_of_that_phase_alone(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with LoggingWriter(tmp_path) as writer:
        write_steps(writer, "a", range(5))
        write_steps(writer, "b", range(5))
        writer.rewind("localise", "b", 2)
        write_steps(writer, "b", [3, 4], loss=100.0)
    assert steps_of(path, "a") == [0, 1, 2, 3, 4]
    assert steps_of(path, "b") == [0, 1, 2, 3, 4]
    assert read_metrics(path)[-1]["loss"] == 104.0
    with LoggingWriter(tmp_path) as writer:
        writer.rewind("localise", "b", -1)
    assert steps_of(path, "b") == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["metrics.jsonl", "tensorboard"]


def test_torn_last_line_is_ignored_and_then_cut_off(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with LoggingWriter(tmp_path) as writer:
        write_steps(writer, "all", [0, 1])
    path.write_bytes(path.read_bytes()[:-9])
    assert steps_of(path, "all") == [0]
    with LoggingWriter(tmp_path) as writer:
        write_steps(writer, "all", [1])
    assert steps_of(path, "all") == [0, 1]


def test_damage_in_the_middle_is_reported_with_its_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with LoggingWriter(tmp_path) as writer:
        write_steps(writer, "all", [0, 1, 2])
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([lines[0], b'{"stage": 3', *lines[2:]]))
    with pytest.raises(UserError, match="line 2"):
        read_metrics(path)


def test_no_file_means_no_lines(tmp_path):
    assert read_metrics(tmp_path / "metrics.jsonl") == []


def test_tensorboard_gets_scalars_pictures_and_the_rewind(tmp_path):
    image = np.zeros((4, 6, 3), np.uint8)
    with LoggingWriter(tmp_path) as writer:
        write_steps(writer, "all", [7])
        writer.write_image("clip", 3, image)
        writer.rewind("localise", "all", 5)  # a second file of the run, within the same second
    events = events_of(tmp_path / "tensorboard/localise/all")
    scalars = [e for e in events if e.summary.value]
    assert [(e.step, e.summary.value[0].tag) for e in scalars] == [(7, "train/loss")]
    assert scalars[0].summary.value[0].simple_value == 8.0
    assert [e.step for e in events if e.HasField("session_log")] == [6]
    (picture,) = [e for e in events_of(tmp_path / "tensorboard/pictures") if e.summary.value]
    assert picture.step == 3 and picture.summary.value[0].image.width == 6


def test_disabled_writer_leaves_no_trace(tmp_path):
    with LoggingWriter(tmp_path, enabled=False) as writer:
        write_steps(writer, "all", [0])
        writer.write_image("clip", 0, np.zeros((2, 2, 3), np.uint8))
        writer.rewind("localise", "all", 0)
        writer.flush()
    assert list(tmp_path.iterdir()) == []


def test_reserved_names_are_refused(tmp_path):
    with LoggingWriter(tmp_path) as writer, pytest.raises(ValueError, match="step"):
        writer.write_scalars("s", "p", 0, {"step": 1})


def test_unwritable_workdir_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot write .*metrics.jsonl.*--workdir"):
        LoggingWriter(tmp_path / "file" / "run")


def test_failed_replacement_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "page"
    replace_file(path, b"old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left"):
        replace_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["page"]
