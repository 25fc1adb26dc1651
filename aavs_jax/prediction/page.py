"""The page of a clip: a player with its masks, its sound, and what it marks in silence."""

import base64
import dataclasses
import hashlib
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from aavs_jax.prediction.films import SMALL_SIDE, small_size
from aavs_jax.prediction.painting import Painter
from aavs_jax.prediction.result import at_size
from aavs_jax.run.files import replace_file
from data_pipelines.pages import data_uri, render

MOST_MARKS = 9000
MOST_COMPARED = 8
MOST_PEAKS = 4000
COMPARED_SIDE = 320  # pixels of the longer side of a picture in the comparison
LISTENS = 0.5  # of what is marked must disappear in silence, to be said to listen

_TEMPLATE = Path(__file__).with_name("clip_page.html")
_SCRIPT = Path(__file__).with_name("clip_page.js")
_BEFORE_FILM = 'id="bytes">'  # a quoted name cannot hold it: quotes are escaped
_PART = 3 * 2**16  # bytes of the film that are encoded at once; of three bytes Base64 makes four


@dataclasses.dataclass(frozen=True)
class PageContent:
    """What a clip's page shows.

    Attributes:
      title: headline.
      facts: (label, text) of what was run; a label "command" is set in type for code.
      notes: sentences.
      classes: names by class id, the first is background.
      palette: uint8 [K,3], colours by class id.
      width: of the video, upright.
      height: likewise.
      duration: of the clip, s.
      marks: (seconds, grid uint8 [G,G'] of class ids, [(class id, score in [0,1], share of the
        picture in [0,1])]), in order of time. It is gone through once; of more than `MOST_MARKS`
        only so many are asked for, evenly.
      peaks: float [n] in [0,1], the highest levels of the sound in n equal parts of the duration.
      film: the small MP4 film, or its path.
      comparison: (seconds, picture uint8 [h,w,3], grid with the clip's sound, grid with silence or
        None), of which the first `MOST_COMPARED` are shown.
    """

    title: str
    facts: Sequence[tuple[str, str]]
    notes: Sequence[str]
    classes: Sequence[str]
    palette: np.ndarray
    width: int
    height: int
    duration: float
    marks: Sequence[tuple[float, np.ndarray, Sequence[tuple[int, float, float]]]]
    peaks: np.ndarray
    film: bytes | str | os.PathLike[str]
    comparison: Sequence[tuple[float, np.ndarray, np.ndarray, np.ndarray | None]] = ()


def write_page(path: str | os.PathLike[str], page: PageContent) -> None:
    """Writes a page that needs no other file: it plays the clip from wherever it lies.

    Args:
      path: of the file; replaced in one go.
      page: what it shows.

    Raises:
      UserError: the file cannot be written.
    """
    marks = _marks(page)
    most: dict[int, float] = {}  # class id -> its largest share
    for _, _, found in marks:
        for class_id, _, share in found:
            most[class_id] = max(most.get(class_id, 0.0), share)
    compared = [_compared(page, *row) for row in page.comparison[:MOST_COMPARED]]
    text = render(
        _TEMPLATE,
        title=page.title,
        facts=page.facts,
        notes=page.notes,
        classes=[
            {
                "id": class_id,
                "name": page.classes[class_id],
                "colour": page.palette[class_id].tolist(),
                "most": percent(most[class_id]),
            }
            for class_id in sorted(most)
        ],
        duration=page.duration,
        ticks=_ticks(page.duration),
        compared=compared,
        with_silence=any(row["silence"] for row in compared),
        verdict=_verdict(page.comparison[:MOST_COMPARED]),
        script_hash=_hash_of(_SCRIPT),
        size=small_size(page.width, page.height),
        data={
            "duration": page.duration,
            "size": _canvas_size(page.width, page.height),
            "grid": np.shape(page.marks[0][1]) if len(page.marks) else (1, 1),
            "colours": np.asarray(page.palette).tolist(),
            "times": [seconds for seconds, _, _ in marks],
            "runs": [runs for _, runs, _ in marks],
            "found": [found for _, _, found in marks],
            "peaks": _peaks(page.peaks),
        },
    )
    head, tail = text.split(_BEFORE_FILM)
    replace_file(path, _parts(head + _BEFORE_FILM, page.film, tail), "or choose another --out")


def percent(share: float) -> str:
    """A share of the picture in words: "12%", "0.4%", "nothing"."""
    if share <= 0:
        return "nothing"
    return f"{100 * share:.0f}%" if share >= 0.0995 else f"{max(0.1, 100 * share):.1f}%"


