"""Clips of any length as streams: the masks of a call, at any number of frames a second."""

import itertools
import threading
from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest
import soundfile
import soxr
from PIL import Image

from aavs_jax.errors import UserError
from aavs_jax.prediction import sources, stream
from aavs_jax.prediction.hearing import Hearing
from aavs_jax.prediction.result import Result, at_size
from data_pipelines.media.films import Shown

SECONDS = 12  # more than the clips that a sound is cut into


@pytest.fixture(scope="module")
def model(marking_tiny_run):
    return marking_tiny_run


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """(folder of frames and sound, frames, samples)."""
    folder = tmp_path_factory.mktemp("clips") / "noise"
    random = np.random.default_rng(1)
    blocks = random.integers(0, 256, (SECONDS, 5, 7, 3)).astype(np.uint8)
    frames = blocks.repeat(8, axis=1).repeat(8, axis=2)
    (folder / "frames").mkdir(parents=True)
    for second, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / "frames" / f"{second}.png")
    samples = random.integers(-9000, 9000, SECONDS * 16000).astype(np.int16)
    soundfile.write(folder / "audio.wav", samples, 16000)
    return folder, frames, samples


def check(results, model, frames, samples):
    """Results are those of calls with these clips, pixel by pixel, of masks and confidence."""
    for begin in range(0, len(frames), 10):
        part = slice(begin, min(begin + 10, len(frames)))
        sound = samples[part.start * 16000 : part.stop * 16000]
        found = results[part]
        np.testing.assert_array_equal([r.mask for r in found], model(frames[part], sound))
        confidence = model.predict(frames[part], sound).maps["confidence"][0]
        # Other numbers of frames are computed at once, which moves the last bits.
        np.testing.assert_allclose([r.confidence for r in found], confidence, atol=1e-5)


@pytest.mark.slow
def test_a_stream_gives_what_a_call_gives_of_clips_of_ten_seconds(model, clip):
    folder, frames, samples = clip
    results = list(model.stream(folder))
    assert [result.index for result in results] == list(range(SECONDS))
    np.testing.assert_allclose([r.seconds for r in results], np.arange(SECONDS) + 15 / 16)
    check(results, model, frames, samples)
    grids = np.stack([result.grid for result in results])
    differ = (grids[1:] != grids[:-1]).any(axis=(1, 2))
    assert differ.mean() > 0.5  # or else this would not say much
    untold = model.predict(frames[:10], samples[:160000], np.zeros((10, 32, 32))).classes[0]
    assert (untold != grids[:10]).any()
    for result, frame in zip(results, frames, strict=True):
        np.testing.assert_array_equal(result.frame, frame)


def test_part_of_a_clip(model, clip):
    folder, frames, samples = clip
    results = list(model.stream(folder, start=3, duration=4))
    assert len(results) == 4 and results[0].index == 0
    assert results[0].seconds == pytest.approx(3 + 15 / 16)
    check(results, model, frames[3:7], samples[3 * 16000 : 7 * 16000])
    with pytest.raises(UserError, match=r"12.0 s long, and --start=60 is beyond"):
        next(model.stream(folder, start=60))


def test_another_sound_and_silence(model, clip, tmp_path):
    folder, frames, _ = clip
    other = np.random.default_rng(2).integers(-9000, 9000, 16000 * SECONDS).astype(np.int16)
    soundfile.write(tmp_path / "other.wav", other, 16000)
    heard = list(model.stream(folder, sound=tmp_path / "other.wav", duration=10))
    check(heard, model, frames[:10], other)
    silent = list(model.stream(folder, silence=True, duration=10))
    check(silent, model, frames[:10], np.zeros(16000 * 10, np.float32))
    own = list(model.stream(folder, duration=10))
    for one, another in itertools.combinations((own, heard, silent), 2):
        differ = np.abs([a.confidence - b.confidence for a, b in zip(one, another, strict=True)])
        assert differ.max() > 1e-3  # it listens, or else these would not say anything


