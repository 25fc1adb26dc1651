"""Clips as rows of frames, and back."""

import numpy as np

from aavs_jax.methods.rows import by_clip


def test_frames_come_back_in_the_place_of_their_clips():
    batch = {"frames": np.arange(6.0).reshape(2, 3, 1), "audio": np.ones((2, 3)), "ids": None}

    def doubled(parameters, flat):
        assert flat.keys() == {"frames", "audio"} and flat["frames"].shape == (6, 1)
        return {"twice": parameters * flat["frames"], "sums": flat["frames"][:, 0] + flat["audio"]}

    found = by_clip(doubled, ("frames", "audio"))(2, batch)
    np.testing.assert_array_equal(found["twice"], 2 * batch["frames"])
    np.testing.assert_array_equal(found["sums"], [[1, 2, 3], [4, 5, 6]])
