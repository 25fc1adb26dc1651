"""A clip from its file to its folder: read, predicted and written at the same time."""

import contextlib
import dataclasses
import queue
import time
import zlib
from collections import Counter
from collections.abc import Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from data_pipelines.media.film_writer import FilmWriter, SoundTrack

from aavs_jax.prediction import outputs
from aavs_jax.prediction.arrays import shown_at
from aavs_jax.prediction.films import Mark, small_size, write_films
from aavs_jax.prediction.network import Network
from aavs_jax.prediction.page import MOST_COMPARED, PageContent, write_page
from aavs_jax.prediction.painting import Painter
from aavs_jax.prediction.result import Result
from aavs_jax.prediction.sources import Clip, open_pictures
from aavs_jax.prediction.stream import Span, Streaming, streaming
from aavs_jax.run.progress import progress_bar
from data_pipelines.facts.avsbench import SAMPLE_RATE
from data_pipelines.media.films import Shown
from data_pipelines.media.sound_stream import PEAKS

UNKNOWN = 24 * 3600.0  # s that a clip is taken to last at most where its file does not say
LACKING = 0.2  # s of sound that may lack without a word
PAGE_CRF = 28  # quality of the film in the page


@dataclasses.dataclass(frozen=True)
class Asked:
    """What is to be made of each clip.

    Attributes:
      span: which part, and how many masks.
      kinds: of `outputs.KINDS`.
      frames: computed at once; 0: as many as suit.
      facts: (label, text) for the page.
    """

    span: Span
    kinds: Collection[str]
    frames: int = 0
    facts: tuple[tuple[str, str], ...] = ()


def write_clip(network: Network, clip: Clip, folder: Path, asked: Asked) -> dict[str, Any]:
    """Predicts a clip and writes its folder, see `outputs`.

    Args:
      network: with the one before, where it needs it.
      clip: from `sources.find`.
      folder: to be made; an earlier prediction there is replaced.
      asked: what.

    Returns:
      What summary.json says.

    Raises:
      UserError, DataError: the clip cannot be read, or the folder not be written; nothing is.
    """
    begun = time.monotonic()
    with outputs.whole(folder) as partial, contextlib.ExitStack() as stack:
        opened = stack.enter_context(streaming(network, clip, asked.span, asked.frames))
        files = stack.enter_context(
            outputs.Files(partial, "masks" in asked.kinds, "objects" in asked.kinds)
        )
        films = stack.enter_context(_Films(clip, network, opened, asked, partial))
        course, compared = _Course(), _Compared()
        bar = stack.enter_context(progress_bar(opened.expected, 0, clip.name))
        for result in opened.results:
            files.add(result)
            films.add(result)
            course.add(result)
            compared.add(result)
            bar.update(1)
        files.finish()
        films.finish()
        seconds = time.monotonic() - begun
        summary = _summary(network, clip, opened, asked, course)
        summary["frames_per_second"] = round(len(course.times) / seconds, 2)
        if "page" in asked.kinds:
            comparison = () if opened.heard is None else compared.rows(network, opened)
            _write_page(partial, network, opened, asked, (summary, course, comparison))
        outputs.write_summary(partial, summary)
    return summary


class _Course:
    """What was found over time, kept small: a mask of an hour-long clip takes some 200 bytes."""

    def __init__(self):
        self.times: list[float] = []
        self.found: list[list[tuple[int, float, float]]] = []
        self._grids: list[bytes] = []
        self._shape = (0, 0)

    def add(self, result: Result) -> None:
        self.times.append(result.seconds)
        self.found.append([(each.class_id, each.score, each.share) for each in result.objects])
        self._grids.append(zlib.compress(result.grid.tobytes(), 1))
        self._shape = result.grid.shape

    def __len__(self) -> int:
        return len(self.times)

    def grid(self, place: int) -> np.ndarray:
        return np.frombuffer(zlib.decompress(self._grids[place]), np.uint8).reshape(self._shape)


