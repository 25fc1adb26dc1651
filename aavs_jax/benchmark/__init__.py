"""What the program costs, beside plain PyTorch: python -m aavs_jax.benchmark

Cases say what is measured, each side does it in a process of its own, and one asks the sides in
turns.
"""
