"""The backbone: a Swin transformer (Liu et al., ICCV 2021) with AAVS's adapters in its blocks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from aavs_jax.methods.parts.adapters import ResidualAdapter
from aavs_jax.methods.parts.initializers import Normal, Zeros
from aavs_jax.methods.parts.layers import Dense, LayerNorm, gelu, parameter
from aavs_jax.methods.parts.scanned import scanned
from aavs_jax.methods.parts.sizes import SwinConfig

BLOCKED = -100.0  # added to the attention between regions a shift brought side by side


class Swin(nnx.Module):
    """Four stages of windowed attention; gives one normalised feature map per stage."""

    def __init__(self, config: SwinConfig, dtype: str, remat: bool | None = None):
        """`remat`: whether blocks keep their inputs only, and compute the rest again for gradients;
        None: nothing is differentiated. No value depends on it.
        """
        self.depths = config.depths
        self.drop_path_rates = _drop_path_rates(config)
        self.drop_path_branches = 2 if config.drop_path_branches == "both" else 1
        self.patch_embedding = PatchEmbedding(config.patch_size, config.embed_dim, dtype)
        self.patch_norm = LayerNorm(config.embed_dim)
        self.stages = nnx.List(
            [Stage(config, index, dtype, remat) for index in range(len(config.depths))]
        )

    def __call__(self, frames: jax.Array, *, keys: jax.Array | None = None) -> list[jax.Array]:
        """Normalised frames [N,H,W,3] -> float32 maps at strides 4, 8, 16, 32.

        Args:
          frames: float [N,H,W,3].
          keys: random keys [N], of which drop-path draws: what a frame draws does not depend on its
            place or company. None: deterministic.

        Returns:
          [N, ceil(H/4), ceil(W/4), E], [N, ., ., 2E], [N, ., ., 4E], [N, ., ., 8E].
        """
        x = self.patch_norm(self.patch_embedding(frames))
        active = keys is not None and any(self.drop_path_rates)
        keep = self._branch_factors(keys) if active else None
        maps = []
        for index, stage in enumerate(self.stages):
            start = sum(self.depths[:index])
            factors = None if keep is None else keep[start : start + self.depths[index]]
            x, output = stage(x, factors)
            maps.append(output)
        return maps

    def _branch_factors(self, keys: jax.Array) -> jax.Array:
        """Drop-path's factors [blocks,branches,N,1,1,1]: 0, or 1 / (chance to be kept).

        One draw for all blocks: a draw in every block would fill the program with key arithmetic.
        """
        kept = 1 - np.asarray(self.drop_path_rates, np.float32)[:, None, None]
        shape = (len(kept), self.drop_path_branches)
        uniform = jax.vmap(lambda key: jax.random.uniform(key, shape), out_axes=2)(keys)
        return jnp.where(uniform < kept, 1 / kept, 0.0)[..., None, None, None]


def _drop_path_rates(config: SwinConfig) -> tuple[float, ...]:
    """The chance to be left out, by block."""
    blocks = sum(config.depths)
    if config.drop_path_schedule == "linear":
        return tuple(np.linspace(0, config.drop_path_rate, blocks).tolist())
    return (config.drop_path_rate,) * blocks


class PatchEmbedding(nnx.Module):
    """A convolution whose stride is its window: cut into patches, then one product."""

    def __init__(self, patch_size: int, outputs: int, dtype: str):
        self.dtype = dtype
        self.kernel = parameter((patch_size, patch_size, 3, outputs), Normal())
        self.bias = parameter((outputs,), Zeros())

    def __call__(self, frames: jax.Array) -> jax.Array:
        """[N,H,W,3] -> [N,ceil(H/p),ceil(W/p),outputs]; zero-padded right and bottom."""
        kernel = self.kernel[...]
        patch = kernel.shape[0]
        patches = split_windows(pad_to_multiple(frames, patch), patch)
        patches = patches.reshape(*patches.shape[:3], -1).astype(self.dtype)
        kernel = kernel.reshape(-1, kernel.shape[-1]).astype(self.dtype)
        return jnp.dot(patches, kernel) + self.bias[...].astype(self.dtype)


class Stage(nnx.Module):
    """Blocks at one resolution, an output norm, and the step to the next resolution."""

    def __init__(self, config: SwinConfig, index: int, dtype: str, remat: bool | None):
        size = config.embed_dim << index
        hidden = int(size * config.mlp_ratio)
        last = index == len(config.depths) - 1
        self.remat = remat
        self.shifts = tuple(
            config.window_size // 2 if block % 2 else 0 for block in range(config.depths[index])
        )
        self.blocks = nnx.List(
            [
                Block(
                    size,
                    hidden,
                    heads=config.num_heads[index],
                    window=config.window_size,
                    dtype=dtype,
                )
                for _ in self.shifts
            ]
        )
        self.output_norm = LayerNorm(size)
        self.merge = None if last else PatchMerging(size, dtype)

    def __call__(
        self, x: jax.Array, factors: jax.Array | None
    ) -> tuple[jax.Array | None, jax.Array]:
        """[N,h,w,C] -> (input of the next stage [N,h/2,w/2,2C] or None, output [N,h,w,C])."""
        if self.remat or (self.remat is not None and len(self.blocks) > 2):
            shifts = jnp.asarray(self.shifts, jnp.int32)

            def apply(block, x, shift, factors):
                return block(x, shift, factors), None

            x, _ = scanned(self.blocks, x, apply, shifts, factors, remat=self.remat)
        else:
            for index, (block, shift) in enumerate(zip(self.blocks, self.shifts, strict=True)):
                x = block(x, shift, None if factors is None else factors[index])
        return (None if self.merge is None else self.merge(x)), self.output_norm(x)


class Block(nnx.Module):
    """Windowed attention and an MLP, each normalised first, adapted, and added to its input."""

    def __init__(self, size: int, hidden: int, *, heads: int, window: int, dtype: str):
        self.attention_norm = LayerNorm(size)
        self.attention = WindowAttention(size, heads, window, dtype)
        self.attention_adapter = ResidualAdapter(size, dtype)
        self.mlp_norm = LayerNorm(size)
        self.mlp_hidden = Dense(size, hidden, kernel_init=Normal(), dtype=dtype)
        self.mlp_output = Dense(hidden, size, kernel_init=Normal(), dtype=dtype)
        self.mlp_adapter = ResidualAdapter(size, dtype)

    def __call__(
        self, x: jax.Array, shift: int | jax.Array, factors: jax.Array | None
    ) -> jax.Array:
        """float32 [N,h,w,C] -> the same; `factors` [1 or 2,N,1,1,1] scale the attention's branch
        and, where there are two, the MLP's.
        """
        branch = self.attention_adapter(self.attention(self.attention_norm(x), shift))
        x = x + (branch if factors is None else branch * factors[0])
        branch = self.mlp_adapter(self.mlp_output(gelu(self.mlp_hidden(self.mlp_norm(x)))))
        scaled = factors is not None and factors.shape[0] == 2
        return x + (branch * factors[1] if scaled else branch)


class WindowAttention(nnx.Module):
    """Self-attention within windows, with a learned bias per head and relative position."""

    def __init__(self, size: int, heads: int, window: int, dtype: str):
        self.heads = heads
        self.window = window
        self.query = Dense(size, size, kernel_init=Normal(), dtype=dtype)
        self.key = Dense(size, size, kernel_init=Normal(), dtype=dtype)
        self.value = Dense(size, size, kernel_init=Normal(), dtype=dtype)
        self.output = Dense(size, size, kernel_init=Normal(), dtype=dtype)
        self.relative_position_bias = parameter(((2 * window - 1) ** 2, heads), Normal())

    def __call__(self, x: jax.Array, shift: int | jax.Array) -> jax.Array:
        """[N,h,w,C] -> [N,h,w,C]; any h, w: padded tokens take part in the attention.

        Args:
          x: [N,h,w,C].
          shift: by how many tokens the windows are moved, 0 or half a window; int32 where only the
            device knows it.
        """
        n, height, width, channels = x.shape
        window = self.window
        shifts = not isinstance(shift, int) or shift > 0  # or may
        x = pad_to_multiple(x, window)
        _, padded_height, padded_width, _ = x.shape
        rows, columns = padded_height // window, padded_width // window
        if shifts:
            x = jnp.roll(x, (-shift, -shift), (1, 2))

        tokens = window * window
        windows = split_windows(x, window).reshape(n, rows * columns, tokens, channels)

        def per_head(x: jax.Array) -> jax.Array:
            # Heads before tokens, so that each product below is one of whole matrices: from
            # tokens before heads CPUs take several times as long.
            return x.reshape(*windows.shape[:3], self.heads, -1).transpose(0, 1, 3, 2, 4)

        query, key = per_head(self.query(windows)), per_head(self.key(windows))
        value = per_head(self.value(windows))
        scores = jnp.einsum("nwhqd,nwhkd->nwhqk", query, key, preferred_element_type=jnp.float32)
        bias = self.relative_position_bias[...][relative_position_index(window)]
        scores = scores * query.shape[-1] ** -0.5 + bias.transpose(2, 0, 1)
        if shifts:
            # Compared on the device: the mask itself is 5 MB at full size, its regions 37 kB.
            region = jnp.asarray(shift_regions(padded_height, padded_width, window))
            apart = (region[:, None, :, None] != region[:, None, None, :]) & (shift > 0)
            scores = scores + jnp.where(apart, BLOCKED, 0.0)
        weights = jax.nn.softmax(scores).astype(value.dtype)
        x = jnp.einsum("nwhqk,nwhkd->nwhqd", weights, value)
        x = self.output(x.transpose(0, 1, 3, 2, 4).reshape(windows.shape))
        x = x.reshape(n, rows, columns, window, window, channels)
        x = x.transpose(0, 1, 3, 2, 4, 5).reshape(n, padded_height, padded_width, channels)
        if shifts:
            x = jnp.roll(x, (shift, shift), (1, 2))
        return x[:, :height, :width]


class PatchMerging(nnx.Module):
    """Halves the resolution: four neighbours side by side, normalised, to twice the width."""

    def __init__(self, size: int, dtype: str):
        self.norm = LayerNorm(4 * size)
        self.reduction = Dense(
            4 * size, 2 * size, kernel_init=Normal(), bias_init=None, dtype=dtype
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """[N,h,w,C] -> [N,ceil(h/2),ceil(w/2),2C]."""
        cells = split_windows(pad_to_multiple(x, 2), 2)
        # Columns outside, rows inside: the order the published weights were trained with.
        cells = cells.swapaxes(3, 4).reshape(*cells.shape[:3], -1)
        # float32, as it starts the next stage's residual stream.
        return self.reduction(self.norm(cells)).astype(jnp.float32)


def pad_to_multiple(x: jax.Array, multiple: int) -> jax.Array:
    """[N,H,W,C] with zeros right and bottom, until `multiple` divides H and W."""
    height, width = -x.shape[1] % multiple, -x.shape[2] % multiple
    if not height and not width:
        return x
    return jnp.pad(x, ((0, 0), (0, height), (0, width), (0, 0)))


def split_windows(x: jax.Array, window: int) -> jax.Array:
    """[N,H,W,C] -> [N,H/window,W/window,window,window,C]."""
    n, height, width, channels = x.shape
    x = x.reshape(n, height // window, window, width // window, window, channels)
    return x.transpose(0, 1, 3, 2, 4, 5)


@functools.lru_cache
def relative_position_index(window: int) -> np.ndarray:
    """Row of the bias table for each pair: int32 [window^2 (query), window^2 (key)]."""
    y, x = np.divmod(np.arange(window * window, dtype=np.int32), window)
    dy = y[:, None] - y[None, :] + window - 1
    dx = x[:, None] - x[None, :] + window - 1
    return dy * (2 * window - 1) + dx


@functools.lru_cache
def shift_regions(height: int, width: int, window: int) -> np.ndarray:
    """Which part of the unshifted map a token comes from: int32 [windows, window^2].

    After rolling by half a window, the last window of each axis holds tokens from both ends of the
    map; those must not see each other.
    """

    def axis_region(length: int) -> np.ndarray:
        position = np.arange(length)
        return (position >= length - window).astype(np.int32) + (position >= length - window // 2)

    region = 3 * axis_region(height)[:, None] + axis_region(width)[None, :]
    region = region.reshape(height // window, window, width // window, window)
    return region.transpose(0, 2, 1, 3).reshape(-1, window * window)