class _Marks:
    """A clip's course as a page goes through it, from its own second 0."""

    def __init__(self, course: _Course, start: float):
        self._course, self._start = course, start

    def __len__(self) -> int:
        return len(self._course)

    def __getitem__(self, place: int):
        course = self._course
        return course.times[place] - self._start, course.grid(place), course.found[place]


class _Compared:
    """Some frames, evenly over a clip of unknown length: one of 1, 2, 4, 8, ... is kept."""

    def __init__(self):
        self._step, self._kept = 1, []

    def add(self, result: Result) -> None:
        if result.index % self._step == 0:
            self._kept.append(result)
        if len(self._kept) == 2 * MOST_COMPARED:
            self._kept, self._step = self._kept[::2], 2 * self._step

    def rows(self, network: Network, opened: Streaming) -> list[tuple]:
        """(seconds, picture, grid with the clip's sound, grid with silence) of each."""
        places = np.linspace(0, len(self._kept) - 1, min(MOST_COMPARED, len(self._kept)))
        kept = [self._kept[round(place)] for place in places]
        rows = []
        for begin in range(0, len(kept), opened.at_once):
            group = kept[begin : begin + opened.at_once]
            frames = [result.frame for result in group]
            frames += frames[-1:] * (opened.at_once - len(frames))
            silence = _in_silence(network, frames)
            rows += [
                (result.seconds, result.frame, result.grid, grid)
                for result, grid in zip(group, silence, strict=False)
            ]
        return rows


def _in_silence(network: Network, frames: list[np.ndarray]) -> np.ndarray:
    """uint8 [n,G,G], what is found in frames of which nothing is heard."""
    shown = {
        each.side: np.stack([shown_at(frame, each.side) for frame in frames])[None]
        for each in network.chain
    }
    heard = {}
    for front_end in {each.method.front_end for each in network.chain}:
        row = front_end(np.zeros((SAMPLE_RATE, front_end.channels), np.float32), 1)
        heard[front_end] = np.repeat(row, len(frames), axis=0)[None]
    return np.asarray(network.of_rows(shown, heard).classes[0])


class _Films:
    """The overlay, and the film of the page, made in a thread that reads the clip by itself.

    So frames between those that get masks are neither kept nor waited for by the network.
    """

    def __init__(
        self, clip: Clip, network: Network, opened: Streaming, asked: Asked, partial: Path
    ):
        self._clip, self._network, self._opened, self._asked = clip, network, opened, asked
        self._partial = partial
        self._marks: queue.SimpleQueue[Mark | None] = queue.SimpleQueue()
        self._pool = ThreadPoolExecutor(1)
        self._done: Future | None = None
        self._stopped = False
        if {"overlay", "page"} & set(asked.kinds):
            self._done = self._pool.submit(self._write)

    def __enter__(self) -> "_Films":
        return self

    def __exit__(self, *_) -> None:
        self._stopped = True
        self._marks.put(None)
        self._pool.shutdown()

    def add(self, result: Result) -> None:
        self._marks.put(Mark(result.seconds - self._asked.span.start, result.grid))
        if self._done is not None and self._done.done():
            self._done.result()  # raises what went wrong, before more is computed

    def finish(self) -> None:
        self._marks.put(None)
        if self._done is not None:
            with progress_bar(None, 0, f"{self._clip.name}: film") as bar:
                while True:
                    with contextlib.suppress(TimeoutError):
                        self._done.result(timeout=1)
                        return
                    bar.refresh()

    def _write(self) -> None:
        pictures, span = self._opened.pictures, self._asked.span
        classes, palette = self._network.classes, self._network.palette
        duration = _lasting(self._opened, span)
        sound = None
        if self._opened.heard is not None:
            seconds = UNKNOWN if duration is None else duration
            sound = SoundTrack(self._opened.heard, span.start, seconds)
        with contextlib.ExitStack() as stack:

            def film(name: str, size: tuple[int, int], crf: int) -> FilmWriter:
                options = {"sound": sound, "crf": crf, "rate_hint": pictures.rate}
                return stack.enter_context(FilmWriter(self._partial / name, *size, **options))

            size = pictures.width, pictures.height
            kinds, small = self._asked.kinds, small_size(*size)
            overlay = film("overlay.mp4", size, 20) if "overlay" in kinds else None
            page = film("page.mp4", small, PAGE_CRF) if "page" in kinds else None
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
        start, duration = self._asked.span.start, self._asked.span.duration
        for shown in frames:
            if self._stopped or (duration is not None and shown.seconds >= start + duration):
                return
            yield dataclasses.replace(shown, seconds=max(0.0, shown.seconds - start))


