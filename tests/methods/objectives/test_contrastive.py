"""CAVP's contrastive loss against loops, and which pixels are drawn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aavs_jax.methods.objectives.contrastive import (
    IGNORED,
    contrastive_loss,
    draw_anchors,
    draw_ranks,
    unit_length,
)

VIEWS, CLASSES = 8, 4
PIXELS = 2 * 9 * 10


@pytest.fixture(scope="module")
def labels():
    """Enough of class 1, too little of class 2, nothing of class 3."""
    flat = np.zeros(PIXELS, int)
    flat[20:60], flat[60:65], flat[65:80] = 1, 2, IGNORED
    return np.random.default_rng(0).permutation(flat).reshape(2, 9, 10)


@pytest.fixture(scope="module")
def draw():
    def drawn(labels, other, seed=0):
        ranks = draw_ranks(jax.random.key(seed), PIXELS)
        found = jitted(jnp.asarray(labels), jnp.asarray(other), ranks)
        return [np.asarray(array)[np.asarray(found.valid)] for array in found[:2]]

    jitted = jax.jit(lambda *a: draw_anchors(a[0], a[1], CLASSES, VIEWS, a[2]))
    return drawn


def test_anchors(draw, labels):
    other = np.where(np.arange(2)[:, None, None] == 0, labels, 0)
    flat, wrong = labels.reshape(-1), other.reshape(-1)
    seen = set()
    for seed in range(20):
        pixel, label = draw(labels, other, seed)
        assert len(pixel) == 3 * VIEWS
        own, background, foreign = pixel.reshape(3, VIEWS)
        assert (flat[own] == 1).all() and (flat[background] == 0).all()
        assert all(len(set(part)) == VIEWS for part in (own, background, foreign))
        assert (foreign >= PIXELS).all()
        foreign = foreign - PIXELS
        # Of objects of any class, and never where a label is ignored.
        assert np.isin(flat[foreign], (1, 2)).all()
        np.testing.assert_array_equal(label[:VIEWS], 1)
        np.testing.assert_array_equal(label[VIEWS : 2 * VIEWS], 0)
        np.testing.assert_array_equal(label[2 * VIEWS :], wrong[foreign])
        seen |= set(own) | set(foreign)
    assert {flat[pixel] for pixel in seen} == {1, 2}
    assert len([pixel for pixel in seen if flat[pixel] == 1]) > 35  # of 40


def test_as_many_as_there_are_of_the_rarest(draw, labels):
    few = np.where(labels == 0, IGNORED, labels)
    few.reshape(-1)[np.flatnonzero(labels == 0)[:3]] = 0
    pixel, _ = draw(few, few)
    assert len(pixel) == VIEWS + 3 + 3


def test_without_a_class_of_enough_pixels_there_is_nothing(draw, labels):
    pixel, _ = draw(np.where(labels == 1, 0, labels), labels)
    assert not len(pixel)


def by_loops(features, label):
    f = features / np.linalg.norm(features, axis=1, keepdims=True)
    s, total = f @ f.T / 0.1, 0.0
    for i in range(len(f)):
        negatives = np.exp(s[i][label != label[i]]).sum()
        positives = [j for j in range(len(f)) if j != i and label[j] == label[i]]
        terms = [s[i, j] - np.log(np.exp(s[i, j]) + negatives) for j in positives]
        total -= np.mean(terms) if terms else 0.0
    return total / len(f)


def test_equals_loops_whatever_the_padding():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(4 * VIEWS, 6)).astype(np.float32)
    label = rng.integers(0, 3, 4 * VIEWS)
    label[3] = 7  # without positives
    valid = np.arange(4 * VIEWS) < 2 * VIEWS + 3
    loss = jax.jit(lambda f: contrastive_loss(f, jnp.asarray(label), valid, 0.1, VIEWS))
    expected = by_loops(features[valid].astype(np.float64), label[valid])
    np.testing.assert_allclose(loss(features), expected, rtol=1e-5)
    gradient = np.asarray(jax.jit(jax.grad(loss))(features))
    assert (gradient[~valid] == 0).all() and np.abs(gradient[valid]).min(1).max() > 0
    # Each block alone is what all at once are.
    whole = contrastive_loss(features, jnp.asarray(label), valid, 0.1, 4 * VIEWS)
    np.testing.assert_allclose(loss(features), whole, rtol=1e-6)


def test_nothing_valid_is_zero_and_has_no_gradient():
    def loss(features):
        return contrastive_loss(features, jnp.zeros(16, int), jnp.zeros(16, bool), 0.1, VIEWS)

    value, gradient = jax.value_and_grad(loss)(jnp.ones((16, 3)))
    assert value == 0 and (gradient == 0).all()


def test_a_feature_of_zeros_has_a_gradient():
    assert jnp.isfinite(jax.grad(lambda x: unit_length(x).sum())(jnp.zeros((2, 3)))).all()
