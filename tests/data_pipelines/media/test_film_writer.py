"""Films that are written: frames at their times, colours as they were, sound where it was."""

from fractions import Fraction

import av
import numpy as np
import pytest
import soundfile

from data_pipelines.media import MediaError
from data_pipelines.media.film_writer import FilmWriter, SoundTrack
from data_pipelines.media.sound_files import read_sound

TIMES = [0.0, 0.04, 0.1, 0.5, 0.517, 2.0, 2.3]
CLICKS = (0.5, 1.1, 1.9, 2.4)


def grey(level, width=64, height=48):
    return np.full((height, width, 3), level, np.uint8)


def write(path, times=TIMES, end=3.0, picture=None, **options):
    picture = grey(100) if picture is None else picture
    with FilmWriter(path, picture.shape[1], picture.shape[0], **options) as film:
        for seconds in times:
            film.write(seconds, picture)
        film.finish(end)
    return path


def clicks(rate, seconds=3.0, channels=1):
    """Silence, with 2 ms of noise at each of `CLICKS`."""
    sound = np.zeros((round(rate * seconds), channels), np.float32)
    for click in CLICKS:
        at = round(click * rate)
        sound[at : at + round(0.002 * rate)] = 0.8
    return sound


def clip(path, *, sound_codec, rate, video_late=0.0, sound_late=0.0, layout="mono"):
    """A video with `CLICKS`, by the clock of its sound, which begins at `sound_late`."""
    video_codec = "libvpx" if path.suffix == ".webm" else "mpeg4"
    with av.open(str(path), "w") as file:
        pictures = file.add_stream(video_codec, rate=10)
        pictures.width, pictures.height, pictures.pix_fmt = 64, 48, "yuv420p"
        track = file.add_stream(sound_codec, rate=rate, layout=layout)
        for i in range(30):
            frame = av.VideoFrame.from_ndarray(grey(5 * i))
            frame.pts, frame.time_base = i + round(10 * video_late), Fraction(1, 10)
            file.mux(pictures.encode(frame))
        file.mux(pictures.encode(None))
        planes = np.ascontiguousarray(clicks(rate, channels=2 if layout == "stereo" else 1).T)
        frame = av.AudioFrame.from_ndarray(planes, format="fltp", layout=layout)
        frame.sample_rate, frame.pts = rate, round(sound_late * rate)
        frame.time_base = Fraction(1, rate)
        file.mux(track.encode(frame))
        file.mux(track.encode(None))
    return path


def packets(path, kind):
    with av.open(str(path)) as file:
        found = file.demux(file.streams.best(kind))
        return [(float(p.pts * p.time_base), bytes(p)) for p in found if p.pts is not None]


def decoded(path):
    with av.open(str(path)) as file:
        return [(frame.time, frame.to_ndarray(format="rgb24")) for frame in file.decode(video=0)]


def heard(path):
    """Beginnings of what is loud, s."""
    excerpt = read_sound(path)
    loud = np.flatnonzero(np.abs(excerpt.samples[:, 0]) > 0.25) / excerpt.rate
    return [time for n, time in enumerate(loud) if n == 0 or time - loud[n - 1] > 0.1]


# --- pictures -----------------------------------------------------------------------------------


def test_frames_keep_their_times_and_the_last_lasts_until_the_end(tmp_path):
    path = write(tmp_path / "film.partial")
    assert [time for time, _ in decoded(path)] == pytest.approx(TIMES, abs=1e-5)
    with av.open(str(path)) as file:
        assert file.duration / av.time_base == pytest.approx(3.0, abs=0.01)
        context = file.streams.video[0].codec_context
        assert context.name == "h264" and context.pix_fmt == "yuv420p"
        assert not file.streams.audio
        tags = context.colorspace, context.color_primaries, context.color_trc, context.color_range
        assert tags == (1, 1, 1, 1)
        lasts = [p.duration * p.time_base for p in file.demux(video=0) if p.pts is not None]
        assert float(lasts[-1]) == pytest.approx(0.7, abs=1e-4)


def test_a_player_need_not_load_all_of_it_to_begin(tmp_path):
    content = write(tmp_path / "film.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")


@pytest.mark.parametrize("first", [-0.1, 0.7])
def test_the_first_frame_is_shown_from_the_beginning(tmp_path, first):
    path = write(tmp_path / "film.mp4", times=[first, 0.9, 2.0])
    assert [time for time, _ in decoded(path)] == pytest.approx([0, 0.9, 2], abs=1e-5)


