"""Clips of any length, read, predicted and given out at once; memory does not grow with them."""

import contextlib
import dataclasses
import itertools
import queue
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from aavs_jax.errors import UserError
from aavs_jax.methods.method import Prediction
from aavs_jax.prediction.arrays import shown_at
from aavs_jax.prediction.hearing import CLIP_SECONDS, Hearing, moments
from aavs_jax.prediction.network import Network, confidence_of
from aavs_jax.prediction.result import Result
from aavs_jax.prediction.sources import Clip, OpenClip, open_heard, open_pictures, sound_of
from data_pipelines.media.films import Shown, at_moments
from data_pipelines.media.sound_stream import SoundStream
from data_pipelines.media.video_files import FRAME_MOMENT

ALL = "all"
AHEAD = 2  # batches that are read before they are needed
MOST_BYTES = 2**26  # of the frames of a batch, of which there are some at a time
LATE = FRAME_MOMENT - 0.5  # of a frame's time: a part that is begun by half gets its frame


@dataclasses.dataclass(frozen=True)
class Span:
    """Which part of a clip, and how many masks of it.

    Attributes:
      fps: masks a second, or ALL: one for each frame.
      start: s.
      duration: s; None: to the end.
    """

    fps: float | str = 1
    start: float = 0.0
    duration: float | None = None

    def __post_init__(self):
        number = not isinstance(self.fps, (str, bool)) and 0.01 <= self.fps <= 1000
        if self.fps != ALL and not number:
            raise UserError(f"fps is {self.fps!r}: give masks a second, such as 1 or 4, or 'all'")
        if not 0 <= self.start < float("inf"):
            raise UserError(f"start is {self.start!r}: give seconds, from 0")
        if self.duration is not None and not 0 < self.duration < float("inf"):
            raise UserError(f"duration is {self.duration!r}: give seconds, more than 0")


@dataclasses.dataclass(frozen=True)
class Streaming:
    """A clip that is being read.

    Attributes:
      pictures: facts of what is seen.
      sound: what is heard, from `start` on.
      heard: file of it; None: silence.
      rate: masks a second.
      at_once: frames that are computed at once.
      expected: how many masks there will be, if that is known.
      results: what is found, as it comes; once.
    """

    pictures: OpenClip
    sound: SoundStream
    heard: Path | None
    rate: float
    at_once: int
    expected: int | None
    results: Iterator[Result]


def results(network: Network, clip: Clip, span: Span = Span()) -> Iterator[Result]:
    """What is found in a clip, as it comes, see `Network.stream`."""
    with streaming(network, clip, span) as opened:
        yield from opened.results


@contextlib.contextmanager
def streaming(network: Network, clip: Clip, span: Span, frames: int = 0) -> Iterator[Streaming]:
    """Opens a clip to be predicted.

    Args:
      network: with the one before, where it needs it.
      clip: from `sources.find`.
      span: of it.
      frames: that are computed at once; 0: as many as suit the network and the device, which is
        all that a network can have that looks over time.

    Raises:
      UserError, DataError, now or while results are taken: it cannot be read, or has no sound; or
        the network computes no other number of frames.
    """
    _check_prior(network)
    if frames and _over_time(network.chain):
        # Other numbers of frames are clips of other lengths, of which it says other things.
        raise UserError(
            f"{network.card.describe()} looks at {CLIP_SECONDS} seconds at once: leave "
            "--batch-frames out"
        )
    fps = span.fps
    chain = network.chain
    front_ends = tuple(dict.fromkeys(each.method.front_end for each in chain))
    channels = max(front_end.channels for front_end in front_ends)
    with open_pictures(clip, 1 if fps == ALL else fps) as pictures:
        # There are no more frames than that. Where a frame lasts a second or longer, masks stay at
        # 15/16 of each second, as in prepared data.
        if fps != ALL and not clip.pictures and fps >= pictures.rate > 1:
            fps = ALL
        rate = pictures.rate if fps == ALL else fps
        if pictures.duration is not None and span.start >= pictures.duration:
            raise UserError(
                f"{clip.path} is {pictures.duration:.1f} s long, and --start={span.start:g} is "
                "beyond that: begin earlier"
            )
        heard = sound_of(clip, pictures)
        with open_heard(heard, span.start, channels) as sound:
            hearing = Hearing(sound, front_ends)
            count = frames or suitable(network, rate, pictures.width * pictures.height)
            read = _batches(_taken(clip, pictures, span, fps), hearing, span.start, (count, chain))
            expected = None
            if pictures.duration is not None:
                seconds = min(pictures.duration - span.start, span.duration or float("inf"))
                expected = max(1, int(seconds * rate + 0.5))
            with _ahead(read) as batches:
                found = _found(network, batches, max(1, round(rate)))
                yield Streaming(pictures, sound, heard, rate, count, expected, found)


