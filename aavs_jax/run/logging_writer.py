"""Scalars and pictures of a run: `metrics.jsonl` and TensorBoard events.

`metrics.jsonl` is the record that the report reads and that two equal runs on one CPU write bit for
bit alike: it holds no times. TensorBoard's events carry the wall clock themselves.
"""

import contextlib
import io
import json
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from aavs_jax.errors import UserError
from aavs_jax.run.files import replace_file, writing


@contextlib.contextmanager
def _without_torch() -> Iterator[None]:
    """tensorboardX imports torch where there is one, which takes longer than all that is needed."""
    hide = "torch" not in sys.modules
    if hide:
        sys.modules["torch"] = None
    try:
        yield
    finally:
        if hide:
            del sys.modules["torch"]


with _without_torch():
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event, SessionLog
    from tensorboardX.proto.summary_pb2 import Summary

METRICS_NAME = "metrics.jsonl"
SYNC_INTERVAL = 15.0  # seconds between syncs of TensorBoard's files

_IDENTITY = ("stage", "phase", "step", "kind")
# JSON has no such numbers, and a null would hide which of them it was.
_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class LoggingWriter:
    """Appends scalars to `<workdir>/metrics.jsonl` and to TensorBoard events.

    Every phase is a TensorBoard run of its own (`<workdir>/tensorboard/<stage>/<phase>`), since its
    steps start at 0 again. Lines reach the operating system as they are written, so a killed
    process loses none; one it tore in two is cut off when the next writer opens the file.

    TensorBoard files are written without a thread in between: the queue of tensorboardX's own
    writer blocks for ever once its thread has died of a full disk.
    """

    def __init__(self, workdir: str | os.PathLike, *, enabled: bool = True):
        """Opens the files.

        Args:
          workdir: folder of the run; made if missing.
          enabled: False makes every method do nothing (all processes of a host group but one).

        Raises:
          UserError: the folder cannot be written.
        """
        self._path = Path(workdir) / METRICS_NAME
        self._board_dir = Path(workdir) / "tensorboard"
        self._enabled = enabled
        self._lines = None
        self._board = None
        self._board_run = None
        self._board_files = 0
        self._synced = 0.0
        if enabled:
            with writing(self._path):
                self._path.parent.mkdir(parents=True, exist_ok=True)
                _cut_torn_line(self._path)
                self._lines = open(self._path, "ab")

    def __enter__(self) -> "LoggingWriter":
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def write_scalars(
        self, stage: str, phase: str, step: int, scalars: Mapping[str, object], kind: str = "train"
    ) -> None:
        """Appends one line `{"stage", "phase", "step", "kind", name: value, ...}`.

        Args:
          stage, phase: which learning curve.
          step: optimiser steps done in this phase.
          scalars: name -> number (Python, NumPy or a 0-d array).
          kind: "train" or "val".

        Raises:
          ValueError: a scalar is called like one of the four identifying fields.
          UserError: the disk is full or the folder cannot be written.
        """
        if taken := set(scalars) & set(_IDENTITY):
            raise ValueError(f"scalars may not be called {sorted(taken)}")
        if not self._enabled:
            return
        values = {name: _number(value) for name, value in scalars.items()}
        line = {"stage": stage, "phase": phase, "step": int(step), "kind": kind}
        line |= {name: _encode(value) for name, value in values.items()}
        with writing(self._path):
            self._lines.write(_to_line(line))
            self._lines.flush()
        summary = Summary(
            value=[Summary.Value(tag=f"{kind}/{n}", simple_value=v) for n, v in values.items()]
        )
        self._add_event(f"{stage}/{phase}", Event(step=int(step), summary=summary))

    def write_image(self, tag: str, step: int, image: np.ndarray) -> None:
        """Adds a picture, uint8 [H, W, 3], to the TensorBoard run `pictures`."""
        if not self._enabled:
            return
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "png")
        picture = Summary.Image(
            height=image.shape[0],
            width=image.shape[1],
            colorspace=3,
            encoded_image_string=buffer.getvalue(),
        )
        summary = Summary(value=[Summary.Value(tag=tag, image=picture)])
        self._add_event("pictures", Event(step=int(step), summary=summary))

    def rewind(self, stage: str, phase: str, step: int) -> None:
        """Forgets what a phase wrote after `step`, because these steps are about to be replayed.

        Without it a run that was killed and continued would hold them twice. Other phases keep
        their lines. A phase that starts from nothing rewinds to -1, which drops its step 0 too.

        Args:
          stage, phase: whose lines.
          step: the restored checkpoint's step; its own lines stay.

        Raises:
          UserError: the file is damaged or cannot be written.
        """
        if not self._enabled:
            return
        lines = _read_raw(self._path)
        kept = [
            line
            for line in lines
            if (line["stage"], line["phase"]) != (stage, phase) or line["step"] <= step
        ]
        if len(kept) < len(lines):
            self._lines.close()
            replace_file(self._path, b"".join(map(_to_line, kept)))
            with writing(self._path):
                self._lines = open(self._path, "ab")
        # A session start makes TensorBoard hide the run's events from this step on.
        start = SessionLog(status=SessionLog.START)
        self._add_event(f"{stage}/{phase}", Event(step=max(int(step) + 1, 0), session_log=start))

    def flush(self) -> None:
        """Puts everything written so far on the disk."""
        if not self._enabled:
            return
        with writing(self._path):
            self._lines.flush()
            os.fsync(self._lines.fileno())
            if self._board is not None:
                self._board.flush()

    def close(self) -> None:
        """Flushes and closes; closing twice is harmless."""
        if not self._enabled or self._lines.closed:
            return
        with writing(self._path):
            self._lines.close()
            self._close_board()

    def _add_event(self, run: str, event: Event) -> None:
        with writing(self._board_dir):
            if run != self._board_run:
                self._close_board()
                folder = self._board_dir / run
                folder.mkdir(parents=True, exist_ok=True)
                # The name holds whole seconds only; the suffix keeps quick successors apart.
                self._board_files += 1
                suffix = f".{os.getpid()}.{self._board_files}"
                self._board = EventsWriter(str(folder / "events"), suffix)
                self._board_run = run
            event.wall_time = time.time()
            self._board.write_event(event)
            if time.monotonic() - self._synced > SYNC_INTERVAL:
                self._board.flush()
                self._synced = time.monotonic()

    def _close_board(self) -> None:
        if self._board is not None:
            self._board.close()
        self._board = self._board_run = None