def test_a_stream_reads_no_further_than_it_has_to_and_ends_its_thread(model, clip, monkeypatch):
    (found,) = sources.find([str(clip[0])])
    read = []
    picture = sources._picture

    def noting(path, *rest):
        read.append(path)
        return picture(path, *rest)

    monkeypatch.setattr(sources, "_picture", noting)
    monkeypatch.setattr(stream, "suitable", lambda *_: 1)
    threads = set(threading.enumerate())
    results = stream.results(model, found)
    next(results)
    assert len(set(threading.enumerate()) - threads) == 1
    results.close()
    assert set(threading.enumerate()) == threads
    # One given out, one computing, those that are ready and the one being read; and the first.
    assert len(read) <= 4 + stream.AHEAD


@pytest.mark.parametrize(("seconds", "count"), [(0.3, 1), (2.4, 2), (2.6, 3)])
def test_a_second_that_is_there_by_half_has_its_mask(clip, seconds, count):
    (found,) = sources.find([str(clip[0])])
    shown = Shown(0.0, seconds, lambda: None)
    opened = sources.OpenClip(8, 6, 1, seconds, lambda start: iter([shown]))
    taken = list(stream._taken(found, opened, stream.Span(), 1))
    assert len(taken) == count and max(moment for moment, _, _ in taken) < seconds


@pytest.mark.parametrize(
    ("rate", "fps", "seconds", "times"),
    [
        (1, 1, [0, 1, 2, 3], np.arange(4) + 15 / 16),
        (1, 4, np.arange(16) / 4 - 45 / 64, (np.arange(16) + 15 / 16) / 4),
        (1, "all", [0, 1, 2, 3], [0, 1, 2, 3]),
        (Fraction(1, 2), 1, [0, 1, 2, 3], np.arange(4) + 15 / 16),
        (Fraction(1, 2), "all", [0, 2], [0, 2]),
        (4, 4, np.arange(16) / 4 - 45 / 64, np.arange(16) / 4),
        (4, "all", np.arange(16) / 4 - 45 / 64, np.arange(16) / 4),
    ],
)
def test_a_frame_hears_the_second_it_is_shown_in(
    model, tmp_path, monkeypatch, rate, fps, seconds, times
):
    film, sound = tmp_path / "slow.mp4", tmp_path / "sound.wav"
    with av.open(str(film), "w") as file:
        pictures = file.add_stream("libx264", rate=rate)
        pictures.width, pictures.height, pictures.pix_fmt = 64, 48, "yuv420p"
        blank = np.zeros((48, 64, 3), np.uint8)
        for frame in (*[av.VideoFrame.from_ndarray(blank)] * int(4 * rate), None):
            if frame is not None:
                frame.pts = None
            file.mux(pictures.encode(frame))
    soundfile.write(sound, np.zeros(64000, np.int16), 16000)
    heard, rows = [], Hearing.rows
    monkeypatch.setattr(Hearing, "rows", lambda self, at: heard.extend(at) or rows(self, at))
    (clip,) = sources.find([str(film)], sound)
    results = list(stream.results(model, clip, stream.Span(fps)))
    np.testing.assert_allclose([result.seconds for result in results], times, atol=1e-3)
    begin = np.array(heard[: len(results)]) - 15 / 16
    np.testing.assert_allclose(begin, seconds, atol=1e-3)


def test_what_is_heard_never_goes_back(clip):
    (found,) = sources.find([str(clip[0])])
    shown = [Shown(0.0, 0.9, lambda: None), Shown(0.1, 0.1, lambda: None)]
    opened = sources.OpenClip(8, 6, 10, 0.2, lambda start: iter(shown))
    heard = [at for _, at, _ in stream._taken(found, opened, stream.Span(), "all")]
    assert heard == [0.9 * 15 / 16] * 2


