"""Audio-visual segmentation in JAX: Stepping Stones and its network AAVS (ECCV 2024).

import aavs_jax
model = aavs_jax.load("runs/avss")
masks = model(frames, waveform, sample_rate=44100)  # uint8 [T,H,W,3] and [S] -> uint8 [T,H,W]
for result in model.stream("clip.mp4", fps=4): ...  # as they come
"""

__version__ = "0.1.0"


def load(folder, *, before=None, method=None, dtype=None):
    """A network from its folder of weights, see `aavs_jax.prediction.network.load`."""
    from aavs_jax.prediction.network import load  # JAX is imported where it is needed

    return load(folder, before=before, method=method, dtype=dtype)
