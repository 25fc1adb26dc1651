"""What is heard of a waveform: log-mel examples by their definition, or the samples themselves."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines.errors import DataError
from data_pipelines.loading.front_ends import LogMel, ZeroPaddedLogMel, log_mel_examples


def noise(samples, channels=1, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(0, 0.2, (samples, channels)).astype(np.float32)


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
    waveform = noise(2 * 16000 + 77)
    examples = LogMel()(waveform, 2)
    expected = plain_log_mel(waveform[:, 0].astype(np.float64))
    assert examples.dtype == np.float32 and examples.shape == expected.shape == (2, 96, 64)
    # 1e-4 of the largest is what the golden numbers ask for; float32 gives 1e-6.
    assert np.abs(examples - expected).max() <= 1e-5 * np.abs(expected).max()
    np.testing.assert_array_equal(log_mel_examples(waveform[:, 0]), examples)


@pytest.mark.parametrize(
    "samples, count",
    [(0, 0), (399, 0), (400 + 95 * 160 - 1, 0), (400 + 95 * 160, 1), (80000, 5), (160000, 10)],
)
def test_number_of_examples(samples, count):
    assert log_mel_examples(np.zeros(samples, np.float32)).shape == (count, 96, 64)


@pytest.mark.parametrize("front_end", [LogMel(), LogMel(2)])
def test_silence_is_the_same_in_every_second(front_end):
    rows = front_end(np.zeros((80000, front_end.channels), np.float32), 5)
    np.testing.assert_array_equal(rows, np.full_like(rows, np.log(0.01)))
    np.testing.assert_array_equal(rows[:1], front_end(np.zeros((16000, front_end.channels)), 1))


@pytest.mark.parametrize("front_end", [LogMel(), LogMel(2)])
def test_a_row_is_the_same_however_many_are_asked_for(front_end):
    waveform = noise(80000, front_end.channels)
    whole = front_end(waveform, 5)
    assert len(whole) == 5 and whole.dtype == np.float32
    for seconds in range(1, 5):
        np.testing.assert_array_equal(front_end(waveform, seconds), whole[:seconds])


def test_left_and_right_are_heard_apart():
    waveform = noise(40000, 2)
    both = LogMel(2)(waveform, 2)
    assert both.shape == (2, 96, 64, 2)
    for side in range(2):
        np.testing.assert_array_equal(both[..., side], LogMel()(waveform[:, side : side + 1], 2))


def test_the_last_example_is_repeated():
    examples = LogMel()(noise(3 * 16000), 5)
    assert (examples[2] != examples[1]).any()
    np.testing.assert_array_equal(examples[2:], np.stack([examples[2]] * 3))
    with pytest.raises(DataError, match="too short for a log-mel example"):
        LogMel()(noise(15599), 5)


def test_what_a_front_end_is_called_tells_it_from_others():
    front_ends = [LogMel(), LogMel(2)]
    assert len({repr(each) for each in front_ends}) == len(set(front_ends)) == 2
    assert [pickle.loads(pickle.dumps(each)) for each in front_ends] == front_ends


@pytest.mark.parametrize("front_end", [LogMel(), LogMel(2)])
def test_jax_hears_the_same(front_end):
    waveform = noise(2 * 16000, front_end.channels)
    with jax.default_matmul_precision("highest"):
        examples = jax.jit(lambda waveform: front_end(waveform, 3, xp=jnp))(waveform)
    expected = front_end(waveform, 3)
    assert examples.dtype == np.float32
    # As against the definition, above.
    assert np.abs(examples - expected).max() <= 1e-5 * np.abs(expected).max()


def test_what_is_missing_is_zero_or_the_last_example():
    """Zero is no silence, which is the logarithm of 0.01."""
    sound = np.random.default_rng(0).normal(size=(40_000, 1)).astype(np.float32)  # 2 examples
    repeated = LogMel()(sound, 4)
    padded = ZeroPaddedLogMel()(sound, 4)
    np.testing.assert_array_equal(padded[:2], repeated[:2])
    np.testing.assert_array_equal(repeated[2:], np.stack([repeated[1]] * 2))
    assert padded.shape == repeated.shape and not padded[2:].any()
    assert ZeroPaddedLogMel(2)(np.repeat(sound, 2, 1), 3).shape == (3, 96, 64, 2)
    assert not ZeroPaddedLogMel()(sound[:100], 1).any()
