"""Layers of one shape as the body of one loop, which is compiled once and can be computed again."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx


def scanned(
    layers: Sequence[nnx.Module], x: Any, apply: Callable, *each: Any, remat: bool = False
) -> tuple[Any, Any]:
    """Passes `x` through layers, one after the other, as `jax.lax.scan` does.

    Where the layers keep nothing but their inputs it has to be a loop: of straight code XLA for
    CPUs computes again at once, in the forward pass, what is to be computed again later, and so
    keeps it after all.

    Args:
      layers: modules of the same structure.
      x: arrays that every layer takes and gives.
      apply: (layer, x, *each) -> (x, arrays to be stacked or None).
      each: arrays, or trees of them, whose first axis counts the layers; each gets its own.
      remat: whether only the layers' inputs are kept for the backward pass.

    Returns:
      What the last layer gives, and what all of them give besides, stacked.
    """
    graphdef = nnx.graphdef(layers[0])
    stacked = jax.tree.map(lambda *arrays: jnp.stack(arrays), *map(nnx.state, layers))

    def body(x, of_layer):
        state, each = of_layer
        return apply(nnx.merge(graphdef, state), x, *each)

    if remat:
        body = jax.checkpoint(body, prevent_cse=False)  # a loop is not taken apart
    return jax.lax.scan(body, x, (stacked, each))
