"""Adapters: the few weights AAVS trains inside a frozen Mask2Former."""

import jax
from flax import nnx

from aavs_jax.methods.parts.initializers import Normal
from aavs_jax.methods.parts.layers import Dense

ADAPTER_RATIO = 4  # the bottleneck is this much narrower


class Adapter(nnx.Module):
    """A bottleneck d -> d/4 -> ReLU -> d, without a residual of its own (decoder side)."""

    def __init__(self, size: int, dtype: str):
        bottleneck = size // ADAPTER_RATIO
        self.down = Dense(size, bottleneck, kernel_init=Normal(), dtype=dtype)
        self.up = Dense(bottleneck, size, kernel_init=Normal(), dtype=dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., size] -> [..., size]."""
        return self.up(jax.nn.relu(self.down(x)))


class ResidualAdapter(Adapter):
    """The same beside a residual (backbone side): with all weights zero it is the identity."""

    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., size] -> [..., size]."""
        return x + super().__call__(x)


def attention_output(x: jax.Array, projection: Dense, adapter: Adapter, task: str) -> jax.Array:
    """Ends an attention: where the binary and the semantic network differ.

    The binary networks were trained with the adapter in place of the output projection (whose
    weights stay in their checkpoints, unused); the semantic network applies both.

    Args:
      x: [..., C], the heads' results side by side.
      projection: the attention's output projection.
      adapter: the adapter at its end.
      task: 'binary' or 'semantic'.

    Returns:
      [..., C].
    """
    return adapter(x) if task == "binary" else adapter(projection(x))
