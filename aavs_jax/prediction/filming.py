"""The films of a clip, made while it is predicted."""

import contextlib
import dataclasses
import queue
from collections.abc import Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from aavs_jax.prediction.films import Mark, small_size, write_films
from aavs_jax.prediction.network import Network
from aavs_jax.prediction.painting import Painter
from aavs_jax.prediction.result import Result
from aavs_jax.prediction.sources import Clip, open_pictures
from aavs_jax.prediction.stream import Span, Streaming
from aavs_jax.run.progress import progress_bar
from data_pipelines.media.film_writer import FilmWriter, SoundTrack
from data_pipelines.media.films import Shown

UNKNOWN = 24 * 3600.0  # s that a clip is taken to last at most where its file does not say
PAGE_FILM = "page.mp4"  # which the page takes into itself
PAGE_CRF = 28  # its quality


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
        self._marks.put(Mark(result.seconds - self._span.start, result.grid))
        if self._done is not None and self._done.done():
            self._done.result()  # raises what went wrong, before more is computed

    def finish(self) -> None:
        self._marks.put(None)
        if self._done is not None:
            lasting = lasting_of(self._opened, self._span)
            total = lasting and max(1, round(lasting * self._opened.pictures.rate))
            with progress_bar(total, 0, f"{self._clip.name}: film") as bar:
                while True:
                    bar.update(self._count - bar.n)
                    with contextlib.suppress(TimeoutError):
                        self._done.result(timeout=1)
                        return

    def _write(self) -> None:
        pictures, span = self._opened.pictures, self._span
        classes, palette = self._network.classes, self._network.palette
        duration = lasting_of(self._opened, span)
        sound = None
        if self._opened.heard is not None:
            seconds = UNKNOWN if duration is None else duration
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
            if self._stopped or (duration is not None and shown.seconds >= start + duration):
                return
            self._count += 1
            yield dataclasses.replace(shown, seconds=max(0.0, shown.seconds - start))


def lasting_of(opened: Streaming, span: Span) -> float | None:
    """s that is predicted; None where the file does not say."""
    if opened.pictures.duration is None:
        return None
    return min(opened.pictures.duration - span.start, span.duration or UNKNOWN)
