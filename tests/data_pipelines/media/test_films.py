"""Films read whole: the times of frames, what is seen at a moment, upright and square pixels."""

import itertools
import struct
from fractions import Fraction

import av
import numpy as np
import pytest

from data_pipelines.media import MediaError, films

TICKS = 1000  # a second


def write_film(path, times, *, size=(64, 48), aspect=None, last=0.1, codec="mpeg4", sound=None):
    """Frames shown at these times (s); the n-th is grey of 4 n + 8. `sound`: when it begins."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=25, bit_rate=2_000_000)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, TICKS)
        track = None if sound is None else file.add_stream("flac", rate=16000, layout="mono")
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        for number, seconds in enumerate(times):
            grey = np.full((size[1], size[0], 3), 4 * (number % 50) + 8, np.uint8)
            frame = av.VideoFrame.from_ndarray(grey)
            frame.pts, frame.time_base = round(seconds * TICKS), Fraction(1, TICKS)
            following = (*times[number + 1 :], seconds + last)[0]
            frame.duration = round((following - seconds) * TICKS)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
        if track is not None:
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 4608), np.int16), "s16", "mono")
            frame.sample_rate, frame.pts = 16000, round(16000 * sound)
            frame.time_base = Fraction(1, 16000)
            for given in (frame, None):
                file.mux(track.encode(given))
    return path


def number_of(picture: np.ndarray) -> int:
    return round((float(picture.mean()) - 8) / 4)


def read(path, start=0.0):
    with films.open_film(path) as film:
        return film, [(shown.seconds, number_of(shown.picture())) for shown in film.frames(start)]


TIMES = (0, 0.1, 0.35, 0.4, 1.2, 1.9, 2.0, 2.6)


@pytest.mark.parametrize("begin", [0.0, 0.5])
@pytest.mark.parametrize("name", ["film.mp4", "film.mkv"])
def test_pictures_that_begin_later_than_the_sound(tmp_path, name, begin):
    """The earlier of them is the file's second 0."""
    late = tuple(0.6 + seconds for seconds in TIMES)
    path = write_film(tmp_path / name, [begin + seconds for seconds in late], sound=begin)
    film, found = read(path)
    np.testing.assert_allclose([seconds for seconds, _ in found], late, atol=0.002)
    assert film.has_sound
    if name == "film.mkv":  # which says how long the file is, and not its pictures
        assert film.duration is None
    else:
        assert late[-1] < film.duration < late[-1] + 0.11


def test_a_moment_beyond_the_end_of_a_film_that_does_not_say_its_length(tmp_path):
    path = write_film(tmp_path / "film.mkv", TIMES)
    with pytest.raises(MediaError, match=r"it ends after 2\.\d s, before second 60"):
        read(path, 60.0)


@pytest.mark.parametrize("name", ["film.mp4", "film.mkv"])
def test_irregular_times_are_kept(tmp_path, name):
    film, found = read(write_film(tmp_path / name, TIMES))
    assert (film.width, film.height, film.has_sound) == (64, 48, False)
    assert [number for _, number in found] == list(range(len(TIMES)))
    np.testing.assert_allclose([seconds for seconds, _ in found], TIMES, atol=1e-6)


@pytest.mark.parametrize(("start", "first"), [(0.0, 0), (0.2, 1), (0.35, 2), (1.0, 3), (2.65, 7)])
def test_reading_begins_with_what_is_seen_then(tmp_path, start, first):
    _, found = read(write_film(tmp_path / "film.mp4", TIMES), start)
    assert [number for _, number in found] == list(range(first, len(TIMES)))


def test_what_is_seen_at_moments(tmp_path):
    path = write_film(tmp_path / "film.mp4", TIMES)
    with films.open_film(path) as film:
        moments = (0.05, 0.39, 0.4, 1.95, 2.61, 2.7, 3.0)
        found = [
            (moment, number_of(shown.picture()))
            for moment, shown in films.at_moments(film.frames(0.0), iter(moments), late=0.1)
        ]
    # The last moment that gets a frame is later than the film by less than 0.1 s.
    expected = [(0.05, 0), (0.39, 2), (0.4, 3), (1.95, 5), (2.61, 7), (2.6, 7)]
    assert [number for _, number in found] == [number for _, number in expected]
    np.testing.assert_allclose([m for m, _ in found], [m for m, _ in expected], atol=1e-6)


