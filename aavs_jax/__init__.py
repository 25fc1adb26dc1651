"""Audio-visual segmentation in JAX: Stepping Stones and its network AAVS (ECCV 2024).

import aavs_jax
network = aavs_jax.load("runs/avss")
masks = network(frames, waveform)  # uint8 [T,H,W,3] and float [S] at 16 kHz -> uint8 [T,H,W]
"""

__version__ = "0.1.0"


def load(folder, *, method=None):
    """A network from its folder of weights, see `aavs_jax.prediction.network.load`."""
    from aavs_jax.prediction.network import load  # JAX is imported where it is needed

    return load(folder, method=method)
