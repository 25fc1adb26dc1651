"""Sound files to waveforms at the rate that networks hear."""

import numpy as np
import pytest
import soundfile

from data_pipelines.errors import DataError
from data_pipelines.media import waveforms


def test_int16_scale(tmp_path):
    samples = np.array([-32768, -1, 0, 1, 32767], np.int16)
    soundfile.write(tmp_path / "a.wav", samples, 16000, subtype="PCM_16")
    waveform = waveforms.load_waveform(tmp_path / "a.wav")
    assert waveform.dtype == np.float32
    np.testing.assert_array_equal(waveform, samples / np.float32(32768))


def test_stereo_at_another_rate(tmp_path):
    """44.1 kHz stereo: channels averaged, resampled, the tone where it was."""
    time = np.arange(2 * 44100) / 44100
    tone = np.sin(2 * np.pi * 1000 * time)
    soundfile.write(tmp_path / "a.wav", np.stack([0.6 * tone, 0.2 * tone], 1), 44100)
    waveform = waveforms.load_waveform(tmp_path / "a.wav")
    assert waveform.shape == (32000,) and waveform.dtype == np.float32
    expected = 0.4 * np.sin(2 * np.pi * 1000 * np.arange(32000) / 16000)
    inside = slice(500, -500)  # resampling rings at the ends
    np.testing.assert_allclose(waveform[inside], expected[inside], atol=2e-3)


def test_the_stored_form_comes_back_exactly_and_is_clipped():
    samples = np.arange(-32768, 32768, 7, dtype=np.int16)
    np.testing.assert_array_equal(waveforms.to_int16(samples / np.float32(32768)), samples)
    beyond = np.array([[1.0, -1.0], [5.0, -5.0], [0.4 / 32768, -0.6 / 32768]], np.float32)
    found = waveforms.to_int16(beyond)
    assert found.dtype == np.int16
    assert found.tolist() == [[32767, -32768], [32767, -32768], [0, -1]]


def test_faults(tmp_path):
    with pytest.raises(DataError, match=r"missing: .*none\.wav"):
        waveforms.load_waveform(tmp_path / "none.wav")
    (tmp_path / "text.wav").write_text("this is not sound")
    with pytest.raises(DataError, match=r"cannot be read: .*text\.wav"):
        waveforms.load_waveform(tmp_path / "text.wav")
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 16000)
    with pytest.raises(DataError, match=r"no samples: .*empty\.wav"):
        waveforms.load_waveform(tmp_path / "empty.wav")
    nan = np.full(16000, np.nan, np.float32)
    soundfile.write(tmp_path / "nan.wav", nan, 16000, subtype="FLOAT")
    with pytest.raises(DataError, match=r"no numbers: .*nan\.wav"):
        waveforms.load_waveform(tmp_path / "nan.wav")


@pytest.mark.parametrize("rate", [8000, 11025, 44100, 48000])
def test_resampling_is_librosas_to_the_bit(rate):
    """librosa, which the field resamples with, takes seconds to import; its resampler does not."""
    import librosa

    for length in (1, rate + 17):
        waveform = np.random.default_rng(rate).normal(size=length).astype(np.float32)
        theirs = librosa.resample(waveform, orig_sr=rate, target_sr=16000, res_type="soxr_hq")
        np.testing.assert_array_equal(waveforms.resample(waveform, rate), theirs.astype(np.float32))
