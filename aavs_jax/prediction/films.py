"""The films of a clip, made while it is predicted: one with its masks, and one for the page."""

import contextlib
import dataclasses
import math
import queue
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

import cv2
import numpy as np

from aavs_jax.prediction.network import Network
from aavs_jax.prediction.painting import Painter
from aavs_jax.prediction.result import Result, at_size
from aavs_jax.prediction.sources import Clip, open_pictures
from aavs_jax.prediction.stream import Span, Streaming
from aavs_jax.run.progress import progress_bar
from data_pipelines.media.film_writer import FilmWriter, SoundTrack
from data_pipelines.media.films import Shown

UNKNOWN = 24 * 3600.0  # s that a clip is taken to last at most where its file does not say
PAGE_FILM = "page.mp4"  # which the page takes into itself
PAGE_CRF = 28  # its quality
SMALL_SIDE = 640  # pixels of the longer side of the film in a page
MOST_FRAMES = 9000  # of the film in a page: five minutes at 30 frames a second
# Of a clip whose length is not known all of the first frames are kept, then ever fewer: at a moment
# this many times as far apart as it is late. So more than an hour fits.
_ALL_OF_THE_FIRST = 3000
_GAP = 1 / 1250


@dataclasses.dataclass(frozen=True)
class Mark:
    """What was found at a moment: `grid` is uint8 [G,G], class ids; `seconds` as in `Shown`."""

    seconds: float
    grid: np.ndarray


def small_size(width: int, height: int) -> tuple[int, int]:
    """Width and height of a page's film: even, the longer at most `SMALL_SIDE`, none enlarged."""
    scale = min(1.0, SMALL_SIDE / max(width, height))
    return max(2, round(width * scale / 2) * 2), max(2, round(height * scale / 2) * 2)


def write_films(
    shown: Iterable[Shown],
    marks: Iterable[Mark],
    *,
    overlay: FilmWriter | None = None,
    painter: Painter | None = None,
    small: FilmWriter | None = None,
    duration: float | None = None,
) -> int:
    """Writes the films of a clip in one pass over its frames, and finishes them.

    Each frame shows the mark that is nearest in time; of two that are equally near, the earlier.

    Args:
      shown: all frames of the video, in order of time.
      marks: in order of time; no more of them are taken than one after each frame, and none
        where there is no overlay.
      overlay: film of the frames' size, which gets them with the masks painted over them.
      painter: paints the overlay.
      small: film for a page, see `small_size`, which gets them unpainted, at most `MOST_FRAMES`:
        of longer clips frames are left out evenly.
      duration: of the clip, s, until when the last frame is shown; None: not known.

    Returns:
      How many frames were shown.

    Raises:
      MediaError: a film cannot be written, or there was no frame.
    """
    nearest, kept = _Nearest(marks), _Kept(duration)
    count, last, gap = 0, 0.0, 0.0
    for frame in shown:
        picture = None
        if overlay is not None:
            picture = frame.picture()
            mask = nearest.mask(frame.seconds, picture.shape[:2])
            painted = picture if mask is None else painter.paint(picture, mask)
            overlay.write(frame.seconds, painted)
        if small is not None and kept.keeps(frame.seconds):
            picture = frame.picture() if picture is None else picture
            small.write(frame.seconds, _shrunk(picture, (small.width, small.height)))
        count, gap = count + 1, max(0.0, frame.seconds - last)
        last = frame.seconds
    end = duration if duration is not None and duration > last else last + gap
    for film in (overlay, small):
        if film is not None:
            film.finish(end)
    return count


class _Nearest:
    """The mask at each of some moments, asked for in order of time."""

    def __init__(self, marks: Iterable[Mark]):
        self._marks: Iterator[Mark] = iter(marks)
        self._current: Mark | None = None
        self._coming: Mark | None = None  # asked for no earlier than it is needed
        self._mask: np.ndarray | None = None

    def mask(self, seconds: float, size: tuple[int, int]) -> np.ndarray | None:
        """uint8 of `size` (height, width), the same array while the mark is; None: no marks."""
        if self._current is None:
            self._current = next(self._marks, None)
        if self._current is None:
            return None
        while seconds > self._current.seconds:
            if self._coming is None:
                self._coming = next(self._marks, None)
            if self._coming is None or (
                self._coming.seconds - seconds >= seconds - self._current.seconds
            ):
                break
            self._current, self._coming, self._mask = self._coming, None, None
        if self._mask is None:
            self._mask = at_size(self._current.grid, size)
        return self._mask


