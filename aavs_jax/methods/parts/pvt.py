"""The Pyramid Vision Transformer v2 (Wang et al., Computational Visual Media 2022) as backbone.

Every token attends to all of its map, of which keys and values are a reduced copy; a depthwise
convolution inside the MLPs and overlapping patches tell where a token is, so nothing else does.
Its norms have two epsilons, as the published code has them: see `PATCH_EPSILON`.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from aavs_jax.methods.parts.convolution import Convolution, he_fan_out
from aavs_jax.methods.parts.initializers import Normal, Zeros
from aavs_jax.methods.parts.layers import Dense, LayerNorm, gelu, parameter
from aavs_jax.methods.parts.scanned import scanned
from aavs_jax.methods.parts.sizes import PVTConfig

PATCH_EPSILON = 1e-5  # of the norms behind patch embeddings and behind reductions
BLOCK_EPSILON = 1e-6  # of the norms before a block's branches, and at the end of a stage


class PVT(nnx.Module):
    """Four stages; the normalised map at the end of one is its output and the next one's input."""

    def __init__(self, config: PVTConfig, dtype: str, remat: bool | None = None):
        """`remat`: whether blocks keep their inputs only, and compute the rest again for gradients;
        None: nothing is differentiated. No value depends on it.
        """
        self.depths = config.depths
        rates = np.linspace(0, config.drop_path_rate, sum(config.depths))
        self.drop_path_rates = tuple(rates.tolist())
        self.stages = nnx.List([Stage(config, index, dtype, remat) for index in range(4)])

    def __call__(
        self, frames: jax.Array, drop_path_keys: jax.Array | None = None
    ) -> list[jax.Array]:
        """Normalised frames -> maps at strides 4, 8, 16, 32.

        Args:
          frames: float [N,H,W,3], of any size.
          drop_path_keys: random keys [N]: what a frame draws does not depend on its place or
            company. None: deterministic.

        Returns:
          Four float32 [N,h,w,.] of the config's widths; of odd sizes h and w are rounded up.
        """
        active = drop_path_keys is not None and any(self.drop_path_rates)
        factors = self._branch_factors(drop_path_keys) if active else None
        x, maps = frames, []
        for index, stage in enumerate(self.stages):
            start = sum(self.depths[:index])
            x = stage(x, None if factors is None else factors[start : start + self.depths[index]])
            maps.append(x)
        return maps

    def _branch_factors(self, keys: jax.Array) -> jax.Array:
        """Drop-path's factors [blocks,2,N,1,1,1]: 0, or 1 / (chance to be kept)."""
        kept = 1 - np.asarray(self.drop_path_rates, np.float32)[:, None, None]
        shape = (len(kept), 2)
        uniform = jax.vmap(lambda key: jax.random.uniform(key, shape), out_axes=2)(keys)
        return jnp.where(uniform < kept, 1 / kept, 0.0)[..., None, None, None]


class Stage(nnx.Module):
    """Overlapping patches, blocks at their resolution, and a norm."""

    def __init__(self, config: PVTConfig, index: int, dtype: str, remat: bool | None):
        size = config.embed_dims[index]
        inputs = config.embed_dims[index - 1] if index else 3
        self.remat = remat
        window, stride = (3, 2) if index else (7, 4)
        self.patch_embedding = PatchEmbedding(inputs, size, window, stride, dtype)
        self.blocks = nnx.List([Block(config, index, dtype) for _ in range(config.depths[index])])
        self.output_norm = LayerNorm(size, BLOCK_EPSILON)

    def __call__(self, x: jax.Array, factors: jax.Array | None) -> jax.Array:
        """[N,h,w,.] -> float32 [N,h',w',C]; `factors` [blocks,2,N,1,1,1] as `Block` takes them."""
        x = self.patch_embedding(x)
        if self.remat or (self.remat is not None and len(self.blocks) > 2):

            def apply(block, x, factors):
                return block(x, factors), None

            x, _ = scanned(self.blocks, x, apply, factors, remat=self.remat)
        else:
            for index, block in enumerate(self.blocks):
                x = block(x, None if factors is None else factors[index])
        return self.output_norm(x)


