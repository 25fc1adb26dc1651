"""How each class sounds: eight timbres that differ in spectrum and in modulation.

Pitch, rates, phases and noise are drawn anew for each source within the range of its class, so the
timbre has to be learned, not a waveform.
"""

import numpy as np

from data_pipelines.facts.avsbench import SAMPLE_RATE

_TABLE = 2048


def _times(count):
    return np.arange(count) / SAMPLE_RATE


def _phase(rng, frequency, count):
    """Turns (not radians) of an oscillator at `frequency` Hz, a number or float64 [count]."""
    return np.cumsum(np.broadcast_to(frequency, count)) / SAMPLE_RATE + rng.random()


def _wobble(rng, count, rate):
    """A sine in [-1, 1] at `rate` Hz with a random phase."""
    return np.sin(2 * np.pi * _phase(rng, rate, count))


def _harmonics(rng, phase, amplitudes):
    """Sum of a_k sin(k phase), each harmonic with a random phase, read from one period's table."""
    turn = np.arange(_TABLE) / _TABLE
    table = np.zeros(_TABLE)
    for k, amplitude in enumerate(amplitudes, start=1):
        if amplitude:
            table += amplitude * np.sin(2 * np.pi * (k * turn + rng.random()))
    position = (phase % 1.0) * _TABLE
    left = position.astype(np.int64)
    part = position - left
    table = np.append(table, table[0])
    left = np.minimum(left, _TABLE - 1)
    return table[left] + part * (table[left + 1] - table[left])


def _band_noise(rng, count, low, high):
    """White noise between `low` and `high` Hz, with edges a tenth wide."""
    spectrum = np.fft.rfft(rng.random(count) - 0.5)
    frequency = np.fft.rfftfreq(count, 1 / SAMPLE_RATE)
    rise = np.clip((frequency / low - 0.9) / 0.1, 0.0, 1.0)
    fall = np.clip((1.1 - frequency / high) / 0.1, 0.0, 1.0)
    return np.fft.irfft(spectrum * rise * fall, count)


def _gate(turn, duty, edge=0.06):
    """Opens for `duty` of each turn, with soft edges. `turn` in [0, 1)."""
    return np.clip(turn / edge, 0.0, 1.0) * np.clip((duty - turn) / edge, 0.0, 1.0)


def _hum(rng, count):
    pitch = rng.uniform(130, 165) * (1 + 0.004 * _wobble(rng, count, rng.uniform(3, 5)))
    tone = _harmonics(rng, _phase(rng, pitch, count), (1.0, 0.7, 0.4))
    return tone * (1 + 0.25 * _wobble(rng, count, rng.uniform(1.5, 2.5)))


def _bell(rng, count):
    rate, pitch = rng.uniform(2.2, 3.0), rng.uniform(1300, 1500)
    since = _phase(rng, rate, count) % 1.0 / rate  # seconds since the last stroke
    attack = np.clip(since / 0.004, 0.0, 1.0)
    sound = np.zeros(count)
    for ratio, amplitude, decay in ((1.0, 1.0, 0.35), (2.76, 0.7, 0.22), (4.3, 0.4, 0.12)):
        ring = np.sin(2 * np.pi * _phase(rng, pitch * ratio, count))
        sound += amplitude * ring * np.exp(-since / decay)
    return sound * attack


def _buzz(rng, count):
    pitch = rng.uniform(230, 280)
    odd = [k**-0.7 if k % 2 else 0.0 for k in range(1, int(6000 / pitch))]
    tone = _harmonics(rng, _phase(rng, pitch, count), odd)
    return tone * _gate(_phase(rng, rng.uniform(5.5, 7.0), count) % 1.0, 0.6)


def _chirp(rng, count):
    turn = _phase(rng, rng.uniform(3.5, 4.5), count) % 1.0
    rise = np.clip(turn / 0.65, 0.0, 1.0)
    frequency = rng.uniform(1700, 1950) * 2.0**rise
    return np.sin(2 * np.pi * _phase(rng, frequency, count)) * _gate(turn, 0.65)


def _clatter(rng, count):
    rate = rng.uniform(9, 12)
    since = _phase(rng, rate, count) % 1.0 / rate
    return _band_noise(rng, count, 300, 7300) * np.exp(-since / rng.uniform(0.012, 0.018))


def _voice(rng, count):
    pitch = rng.uniform(190, 230)
    formants = ((rng.uniform(760, 860), 140, 1.0), (rng.uniform(2500, 2800), 260, 0.5))
    k = np.arange(1, 19)
    peaks = sum(a * np.exp(-0.5 * ((k * pitch - f) / w) ** 2) for f, w, a in formants)
    vibrato = 1 + 0.04 * _wobble(rng, count, rng.uniform(5, 6))
    return _harmonics(rng, _phase(rng, pitch * vibrato, count), peaks + 0.15 / k)


def _hoot(rng, count):
    turn = _phase(rng, rng.uniform(1.7, 2.3), count) % 1.0
    pitch = rng.uniform(500, 600) * (1.08 - 0.16 * turn)
    return _harmonics(rng, _phase(rng, pitch, count), (1.0, 0.08)) * _gate(turn, 0.75, 0.12)


def _cicada(rng, count):
    flutter = 1 + 0.8 * _wobble(rng, count, rng.uniform(24, 32))
    return _band_noise(rng, count, rng.uniform(4800, 5200), rng.uniform(6500, 7000)) * flutter


# In the order of shapes.SHAPES.
TIMBRES = (_hum, _bell, _buzz, _chirp, _clatter, _voice, _hoot, _cicada)


def synthesise(timbre: int, rng: np.random.Generator, seconds: int) -> np.ndarray:
    """One source, sounding all the time.

    Args:
      timbre: index into TIMBRES (and shapes.SHAPES).
      rng: where pitch, rates, phases and noise come from.
      seconds: length.

    Returns:
      float64 [seconds * 16000], root mean square 1.
    """
    sound = TIMBRES[timbre](rng, seconds * SAMPLE_RATE)
    return sound / np.sqrt(np.mean(sound**2))
