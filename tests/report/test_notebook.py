"""What a notebook shows, and how it watches a command."""

import html
import json
import re
import sys
import types

import pytest

from aavs_jax.errors import UserError
from aavs_jax.report import notebook
from data_pipelines.pages import embedded


def inner(shown: str) -> str:
    """The page within what a notebook is given."""
    return html.unescape(re.fullmatch(r'<div><iframe srcdoc="([^"]*)" .*></div>', shown, re.S)[1])


@pytest.fixture
def shown(monkeypatch, tmp_path):
    """The pages that a notebook would show, each in place of the one before.

    The command can go on when its words and its curves have been seen: there is a file `seen`.
    """
    seen = []

    def update(value):
        seen.append(inner(value._repr_html_()))
        if "best J 0.250" in seen[-1] and "it &lt;trains&gt;" in seen[-1]:
            (tmp_path / "run" / "seen").touch()

    def display(value, display_id):
        update(value)
        return types.SimpleNamespace(update=update)

    module = types.SimpleNamespace(display=display)
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    return seen


@pytest.fixture
def command(tmp_path, monkeypatch):
    """A function: body -> a command that runs it, with WORKDIR, in place of training."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "run").mkdir()

    def make(body: str) -> str:
        head = f"import pathlib, sys\nWORKDIR = pathlib.Path({str(tmp_path / 'run')!r})\n"
        (tmp_path / "pretends.py").write_text(head + body)
        return f"python -m pretends --workdir='{tmp_path / 'run'}'"

    return make


def test_a_page_within_another_is_what_it_was():
    page = '<p title="a &amp; b">\n</iframe></div>&lt;'
    assert inner(embedded(page, 300)) == page
    assert "height:300px" in embedded(page, 300)


def test_a_page_of_a_file(tmp_path):
    (tmp_path / "index.html").write_text("<p>größer")
    assert inner(notebook.Page(tmp_path / "index.html")._repr_html_()) == "<p>größer"
    with pytest.raises(UserError, match="there is no page .*other.html"):
        notebook.Page(tmp_path / "other.html")


def test_curves_appear_while_the_command_runs(command, shown, capsys):
    line = {"stage": "localise", "phase": "all", "step": 4, "kind": "val", "J": 0.25}
    text = command(
        "print('it <trains>', flush=True)\n"
        f"(WORKDIR / 'metrics.jsonl').write_text({json.dumps(line) + chr(10)!r})\n"
        "import time\n"
        "for _ in range(3000):\n"
        "    if (WORKDIR / 'seen').exists(): sys.exit(print('done'))\n"
        "    time.sleep(0.01)\n"
        "sys.exit('nobody looked')\n"
    )
    notebook.watch(text, every=0.05)
    assert "best J 0.250" in shown[-1]
    assert capsys.readouterr().out.splitlines() == ["it <trains>", "done"]


def test_a_command_that_fails_says_why(command, shown, capsys):
    with pytest.raises(UserError, match="exit code 2"):
        notebook.watch(command("print('error: no data')\nsys.exit(2)\n"), every=0.05)
    assert capsys.readouterr().out == "error: no data\n"


@pytest.mark.parametrize("text", ["ls --workdir=a", "python -m aavs_jax.main --config=a", ""])
def test_other_commands_are_refused(text, shown):
    with pytest.raises(UserError, match="--workdir=DIR"):
        notebook.watch(text)
    assert not shown


def test_an_interrupt_waits_until_the_state_is_saved(command, shown, capsys, monkeypatch):
    """It reaches the command by itself, as both are in the foreground."""
    text = command("import time\ntime.sleep(0.5)\nprint('saved')\nsys.exit(130)\n")
    waits = []

    class Interrupted(notebook.subprocess.Popen):
        def wait(self, timeout=None):
            waits.append(timeout)
            if timeout is not None:
                raise KeyboardInterrupt
            return super().wait()

    monkeypatch.setattr(notebook.subprocess, "Popen", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        notebook.watch(text, every=0.05)
    assert capsys.readouterr().out == "saved\n" and waits[:2] == [0.05, None]
