"""A clip from its file to its folder: read, predicted and written at the same time."""

import contextlib
import dataclasses
import time
import weakref
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from aavs_jax.prediction import outputs
from aavs_jax.prediction.arrays import shown_at
from aavs_jax.prediction.films import PAGE_FILM, Films, lasting_of
from aavs_jax.prediction.network import Network
from aavs_jax.prediction.page import MOST_COMPARED, PageContent, write_page
from aavs_jax.prediction.result import Result
from aavs_jax.prediction.sources import Clip
from aavs_jax.prediction.stream import ALL, Span, Streaming, streaming
from aavs_jax.run.progress import compiling, progress_bar
from data_pipelines.facts.avsbench import SAMPLE_RATE
from data_pipelines.media.sound_stream import PEAKS
from data_pipelines.media.video_files import FRAME_MOMENT

LACKING = 0.2  # s of sound that may lack without a word
# By network the shapes that it was compiled for.
_COMPILED: weakref.WeakKeyDictionary[Callable, set] = weakref.WeakKeyDictionary()


@dataclasses.dataclass(frozen=True)
class Asked:
    """What is to be made of each clip.

    Attributes:
      span: which part, and how many masks.
      kinds: of `prediction.KINDS`.
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
    begun = 0.0  # when the first mask was there; until then there may be something to compile
    with outputs.whole(folder) as partial, contextlib.ExitStack() as stack:
        opened = stack.enter_context(streaming(network, clip, asked.span, asked.frames))
        files = stack.enter_context(
            outputs.Files(partial, "masks" in asked.kinds, "objects" in asked.kinds)
        )
        films = stack.enter_context(
            Films(clip, network, opened, (asked.span, asked.kinds), partial)
        )
        course, compared = _Course(), _Compared()
        bar = stack.enter_context(progress_bar(opened.expected, 0, clip.name))
        for result in _said(network, clip, opened):
            begun = begun or time.monotonic()
            files.add(result)
            films.add(result)
            course.add(result)
            compared.add(result)
            bar.update(1)
        files.finish()
        films.finish()
        summary = _summary(network, clip, opened, asked, course)
        # When the first mask is given out two batches have been computed.
        timed = len(course) - 2 * opened.at_once
        speed = timed / (time.monotonic() - begun) if timed >= 2 * opened.at_once else None
        summary["frames_per_second"] = speed and round(speed, 2)
        if "page" in asked.kinds:
            comparison = () if opened.heard is None else compared.rows(network, opened)
            _write_page(partial, network, opened, asked, (summary, course, comparison))
        outputs.write_summary(partial, summary)
    return summary


def _said(network: Network, clip: Clip, opened: Streaming) -> Iterator[Result]:
    """The results; where they wait for something to be compiled, it is said."""
    compiled = _COMPILED.setdefault(network.method.predict, set())
    shapes = opened.at_once, network.side
    with contextlib.ExitStack() as stack:
        if shapes not in compiled:
            stack.enter_context(compiling(clip.name, "the network"))
        first = next(opened.results, None)
    compiled.add(shapes)
    if first is not None:
        yield first
        yield from opened.results


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
        # As many at once as were compiled for; a network that looks over time sees each by itself.
        at_once = 1 if any(each.method.over_time for each in network.chain) else opened.at_once
        for begin in range(0, len(kept), at_once):
            group = kept[begin : begin + at_once]
            frames = [result.frame for result in group]
            frames += frames[-1:] * (at_once - len(frames))
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


def _summary(
    network: Network, clip: Clip, opened: Streaming, asked: Asked, course: _Course
) -> dict[str, Any]:
    pictures, span = opened.pictures, asked.span
    lasting = lasting_of(opened, span)
    if lasting is None:
        # Unless each frame has a mask, it is of a moment at the end of its part.
        each = asked.span.fps == ALL or opened.rate == pictures.rate > 1
        after = 1 if each else 1 - FRAME_MOMENT
        lasting = max(0.0, course.times[-1] - span.start) + after / opened.rate
        lasting = min(lasting, span.duration or lasting)
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
    ]
    if speed := summary["frames_per_second"]:
        facts.append(("speed", f"{speed:g} masks a second"))
    end = round(summary["duration"] * SAMPLE_RATE)
    opened.sound.read(end, end)  # what sounds after the last mask is shown, too
    peaks = opened.sound.peaks()[: round(summary["duration"] * PEAKS)]
    film = partial / PAGE_FILM
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