class _Kept:
    """Which frames are kept, so that they are `MOST_FRAMES` at most."""

    def __init__(self, duration: float | None):
        self._duration, self._count = duration, 0
        self._last = -math.inf

    def keeps(self, seconds: float) -> bool:
        place, due = seconds, True
        if self._duration:
            # By the part of the film in which it lies, so that the rhythm does not drift.
            place = math.floor(seconds / self._duration * MOST_FRAMES + 1e-6)
            due = place > self._last
        elif self._count >= _ALL_OF_THE_FIRST:
            due = seconds - self._last >= seconds * _GAP
        if not due or self._count >= MOST_FRAMES:
            return False
        self._last = place
        self._count += 1
        return True


def _shrunk(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if picture.shape[1::-1] == size:
        return picture
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


class _Stopped(Exception):
    """Nobody wants the films any more."""


class Films:
    """The overlay, and the film of the page, made in a thread that reads the clip by itself.

    So frames between those that get masks are neither kept nor waited for by the network.
    """

    def __init__(
        self,
        clip: Clip,
        network: Network,
        opened: Streaming,
        asked: tuple[Span, Collection[str]],
        folder: Path,
    ):
        """asked: which part, and of the films "overlay" and "page"; folder: to write into."""
        self._clip, self._network, self._opened = clip, network, opened
        self._span, self._kinds = asked
        self._folder = folder
        self._marks: queue.SimpleQueue[Mark | None] = queue.SimpleQueue()
        self._pool = ThreadPoolExecutor(1)
        self._done: Future | None = None
        self._stopped, self._count = False, 0
        if {"overlay", "page"} & set(self._kinds):
            self._done = self._pool.submit(self._write)

    def __enter__(self) -> "Films":
        return self

    def __exit__(self, *_) -> None:
        self._stopped = True
        self._marks.put(None)
        self._pool.shutdown()

    def add(self, result: Result) -> None:
        if "overlay" in self._kinds:  # nothing else takes them
            self._marks.put(Mark(result.seconds - self._span.start, result.grid))
        if self._done is not None and self._done.done():
            self._done.result()  # raises what went wrong, before more is computed

    def finish(self) -> None:
        self._marks.put(None)
        if self._done is not None:
            lasting = lasting_of(self._opened, self._span)
            total = lasting and max(1, round(lasting * self._opened.pictures.rate))
            with progress_bar(total, 0, f"{self._clip.name}: film") as bar:
                while not wait([self._done], timeout=1).done:
                    bar.update(self._count - bar.n)
                bar.update(self._count - bar.n)
            self._done.result()

    def _write(self) -> None:
        pictures, span = self._opened.pictures, self._span
        classes, palette = self._network.classes, self._network.palette
        duration = lasting_of(self._opened, span)
        sound = None
        if self._opened.heard is not None:
            seconds = duration or span.duration or UNKNOWN
            sound = SoundTrack(self._opened.heard, span.start, seconds)
        with contextlib.ExitStack() as stack:

            def film(name: str, size: tuple[int, int], crf: int) -> FilmWriter:
                options = {"sound": sound, "crf": crf, "rate_hint": pictures.rate}
                return stack.enter_context(FilmWriter(self._folder / name, *size, **options))

            size = pictures.width, pictures.height
            kinds, small = self._kinds, small_size(*size)
            overlay = film("overlay.mp4", size, 20) if "overlay" in kinds else None
            page = film(PAGE_FILM, small, PAGE_CRF) if "page" in kinds else None
            rate = self._opened.rate
            again = stack.enter_context(open_pictures(self._clip, rate))
            write_films(
                self._shown(again.frames(span.start)),
                iter(self._marks.get, None),
                overlay=overlay,
                painter=Painter(classes, palette, pictures.height, pictures.width),
                small=page,
                duration=duration,
            )

    def _shown(self, frames: Iterator[Shown]) -> Iterator[Shown]:
        """The frames of the span, from its own second 0."""
        start, duration = self._span.start, self._span.duration
        for shown in frames:
            if self._stopped:
                raise _Stopped  # and not the end, at which all of the sound would be written
            if duration is not None and shown.seconds >= start + duration:
                return
            self._count += 1
            yield dataclasses.replace(shown, seconds=max(0.0, shown.seconds - start))


def lasting_of(opened: Streaming, span: Span) -> float | None:
    """s that is predicted; None where the file does not say."""
    if opened.pictures.duration is None:
        return None
    return min(opened.pictures.duration - span.start, span.duration or UNKNOWN)
