"""A process of its own for each run."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from aavs_jax.compare import running

SAVING = """
import sys, time
try:
    print("ready", file=sys.stderr, flush=True)
    for _ in range(600):  # short ones: a signal just before a sleep begins does not end it
        time.sleep(0.1)
except KeyboardInterrupt:
    time.sleep(0.5)
    open(sys.argv[1], "w").write("saved")
    sys.exit(130)
"""


def python(program: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", program, *arguments]


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("pass", ""),
        (
            "import sys; print('error: no such data'); print('error: no room', file=sys.stderr);"
            "print('bye', file=sys.stderr); sys.exit(2)",
            "no room",
        ),
        ("raise RuntimeError('too large')", "exit code 1: RuntimeError: too large"),
        ("import sys; sys.exit(3)", "exit code 3: it said nothing"),
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
            "it was ended by SIGKILL, by which a system ends what takes too much memory, too",
        ),
    ],
)
def test_why_a_run_has_failed(program, reason):
    assert running.run(python(program)) == reason


def test_what_it_says_is_seen_as_it_comes(capfd):
    program = "import sys; print('out'); print('error: one', file=sys.stderr)"
    assert running.run(python(program)) == ""
    assert capfd.readouterr() == ("out\n", "error: one\n")


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_stopped_saves_first(tmp_path, by, capfd):
    before = signal.getsignal(signal.SIGINT)
    saved = tmp_path / "saved"

    def stop():
        while "ready" not in capfd.readouterr().err:
            time.sleep(0.05)
        os.kill(os.getpid(), by)

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        running.run(python(SAVING, str(saved)))
    thread.join()
    assert saved.read_text() == "saved"
    assert signal.getsignal(signal.SIGINT) is before


def test_a_terminals_ctrl_c_reaches_it_once(tmp_path):
    """A terminal signals its whole process group, of which the run is none."""
    saved = tmp_path / "saved"
    program = (
        "import sys\nfrom aavs_jax.compare import running\n"
        "try:\n    running.run(sys.argv[1:])\nexcept KeyboardInterrupt:\n    sys.exit(130)"
    )
    with subprocess.Popen(
        python(program, *python(SAVING, str(saved))),
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    ) as process:
        while "ready" not in process.stderr.readline():
            pass
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(30) == 130
    assert saved.read_text() == "saved"
