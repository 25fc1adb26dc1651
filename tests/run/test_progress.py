"""Messages and bars."""

import re
import time

from aavs_jax.run import progress
from aavs_jax.run.progress import compiling, progress_bar


def test_progress_in_a_log_is_plain_lines(capsys, monkeypatch):
    monkeypatch.setattr(progress, "LOG_INTERVAL", 0.05)
    with progress_bar(6, 2, "localise/all") as bar:
        for _ in range(4):
            time.sleep(0.03)
            bar.set_postfix(loss=3.25, refresh=False)
            bar.update(1)
    text = capsys.readouterr().err
    lines = text.splitlines()
    assert "\r" not in text and "\x1b" not in text and all(lines)
    assert lines[0].startswith("localise/all: 2/6 (33%)")
    assert lines[-1].startswith("localise/all: 6/6 (100%)") and "loss=3.25" in lines[-1]
    assert 3 <= len(lines) <= 5


def test_progress_in_a_log_is_rare(capsys):
    with progress_bar(1000, 0, "quick") as bar:
        for _ in range(1000):
            bar.update(1)
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_compiling_has_lines_of_its_own_and_no_part_in_estimates(capsys):
    with progress_bar(101, 0, "localise/all") as bar, progress_bar(10, 0, enabled=False):
        start, last = bar.start_t, bar.last_print_t
        for _ in range(2):
            with compiling("localise/all", "the training step"):
                time.sleep(0.3)
            bar.update(1)
        # tqdm's estimate is of the steps since the last line, and at first of all since the start.
        assert bar.start_t - start >= 0.6 and bar.last_print_t - last >= 0.6
    out = capsys.readouterr().out.splitlines()
    assert out[::2] == ["[localise/all] compiling the training step"] * 2
    for line in out[1::2]:
        assert re.fullmatch(r"\[localise/all\] compiled in \d+\.\d s", line)
