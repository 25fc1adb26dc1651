"""What the training steps of a run took."""

import statistics
import struct
from collections.abc import Iterator
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event

# `metrics.jsonl` holds no times, so that equal runs write it alike; TensorBoard's events do.
HEAD = struct.Struct("<QI")  # of a record: its length, and a check of that
TAIL = 4  # bytes behind it, a check of its content


def step_seconds(run: Path, phase: str) -> float | None:
    """What a training step takes: the median over pairs of lines of the log, one after the other.

    So compiling, validation and stops, which lie between some of them, do not count.

    Args:
      run: its folder.
      phase: '<stage>/<phase>'.

    Returns:
      None where there are not two lines.
    """
    found = []
    for path in sorted((run / "tensorboard" / phase).glob("events*")):
        lines = [
            (event.step, event.wall_time)
            for event in _events(path)
            if any(value.tag == "train/loss" for value in event.summary.value)
        ]
        found += [
            (after - before) / (step - earlier)
            for (earlier, before), (step, after) in zip(lines, lines[1:], strict=False)
            if step > earlier
        ]
    return statistics.median(found) if found else None


def _events(path: Path) -> Iterator[Event]:
    """Those of a file, which a kill may have torn at its end."""
    content, at = path.read_bytes(), 0
    while at + HEAD.size <= len(content):
        length, _ = HEAD.unpack_from(content, at)
        at += HEAD.size
        if at + length + TAIL > len(content):
            return
        yield Event.FromString(content[at : at + length])
        at += length + TAIL
