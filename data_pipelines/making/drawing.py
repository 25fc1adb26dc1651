"""What the made data sets share in drawing clips: sounds switched and mixed, objects moved."""

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import numpy as np

from data_pipelines.facts import avsbench
from data_pipelines.making.compositions import Clip, Composition


def switch(active: np.ndarray, fade: float = 0.01) -> np.ndarray:
    """Envelope of a source that is on in some seconds, with fades (s) inside those seconds.

    Args:
      active: bool [T].

    Returns:
      float64 [T * 16000] in [0, 1]; exactly 0 in every second that is off.
    """
    rate = avsbench.SAMPLE_RATE
    ramp = (np.arange(int(fade * rate)) + 0.5) / int(fade * rate)
    envelope = np.repeat(active.astype(np.float64), rate)
    padded = np.concatenate([[False], active, [False]])
    for t in np.flatnonzero(active):
        start, end = t * rate, (t + 1) * rate
        if not padded[t]:
            envelope[start : start + ramp.size] = ramp
        if not padded[t + 2]:
            envelope[end - ramp.size : end] = ramp[::-1]
    return envelope


def noise_floor(rng: np.random.Generator, seconds: int) -> np.ndarray:
    """The faint noise of a recorder, 0.001 to 0.003 root mean square. float64 [T * 16000]."""
    floor = rng.uniform(0.001, 0.003) * np.sqrt(12)  # uniform noise has a variance of 1/12
    return floor * (rng.random(seconds * avsbench.SAMPLE_RATE) - 0.5)


def loudness(rng: np.random.Generator) -> float:
    """Root mean square of one source: -23 dB, 4 dB more or less."""
    return 0.07 * 10 ** (rng.uniform(-4, 4) / 20)


def mix(
    sources: Iterable[tuple[Any, np.ndarray]],
    seconds: int,
    rng: np.random.Generator,
    voice: Callable[[Any, np.random.Generator, int], np.ndarray],
) -> np.ndarray:
    """Sounds of a clip added up over a faint noise floor.

    Args:
      sources: pairs (what `voice` makes sound, active bool [seconds]).
      seconds: T.
      rng: chance.
      voice: (what, rng, seconds) -> float64 [T * 16000], root mean square about 1.

    Returns:
      int16 [T * 16000], scaled down where samples would not fit.
    """
    waveform = noise_floor(rng, seconds)
    for what, active in sources:
        level = loudness(rng)
        waveform += level * switch(active) * voice(what, rng, seconds)
    waveform = waveform * min(1.0, 0.98 / np.abs(waveform).max())
    return np.round(waveform * 32768).astype(np.int16)


def drifting_paths(rng: np.random.Generator, radii: np.ndarray, seconds: int) -> np.ndarray:
    """Where objects are: slow drifts on slightly bent lines that mostly avoid each other.

    Args:
      rng: chance.
      radii: float64 [count], as parts of the frame's side.
      seconds: T.

    Returns:
      Centres, float64 [count, T, 2] (x, y), as parts of the frame's side.
    """
    steps = np.linspace(0, 1, seconds)
    centres = np.zeros((len(radii), seconds, 2))
    for i, radius in enumerate(radii):
        tries = 64
        margin = 0.85 * radius  # a corner may leave the frame
        start = rng.uniform(margin, 1 - margin, (tries, 2))
        heading = rng.uniform(0, 2 * np.pi, tries)
        length = rng.uniform(0.08, 0.32 if seconds <= 5 else 0.45, tries)
        end = start + length[:, None] * np.stack([np.cos(heading), np.sin(heading)], -1)
        end = np.clip(end, margin, 1 - margin)
        move = end - start
        bend = rng.uniform(-0.25, 0.25, (tries, 1)) * np.stack([-move[:, 1], move[:, 0]], -1)
        lines = start[:, None] + steps[:, None] * move[:, None]
        lines = lines + np.sin(np.pi * steps)[:, None] * bend[:, None]
        lines = np.clip(lines, margin, 1 - margin)
        # How far it stays clear of the others at its worst second; some overlap is welcome.
        clear = np.full(tries, np.inf)
        for other in range(i):
            apart = np.hypot(*np.moveaxis(lines - centres[other], -1, 0)).min(axis=1)
            clear = np.minimum(clear, apart - 0.82 * (radius + radii[other]))
        good = np.flatnonzero(clear >= 0)
        centres[i] = lines[good[0] if good.size else int(np.argmax(clear))]
    return centres


class Sprite(Protocol):
    """An object that can be drawn anywhere."""

    def place(self, centre, growth: float, angle: float, size: int):
        """(rows, columns), slices of a frame of `size` pixels, and over them colours float64
        [h, w, 3] and coverage float64 [h, w], all in [0, 1]."""


def paint(
    rng: np.random.Generator,
    plan: Composition,
    frames: np.ndarray,
    objects: Iterable[tuple[np.ndarray, Sprite]],
    spread: tuple[float, float, float],
    waveform: np.ndarray,
) -> Clip:
    """Draws the objects of a plan over its background.

    Args:
      rng: chance.
      plan: of the clip.
      frames: float64 [T, S, S, 3], the background, drawn over in place.
      objects: of each the path, float64 [T, 2] (x, y), and its looks, in drawing order.
      spread: the most by which an object is turned, turns, and grows over the clip.
      waveform: int16 [T * 16000].
    """
    seconds, size = frames.shape[:2]
    turned, turns, grows = spread
    owners = np.zeros((seconds, size, size), np.uint8)
    labels = np.zeros((seconds, size, size), np.uint8)
    for i, (item, (path, sprite)) in enumerate(zip(plan.objects, objects, strict=True)):
        angles = rng.uniform(-turned, turned) + np.linspace(0, rng.uniform(-turns, turns), seconds)
        growth = np.linspace(1, 1 + rng.uniform(-grows, grows), seconds)
        for t in range(seconds):
            rows, columns, solid = stick(frames[t], sprite, path[t], growth[t], angles[t])
            owners[t, rows, columns][solid] = i + 1
            labels[t, rows, columns][solid] = item.class_id if item.active[t] else 0
    return Clip(plan, develop(rng, frames), labels, owners, waveform)


def stick(frame: np.ndarray, sprite: Sprite, centre, growth: float, angle: float):
    """Draws an object over a frame, float64 [S, S, 3], in place.

    Returns:
      (rows, columns), slices of the frame, and over them bool [h, w]: where it hides the rest.
    """
    rows, columns, colours, coverage = sprite.place(centre, growth, angle, len(frame))
    patch = frame[rows, columns]
    patch += coverage[..., None] * (colours - patch)
    return rows, columns, coverage > 0.5


def develop(rng: np.random.Generator, frames: np.ndarray) -> np.ndarray:
    """Frames, float64 [T, S, S, 3] in [0, 1], with the camera's grain, as uint8. In place."""
    frames += (rng.random((*frames.shape[:3], 1)) - 0.5) * (6 / 255)
    return np.round(np.clip(frames, 0, 1) * 255).astype(np.uint8)
