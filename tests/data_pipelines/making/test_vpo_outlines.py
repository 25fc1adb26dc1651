"""COCO's outlines, against COCO's own library."""

import numpy as np
import pytest
from pycocotools import mask as coco

from data_pipelines.making.vpo.outlines import rasterise

HEIGHT, WIDTH = 61, 87


def masks():
    """Noise of several densities, an empty and a full mask, one pixel, long runs."""
    rng = np.random.default_rng(0)
    yield from (rng.random((HEIGHT, WIDTH)) < share for share in (0.01, 0.1, 0.5, 0.9, 0.999))
    yield np.zeros((HEIGHT, WIDTH), bool)
    yield np.ones((HEIGHT, WIDTH), bool)
    for corner in ((0, 0), (HEIGHT - 1, WIDTH - 1), (0, WIDTH - 1)):
        one = np.zeros((HEIGHT, WIDTH), bool)
        one[corner] = True
        yield one
    large = np.zeros((1400, 2000), bool)
    large[700:, 3:1990] = True
    yield large


@pytest.mark.parametrize("mask", list(masks()))
def test_runs_that_coco_compressed(mask):
    encoded = coco.encode(np.asfortranarray(mask, np.uint8))
    outline = {"size": encoded["size"], "counts": encoded["counts"].decode()}
    np.testing.assert_array_equal(rasterise(outline, *mask.shape), mask)


@pytest.mark.parametrize("mask", list(masks())[:10])
def test_runs_as_numbers_mean_what_they_mean_to_coco(mask):
    columns = mask.T.ravel()
    ends = np.flatnonzero(np.diff(columns)) + 1
    runs = np.diff([0, *ends, columns.size]).tolist()
    outline = {"size": list(mask.shape), "counts": [0, *runs] if columns[0] else runs}
    theirs = coco.frPyObjects(dict(outline), *mask.shape)
    assert theirs["counts"] == coco.encode(np.asfortranarray(mask, np.uint8))["counts"]
    np.testing.assert_array_equal(rasterise(outline, *mask.shape), mask)


def test_polygons_differ_from_cocos_at_their_edges_only():
    """By a pixel at most: ours has those, too, that an edge runs through."""
    rng = np.random.default_rng(1)
    for _ in range(20):
        angles = np.sort(rng.uniform(0, 2 * np.pi, 9))
        radii = rng.uniform(10, 28, 9)
        x = WIDTH / 2 + radii * np.cos(angles)
        y = HEIGHT / 2 + radii * np.sin(angles)
        polygon = np.stack([x, y], 1).ravel()
        encoded = coco.frPyObjects([polygon.tolist()], HEIGHT, WIDTH)
        theirs = np.array(coco.decode(encoded)[..., 0], bool)
        ours = rasterise([polygon.astype(np.float32)], HEIGHT, WIDTH)
        apart = np.argwhere(ours != theirs)
        assert all(distance(pixel[::-1] + 0.5, polygon.reshape(-1, 2)) <= 1 for pixel in apart)
        assert (ours & theirs).sum() > 300


def distance(point, corners):
    """From the nearest edge of a polygon, pixels."""
    edges = np.roll(corners, -1, axis=0) - corners
    along = ((point - corners) * edges).sum(1) / (edges**2).sum(1)
    nearest = corners + np.clip(along, 0, 1)[:, None] * edges
    return np.hypot(*(nearest - point).T).min()