class PatchEmbedding(nnx.Module):
    """A convolution whose windows overlap, and a norm."""

    def __init__(self, inputs: int, outputs: int, window: int, stride: int, dtype: str):
        he = he_fan_out(window, outputs)
        self.conv = Convolution(inputs, outputs, window, kernel_init=he, stride=stride, dtype=dtype)
        self.norm = LayerNorm(outputs, PATCH_EPSILON)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[N,h,w,inputs] -> float32 [N,ceil(h/stride),ceil(w/stride),outputs]."""
        return self.norm(self.conv(x))


class Block(nnx.Module):
    """Attention and an MLP, each normalised first and added to its input."""

    def __init__(self, config: PVTConfig, index: int, dtype: str):
        size = config.embed_dims[index]
        heads, reduction = config.num_heads[index], config.reductions[index]
        self.attention_norm = LayerNorm(size, BLOCK_EPSILON)
        self.attention = ReducedAttention(size, heads, reduction, dtype)
        self.mlp_norm = LayerNorm(size, BLOCK_EPSILON)
        self.mlp = ConvMlp(size, size * config.mlp_ratios[index], dtype)

    def __call__(self, x: jax.Array, factors: jax.Array | None = None) -> jax.Array:
        """float32 [N,h,w,C] -> the same; `factors` [2,N,1,1,1] scale the branches."""
        branch = self.attention(self.attention_norm(x))
        x = x + (branch if factors is None else branch * factors[0])
        branch = self.mlp(self.mlp_norm(x))
        return x + (branch if factors is None else branch * factors[1])


class ReducedAttention(nnx.Module):
    """Attention of all tokens of a map to a reduced map of them."""

    def __init__(self, size: int, heads: int, reduction: int, dtype: str):
        self.heads = heads
        self.query = _dense(size, size, dtype)
        self.key = _dense(size, size, dtype)
        self.value = _dense(size, size, dtype)
        self.output = _dense(size, size, dtype)
        self.reduction = Reduction(size, reduction, dtype) if reduction > 1 else None

    def __call__(self, x: jax.Array) -> jax.Array:
        """[N,h,w,C] -> [N,h,w,C]."""
        reduced = x if self.reduction is None else self.reduction(x)

        def per_head(x: jax.Array) -> jax.Array:
            return x.reshape(x.shape[0], -1, self.heads, x.shape[-1] // self.heads).swapaxes(1, 2)

        query, key = per_head(self.query(x)), per_head(self.key(reduced))
        value = per_head(self.value(reduced))
        scores = jnp.einsum("nhqd,nhkd->nhqk", query, key, preferred_element_type=jnp.float32)
        weights = jax.nn.softmax(scores * query.shape[-1] ** -0.5).astype(value.dtype)
        heard = jnp.einsum("nhqk,nhkd->nhqd", weights, value)
        return self.output(heard.swapaxes(1, 2).reshape(x.shape))


class Reduction(nnx.Module):
    """A convolution whose stride is its window, and a norm."""

    def __init__(self, size: int, window: int, dtype: str):
        self.dtype = dtype
        self.kernel = parameter((window, window, size, size), he_fan_out(window, size))
        self.bias = parameter((size,), Zeros())
        self.norm = LayerNorm(size, PATCH_EPSILON)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[N,h,w,C] -> float32 [N,floor(h/window),floor(w/window),C].

        What does not fill a window at the right or bottom is seen by nobody.
        """
        window, _, size, _ = self.kernel.shape
        n, rows, columns = x.shape[0], x.shape[1] // window, x.shape[2] // window
        x = x[:, : rows * window, : columns * window].astype(self.dtype)
        cells = x.reshape(n, rows, window, columns, window, size).swapaxes(2, 3)
        kernel = self.kernel[...].reshape(-1, size).astype(self.dtype)
        reduced = cells.reshape(n, rows, columns, -1) @ kernel
        return self.norm(reduced + self.bias[...].astype(self.dtype))


class ConvMlp(nnx.Module):
    """Two linear layers with a depthwise convolution and a GELU between."""

    def __init__(self, size: int, hidden: int, dtype: str):
        self.hidden = _dense(size, hidden, dtype)
        self.depthwise = Depthwise(hidden)
        self.output = _dense(hidden, size, dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[N,h,w,C] -> [N,h,w,C]."""
        return self.output(gelu(self.depthwise(self.hidden(x))))


class Depthwise(nnx.Module):
    """A 3x3 convolution of each channel by itself, padded with zeros."""

    def __init__(self, size: int):
        self.kernel = parameter((3, 3, 1, size), Normal(math.sqrt(2 / 9)))
        self.bias = parameter((size,), Zeros())

    def __call__(self, x: jax.Array) -> jax.Array:
        """[N,h,w,C] -> the same, in `x`'s type.

        As nine shifted products: a convolution by groups, and above all its gradient, is many times
        slower on CPUs.
        """
        height, width = x.shape[1:3]
        kernel, padded = (
            self.kernel[...].astype(x.dtype),
            jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))),
        )
        summed = sum(
            padded[:, row : row + height, column : column + width] * kernel[row, column, 0]
            for row in range(3)
            for column in range(3)
        )
        return summed + self.bias[...].astype(x.dtype)


def _dense(inputs: int, outputs: int, dtype: str) -> Dense:
    return Dense(inputs, outputs, kernel_init=Normal(), dtype=dtype)
