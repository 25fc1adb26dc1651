"""Messages and bars."""

import time

from aavs_jax import progress
from aavs_jax.progress import progress_bar


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
