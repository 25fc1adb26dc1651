"""Sounds as streams: the samples that prepared data hold, in order, silence where there is none."""

from fractions import Fraction

import av
import numpy as np
import pytest
import soundfile

from data_pipelines.media import MediaError, sound_stream, waveforms


def noise(rate: int, seconds: float, channels: int = 2) -> np.ndarray:
    random = np.random.default_rng(rate)
    samples = np.clip(0.1 * random.normal(size=(round(rate * seconds), channels)), -1, 1)
    return samples.astype(np.float32)


@pytest.mark.parametrize("rate", [16000, 44100, 8000])
def test_samples_are_those_of_the_file_read_at_once(tmp_path, rate):
    soundfile.write(tmp_path / "sound.wav", noise(rate, 5.3), rate)
    expected = waveforms.to_int16(waveforms.load_waveform(tmp_path / "sound.wav")) / 32768
    with sound_stream.open_sound(tmp_path / "sound.wav") as sound:
        # Windows that overlap, as those of clips do.
        parts = [sound.read(16000 * n, 16000 * n + 20000) for n in range(7)]
    for part, following in zip(parts, parts[1:], strict=False):
        np.testing.assert_array_equal(part[16000:], following[:4000])
    read = np.concatenate([part[:16000, 0] for part in parts])
    np.testing.assert_array_equal(read[: len(expected)], expected.astype(np.float32))
    assert not read[len(expected) :].any()
    assert sound.begins == 0 and sound.ends == pytest.approx(5.3, abs=1e-3)


def test_left_and_right_and_a_later_start(tmp_path):
    given = noise(16000, 3)
    soundfile.write(tmp_path / "sound.wav", given, 16000, subtype="FLOAT")
    with sound_stream.open_sound(tmp_path / "sound.wav", 1.5, channels=2) as sound:
        read = sound.read(100, 8100)
    np.testing.assert_array_equal(read, waveforms.to_int16(given[24100:32100]) / np.float32(32768))
    with sound_stream.open_sound(tmp_path / "sound.wav", 60.0) as sound:
        assert not sound.read(0, 1000).any() and sound.begins is None and sound.ends == 0


def test_peaks_are_the_highest_level_of_each_fiftieth(tmp_path):
    given = np.zeros(16000)
    given[320 * 7 + 5], given[320 * 30] = -0.5, 0.25
    soundfile.write(tmp_path / "sound.wav", given, 16000)
    with sound_stream.open_sound(tmp_path / "sound.wav") as sound:
        sound.read(0, 16000)
    peaks = sound.peaks()
    assert len(peaks) == 50 and set(np.flatnonzero(peaks)) == {7, 30}
    np.testing.assert_allclose(peaks[[7, 30]], [0.5, 0.25], atol=1e-4)


def test_faults_are_sentences_that_name_the_file(tmp_path):
    bad = noise(16000, 1)
    bad[800] = np.nan
    soundfile.write(tmp_path / "bad.wav", bad, 16000, subtype="FLOAT")
    with (
        pytest.raises(MediaError, match="samples that are no numbers: .*bad.wav"),
        sound_stream.open_sound(tmp_path / "bad.wav") as sound,
    ):
        sound.read(0, 16000)
    (tmp_path / "text.wav").write_text("no sound")
    with (
        pytest.raises(MediaError, match="text.wav"),
        sound_stream.open_sound(tmp_path / "text.wav"),
    ):
        pass


def test_a_sound_that_begins_later_than_its_pictures(tmp_path):
    given = (9000 * np.sin(np.arange(16000))).astype(np.int16)
    with av.open(str(tmp_path / "film.mkv"), "w") as file:
        pictures = file.add_stream("mpeg4", rate=10)
        pictures.width, pictures.height, pictures.pix_fmt = 64, 48, "yuv420p"
        track = file.add_stream("flac", rate=16000, layout="mono")
        picture = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8))
        heard = av.AudioFrame.from_ndarray(given[None], "s16", "mono")
        heard.sample_rate, heard.pts, heard.time_base = 16000, 8000, Fraction(1, 16000)
        for stream, frame in ((pictures, picture), (pictures, None), (track, heard), (track, None)):
            file.mux(stream.encode(frame))
    for start in (0.0, 0.25):
        late = round(16000 * (0.5 - start))
        with sound_stream.open_sound(tmp_path / "film.mkv", start) as sound:
            read = sound.read(0, late + 16000)[:, 0]
        assert sound.begins == pytest.approx(0.5 - start, abs=1e-3) and not read[:late].any()
        np.testing.assert_array_equal(read[late:], given / np.float32(32768))