def suitable(network: Network, rate: float, pixels: int) -> int:
    """How many frames of so many pixels are computed at once."""
    if _over_time(network.chain):
        return CLIP_SECONDS * max(1, round(rate))
    # A CPU gains nothing by many large ones, and would compute many in vain at the end.
    on_cpu = jax.default_backend() == "cpu"
    count = 8 * 64**2 // network.side**2 if on_cpu else 16
    return max(1, min(count, MOST_BYTES // (3 * pixels)))


def _over_time(chain: Sequence[Network]) -> bool:
    return any(network.method.over_time for network in chain)


def _check_prior(network: Network) -> None:
    if network.card.network.get("prior") and network.before is None:
        raise UserError(
            f"{network.card.describe()} is told where it sounds: give the run that has both "
            "stages, or the folders of both"
        )


def _taken(clip: Clip, pictures: OpenClip, span: Span, fps) -> Iterator[tuple[float, float, Shown]]:
    """The frames that get masks, at least one: (its time, the moment it is heard at, frame)."""
    until = float("inf") if span.duration is None else span.start + span.duration
    frames = itertools.takewhile(lambda shown: shown.seconds < until, pictures.frames(span.start))
    first = next(frames, None)
    if first is None:  # its pictures begin later than its sound
        raise UserError(f"{clip.path} shows nothing until second {until:g}: choose another part")
    frames = itertools.chain([first], frames)
    if fps == ALL:
        heard = 0.0
        for shown in frames:
            # Sound is read forwards only, and a file may say that a frame outlasts the next.
            heard = max(heard, shown.seconds + FRAME_MOMENT * min(1.0, shown.duration))
            yield shown.seconds, heard, shown
        return
    shortened = (
        dataclasses.replace(shown, duration=min(shown.duration, until - shown.seconds))
        for shown in frames
    )
    times = (span.start + moment for moment in moments(fps))
    for moment, shown in at_moments(shortened, times, LATE / fps):
        yield moment, moment, shown


def _batches(taken, hearing: Hearing, start: float, asked) -> Iterator[dict]:
    """`count` frames each: times, frames, what each network sees of them, and what it hears."""
    count, chain = asked
    while group := list(itertools.islice(taken, count)):
        times = [time for time, _, _ in group]
        frames = [shown.picture() for _, _, shown in group]
        short = 0 if _over_time(chain) else count - len(group)
        padded = [*frames, *frames[-1:] * short]
        at = [max(0.0, heard - start) for _, heard, _ in group]
        yield {
            "times": times,
            "frames": frames,
            "shown": {
                network.side: np.stack([shown_at(frame, network.side) for frame in padded])
                for network in chain
            },
            "heard": hearing.rows([*at, *at[-1:] * short]),
        }


def _found(network: Network, batches: Iterator[dict], rate: int) -> Iterator[Result]:
    """Results, one batch behind what the device computes."""
    index = itertools.count()

    def told(batch: dict, found: Prediction) -> Iterator[Result]:
        grids, confidence = (
            _in_order(array, len(batch["frames"]))
            for array in (np.asarray(found.classes), confidence_of(found))
        )
        for row, (time, frame) in enumerate(zip(batch["times"], batch["frames"], strict=True)):
            yield Result(next(index), time, frame, grids[row], confidence[row], network.classes)

    before = None
    for batch in batches:
        shown, heard = batch.pop("shown"), batch.pop("heard")
        if _over_time(network.chain):
            # Clips of one frame a second, one for each of the frames that a second has.
            shown, heard = ({k: _clips(a, rate) for k, a in d.items()} for d in (shown, heard))
        else:
            shown, heard = ({k: a[None] for k, a in d.items()} for d in (shown, heard))
        now = batch, network.of_rows(shown, heard)
        if before is not None:
            yield from told(*before)
        before = now
    if before is not None:
        yield from told(*before)


def _clips(array: np.ndarray, rate: int) -> np.ndarray:
    """[n,...] in order of time -> [rate,T,...]; the last is repeated where n is no multiple."""
    rate = min(rate, len(array))
    lacking = -len(array) % rate
    array = np.concatenate([array, np.repeat(array[-1:], lacking, axis=0)])
    return array.reshape(-1, rate, *array.shape[1:]).swapaxes(0, 1)


def _in_order(array: np.ndarray, count: int) -> np.ndarray:
    """[B,T,...] -> [count,...], the inverse of `_clips`, or of one clip its seconds."""
    return array.swapaxes(0, 1).reshape(-1, *array.shape[2:])[:count]


@contextlib.contextmanager
def _ahead(items: Iterator[Any]) -> Iterator[Iterator[Any]]:
    """Gives what a generator gives, which runs in a thread of its own and stays ahead."""
    ready: queue.Queue[tuple[str, Any]] = queue.Queue(AHEAD)
    stop = threading.Event()

    def put(kind: str, value: Any) -> bool:
        while not stop.is_set():
            with contextlib.suppress(queue.Full):
                ready.put((kind, value), timeout=0.1)
                return True
        return False

    def run() -> None:
        try:
            for item in items:
                if not put("item", item):
                    return
            put("end", None)
        except BaseException as error:  # raised where the items are taken
            put("error", error)

    def taken() -> Iterator[Any]:
        while True:
            kind, value = ready.get()
            if kind == "end":
                return
            if kind == "error":
                raise value
            yield value

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield taken()
    finally:
        # The files that are read in the thread may be closed only once it has ended.
        stop.set()
        thread.join()