def test_a_film_shorter_than_the_first_moment_has_its_last_frame(tmp_path):
    with films.open_film(write_film(tmp_path / "film.mp4", (0, 0.1))) as film:
        ((seconds, shown),) = films.at_moments(film.frames(0.0), itertools.count(15 / 16))
        assert (seconds, number_of(shown.picture())) == (pytest.approx(0.2 - 0.0, abs=0.11), 1)


@pytest.mark.parametrize(
    ("matrix", "size", "dark"),
    [
        ((0, 1, -1, 0), (48, 64), np.s_[:30]),  # to be turned clockwise, as phones say
        ((0, -1, 1, 0), (48, 64), np.s_[34:]),
        ((-1, 0, 0, -1), (64, 48), np.s_[:, 34:]),
    ],
)
def test_films_that_lie_are_shown_upright(tmp_path, matrix, size, dark):
    with av.open(str(tmp_path / "film.mp4"), "w") as file:
        stream = file.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        picture = np.full((48, 64, 3), 200, np.uint8)
        picture[:, :32] = 20  # the left half
        for frame in (av.VideoFrame.from_ndarray(picture), None):
            file.mux(stream.encode(frame))
    content = bytearray((tmp_path / "film.mp4").read_bytes())
    a, b, c, d = (value * 2**16 for value in matrix)
    struct.pack_into(">9i", content, content.index(b"tkhd") + 44, a, b, 0, c, d, 0, 0, 0, 2**30)
    (tmp_path / "film.mp4").write_bytes(content)
    with films.open_film(tmp_path / "film.mp4") as film:
        (shown,) = (frame.picture() for frame in film.frames(0.0))
    assert (film.width, film.height) == size == shown.shape[1::-1]
    assert shown[dark].max() < 60 and shown.mean() > 90


def test_pixels_that_are_not_square_become_so(tmp_path):
    path = write_film(tmp_path / "film.mkv", (0, 0.1), aspect=Fraction(2, 1))
    with films.open_film(path) as film:
        assert (film.width, film.height) == (128, 48)
        assert [shown.picture().shape for shown in film.frames(0.0)] == [(48, 128, 3)] * 2


def test_a_film_cut_short_is_a_sentence_and_not_a_shorter_film(tmp_path):
    times = [n / 25 for n in range(250)]
    path = write_film(tmp_path / "film.mp4", times, size=(320, 240), codec="libx264")
    with (
        av.open(str(path)) as file,
        av.open(str(tmp_path / "fast.mp4"), "w", options={"movflags": "+faststart"}) as copy,
    ):
        (source,) = file.streams
        target = copy.add_stream_from_template(source)
        for packet in file.demux(source):
            if packet.dts is not None:
                packet.stream = target
                copy.mux(packet)
    whole = (tmp_path / "fast.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) * 3 // 4])
    with pytest.raises(MediaError, match="cut.mp4"):
        read(tmp_path / "cut.mp4")
    assert len(read(tmp_path / "fast.mp4")[1]) == 250


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"no film at all\n" * 100, "it is cut short, damaged, encrypted or no video"),
        (bytes(5000), "it is cut short, damaged, encrypted or no video"),
    ],
)
def test_what_is_no_film(tmp_path, content, reason):
    (tmp_path / "film.mp4").write_bytes(content)
    with (
        pytest.raises(MediaError, match=rf"video cannot be read: .*film.mp4 \({reason}"),
        films.open_film(tmp_path / "film.mp4"),
    ):
        pass


def test_frames_larger_than_4k_are_refused(tmp_path):
    path = write_film(tmp_path / "film.mp4", (0,), size=(7680, 4320), codec="libx264")
    with pytest.raises(MediaError, match="7680x4320 pixels are larger"), films.open_film(path):
        pass
