"""Audio-visual segmentation in JAX: Stepping Stones and its network AAVS (ECCV 2024)."""

__version__ = "0.1.0"