def read_metrics(path: str | os.PathLike) -> list[dict]:
    """The lines of a `metrics.jsonl`, oldest first; a torn last line is left out.

    Returns:
      One dict per line: stage, phase, step, kind and the scalars, NaN and infinities as floats.
      Empty if there is no such file.

    Raises:
      UserError: a line other than the last is damaged.
    """
    return [
        {
            name: _NON_FINITE.get(value, value)
            if isinstance(value, str) and name not in _IDENTITY
            else value
            for name, value in line.items()
        }
        for line in _read_raw(Path(path))
    ]


def _number(value) -> int | float:
    if isinstance(value, (int, np.integer)):
        return int(value)
    return float(value)


def _encode(value: int | float) -> int | float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")


def _to_line(line: dict) -> bytes:
    return json.dumps(line, allow_nan=False).encode() + b"\n"


def _read_raw(path: Path) -> list[dict]:
    if not path.exists():
        return []
    lines = []
    rows = path.read_bytes().split(b"\n")
    for number, row in enumerate(rows, 1):
        if number == len(rows):
            break  # what follows the last newline: nothing, or the torn half of a line
        try:
            line = json.loads(row)
            if not all(name in line for name in _IDENTITY):
                raise ValueError
        except (ValueError, TypeError):
            raise UserError(
                f"{path}, line {number}, is damaged: delete this line and start the command again."
            ) from None
        lines.append(line)
    return lines


def _cut_torn_line(path: Path) -> None:
    if not path.exists():
        return
    with open(path, "rb+") as file:
        content = file.read()
        end = content.rfind(b"\n") + 1
        if end < len(content):
            file.truncate(end)
