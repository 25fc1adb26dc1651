"""What AVSegFormer's transformers are made of: attention, its layers, and dropout."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from aavs_jax.methods.parts.initializers import FanInUniform, XavierUniform, Zeros
from aavs_jax.methods.parts.layers import Dense, LayerNorm, gelu
from aavs_jax.methods.parts.scanned import scanned


def split_keys(keys: jax.Array | None, number: int) -> Any:
    """Random keys [N] -> keys [number,N]; None as often.

    By frame: what a frame draws does not depend on its place or company.
    """
    if keys is None:
        return (None,) * number
    return jax.vmap(lambda key: jax.random.split(key, number), out_axes=1)(keys)


def dropout(x: jax.Array, rate: float, keys: jax.Array | None) -> jax.Array:
    """Leaves out numbers of [N,...] and scales the others up; `keys` [N], None: leaves none out."""
    if keys is None or rate == 0:
        return x
    kept = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, x.shape[1:]))(keys)
    return jnp.where(kept, x / (1 - rate), jnp.zeros((), x.dtype))


def through(
    layers: Sequence[nnx.Module],
    x: jax.Array,
    apply: Callable,
    keys: jax.Array | None,
    remat: bool | None,
) -> list[jax.Array]:
    """Passes `x` through layers, one after the other.

    Args:
      layers: modules of the same structure, at least one.
      x: what the first takes.
      apply: (layer, x, the layer's random keys [N] or None) -> x.
      keys: random keys [N]; None: deterministic.
      remat: whether layers keep their inputs only, and compute the rest again for gradients; None:
        nothing is differentiated, and the code is straight.

    Returns:
      What every layer gives; where they are a loop only what the last gives.
    """
    each = split_keys(keys, len(layers))
    if remat or (remat is not None and len(layers) > 1):
        each = None if keys is None else each
        return [
            scanned(layers, x, lambda layer, x, k: (apply(layer, x, k), None), each, remat=remat)[0]
        ]
    found = []
    for layer, keys_of_layer in zip(layers, each, strict=True):
        x = apply(layer, x, keys_of_layer)
        found.append(x)
    return found


class Attention(nnx.Module):
    """Multi-head attention without positions."""

    def __init__(self, size: int, heads: int, *, bias: bool, dropout: float, dtype: str):
        self.heads = heads
        self.dropout = dropout
        bias_init = Zeros() if bias else None

        def dense(kernel_init: XavierUniform) -> Dense:
            return Dense(size, size, kernel_init=kernel_init, bias_init=bias_init, dtype=dtype)

        self.query, self.key, self.value = (dense(XavierUniform(stacked=3)) for _ in range(3))
        self.output = dense(XavierUniform())

    def __call__(
        self, queries: jax.Array, memory: jax.Array, keys: jax.Array | None = None
    ) -> jax.Array:
        """[N,Q,C], [N,S,C] -> [N,Q,C]; `keys` [N], of which dropout draws."""

        def per_head(x: jax.Array) -> jax.Array:
            return x.reshape(*x.shape[:2], self.heads, -1).swapaxes(1, 2)

        query, key = per_head(self.query(queries)), per_head(self.key(memory))
        value = per_head(self.value(memory))
        scores = jnp.einsum("nhqd,nhsd->nhqs", query, key, preferred_element_type=jnp.float32)
        weights = jax.nn.softmax(scores * query.shape[-1] ** -0.5)
        weights = dropout(weights, self.dropout, keys).astype(value.dtype)
        found = jnp.einsum("nhqs,nhsd->nhqd", weights, value)
        return self.output(found.swapaxes(1, 2).reshape(queries.shape))


class FeedForward(nnx.Module):
    """Two linear layers with a GELU between, and dropout behind each."""

    def __init__(self, size: int, hidden: int, *, dropout: float, dtype: str):
        self.dropout = dropout
        self.hidden = xavier(size, hidden, dtype)
        self.output = xavier(hidden, size, dtype)

    def __call__(self, x: jax.Array, keys: jax.Array | None = None) -> jax.Array:
        """[N,S,C] -> [N,S,C]; `keys` [N], of which dropout draws."""
        inner, outer = split_keys(keys, 2)
        hidden = dropout(gelu(self.hidden(x)), self.dropout, inner)
        return dropout(self.output(hidden), self.dropout, outer)


class DecoderLayer(nnx.Module):
    """Queries look at each other, then at a memory; each step is normalised after its residual."""

    def __init__(
        self, size: int, heads: int, hidden: int, *, bias: bool, dropout: float, dtype: str
    ):
        self.dropout = dropout
        options = {"bias": bias, "dropout": dropout, "dtype": dtype}
        self.self_attention = Attention(size, heads, **options)
        self.self_norm = LayerNorm(size)
        self.cross_attention = Attention(size, heads, **options)
        self.cross_norm = LayerNorm(size)
        self.ffn = FeedForward(size, hidden, dropout=dropout, dtype=dtype)
        self.ffn_norm = LayerNorm(size)

    def __call__(self, x: jax.Array, memory: jax.Array, keys: jax.Array | None = None) -> jax.Array:
        """float32 [N,Q,C] -> the same; `memory` [N,S,C], `keys` [N], of which dropout draws."""
        own, after_own, cross, after_cross, ffn = split_keys(keys, 5)
        attended = self.self_attention(x, x, own)
        x = self.self_norm(x + dropout(attended, self.dropout, after_own))
        attended = self.cross_attention(x, memory, cross)
        x = self.cross_norm(x + dropout(attended, self.dropout, after_cross))
        return self.ffn_norm(x + self.ffn(x, ffn))


def xavier(inputs: int, outputs: int, dtype: str) -> Dense:
    """A linear layer with a kernel as Xavier's, and a bias as PyTorch's default."""
    return Dense(
        inputs,
        outputs,
        kernel_init=XavierUniform(),
        bias_init=FanInUniform(inputs),
        dtype=dtype,
    )
