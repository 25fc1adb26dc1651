"""Bilinear resizing with aligned corners against PyTorch's."""

import numpy as np
import pytest
import torch

from aavs_jax.methods.parts.aligned import resize_aligned


@pytest.mark.parametrize(("old", "new"), [((6, 7), (24, 28)), ((5, 5), (5, 3)), ((1, 4), (3, 1))])
def test_equals_torch(old, new):
    x = np.random.default_rng(0).normal(size=(2, *old, 3)).astype(np.float32)
    theirs = torch.nn.functional.interpolate(
        torch.from_numpy(x).movedim(-1, 1), new, mode="bilinear", align_corners=True
    )
    ours = resize_aligned(x, new, axes=(1, 2))
    # torch rounds a place to float32 before it takes the share of each neighbour.
    np.testing.assert_allclose(ours, theirs.movedim(1, -1), atol=3e-6)