def test_times_that_do_not_grow_are_told_apart(tmp_path):
    path = write(tmp_path / "film.mp4", times=[0.0, 1.0, 1.0, 0.5])
    times = [time for time, _ in decoded(path)]
    assert times == pytest.approx([0, 1, 1, 1], abs=1e-4) and len(set(times)) == 4


def test_colours_come_back(tmp_path):
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (250, 200, 40), (30, 90, 160), (128,) * 3]
    picture = np.repeat(np.repeat(np.array(colours, np.uint8)[None], 64, 0), 32, 1)
    _, found = decoded(write(tmp_path / "film.mp4", picture=picture))[-1]
    for n, colour in enumerate(colours):
        patch = found[8:56, 32 * n + 8 : 32 * n + 24].reshape(-1, 3).mean(axis=0)
        assert np.abs(patch - colour).max() <= 4, colour


@pytest.mark.parametrize("size", [(65, 47), (64, 47), (1, 1)])
def test_odd_sizes_gain_a_row_or_a_column(tmp_path, size):
    width, height = size
    picture = grey(60, width, height)
    picture[:, width // 2 :] = 200
    _, found = decoded(write(tmp_path / "film.mp4", picture=picture))[0]
    assert found.shape == (height + height % 2, width + width % 2, 3)
    assert np.abs(found[:, -1].astype(int) - 200).max() < 12  # the last column is repeated


# --- sound --------------------------------------------------------------------------------------


def test_sound_that_browsers_know_is_copied_to_the_byte(tmp_path):
    source = clip(tmp_path / "a.mp4", sound_codec="aac", rate=44100, layout="stereo")
    path = write(tmp_path / "film.mp4", sound=SoundTrack(source, 0, 10))
    assert packets(path, "audio") == packets(source, "audio")
    short = write(tmp_path / "short.mp4", sound=SoundTrack(source, 0, 1.5), end=1.5, times=[0, 1])
    copied = packets(short, "audio")
    assert copied == packets(source, "audio")[: len(copied)]
    assert 1.5 - 1024 / 44100 <= copied[-1][0] < 1.5


@pytest.mark.parametrize("start", [0.0, 0.8])
@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [("a.mp4", "aac", 44100), ("a.webm", "libopus", 48000), ("a.mkv", "flac", 22050)],
)
def test_sound_is_where_it_was(tmp_path, name, codec, rate, start):
    source = clip(tmp_path / name, sound_codec=codec, rate=rate)
    path = write(tmp_path / "film.mp4", sound=SoundTrack(source, start, 3 - start), end=3 - start)
    expected = [click - start for click in CLICKS if click > start]
    assert heard(path) == pytest.approx(expected, abs=0.02)
    with av.open(str(path)) as file:
        assert file.streams.audio[0].codec_context.name == "aac"


@pytest.mark.parametrize("rate", [8000, 37800, 96000])
def test_sound_files_of_any_rate(tmp_path, rate):
    soundfile.write(tmp_path / "a.wav", clicks(rate, channels=2), rate)
    sound = SoundTrack(tmp_path / "a.wav", 0.3, 2.7)
    path = write(tmp_path / "film.mp4", sound=sound, end=2.7)
    assert heard(path) == pytest.approx([click - 0.3 for click in CLICKS], abs=0.02)


@pytest.mark.parametrize("start", [0.0, 0.5])
@pytest.mark.parametrize(("video_late", "sound_late"), [(0.0, 0.7), (0.7, 0.0), (1.3, 0.7)])
def test_streams_that_begin_at_different_times(tmp_path, video_late, sound_late, start):
    """The earlier of them is the file's second 0."""
    source = clip(
        tmp_path / "a.mkv",
        sound_codec="aac",
        rate=44100,
        video_late=video_late,
        sound_late=sound_late,
    )
    origin = min(video_late, sound_late)
    path = write(tmp_path / "film.mp4", sound=SoundTrack(source, start, 4), end=4)
    expected = [click + sound_late - origin - start for click in CLICKS]
    assert heard(path) == pytest.approx([time for time in expected if time > 0], abs=0.03)


