"""Several configs on the same data, each trained as long as the others; see `__main__`.

A row of the comparison is an ordinary run of `python -m aavs_jax.main`, in a process of its own.
What is computed here is how long each trains, and one page of what came out.
"""
