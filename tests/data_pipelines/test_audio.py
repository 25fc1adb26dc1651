"""Sound files to waveforms, waveforms to log-mel examples."""

import numpy as np
import pytest
import soundfile

from data_pipelines import audio
from data_pipelines.errors import DataError


def plain_log_mel(waveform):
    """The definition, in float64, with an FFT and band by band."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    mel = 1127 * np.log(1 + np.arange(257) * 16000 / 512 / 700)
    edges = np.linspace(1127 * np.log(1 + 125 / 700), 1127 * np.log(1 + 7500 / 700), 66)
    rows = []
    for start in range(0, len(waveform) - 399, 160):
        magnitude = np.abs(np.fft.rfft(waveform[start : start + 400] * window, 512))
        magnitude[0] = 0
        row = []
        for low, centre, high in zip(edges, edges[1:], edges[2:], strict=False):
            weight = np.minimum((mel - low) / (centre - low), (high - mel) / (high - centre))
            row.append(np.log(np.maximum(weight, 0) @ magnitude + 0.01))
        rows.append(row)
    whole = len(rows) // 96 * 96
    return np.array(rows[:whole]).reshape(-1, 96, 64)


def test_log_mel_equals_its_definition():
    waveform = np.random.default_rng(0).normal(0, 0.2, 2 * 16000 + 77).astype(np.float32)
    examples = audio.log_mel_examples(waveform)
    expected = plain_log_mel(waveform.astype(np.float64))
    assert examples.dtype == np.float32 and examples.shape == expected.shape == (2, 96, 64)
    # 1e-4 of the largest is what the golden numbers ask for; float32 gives 1e-6.
    assert np.abs(examples - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize(
    "samples, count",
    [(0, 0), (399, 0), (400 + 95 * 160 - 1, 0), (400 + 95 * 160, 1), (80000, 5), (160000, 10)],
)
def test_number_of_examples(samples, count):
    assert audio.log_mel_examples(np.zeros(samples, np.float32)).shape == (count, 96, 64)


def test_silence_is_the_log_mel_of_zeros():
    examples = audio.log_mel_examples(np.zeros(80000, np.float32))
    np.testing.assert_array_equal(examples, np.stack([audio.silence_example()] * 5))


def test_int16_scale(tmp_path):
    samples = np.array([-32768, -1, 0, 1, 32767], np.int16)
    soundfile.write(tmp_path / "a.wav", samples, 16000, subtype="PCM_16")
    waveform = audio.load_waveform(tmp_path / "a.wav")
    assert waveform.dtype == np.float32
    np.testing.assert_array_equal(waveform, samples / np.float32(32768))


def test_stereo_at_another_rate(tmp_path):
    """44.1 kHz stereo: channels averaged, resampled, the tone where it was."""
    time = np.arange(2 * 44100) / 44100
    tone = np.sin(2 * np.pi * 1000 * time)
    soundfile.write(tmp_path / "a.wav", np.stack([0.6 * tone, 0.2 * tone], 1), 44100)
    waveform = audio.load_waveform(tmp_path / "a.wav")
    assert waveform.shape == (32000,) and waveform.dtype == np.float32
    expected = 0.4 * np.sin(2 * np.pi * 1000 * np.arange(32000) / 16000)
    inside = slice(500, -500)  # resampling rings at the ends
    np.testing.assert_allclose(waveform[inside], expected[inside], atol=2e-3)


def test_fit_examples_repeats_the_last_or_truncates():
    examples = np.arange(3, dtype=np.float32)[:, None, None] * np.ones((1, 96, 64), np.float32)
    assert audio.fit_examples(examples, 5)[:, 0, 0].tolist() == [0, 1, 2, 2, 2]
    assert audio.fit_examples(examples, 2)[:, 0, 0].tolist() == [0, 1]
    with pytest.raises(DataError, match="too short"):
        audio.fit_examples(examples[:0], 5)


def test_faults(tmp_path):
    with pytest.raises(DataError, match=r"missing: .*none\.wav"):
        audio.load_waveform(tmp_path / "none.wav")
    (tmp_path / "text.wav").write_text("this is not sound")
    with pytest.raises(DataError, match=r"cannot be read: .*text\.wav"):
        audio.load_waveform(tmp_path / "text.wav")
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 16000)
    with pytest.raises(DataError, match=r"no samples: .*empty\.wav"):
        audio.load_waveform(tmp_path / "empty.wav")
    nan = np.full(16000, np.nan, np.float32)
    soundfile.write(tmp_path / "nan.wav", nan, 16000, subtype="FLOAT")
    with pytest.raises(DataError, match=r"no numbers: .*nan\.wav"):
        audio.load_waveform(tmp_path / "nan.wav")


@pytest.mark.parametrize("rate", [8000, 11025, 44100, 48000])
def test_resampling_is_librosas_to_the_bit(rate):
    """librosa, which the field resamples with, takes seconds to import; its resampler does not."""
    import librosa

    for length in (1, rate + 17):
        waveform = np.random.default_rng(rate).normal(size=length).astype(np.float32)
        theirs = librosa.resample(waveform, orig_sr=rate, target_sr=16000, res_type="soxr_hq")
        np.testing.assert_array_equal(audio.resample(waveform, rate), theirs.astype(np.float32))
