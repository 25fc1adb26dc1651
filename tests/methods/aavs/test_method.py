"""The method of AAVS: what it makes of a batch of clips."""

import jax
import numpy as np

from aavs_jax.methods import make_method


def test_scores_of_several_views_are_their_mean(tiny_stage):
    """The same clips, told in two ways at once and one after the other."""
    stage = tiny_stage("understand")
    method = make_method(stage, 4)
    parameters, scores = method.initial(0), jax.jit(method.scores)
    rng = np.random.default_rng(0)
    size = stage["data"]["label_size"]
    batch = {
        "frames": rng.integers(0, 256, (1, 2, 32, 32, 3)).astype(np.uint8),
        "audio": rng.normal(size=(1, 2, 96, 64)).astype(np.float32),
    }
    views = rng.random((1, 2, 2, size, size)).astype(np.float32)
    first, second = (
        np.asarray(scores(parameters, {**batch, "prior_mask": views[:, :, view]}))
        for view in range(2)
    )
    assert np.abs(first - second).max() > 1e-4
    both = scores(parameters, {**batch, "prior_mask": views})
    np.testing.assert_allclose(both, (first + second) / 2, rtol=1e-5, atol=1e-6)
