"""The folder of a run."""

import json

import pytest

from aavs_jax.errors import UserError
from aavs_jax.run.resuming import FREE_KEYS
from aavs_jax.run.workdir import Workdir, read_rows

CONFIG = {
    "seed": 1,
    "checkpoint_every": 100,
    "data": {"folder": "", "num_workers": 0, "cache": True},
    "mesh": {"fsdp": 1},
    "schedule": ("localise",),
}


def take(root, config, name="avss", data=None):
    """A run that takes the folder and ends."""
    with Workdir(root, config, name, data) as workdir:
        return workdir


def begin(root):
    """A run that has trained something, and has ended."""
    take(root, CONFIG)
    (root / "metrics.jsonl").write_text("")


def with_value(key, value):
    config = json.loads(json.dumps(CONFIG))
    *parents, last = key.split(".")
    inner = config
    for name in parents:
        inner = inner[name]
    assert inner[last] != value
    inner[last] = value
    return config


def test_it_records_what_was_run(tmp_path):
    root = tmp_path / "new" / "run"
    take(root, CONFIG)
    record = json.loads((root / "config.json").read_text())
    assert record["config"] == json.loads(json.dumps(CONFIG))
    assert record["config_name"] == "avss"
    assert record["command"].startswith("python -m aavs_jax.main")
    assert {"python", "jax", "flax", "optax", "aavs_jax"} <= record["versions"].keys()
    assert record["processes"] == 1
    assert {path.name for path in root.iterdir()} == {"config.json", ".lock"}


def test_the_same_config_takes_it_up_again_and_the_record_stays(tmp_path):
    begin(tmp_path)
    before = (tmp_path / "config.json").read_bytes()
    assert take(tmp_path, CONFIG).record == json.loads(before)
    assert (tmp_path / "config.json").read_bytes() == before


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("seed", 2, "seed was 1, is 2"),
        ("data.folder", "/x", "data.folder was '', is '/x'"),
        ("schedule", ["understand"], "schedule was"),
    ],
)
def test_another_config_is_refused_by_the_key_that_differs(tmp_path, key, value, words):
    begin(tmp_path)
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(UserError, match="was made by another config") as error:
        take(tmp_path, with_value(key, value))
    assert words in str(error.value) and "--workdir" in str(error.value)
    assert (tmp_path / "config.json").read_bytes() == before


def test_missing_and_new_keys_count_and_are_counted(tmp_path):
    begin(tmp_path)
    config = with_value("seed", 2)
    config["new"] = 1
    with pytest.raises(UserError, match=r"new was None, is 1 and 1 more"):
        take(tmp_path, config)


@pytest.mark.parametrize(
    ("key", "value"), [("data.cache", False), ("checkpoint_every", 7), ("data.num_workers", 2)]
)
def test_keys_that_change_no_figure_are_free(tmp_path, key, value):
    assert key in FREE_KEYS
    begin(tmp_path)
    take(tmp_path, with_value(key, value))


def test_a_run_that_trained_nothing_leaves_its_folder_to_the_mended_config(tmp_path):
    with Workdir(tmp_path, CONFIG, "avss").timed("data"):
        pass
    mended = with_value("data.folder", "/right")
    workdir = take(tmp_path, mended)
    assert workdir.record["config"]["data"]["folder"] == "/right"
    assert json.loads((tmp_path / "config.json").read_text()) == workdir.record
    assert workdir.times() == {}


def test_a_foreign_folder_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="not empty and was not made by this program"):
        take(tmp_path, CONFIG)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_an_empty_folder_and_one_killed_at_its_first_write_are_taken(tmp_path):
    empty, killed = tmp_path / "empty", tmp_path / "killed"
    empty.mkdir()
    take(empty, CONFIG)
    killed.mkdir()
    (killed / ".config.json.partial").write_text('{"config')
    take(killed, CONFIG)
    assert {path.name for path in killed.iterdir()} == {"config.json", ".lock"}


@pytest.mark.parametrize("begun", [False, True])
def test_a_folder_in_use_is_refused_and_no_byte_of_it_changes(tmp_path, begun):
    """Also by a command of another config while the first one is still preparing data."""
    with Workdir(tmp_path, CONFIG, "avss") as first:
        if begun:
            (tmp_path / "metrics.jsonl").write_text("")
        with first.timed("data"):
            pass
        before = contents(tmp_path)
        for config in (CONFIG, with_value("seed", 2)):
            with pytest.raises(UserError, match="another"):
                take(tmp_path, config)
        assert contents(tmp_path) == before
    assert take(tmp_path, CONFIG).record == first.record


