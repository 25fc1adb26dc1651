"""What is heard at a moment: that of a clip of whole seconds, cut a little later for each frame."""

import itertools

import numpy as np
import pytest
import soundfile

from aavs_jax.prediction.hearing import CLIP_SECONDS, Hearing, moments
from data_pipelines.loading.front_ends import LogMel
from data_pipelines.media.sound_stream import open_sound

RATE = 16000


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """(file, its samples as float32 [S,1]) of 23 s of noise."""
    path = tmp_path_factory.mktemp("sound") / "noise.wav"
    samples = np.random.default_rng(0).integers(-9000, 9000, (23 * RATE, 1)).astype(np.int16)
    soundfile.write(path, samples, RATE)
    return path, samples.astype(np.float32) / 32768


def rows(path, times, channels=1, at_a_time=7):
    front_end = LogMel(channels)
    with open_sound(path, 0.0, channels) as stream:
        hearing = Hearing(stream, [front_end])
        parts = [
            hearing.rows(times[begin : begin + at_a_time])[front_end]
            for begin in range(0, len(times), at_a_time)
        ]
    return np.concatenate(parts)


def first(rate, count):
    return list(itertools.islice(moments(rate), count))


def test_a_frame_a_second_hears_what_prepared_clips_of_ten_seconds_do(sound):
    path, samples = sound
    found = rows(path, first(1, 23))
    clips = [samples[begin * RATE :][: CLIP_SECONDS * RATE] for begin in (0, 10, 20)]
    expected = [LogMel()(clip, min(10, len(clip) // RATE)) for clip in clips]
    np.testing.assert_array_equal(found, np.concatenate(expected))


def test_four_frames_a_second_hear_four_clips_each_a_quarter_second_later(sound):
    path, samples = sound
    found = rows(path, first(4, 40))
    # The frame at 15/16 s + n is the fourth of its second; its clip is that which begins at 0.
    assert first(4, 4)[3] == pytest.approx(3.9375 / 4)
    for phase in range(4):
        late = first(4, 40)[phase + 4] - 15 / 16  # of the second one, as the first begin before 0
        cut = round(late * 20) / 20 % 1
        clip = samples[round(cut * RATE) :][: 10 * RATE]
        begun = int(late * 20 + 0.5) // 20
        expected = LogMel()(clip, 8)[begun]
        np.testing.assert_array_equal(found[phase + 4], expected)


def test_before_a_whole_second_was_heard_it_is_the_first_second(sound):
    path, samples = sound
    found = rows(path, [0.0, 0.3, 15 / 16])
    expected = LogMel()(samples[:RATE], 1)[0]
    for row in found:
        np.testing.assert_array_equal(row, expected)


def test_one_network_hears_both_sides_and_another_their_mean(tmp_path):
    samples = np.random.default_rng(1).integers(-9000, 9000, (2 * RATE, 2)).astype(np.int16)
    soundfile.write(tmp_path / "sides.wav", samples, RATE)
    waveform = samples.astype(np.float32) / 32768
    with open_sound(tmp_path / "sides.wav", 0.0, 2) as stream:
        found = Hearing(stream, [LogMel(1), LogMel(2)]).rows([15 / 16])
    expected = LogMel(2)(waveform, 1)
    np.testing.assert_array_equal(found[LogMel(2)], expected)
    np.testing.assert_array_equal(found[LogMel(1)], LogMel(1)(waveform.mean(1, keepdims=True), 1))


def test_both_sides_and_the_silence_after_the_end(sound):
    path, _ = sound
    both = rows(path, first(1, 30), channels=2)
    np.testing.assert_array_equal(both[..., 0], both[..., 1])
    np.testing.assert_array_equal(both[..., 0], rows(path, first(1, 30)))
    silent = np.float32(np.log(0.01))
    np.testing.assert_allclose(both[25:], silent, rtol=1e-6)
    assert (both[:22] > silent + 0.1).any(axis=(1, 2, 3)).all()