def _parts(head: str, film, tail: str) -> Iterator[bytes]:
    """The page in pieces, as a film of an hour is larger than what else it holds."""
    yield head.encode()
    with io.BytesIO(film) if isinstance(film, bytes) else open(film, "rb") as file:
        while part := file.read(_PART):
            yield base64.b64encode(part)
    yield tail.encode()


def _canvas_size(width: int, height: int) -> tuple[int, int]:
    """Of what is painted over the film: outlines are smooth over a film that is enlarged, too."""
    scale = SMALL_SIDE / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _hash_of(script: Path) -> str:
    """By which the page's policy knows its script, and no other."""
    # A template that is included loses its last line break.
    text = script.read_text("utf-8").removesuffix("\n")
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _marks(page: PageContent) -> list[tuple[float, list[int], list[tuple[int, float, float]]]]:
    """(seconds, runs, found), rounded to what can be seen."""
    count = len(page.marks)
    chosen = range(count)
    if count > MOST_MARKS:
        chosen = np.linspace(0, count - 1, MOST_MARKS).round().astype(int)
    marks = []
    for index in chosen:
        seconds, grid, found = page.marks[index]
        rounded = [(int(k), round(float(s), 3), round(float(a), 5)) for k, s, a in found]
        marks.append((round(float(seconds), 4), _runs(grid), rounded))
    return marks


def _runs(grid: np.ndarray) -> list[int]:
    """Class id, length, class id, length, ...: the grid's rows one after the other."""
    flat = np.ravel(grid)
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    lengths = np.diff(np.concatenate([starts, [flat.size]]))
    return np.stack([flat[starts].astype(int), lengths], axis=1).ravel().tolist()


def _peaks(peaks: np.ndarray) -> list[int]:
    """The levels in thousandths, of at most `MOST_PEAKS` parts the highest."""
    peaks = np.clip(np.nan_to_num(np.asarray(peaks, np.float32)), 0, 1)
    parts = np.array_split(peaks, min(len(peaks), MOST_PEAKS)) if len(peaks) else []
    return [round(1000 * float(part.max())) for part in parts]


def _ticks(duration: float) -> list[tuple[float, str]]:
    """(% of the duration, time in words), six to twelve of them."""
    steps = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600)
    step = next((s for s in steps if duration / s <= 11), steps[-1])
    count = int(duration / step + 1e-6) if duration > 0 else 0
    return (
        [(100 * n * step / duration, _clock(n * step)) for n in range(count + 1)] if count else []
    )


def _clock(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _compared(page: PageContent, seconds, picture, with_sound, with_silence) -> dict:
    """One frame of the comparison: pictures, and the area that is marked in them."""
    shown = Image.fromarray(picture)
    shown.thumbnail((COMPARED_SIDE, COMPARED_SIDE))
    frame = np.asarray(shown)
    grids = {"sound": with_sound, "silence": with_silence}
    return {"seconds": f"{seconds:.2f} s"} | {
        name: grid
        if grid is None
        else {
            "picture": data_uri(_painted(page, frame, grid), format="jpeg", quality=86),
            "area": percent(float(np.mean(np.asarray(grid) > 0))),
        }
        for name, grid in grids.items()
    }


def _painted(page: PageContent, frame: np.ndarray, grid: np.ndarray) -> Image.Image:
    painter = Painter(page.classes, page.palette, *frame.shape[:2], legend=False)
    return Image.fromarray(painter.paint(frame, at_size(np.asarray(grid), frame.shape[:2])))


def _verdict(comparison) -> str:
    """What the comparison says, in a sentence; nothing where there is none."""
    pairs = [(sound, silence) for _, _, sound, silence in comparison if silence is not None]
    if not pairs:
        return ""
    marked = sum(int(np.count_nonzero(sound)) for sound, _ in pairs)
    stays = sum(int(np.count_nonzero((sound == silence) & (sound > 0))) for sound, silence in pairs)
    area = float(np.mean([np.mean(silence > 0) for _, silence in pairs]))
    if not marked:
        if area <= 0:
            return "It marks nothing in these frames, with their sound or without."
        return f"It marks nothing with their sound, but in silence {percent(area)} of the picture."
    gone = 1 - stays / marked
    words = (
        f"Of what it marks with the sound of these frames, {percent(gone)} disappears in silence"
    )
    if gone >= LISTENS:
        return f"{words}: it listens."
    return f"{words}: here it relies more on what it sees than on what it hears."
