"""From files to batches: NumPy arrays only, no jax."""
