"""The folder of a run."""

import json

import pytest

from aavs_jax.errors import UserError
from aavs_jax.workdir import FREE_KEYS, Workdir, read_rows, state_of_files

CONFIG = {
    "seed": 1,
    "checkpoint_every": 100,
    "data": {"folder": "", "num_workers": 0, "cache": True},
    "mesh": {"fsdp": 1},
    "schedule": ("localise",),
}


def begin(root, config=CONFIG):
    """A run that has trained something, and has ended."""
    Workdir(root, config, "avss")
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
    Workdir(root, CONFIG, "avss")
    record = json.loads((root / "config.json").read_text())
    assert record["config"] == json.loads(json.dumps(CONFIG))
    assert record["config_name"] == "avss"
    assert record["command"].startswith("python -m aavs_jax.main")
    assert {"python", "jax", "flax", "optax", "aavs_jax"} <= record["versions"].keys()
    assert record["processes"] == 1
    assert [path.name for path in root.iterdir()] == ["config.json"]


def test_the_same_config_takes_it_up_again_and_the_record_stays(tmp_path):
    begin(tmp_path)
    before = (tmp_path / "config.json").read_bytes()
    assert Workdir(tmp_path, CONFIG, "avss").record == json.loads(before)
    assert (tmp_path / "config.json").read_bytes() == before


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("seed", 2, "seed was 1, is 2"),
        ("data.folder", "/x", "data.folder was '', is '/x'"),
        ("schedule", ["localise", "understand"], "schedule was"),
    ],
)
def test_another_config_is_refused_by_the_key_that_differs(tmp_path, key, value, words):
    begin(tmp_path)
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(UserError, match="was made by another config") as error:
        Workdir(tmp_path, with_value(key, value), "avss")
    assert words in str(error.value) and "--workdir" in str(error.value)
    assert (tmp_path / "config.json").read_bytes() == before


def test_missing_and_new_keys_count_and_are_counted(tmp_path):
    begin(tmp_path)
    config = with_value("seed", 2)
    config["new"] = 1
    with pytest.raises(UserError, match=r"new was None, is 1 and 1 more"):
        Workdir(tmp_path, config, "avss")


@pytest.mark.parametrize(("key", "value"), [("data.cache", False), ("checkpoint_every", 7)])
def test_keys_that_change_no_figure_are_free(tmp_path, key, value):
    assert key in FREE_KEYS
    begin(tmp_path)
    Workdir(tmp_path, with_value(key, value), "avss")


def test_a_run_that_trained_nothing_leaves_its_folder_to_the_mended_config(tmp_path):
    with Workdir(tmp_path, CONFIG, "avss").timed("data"):
        pass
    mended = with_value("data.folder", "/right")
    workdir = Workdir(tmp_path, mended, "avss")
    assert workdir.record["config"]["data"]["folder"] == "/right"
    assert json.loads((tmp_path / "config.json").read_text()) == workdir.record
    assert workdir.times() == {}


def test_a_foreign_folder_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="not empty and was not made by this program"):
        Workdir(tmp_path, CONFIG, "avss")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_an_empty_folder_and_one_killed_at_its_first_write_are_taken(tmp_path):
    empty, killed = tmp_path / "empty", tmp_path / "killed"
    empty.mkdir()
    Workdir(empty, CONFIG, "avss")
    killed.mkdir()
    (killed / ".config.json.partial").write_text('{"config')
    Workdir(killed, CONFIG, "avss")
    assert [path.name for path in killed.iterdir()] == ["config.json"]


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
        Workdir(tmp_path, CONFIG, "avss")


@pytest.mark.parametrize("content", ["", '{"config": ', "[]", "{}", "7"])
def test_a_damaged_record_is_one_sentence(tmp_path, content):
    begin(tmp_path)
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=r"config\.json is damaged"):
        Workdir(tmp_path, CONFIG, "avss")


def test_other_versions_are_said(tmp_path, capsys):
    begin(tmp_path)
    record = json.loads((tmp_path / "config.json").read_text())
    record["versions"]["jax"] = "0.0.1"
    (tmp_path / "config.json").write_text(json.dumps(record))
    Workdir(tmp_path, CONFIG, "avss")
    assert "other versions" in capsys.readouterr().err


