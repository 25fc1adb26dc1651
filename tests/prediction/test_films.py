"""Films of a clip: each frame with the mark that is nearest, and a small one for the page."""

import dataclasses

import av
import numpy as np
import pytest

from aavs_jax.prediction import films
from aavs_jax.prediction.films import Mark, small_size, write_films
from aavs_jax.prediction.painting import Painter
from data_pipelines.media.film_writer import FilmWriter

CLASSES = ("background", "a", "b", "c")
PALETTE = np.array([(0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255)], np.uint8)


@dataclasses.dataclass
class Frame:
    seconds: float
    asked: int = 0
    size: tuple = (48, 64)

    def picture(self):
        self.asked += 1
        return np.full((*self.size, 3), 80, np.uint8)


class Recorder:
    """In place of a FilmWriter."""

    def __init__(self, width=64, height=48):
        self.width, self.height = width, height
        self.frames, self.end = [], None

    def write(self, seconds, picture):
        assert picture.shape == (self.height, self.width, 3)
        self.frames.append((seconds, picture))

    def finish(self, end):
        self.end = end

    @property
    def times(self):
        return [seconds for seconds, _ in self.frames]


class Ids:
    """In place of a Painter: pictures that are filled with the mask's id."""

    def paint(self, picture, mask):
        return np.full_like(picture, mask[0, 0])


def marks(*times):
    return [Mark(time, np.full((4, 4), k % 4, np.uint8)) for k, time in enumerate(times, 1)]


def shown_ids(times, given):
    overlay = Recorder()
    write_films([Frame(t) for t in times], given, overlay=overlay, painter=Ids(), duration=9)
    assert overlay.times == times
    return [int(picture[0, 0, 0]) for _, picture in overlay.frames]


def test_each_frame_shows_the_nearest_mark():
    times = [0.0, 0.9, 1.4, 1.5, 1.6, 2.9, 3.4, 8.0]
    assert shown_ids(times, marks(1.0, 2.0, 3.0)) == [1, 1, 1, 1, 2, 3, 3, 3]


def test_one_mark_or_none_or_many_between_two_frames():
    assert shown_ids([0.0, 1.0, 2.0], marks(5.0)) == [1, 1, 1]
    assert shown_ids([0.0, 1.0], []) == [80, 80]
    assert shown_ids([0.0, 1.0], marks(0.0, 0.3, 0.9)) == [1, 3]


def test_marks_are_not_waited_for_longer_than_needed():
    """A frame at 0.2 s needs to know what comes after 0, and no more."""
    taken = []

    def coming():
        for mark in marks(0.0, 1.0, 2.0, 3.0):
            taken.append(mark.seconds)
            yield mark

    def frames():
        for time, known in ((0.2, []), (0.4, [0, 1]), (0.6, [0, 1]), (1.7, [0, 1])):
            assert taken == known
            yield Frame(time)

    write_films(frames(), coming(), overlay=Recorder(), painter=Ids(), duration=2)
    assert taken == [0, 1, 2]


def test_the_page_needs_neither_marks_nor_more_pictures_than_it_shows(monkeypatch):
    monkeypatch.setattr(films, "MOST_FRAMES", 10)
    frames, small = [Frame(0.1 * n) for n in range(40)], Recorder(32, 24)
    assert write_films(frames, iter(()), small=small, duration=4.0) == 40
    assert small.times == pytest.approx([0.4 * n for n in range(10)]) and small.end == 4.0
    assert sum(frame.asked for frame in frames) == 10


def test_both_films_take_one_picture_of_each_frame():
    frames, overlay, small = [Frame(0.1 * n) for n in range(5)], Recorder(), Recorder(32, 24)
    write_films(frames, marks(0.0), overlay=overlay, painter=Ids(), small=small, duration=0.5)
    assert [frame.asked for frame in frames] == [1] * 5 and overlay.times == small.times
    assert {int(picture[0, 0, 0]) for _, picture in small.frames} == {80}


@pytest.mark.parametrize("rate", [1, 30, 60])
@pytest.mark.parametrize("known", [True, False])
def test_a_page_has_room_for_hours(rate, known):
    kept = films._Kept(3600.0 if known else None)
    times = [n / rate for n in range(3600 * rate) if kept.keeps(n / rate)]
    assert min(3600 * rate, 3000) <= len(times) <= films.MOST_FRAMES
    gaps = np.diff(times)
    assert gaps.max() < (0.5 if known else 2.9) + 1 / rate
    if known:
        assert gaps.max() <= gaps.min() + 1 / rate + 1e-6


def test_the_last_frame_is_shown_as_long_as_those_before_where_nothing_is_known():
    small = Recorder()
    write_films([Frame(0.0), Frame(0.5), Frame(1.0)], [], small=small)
    assert small.end == 1.5


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1280, 720), (640, 360)),
        ((1080, 1920), (360, 640)),
        ((63, 47), (64, 48)),
        ((4000, 1), (640, 2)),
    ],
)
def test_small_sizes_are_even(size, expected):
    assert small_size(*size) == expected


def test_films_that_are_written(tmp_path):
    size = (120, 160)
    frames = [Frame(time, size=size) for time in (0.0, 0.4, 0.45, 1.2)]
    grids = [np.zeros((8, 8), np.uint8), np.eye(8, dtype=np.uint8) * 2]
    given = [Mark(0.0, grids[0]), Mark(1.0, grids[1])]
    with (
        FilmWriter(tmp_path / "o.mp4", 160, 120) as overlay,
        FilmWriter(tmp_path / "s.mp4", 64, 48) as small,
    ):
        painter = Painter(CLASSES, PALETTE, *size)
        write_films(frames, given, overlay=overlay, painter=painter, small=small, duration=2.0)
    for name, width in (("o.mp4", 160), ("s.mp4", 64)):
        with av.open(str(tmp_path / name)) as file:
            found = [(frame.time, frame.to_ndarray(format="rgb24")) for frame in file.decode()]
            assert file.duration == 2_000_000
        assert [time for time, _ in found] == pytest.approx([0, 0.4, 0.45, 1.2], abs=1e-4)
        assert found[0][1].shape[1] == width
        assert np.abs(found[0][1].astype(int) - 80).max() < 6
        green = (found[-1][1][..., 1].astype(int) - found[-1][1][..., 0]).max()
        assert (green > 80) == (name == "o.mp4")
