"""The command: what it runs, what it reads, what it refuses, and its page."""

import json
import re

import pytest

from aavs_jax.compare.__main__ import main

THREE = "--configs=avss,avss_end_to_end,avsegformer"


@pytest.fixture
def compare(faked, data, tmp_path):
    """A function: flags -> the exit code; the folder is tmp_path / "out". It shows no clips."""

    def run(*flags: str) -> int:
        always = [f"--data={data}", f"--workdir={tmp_path / 'out'}", "--config.eval.examples=0"]
        return main([*always, *flags])

    return run


def page(tmp_path) -> str:
    return (tmp_path / "out" / "index.html").read_text()


def numbers(tmp_path) -> dict:
    return json.loads((tmp_path / "out" / "results.json").read_text())


def test_every_config_with_every_seed(compare, faked, tmp_path, capsys):
    assert compare("--configs=avss,avss_end_to_end", "--seeds=1,3", "--budget=frames=480") == 0
    assert faked.started == [
        *("avss-seed1", "measure avss-seed1"),
        *("avss_end_to_end-seed1", "measure avss_end_to_end-seed1"),
        *("avss-seed3", "avss_end_to_end-seed3"),
    ]
    out = capsys.readouterr().out
    assert "*** run 1 of 4: avss, seed 1; 3 to follow" in out
    assert re.search(r"\*\*\* run 4 of 4: avss_end_to_end, seed 3; 0 to follow\n", out)
    # Every command can be typed again.
    assert "*** python -m aavs_jax.main --config=configs/avss.py:" in out
    found = numbers(tmp_path)
    assert [run["frames_seen"] for run in found["runs"]] == [480, 480, 480, 480]
    # 24 steps of half a second are 480 frames.
    assert found["runs"][0]["frames_per_second"] == pytest.approx(40)
    # Both stages, and what made the data is nobody's.
    assert (found["runs"][0]["training_seconds"], found["runs"][0]["seconds"]) == (120, 180)
    assert found["systems"]["avss"]["parameters"] == 2_160_301


def test_the_table_at_the_end(compare, capsys):
    assert compare("--configs=avss,avss_end_to_end", "--seeds=1,3,2") == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    scores, costs = lines[:4], lines[4:]
    assert len({line.count("|") for line in scores}) == len({c.count("|") for c in costs}) == 1
    head, _, stones, one_stage = ([c.strip() for c in line.split("|")[1:-1]] for line in scores)
    assert head[1:5] == [
        *("where: J, its own sound", "where: J, another clip's", "where: J, silence"),
        "where: J, lost with another's",
    ]
    # Median and range of the seeds; the first prior, not the true masks.
    assert stones[:3] == ["`avss`", "0.820 (0.810-0.830)", "0.320 (0.310-0.330)"]
    assert stones[4] == "0.500" and stones[5] == "**0.820** (0.810-0.830)"
    # It tells classes only.
    assert one_stage[:5] == ["`avss_end_to_end`", "-", "-", "-", "-"]
    assert one_stage[5] == "**0.820** (0.810-0.830)"
    assert "| training, frames seen |" in costs[0] and "| 2.16 | 0.25 | 70 |" in costs[2]


def test_what_is_complete_is_read_again(compare, faked, tmp_path):
    assert compare("--configs=avss_end_to_end", "--budget=frames=400") == 0
    before = page(tmp_path)
    (tmp_path / "out" / "index.html").unlink()
    faked.started.clear()
    assert compare("--configs=avss_end_to_end", "--budget=frames=400") == 0
    assert not faked.started and page(tmp_path) == before
    # Seeds and configs may be added.
    assert compare(THREE, "--budget=frames=400", "--seeds=3407,1") == 0
    assert faked.started.count("avss_end_to_end-seed3407") == 0
    assert len(numbers(tmp_path)["runs"]) == 6


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--budget=frames=500"], "its budget was frames=400, is frames=500"),
        (["--budget=frames=400", "--config.log_every=2"], "its keys was"),
        (["--budget=frames=400", "--data=shapes"], "its data was"),
    ],
)
def test_another_comparison_is_refused(compare, faked, capsys, flags, said):
    assert compare("--configs=avss_end_to_end", "--budget=frames=400") == 0
    faked.started.clear()
    assert compare("--configs=avss_end_to_end", *flags) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("error: the folder ") and said in error
    assert not faked.started


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--configs=avs"], "there is no file"),
        (["--configs=,"], "nothing is named"),
        (["--configs=avss", "--seeds=one"], "should be whole numbers"),
        (["--configs=avss", "--budget=epochs=1"], "epochs=1 is no budget"),
        (["--configs=avss", "--bugdet=frames=1"], "what is '--bugdet=frames=1'"),
        (["--configs=avss", "--budget=frames=1", "--config.epochs=3"], "both say how long"),
        (["--configs=avss", "--config.seed=5"], "give --seeds=3407,1,2"),
        (["--configs=avss", "--data=nowhere"], "there is no data folder"),
        ([], "--configs"),
    ],
)
def test_mistakes_are_a_sentence(compare, faked, tmp_path, capsys, flags, said):
    assert compare(*flags) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("error: ") and said in error
    assert not faked.started
    # What data there are is known late; of all else nothing is left.
    assert "--data=nowhere" in flags or not (tmp_path / "out").exists()


