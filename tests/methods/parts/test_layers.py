"""Each layer against PyTorch's."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.nn import functional

from aavs_jax.methods.parts import layers
from aavs_jax.methods.parts.initializers import Normal, Ones


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def set_values(module, **values):
    for name, value in values.items():
        getattr(module, name)[...] = jnp.asarray(value)


@pytest.mark.parametrize(
    "size, new_size",
    [
        ((8, 8), (16, 16)),
        ((5, 7), (13, 9)),
        ((28, 21), (12, 8)),
        ((24, 16), (3, 2)),
        ((4, 6), (4, 9)),
        ((384, 384), (224, 224)),
        ((96, 96), (384, 384)),
        ((224, 224), (12, 12)),
        ((224, 96), (96, 224)),
        ((333, 500), (500, 333)),
    ],
    ids=str,
)
def test_resize_is_torchs_without_antialias(rng, size, new_size):
    x = rng.uniform(-1, 1, size=(2, *size, 3)).astype(np.float32)
    ours = layers.resize_bilinear(jnp.asarray(x), new_size, axes=(1, 2))
    theirs = functional.interpolate(
        torch.from_numpy(x).permute(0, 3, 1, 2), new_size, mode="bilinear", align_corners=False
    ).permute(0, 2, 3, 1)
    # Where the CPU has no fused multiply-add, torch rounds its positions once more.
    fused = torch.backends.cpu.get_cpu_capability() != "DEFAULT"
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=0, atol=5e-7 if fused else 1e-4)


def test_resize_positions_are_those_of_a_float32_scale():
    """Whatever this machine's torch does: the taps, from fractions."""
    for size, new_size in ((384, 224), (224, 12), (500, 333)):
        scale = Fraction(float(np.float32(size) / np.float32(new_size)))
        matrix = layers.resize_matrix(size, new_size)
        for row in range(new_size):
            exact = max(scale * (row + Fraction(1, 2)) - Fraction(1, 2), Fraction(0))
            position = Fraction(float(np.float32(float(exact))))
            low = min(int(position), size - 1)
            upper = np.float32(float(position - low))
            wanted = np.zeros(size, np.float32)
            wanted[low] += 1 - upper
            wanted[min(low + 1, size - 1)] += upper
            np.testing.assert_array_equal(matrix[row], wanted)


def test_resize_keeps_exactly_one_half(rng):
    # Mask borders between pixels whose taps are 1/2 and 1/2, as from 224 to 12 pixels.
    matrix = layers.resize_matrix(224, 12)
    halves = np.flatnonzero((matrix == 0.5).sum(1) == 2)
    assert len(halves) == 4
    mask = np.zeros((1, 224, 224), np.float32)
    mask[:, :, : np.flatnonzero(matrix[halves[0]])[1]] = 1
    small = np.asarray(layers.resize_bilinear(mask, (12, 12), axes=(1, 2)))
    assert (small[:, :, halves[0]] == 0.5).all()
    ones = layers.resize_bilinear(np.ones((1, 224, 224), np.float32), (12, 12), axes=(1, 2))
    assert (np.asarray(ones) == 1).all()


def test_layer_norm(rng):
    x = (rng.normal(size=(3, 4, 10)) * 0.01 + 5).astype(np.float32)
    scale, bias = rng.normal(size=(2, 10)).astype(np.float32)
    norm = layers.LayerNorm(10)
    set_values(norm, scale=scale, bias=bias)
    theirs = functional.layer_norm(
        *map(torch.from_numpy, (x,)), (10,), *map(torch.from_numpy, (scale, bias))
    )
    np.testing.assert_allclose(norm(x), theirs.numpy(), atol=2e-4)


def test_group_norm_groups_neighbouring_channels(rng):
    x = rng.normal(size=(2, 5, 6, 12)) * np.arange(1, 13)  # channels unlike each other
    x = x.astype(np.float32)
    scale, bias = rng.normal(size=(2, 12)).astype(np.float32)
    norm = layers.GroupNorm(12, 4)
    set_values(norm, scale=scale, bias=bias)
    theirs = functional.group_norm(
        torch.from_numpy(x).permute(0, 3, 1, 2), 4, *map(torch.from_numpy, (scale, bias))
    )
    np.testing.assert_allclose(norm(x), theirs.permute(0, 2, 3, 1).numpy(), atol=1e-5)


def test_conv(rng):
    x = rng.normal(size=(2, 5, 6, 3)).astype(np.float32)
    kernel = rng.normal(size=(3, 3, 3, 4)).astype(np.float32)
    bias = rng.normal(size=4).astype(np.float32)
    conv = layers.Conv(3, 4, kernel_init=Normal(), bias_init=Ones())
    set_values(conv, kernel=kernel, bias=bias)
    theirs = functional.conv2d(
        torch.from_numpy(x).permute(0, 3, 1, 2),
        torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy()),
        torch.from_numpy(bias),
        padding=1,
    )
    np.testing.assert_allclose(conv(x), theirs.permute(0, 2, 3, 1).numpy(), atol=1e-5)


def test_gelu_is_exact():
    x = np.linspace(-5, 5, 101, dtype=np.float32)
    np.testing.assert_allclose(
        layers.gelu(jnp.asarray(x)), functional.gelu(torch.from_numpy(x)).numpy(), atol=1e-6
    )


def test_products_in_bfloat16_and_norms_in_float32():
    x = jnp.ones((2, 4))
    dense = layers.Dense(4, 3, kernel_init=Normal(), dtype="bfloat16")
    assert dense(x).dtype == jnp.bfloat16
    assert dense.kernel.dtype == jnp.float32
    assert layers.LayerNorm(3)(dense(x)).dtype == jnp.float32


def test_resize_differentiates_to_its_transpose(rng):
    x = rng.normal(size=(1, 5, 4)).astype(np.float32)
    cotangent = rng.normal(size=(1, 9, 3)).astype(np.float32)
    _, pull = jax.vjp(lambda a: layers.resize_bilinear(a, (9, 3), axes=(1, 2)), x)
    rows, columns = layers.resize_matrix(5, 9), layers.resize_matrix(4, 3)
    np.testing.assert_allclose(pull(cotangent)[0][0], rows.T @ cotangent[0] @ columns, atol=1e-5)
