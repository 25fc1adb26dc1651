"""Both forms of multi-scale sampling against each other and against torch's `grid_sample`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.nn import functional

from aavs_jax.methods.parts import deformable_attention
from aavs_jax.methods.parts.deformable_attention import sample_dense, sample_gather

SHAPES = ((2, 3), (4, 5), (7, 9))
N, HEADS, POINTS, SIZE = 2, 2, 4, 3
S = sum(h * w for h, w in SHAPES)


@pytest.fixture(scope="module")
def samples():
    """value, coordinates (many outside, some on pixel centres), weights, a cotangent."""
    rng = np.random.default_rng(0)
    value = rng.normal(size=(N, HEADS, S, SIZE))
    coordinates = rng.uniform(-3, 11, size=(N, HEADS, S, 3, POINTS, 2))
    coordinates[:, :, ::5] = np.round(coordinates[:, :, ::5])
    weights = rng.random((N, HEADS, S, 3, POINTS))
    cotangent = rng.normal(size=value.shape)
    return [a.astype(np.float32) for a in (value, coordinates, weights, cotangent)]


@pytest.fixture(scope="module")
def reference(samples):
    value, coordinates, weights, cotangent = (
        torch.from_numpy(a).clone().requires_grad_() for a in samples
    )
    start, result = 0, 0
    for level, (height, width) in enumerate(SHAPES):
        tokens = height * width
        maps = value[:, :, start : start + tokens].reshape(N * HEADS, height, width, SIZE)
        start += tokens
        place = (coordinates[:, :, :, level] + 0.5) / torch.tensor([width, height]) * 2 - 1
        sampled = functional.grid_sample(
            maps.permute(0, 3, 1, 2),
            place.reshape(N * HEADS, S, POINTS, 2),
            mode="bilinear",
            padding_mode="zeros",
            align_corners=False,
        ).reshape(N, HEADS, SIZE, S, POINTS)
        result = result + torch.einsum("nhdsp,nhsp->nhsd", sampled, weights[:, :, :, level])
    (result * cotangent).sum().backward()
    return result.detach().numpy(), [a.grad.numpy() for a in (value, coordinates, weights)]


@pytest.mark.parametrize("sample", [sample_dense, sample_gather])
def test_sampling_is_torchs(samples, reference, sample):
    value, coordinates, weights, cotangent = samples
    result, pull = jax.vjp(lambda *a: sample(*a, SHAPES), value, coordinates, weights)
    np.testing.assert_allclose(result, reference[0], atol=1e-5)
    gradients = pull(jnp.asarray(cotangent))
    np.testing.assert_allclose(gradients[0], reference[1][0], atol=1e-4)
    np.testing.assert_allclose(gradients[2], reference[1][2], atol=1e-4)
    # On pixel centres the slope is one-sided; torch's coordinates, scaled and scaled back, may fall
    # on the other side of the centre.
    between = (coordinates != np.round(coordinates)).all(-1)
    np.testing.assert_allclose(gradients[1][between], reference[1][1][between], atol=1e-4)


def test_both_forms_have_the_same_gradient_everywhere(samples):
    *arguments, cotangent = samples
    gradients = [
        jax.vjp(lambda *a, f=f: f(*a, SHAPES), *arguments)[1](jnp.asarray(cotangent))
        for f in (sample_dense, sample_gather)
    ]
    for dense, gather in zip(*gradients, strict=True):
        np.testing.assert_allclose(dense, gather, atol=1e-4)


@pytest.mark.parametrize("sample", [sample_dense, sample_gather])
def test_wild_offsets_see_nothing(samples, sample):
    value, coordinates, weights, _ = samples
    far = jnp.full(coordinates.shape, 1e12, jnp.float32)
    assert not np.asarray(sample(value, far, weights, SHAPES)).any()


def test_reference_points_are_pixel_centres():
    points = deformable_attention.reference_points(SHAPES)
    assert points.shape == (S, 3, 2)
    np.testing.assert_allclose(points[:6, 0, 0], [0, 1, 2] * 2, atol=1e-6)  # own level: whole
    np.testing.assert_allclose(points[0, 1], [5 / 6 - 0.5, 0.5], atol=1e-6)  # (x, y) on 4 x 5