def test_a_part_in_which_nothing_is_seen_yet(clip):
    (found,) = sources.find([str(clip[0])])
    late = Shown(1.3, 0.1, lambda: None)
    opened = sources.OpenClip(8, 6, 10, 5.0, lambda start: iter([late]))
    for fps in (1, "all"):
        with pytest.raises(UserError, match="noise shows nothing until second 1: choose another"):
            next(stream._taken(found, opened, stream.Span(duration=1), fps))
        ((moment, _, shown),) = stream._taken(found, opened, stream.Span(duration=1.4), fps)
        assert shown.seconds == late.seconds and moment == (1.3 if fps == "all" else 15 / 16)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fps": 0}, "fps is 0: give masks a second, such as 1 or 4, or 'all'"),
        ({"fps": "most"}, "fps is 'most'"),
        ({"start": -1}, "start is -1: give seconds, from 0"),
        ({"duration": 0}, "duration is 0: give seconds, more than 0"),
    ],
)
def test_options_that_cannot_be(model, clip, options, message):
    with pytest.raises(UserError, match=message):
        model.stream(clip[0], **options)


def test_networks_that_look_over_time_have_clips_of_their_own_length():
    looking = SimpleNamespace(method=SimpleNamespace(over_time=True))
    card = SimpleNamespace(network={}, describe=lambda: "TPAVI")
    network = SimpleNamespace(card=card, chain=(looking,), before=None)
    with (
        pytest.raises(UserError, match="TPAVI looks at 10 seconds at once: leave --batch-frames"),
        stream.streaming(network, None, stream.Span(), frames=4),
    ):
        pass


def test_what_a_user_gives_wrongly_is_a_sentence(model, clip):
    _, frames, samples = clip
    for given, options, message in (
        ((frames[:1] / 255, samples), {}, "frames are float64"),
        ((frames[:1], samples.astype(np.int32)), {}, r"the waveform is int32: give floats"),
        ((frames[:1], samples.astype(float)), {}, "samples reach 9000: give floats in"),
        ((frames[:1], samples), {"sample_rate": 0}, "sample_rate is 0: give it in Hz"),
    ):
        with pytest.raises(UserError, match=message):
            model(*given, **options)


def test_a_sound_at_another_rate_is_resampled(model, clip):
    _, frames, samples = clip
    given = samples[:32000].astype(np.float32) / 32768
    doubled = soxr.resample(given, 16000, 32000)
    low = model.scores(frames[:2], given)
    assert low.shape[-1] == len(model.classes) and low.dtype == np.float32
    high = model.scores(frames[:2], doubled, sample_rate=32000)
    wrong = model.scores(frames[:2], doubled)
    assert np.abs(high - low).max() < 0.2 * np.abs(wrong - low).max()
    np.testing.assert_array_equal(low.argmax(-1), model.predict(frames[:2], given).classes[0])


def test_results_name_and_measure_what_they_hold():
    grid = np.zeros((4, 4), np.uint8)
    grid[:2, 1:3] = 2
    confidence = np.where(grid == 2, 0.75, 0.5).astype(np.float32)
    frame = np.zeros((8, 12, 3), np.uint8)
    result = Result(0, 0.5, frame, grid, confidence, ("background", "<b>", "dog & cat"))
    (found,) = result.objects
    assert (found.class_id, found.name, found.score) == (2, "dog & cat", 0.75)
    assert found.share == pytest.approx((result.mask == 2).mean()) and found.box[1] == 0
    assert result.mask.shape == (8, 12) and result.overlay().shape == (8, 12, 3)
    html = result._repr_html_()
    assert "dog &amp; cat" in html and "0.75" in html and "data:image/jpeg" in html


@pytest.mark.parametrize("size", [(64, 64), (96, 128), (53, 81), (40, 70)])
def test_enlarged_masks_hold_the_grid(size):
    random = np.random.default_rng(3)
    grid = random.integers(0, 4, (16, 20)).astype(np.uint8)
    large = at_size(grid, size)
    rows = ((np.arange(16) + 0.5) * size[0] / 16).astype(int)
    columns = ((np.arange(20) + 0.5) * size[1] / 20).astype(int)
    assert (large[rows[:, None], columns] == grid).mean() > 0.999
    np.testing.assert_array_equal(at_size(grid, (16, 20)), grid)
    assert set(np.unique(at_size(grid, (7, 9)))) <= {0, 1, 2, 3}
