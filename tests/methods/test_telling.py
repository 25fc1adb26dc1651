"""What one network says, as another is told it."""

import jax.numpy as jnp
import numpy as np

from aavs_jax.methods.method import Prediction
from aavs_jax.methods.telling import as_view, prior_mask

SHARE = np.array([[[[0.0, 0.2, 0.5, 0.7, 1.0]]]], np.float32)
CLASSES = (SHARE > 0.5).astype(np.uint8)
FOUND = Prediction(jnp.array(CLASSES), {"confidence": jnp.array(np.maximum(SHARE, 1 - SHARE))})


def test_hard_and_soft_masks_change_at_the_same_place():
    np.testing.assert_array_equal(prior_mask(FOUND, "hard"), CLASSES)
    np.testing.assert_allclose(prior_mask(FOUND, "soft"), SHARE, atol=0.5 / 255)


def test_a_soft_mask_has_the_levels_of_a_picture_but_the_first():
    share = np.linspace(0, 0.02, 50, dtype=np.float32).reshape(1, 1, 1, 50)
    found = Prediction(jnp.zeros_like(share, jnp.uint8), {"confidence": jnp.array(1 - share)})
    levels = 255 * np.asarray(prior_mask(found, "soft"))
    np.testing.assert_allclose(levels, np.round(levels), atol=1e-5)
    assert {0, 2, 3, 4, 5} == set(np.round(levels).ravel().astype(int).tolist())


def test_who_says_nothing_of_its_certainty_is_taken_at_its_word():
    np.testing.assert_array_equal(prior_mask(Prediction(FOUND.classes), "soft"), CLASSES)


def test_views():
    mask = jnp.array(SHARE)
    np.testing.assert_array_equal(as_view(mask, "predicted"), SHARE)
    np.testing.assert_array_equal(as_view(mask, "unknown"), np.full_like(SHARE, 0.5))
    both = as_view(mask, "both")
    assert both.shape == (1, 1, 2, 1, 5)
    np.testing.assert_array_equal(both[:, :, 0], SHARE)
    np.testing.assert_array_equal(both[:, :, 1], np.full_like(SHARE, 0.5))
