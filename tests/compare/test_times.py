"""How long a step takes, out of the log of a run."""

import pytest

from aavs_jax.compare import times
from aavs_jax.run.logging_writer import LoggingWriter


def test_neither_compiling_nor_validation_count(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("aavs_jax.run.logging_writer.time.time", lambda: now[0])
    with LoggingWriter(tmp_path) as writer:
        writer.rewind("localise", "all", -1)
        for step in range(10, 101, 10):
            now[0] += 3.0
            writer.write_scalars("localise", "all", step, {"loss": 1.0})
            if step == 50:
                now[0] += 60.0
                writer.write_scalars("localise", "all", step, {"J": 0.5}, kind="val")
    assert times.step_seconds(tmp_path, "localise/all") == pytest.approx(0.3)
    assert times.step_seconds(tmp_path, "understand/all") is None


def test_a_file_that_a_kill_tore_is_read_to_there(tmp_path):
    with LoggingWriter(tmp_path) as writer:
        for step in (1, 2, 3):
            writer.write_scalars("localise", "all", step, {"loss": 1.0})
    (path,) = (tmp_path / "tensorboard" / "localise" / "all").glob("events*")
    whole = len(list(times._events(path)))
    path.write_bytes(path.read_bytes()[:-5])
    assert len(list(times._events(path))) == whole - 1
    assert times.step_seconds(tmp_path, "localise/all") >= 0