def contents(folder):
    return {
        path: (path.read_bytes(), path.stat().st_mtime_ns) for path in sorted(folder.rglob("*"))
    }


def test_a_folder_in_use_is_refused(tmp_path):
    with Workdir(tmp_path, CONFIG, "avss"):
        with pytest.raises(UserError, match=f"another process is running in {tmp_path}"):
            with Workdir(tmp_path, CONFIG, "avss"):
                pass
    with Workdir(tmp_path, CONFIG, "avss"):
        pass


def test_another_number_of_processes_is_refused(tmp_path):
    begin(tmp_path)
    record = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(record | {"processes": 4}))
    with pytest.raises(UserError, match="processes were 4, are 1"):
        take(tmp_path, CONFIG)


@pytest.mark.parametrize("content", ["", '{"config": ', "[]", "{}", "7"])
def test_a_damaged_record_is_one_sentence(tmp_path, content):
    begin(tmp_path)
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=r"config\.json is damaged"):
        take(tmp_path, CONFIG)


def test_other_versions_are_said(tmp_path, capsys):
    begin(tmp_path)
    record = json.loads((tmp_path / "config.json").read_text())
    record["versions"]["jax"] = "0.0.1"
    (tmp_path / "config.json").write_text(json.dumps(record))
    take(tmp_path, CONFIG)
    assert "other versions" in capsys.readouterr().err


def test_a_file_in_the_way_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(UserError, match="cannot write"):
            take(root, CONFIG)
    assert (tmp_path / "file").read_text() == ""


def test_times_add_up_over_starts_and_a_torn_line_does_no_harm(tmp_path):
    workdir = take(tmp_path, CONFIG)
    assert workdir.times() == {}
    lines = [{"what": "data", "seconds": 1.5}, {"what": "localise/a", "seconds": 2.0}]
    content = "".join(json.dumps(line) + "\n" for line in [*lines, lines[0]])
    (tmp_path / "times.jsonl").write_text(content + '{"what": "da')
    assert workdir.times() == {"data": 3.0, "localise/a": 2.0}
    with pytest.raises(ZeroDivisionError), workdir.timed("failed"):
        raise ZeroDivisionError
    assert "failed" not in workdir.times()


def test_rows_come_back(tmp_path):
    workdir = take(tmp_path, CONFIG)
    path = tmp_path / "localise" / "results.json"
    assert read_rows(path) is None
    rows = [row(0.1 + 0.2), row(None)]
    workdir.write_rows(path, rows)
    assert read_rows(path) == rows
    before = path.read_bytes()
    with pytest.raises(ValueError, match="not JSON compliant"):
        workdir.write_rows(path, [row(float("nan"))])
    assert path.read_bytes() == before


def row(value):
    return {"stage": "s", "split": "test", "protocol": "cavp", "metric": "J", "value": value}


@pytest.mark.parametrize(
    "content", [b"", b'[{"stage": ', b"{}", b"[1]", b'[{"stage": "s"}]', b"\xff"]
)
def test_damaged_rows_are_one_sentence(tmp_path, content):
    path = tmp_path / "results.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"{path} is damaged: delete it and start the command"):
        read_rows(path)


# ---- data


def test_a_run_notices_that_its_data_changed(tmp_path):
    root, data = tmp_path / "run", tmp_path / "data"
    with Workdir(root, CONFIG, "avss") as workdir:
        assert workdir.known_data() is None
        workdir.keep_to_data(data, "1")
        workdir.keep_to_data(data, "2")  # nothing was trained with the first
        assert workdir.known_data() == "2"
        (root / "metrics.jsonl").write_text("")
        workdir.keep_to_data(data / "elsewhere", "2")
        before = contents(root)
        with pytest.raises(UserError, match=f"{data} are not those that {root} was begun with"):
            workdir.keep_to_data(data, "3")
        assert contents(root) == before


def test_the_same_data_may_lie_elsewhere(tmp_path):
    moved = with_value("data.folder", "/moved")
    with Workdir(tmp_path, CONFIG, "avss") as workdir:
        workdir.keep_to_data(tmp_path / "data", "1")
        (tmp_path / "metrics.jsonl").write_text("")
    for data in (None, "2"):
        with pytest.raises(UserError, match="data.folder was '', is '/moved'"):
            take(tmp_path, moved, data=data)
    assert take(tmp_path, moved, data="1").record["config"]["data"]["folder"] == "/moved"
    assert (
        json.loads((tmp_path / "config.json").read_text())["config"]["data"]["folder"] == "/moved"
    )