def test_a_file_in_the_way_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(UserError, match="Cannot write"):
            Workdir(root, CONFIG, "avss")
    assert (tmp_path / "file").read_text() == ""


def test_times_add_up_over_starts_and_a_torn_line_does_no_harm(tmp_path):
    workdir = Workdir(tmp_path, CONFIG, "avss")
    assert workdir.times() == {}
    lines = [{"what": "data", "seconds": 1.5}, {"what": "localise/a", "seconds": 2.0}]
    content = "".join(json.dumps(line) + "\n" for line in [*lines, lines[0]])
    (tmp_path / "times.jsonl").write_text(content + '{"what": "da')
    assert workdir.times() == {"data": 3.0, "localise/a": 2.0}
    with pytest.raises(ZeroDivisionError), workdir.timed("failed"):
        raise ZeroDivisionError
    assert "failed" not in workdir.times()


def test_rows_come_back(tmp_path):
    workdir = Workdir(tmp_path, CONFIG, "avss")
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


def test_rows_of_a_time_when_nan_was_written(tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps([row(float("nan")), row(0.5)]))
    assert "NaN" in path.read_text()
    assert read_rows(path) == [row(None), row(0.5)]


@pytest.mark.parametrize(
    "content", [b"", b'[{"stage": ', b"{}", b"[1]", b'[{"stage": "s"}]', b"\xff"]
)
def test_damaged_rows_are_one_sentence(tmp_path, content):
    path = tmp_path / "results.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"{path} is damaged: delete it and start the command"):
        read_rows(path)


def test_a_run_made_before_a_key_goes_on_with_its_default(tmp_path):
    begin(tmp_path)
    newer = {"eval": {"protocols": "stepping_stones", "save_masks": False}, "init": {"allow": ()}}
    Workdir(tmp_path, CONFIG | newer, "avss")
    newer["eval"]["protocols"] = "cavp"
    with pytest.raises(UserError, match="eval.protocols was 'stepping_stones', is 'cavp'"):
        Workdir(tmp_path, CONFIG | newer, "avss")


@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_a_run_made_before_a_stages_key_goes_on_with_what_it_did(tmp_path, rate):
    """Rising drop-path rates of both branches: of no matter where the rate is 0."""

    def config(**keys):
        backbone = {"drop_path_rate": rate}
        stage = {"model": {"backbone": backbone}}
        for key, value in keys.items():
            (backbone if key.startswith("drop") else stage)[key] = value
        return CONFIG | {"stages": {"understand": stage}}

    begin(tmp_path, config())
    then = {"drop_path_schedule": "linear", "drop_path_branches": "both"}
    now = {"drop_path_schedule": "constant", "drop_path_branches": "attention"}
    Workdir(tmp_path, config(**then, best_over_phases="last"), "avss")
    with pytest.raises(UserError, match="understand.best_over_phases was 'last', is 'all'"):
        Workdir(tmp_path, config(**then, best_over_phases="all"), "avss")
    if rate:
        with pytest.raises(UserError, match="drop_path_branches was 'both', is 'attention'"):
            Workdir(tmp_path, config(**now, best_over_phases="last"), "avss")
    else:
        Workdir(tmp_path, config(**now, best_over_phases="last"), "avss")


def test_every_picture_that_changes_is_noticed(tmp_path):
    masks = tmp_path / "masks"
    (masks / "a").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (masks / "a" / "0.png").write_bytes(b"1")
    (masks / "nothing.png").symlink_to(tmp_path / "none")
    (masks / "circle").symlink_to(masks)
    states = [state_of_files(masks)]

    def changed():
        states.append(state_of_files(masks))
        return len(set(states)) == len(states)

    assert not changed()  # nothing did
    states.pop()
    (masks / "a" / "1.PNG").write_bytes(b"1")
    assert changed()
    (masks / "a" / "1.PNG").write_bytes(b"22")
    assert changed()
    (masks / "b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "0.png").write_bytes(b"1")
    assert changed()
    (tmp_path / "elsewhere" / "0.png").write_bytes(b"22")
    assert changed()
    (masks / "nothing.png").unlink()
    (masks / "notes.txt").write_text("no picture")
    assert not changed()
