"""CAVP's power spectrogram against PyTorch's transform, and which samples a row is made of."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from data_pipelines.loading.power_spectrogram import SILENCE, PowerMel, middle, power_mel

SECOND = 16000


@pytest.fixture(scope="module")
def sounds():
    return np.random.default_rng(0).normal(0, 0.1, (2, 3 * SECOND + 100)).astype(np.float32)


def by_torch(sound, frames):
    """Bands whose edges are evenly spaced in HTK's mel, of torch's spectrum."""
    spectrum = torch.stft(
        torch.from_numpy(sound).double(),
        512,
        160,
        400,
        torch.hann_window(400, dtype=torch.double),
        return_complex=True,
    )
    power = spectrum.abs().numpy()[:, :frames] ** 2
    edges = np.linspace(2595 * np.log10(1 + 125 / 700), 2595 * np.log10(1 + 3800 / 700), 66)
    edges = 700 * (10 ** (edges / 2595) - 1)
    hertz = np.arange(257) * 16000 / 512
    bands = [np.interp(hertz, edges[band : band + 3], [0, 1, 0]) for band in range(64)]
    return 20 * np.log10(np.maximum(1e-5, np.array(bands) @ power)).T / 100


@pytest.mark.parametrize(("length", "frames"), [(SECOND, 96), (3 * SECOND, 300), (9600, 61)])
def test_equals_torch(sounds, length, frames):
    ours = power_mel(sounds[:, :length], 300 if length > SECOND else 96)
    theirs = np.stack([by_torch(sound[:length], frames) for sound in sounds])
    assert ours.shape == (2, frames, 64) and ours.dtype == np.float32
    # Products of float32, of frames whose bands are up to 1e-4 of the loudest.
    np.testing.assert_allclose(ours, theirs, atol=2e-5)


@pytest.mark.parametrize("heard", [1, 3])
@pytest.mark.parametrize("channels", [1, 2])
def test_rows(sounds, heard, channels):
    waveform = sounds.T[:, :channels]
    front_end = PowerMel(channels, heard)
    rows = front_end(waveform, 3)
    assert rows.shape == (3, {1: 96, 3: 300}[heard], 64, *[2] * (channels == 2))
    np.testing.assert_array_equal(front_end(waveform, 1), rows[:1])
    np.testing.assert_allclose(front_end(jnp.asarray(waveform), 3, jnp), rows, atol=1e-5)
    left = rows if channels == 1 else rows[..., 0]
    own = waveform[SECOND : 2 * SECOND, 0] if heard == 1 else waveform[: 3 * SECOND, 0]
    np.testing.assert_array_equal(left[1], power_mel(own[None], 300 if heard == 3 else 96)[0])
    if heard == 3:  # three seconds that the clip has, whichever is in the middle
        np.testing.assert_array_equal(left[0], left[1])


def test_silence_is_exactly_minus_one_and_so_is_nothing():
    assert (PowerMel()(np.zeros((SECOND, 1), np.float32), 1) == SILENCE).all()
    assert (PowerMel(2, 3)(np.zeros((0, 2), np.float32), 2) == SILENCE).all()


def test_excerpts():
    ramp = np.arange(30)
    np.testing.assert_array_equal(middle(30, 10), ramp[10:20])
    np.testing.assert_array_equal(middle(4, 10), [0, 1, 2, 3, 0, 1, 2, 3, 0, 1])
    # From the end, by Python's rule: 8 // 2 - 10 // 2 is -1.
    np.testing.assert_array_equal(middle(8, 10, as_published=True), [7] * 10)
    np.testing.assert_array_equal(middle(30, 10, as_published=True), ramp[10:20])


def test_the_published_cut_of_five_seconds_begins_in_the_middle():
    ramp = (np.arange(5 * SECOND) / (5 * SECOND)).astype(np.float32)[:, None]
    published, ours = PowerMel(as_published=True)(ramp, 5), PowerMel()(ramp, 5)
    for row, start in enumerate((2.5, 3.5, None, 3.0, 4.0)):
        if start is not None:
            own = ramp[int(start * SECOND) :][:SECOND].T
            np.testing.assert_array_equal(published[row], power_mel(own, 96)[0])
    np.testing.assert_array_equal(ours[1], power_mel(ramp[SECOND : 2 * SECOND].T, 96)[0])