@pytest.mark.parametrize("start", [0.0, 0.4])
def test_a_sound_ends_with_the_film(tmp_path, start):
    """Of films that do not say how long they are, only the end does."""
    source = clip(tmp_path / "a.mp4", sound_codec="aac", rate=44100)
    path = write(tmp_path / "b.mp4", times=[0, 0.5], end=1.0, sound=SoundTrack(source, start, 99))
    with av.open(str(path)) as file:
        (track,) = file.streams.audio
        assert float(track.duration * track.time_base) == pytest.approx(1.0, abs=0.06)


def test_many_channels_are_heard_on_both_sides(tmp_path):
    sound = np.zeros((48000, 6), np.float32)
    sound[:, 2] = 0.9 * np.sin(np.arange(48000) / 10)
    soundfile.write(tmp_path / "a.wav", sound, 48000)
    path = write(tmp_path / "film.mp4", sound=SoundTrack(tmp_path / "a.wav", 0, 1), end=1)
    sides = read_sound(path, sides=True).samples
    assert sides.shape[1] == 2 and np.abs(sides).max(axis=0) == pytest.approx([0.15] * 2, abs=0.03)


def test_a_sound_lies_beside_its_pictures(tmp_path):
    """Neither is kept in memory, or in the file, long before the other."""
    rate = 16000
    soundfile.write(tmp_path / "a.wav", np.zeros(60 * rate), rate)
    times = np.arange(0, 60, 0.1)
    sound = SoundTrack(tmp_path / "a.wav", 0, 60)
    path = write(tmp_path / "film.mp4", times=times, end=60, sound=sound)
    reached = {"video": 0.0, "audio": 0.0}
    with av.open(str(path)) as file:
        found = [p for p in file.demux() if p.pts is not None]
        found.sort(key=lambda p: p.pos)
        for packet in found:
            reached[packet.stream.type] = float(packet.pts * packet.time_base)
            assert abs(reached["video"] - reached["audio"]) < 6
    assert min(reached.values()) > 59


# --- what goes wrong ----------------------------------------------------------------------------


def test_what_cannot_be_heard_is_a_sentence(tmp_path):
    (tmp_path / "text.mp4").write_text("no film")
    silent = write(tmp_path / "silent.mp4")
    for name, message in (
        ("none.mp4", r"sound file missing: .*none\.mp4"),
        ("text.mp4", r"sound file cannot be read: .*text\.mp4"),
        (silent.name, r"sound file cannot be read: .*silent\.mp4 \(it has no sound track"),
    ):
        for start in (0.0, 1.0):
            with pytest.raises(MediaError, match=message):
                write(tmp_path / "film.mp4", sound=SoundTrack(tmp_path / name, start, 1))


def test_what_cannot_be_written_is_a_sentence(tmp_path):
    with pytest.raises(MediaError, match=r"cannot write .*film\.mp4 \(No such file or directory\)"):
        write(tmp_path / "nowhere" / "film.mp4")
    with pytest.raises(MediaError, match=r"no frame for the film .*film\.mp4"):
        write(tmp_path / "film.mp4", times=[])
    with pytest.raises(ValueError, match=r"uint8 \[48, 64, 3\] in a film of uint8 \[48, 66, 3\]"):
        with FilmWriter(tmp_path / "film.mp4", 66, 48) as film:
            film.write(0, grey(0))


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "aac"), ("a.mkv", "flac")])
@pytest.mark.parametrize("start", [0.0, 0.5])
def test_damaged_sounds_are_a_sentence_or_a_film(tmp_path, name, codec, start):
    """Nothing else is raised, and what is written can be read."""
    content = clip(tmp_path / name, sound_codec=codec, rate=16000).read_bytes()
    random = np.random.default_rng(0)
    outcomes = set()
    for _ in range(12):
        damaged = bytearray(content)
        for place in random.integers(0, len(content), random.integers(1, 30)):
            damaged[place] = random.integers(0, 256)
        cut = random.integers(len(content) // 2, len(content) + 1)
        (tmp_path / f"b{name}").write_bytes(damaged[:cut])
        try:
            sound = SoundTrack(tmp_path / f"b{name}", start, 2)
            path = write(tmp_path / "film.mp4", times=[0, 1], end=2, sound=sound)
            assert len(decoded(path)) == 2
            outcomes.add("film")
        except MediaError as error:
            assert name in str(error) or "film.mp4" in str(error)
            outcomes.add("sentence")
    assert "sentence" in outcomes


def test_names_that_look_like_protocols(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(decoded(tmp_path / write("clip:1.mp4"))) == len(TIMES)