def test_a_run_that_fails_stops_no_other(compare, faked, tmp_path, capsys):
    faked.reasons["avss_end_to_end-seed3407"] = "the loss is NaN at step 7"
    assert compare(THREE) == 1
    assert faked.started[-1] == "measure avsegformer-seed3407"
    error = capsys.readouterr().err
    assert error == "error: avss_end_to_end, seed 3407 failed: the loss is NaN at step 7\n"
    assert "<dt>avss_end_to_end, seed 3407</dt><dd>the loss is NaN at step 7</dd>" in page(tmp_path)
    assert "2 of 3 are complete, 1 failed" in page(tmp_path)
    # It is tried again, and the page says no more of it.
    faked.reasons.clear()
    assert compare(THREE) == 0
    assert "the loss is NaN" not in page(tmp_path)


def test_ctrl_c_says_how_to_resume(compare, faked, tmp_path, capsys):
    faked.stops.add("avss_end_to_end-seed3407")
    assert compare(THREE) == 130
    error = capsys.readouterr().err
    assert "stopped: the same command resumes avss_end_to_end, seed 3407; " in error
    assert "has the 1 of 3 runs that are complete" in error
    assert "1 of 3 are complete" in page(tmp_path)
    faked.stops.clear()
    faked.started.clear()
    assert compare(THREE) == 0
    assert faked.started[0] == "avss_end_to_end-seed3407"


def test_minutes_are_measured_once(compare, faked, tmp_path):
    assert compare("--configs=avss_end_to_end", "--budget=minutes=1") == 0
    assert faked.started[:2] == ["avss_end_to_end-pilot", "avss_end_to_end-seed3407"]
    # Steps take half a second.
    (run,) = numbers(tmp_path)["runs"]
    assert run["frames_seen"] == 120 * 20
    faked.started.clear()
    assert compare("--configs=avss_end_to_end", "--budget=minutes=1", "--seeds=3407,1") == 0
    assert faked.started == ["avss_end_to_end-seed1"]


def test_what_cannot_be_timed_has_failed(compare, faked, tmp_path):
    faked.reasons["avss-pilot"] = "no room"
    assert compare("--configs=avss,avss_end_to_end", "--budget=minutes=1") == 1
    assert list(numbers(tmp_path)["failed"]) == ["avss"]
    assert [run["system"] for run in numbers(tmp_path)["runs"]] == ["avss_end_to_end"]


def test_the_page(compare, tmp_path):
    assert compare(THREE, "--seeds=1,3") == 0
    text = page(tmp_path)
    for head in ("Scores", "Size and time", "Learning curves", "By every protocol", "Runs"):
        assert f"<h2>{head}</h2>" in text
    assert text.count('<svg class="chart"') == 2  # where and what
    # Of each system one line in the legend, and two seeds in the chart.
    what = text[text.index("<h3>What: mIoU</h3>") :]
    assert what[: what.index("</ul>")].count("<li>") == 3
    assert text.count('class="curve faint"') >= 2
    for protocol in ("avsbench", "avsegformer", "combo", "cavp"):
        assert f"<h3>{protocol}</h3>" in text
    assert "2.16" in text and "0.25" in text  # million parameters, GFLOP
    assert 'href="avss-seed1/report/index.html"' in text
    assert "is still told what stage" in text


def test_clips_side_by_side(compare, data, tmp_path):
    assert compare("--configs=avss,avss_end_to_end", "--config.eval.examples=6") == 0
    text = page(tmp_path)
    clips = text[text.index("<h2>The same clips</h2>") :]
    # Three clips of the test split; frame, truth and two systems; three seconds, and one more with
    # another clip's sound.
    assert clips.count("<article") == 3
    assert clips.count("<img") == 3 * 4 * 4
    first = clips[: clips.index("</article>")]
    heads = re.findall(r'<span class="head">(.*?)</span>', first)
    assert heads == ["frame", "truth", "avss", "avss_end_to_end"]
    assert "another clip&#39;s sound</span>" in first and first.count("<audio") == 2


def test_another_comparison_in_the_same_folder_waits_for_nobody(compare, faked, tmp_path, capsys):
    from aavs_jax.compare import record

    with record.held(tmp_path / "out"):
        assert compare("--configs=avss") == 2
    assert "another comparison is running in" in capsys.readouterr().err
