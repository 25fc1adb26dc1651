import jax.numpy as jnp
import numpy as np
import torch
from torch.nn import functional

from aavs_jax.methods.objectives import mask_classification


def test_class_scores():
    rng = np.random.default_rng(0)
    classes = rng.normal(size=(2, 3, 5)).astype(np.float32)
    masks = (rng.normal(size=(2, 3, 6, 8)) * 4).astype(np.float32)
    ours = mask_classification.class_scores(
        jnp.asarray(classes), jnp.asarray(masks), (24, 32), (14, 10)
    )

    resize = {"mode": "bilinear", "align_corners": False}
    large = functional.interpolate(torch.from_numpy(masks), (24, 32), **resize).sigmoid()
    weight = torch.from_numpy(classes).softmax(-1)[..., :-1]
    theirs = torch.einsum("nqk,nqhw->nkhw", weight, large)
    theirs = functional.interpolate(theirs, (14, 10), **resize)
    assert ours.shape == (2, 14, 10, 4) and ours.dtype == jnp.float32
    np.testing.assert_allclose(ours, theirs.permute(0, 2, 3, 1).numpy(), atol=1e-5)


def test_binary_prediction():
    scores = jnp.asarray([[[[0.2, 0.3], [0.4, 0.4], [0.9, 0.1]]]])
    mask, fmap = mask_classification.binary_prediction(scores)
    assert mask.dtype == jnp.uint8 and mask.tolist() == [[[1, 0, 0]]]
    np.testing.assert_allclose(fmap, 1 / (1 + np.exp([[[-0.4, -0.4, 0.7]]])), rtol=1e-6)


def test_semantic_prediction():
    scores = np.zeros((1, 2, 2, 71), np.float32)
    scores[0, 0, 1, 70] = scores[0, 1, 0, 3] = 1
    classes = mask_classification.semantic_prediction(jnp.asarray(scores))
    assert classes.dtype == jnp.uint8 and classes.tolist() == [[[0, 70], [3, 0]]]


def test_confidence_is_the_winners_share():
    scores = np.array([[[[1.0, 3.0, 4.0], [0.0, 0.0, 0.0]]]], np.float32)
    found = np.asarray(mask_classification.confidence(jnp.asarray(scores)))
    np.testing.assert_allclose(found, [[[0.5, 0.0]]])