def _lasting(opened: Streaming, span: Span) -> float | None:
    """s that is predicted; None where the file does not say."""
    if opened.pictures.duration is None:
        return None
    return min(opened.pictures.duration - span.start, span.duration or UNKNOWN)


def _summary(
    network: Network, clip: Clip, opened: Streaming, asked: Asked, course: _Course
) -> dict[str, Any]:
    pictures, span = opened.pictures, asked.span
    lasting = _lasting(opened, span) or course.times[-1] - span.start + 1 / opened.rate
    areas: Counter[int] = Counter()
    for found in course.found:
        areas.update({class_id: share for class_id, _, share in found})
    return {
        "clip": str(clip.path),
        "sound": None if opened.heard is None else str(opened.heard),
        "weights": dict(asked.facts).get("weights", ""),
        "task": network.method.task,
        "classes": list(network.classes),
        "found": [network.classes[class_id] for class_id, _ in areas.most_common()],
        "width": pictures.width,
        "height": pictures.height,
        "masks_per_second": round(opened.rate, 3),
        "start": span.start,
        "duration": round(lasting, 3),
        "masks": len(course.times),
        "seconds": [round(seconds, 6) for seconds in course.times],
        "notes": [*pictures.notes, *_sound_notes(opened, lasting)],
    }


def _sound_notes(opened: Streaming, lasting: float) -> list[str]:
    if opened.heard is None:
        return ["Nothing was heard: silence was asked for."]
    begins, ends = opened.sound.begins, opened.sound.ends
    if begins is None:
        return ["There is no sound in this part: what was heard is silence."]
    notes = []
    if begins > LACKING:
        notes.append(f"The sound begins {begins:.1f} s late: until then silence was heard.")
    if ends is not None and ends < lasting - LACKING:
        notes.append(f"The sound ends after {ends:.1f} s: from then on silence was heard.")
    return notes


def _write_page(partial: Path, network: Network, opened: Streaming, asked: Asked, found) -> None:
    summary, course, comparison = found
    facts = [
        *asked.facts,
        ("heard", summary["sound"] or "silence"),
        ("size", f"{summary['width']}x{summary['height']}"),
        ("masks", f"{len(course)}, {summary['masks_per_second']:g} a second"),
        ("speed", f"{summary['frames_per_second']:g} masks a second"),
    ]
    peaks = opened.sound.peaks()[: round(summary["duration"] * PEAKS)]
    film = partial / "page.mp4"
    start = asked.span.start
    content = PageContent(
        title=Path(summary["clip"]).name,
        facts=facts,
        notes=summary["notes"],
        classes=network.classes,
        palette=network.palette,
        width=summary["width"],
        height=summary["height"],
        duration=summary["duration"],
        marks=_Marks(course, start),
        peaks=np.pad(peaks, (0, max(0, round(summary["duration"] * PEAKS) - len(peaks)))),
        film=film,
        comparison=[(seconds - start, *rest) for seconds, *rest in comparison],
    )
    write_page(partial / "index.html", content)
    film.unlink()
