"""What a notebook shows: a run's curves while it trains, and the pages that commands write."""

import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from aavs_jax.errors import UserError
from aavs_jax.report.learning_curves import FRAME, learning_curves
from aavs_jax.run.logging_writer import read_metrics
from data_pipelines.pages import embedded, render

LAST_LINES = 30  # of what a command says, that stay to be read
STAGE_HEIGHT, LINE_HEIGHT = 360, 60  # pixels


class Page:
    """A page that a command has written, which a notebook shows when it is the value of a cell.

    Page("runs/avss/report/index.html")
    """

    def __init__(self, path: str | Path, height: int = 900):
        """
        Args:
          path: of the file.
          height: pixels; the page scrolls.

        Raises:
          UserError: there is no such file.
        """
        if not Path(path).is_file():
            raise UserError(f"there is no page {path}: run the command that writes it")
        self._path, self._height = Path(path), height

    def _repr_html_(self) -> str:
        return embedded(self._path.read_text("utf-8"), self._height)


class Curves:
    """The learning curves of a run as they are now, in a notebook."""

    def __init__(self, workdir: str | Path, said: str = ""):
        """
        Args:
          workdir: the folder of the run.
          said: a line above the curves.
        """
        self._metrics, self._said = Path(workdir) / "metrics.jsonl", said

    def _repr_html_(self) -> str:
        stages = learning_curves(read_metrics(self._metrics))
        template = Path(__file__).with_name("curves.html")
        page = render(template, stages=stages, frame=FRAME, said=self._said)
        return embedded(page, LINE_HEIGHT + STAGE_HEIGHT * len(stages))


def watch(command: str, *, every: float = 3.0) -> None:
    """Runs a command that trains, in a process of its own, and shows its curves meanwhile.

        watch("python -m aavs_jax.main --config=configs/avss.py --workdir=runs/avss")

    When it ends its last lines are printed. Interrupting the cell is Ctrl-C for the command, which
    saves its state: the same cell, run again, resumes.

    Args:
      command: as one types it, with --workdir=DIR.
      every: seconds between two looks at the curves.

    Raises:
      UserError: it is another command, or it failed.
    """
    # Whoever runs notebooks has it; nothing else here needs it.
    from IPython.display import display

    words = shlex.split(command)
    workdir = next((w.partition("=")[2] for w in words if w.startswith("--workdir=")), "")
    if words[:2] != ["python", "-m"] or not workdir:
        raise UserError("watch takes a command 'python -m aavs_jax.main ... --workdir=DIR'")
    words[0] = sys.executable
    with tempfile.NamedTemporaryFile() as log:
        view = display(Curves(workdir, "starting"), display_id=True)
        process = subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT)
        try:
            while process.poll() is None:
                view.update(Curves(workdir, (_lines(log.name) or ["starting"])[-1]))
                try:
                    process.wait(every)
                except subprocess.TimeoutExpired:
                    continue
        except KeyboardInterrupt:
            process.wait()  # the interrupt has reached it, too
            raise
        finally:
            process.kill()
            view.update(Curves(workdir))
            print("\n".join(_lines(log.name)[-LAST_LINES:]))
    if process.returncode:
        raise UserError(f"the command ended with exit code {process.returncode}; see above why")


def _lines(path: str) -> list[str]:
    """What a command has said so far, without empty lines at the end."""
    return Path(path).read_text("utf-8", errors="replace").rstrip().splitlines()
