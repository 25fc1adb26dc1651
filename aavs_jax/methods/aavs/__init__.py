"""AAVS, the network of Stepping Stones (ECCV 2024)."""
