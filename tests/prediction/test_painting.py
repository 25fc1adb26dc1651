import numpy as np
import pytest

from aavs_jax.prediction.painting import TINT, Painter

CLASSES = ("background", "dog", "guitar", "鳥 \N{BELL}\x07")
PALETTE = np.array([(0, 0, 0), (255, 0, 0), (0, 200, 255), (0, 255, 0)], np.uint8)


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (180, 240, 3)).astype(np.uint8)


def square(class_id=1):
    mask = np.zeros((180, 240), np.uint8)
    mask[100:150, 150:220] = class_id
    return mask


def test_it_tints_inside_outlines_and_leaves_the_rest(picture):
    before, mask = picture.copy(), square()
    painted = Painter(CLASSES, PALETTE, 180, 240, legend=False).paint(picture, mask)
    np.testing.assert_array_equal(picture, before)
    np.testing.assert_array_equal(painted[mask == 0], picture[mask == 0])
    inner = (slice(105, 145), slice(155, 215))
    expected = (1 - TINT) * picture[inner] + TINT * PALETTE[1]
    np.testing.assert_allclose(painted[inner], expected, atol=1)
    for y, x in ((100, 150), (149, 219), (120, 150), (100, 180)):
        np.testing.assert_array_equal(painted[y, x], PALETTE[1])


def test_touching_classes_are_outlined_and_the_pictures_border_is_not(picture):
    mask = np.ones((180, 240), np.uint8)
    mask[:, 120:] = 2
    painted = Painter(CLASSES, PALETTE, 180, 240, legend=False).paint(picture, mask)
    np.testing.assert_array_equal(painted[90, 119:121], PALETTE[1:3])
    for y, x, k in ((0, 0, 1), (179, 239, 2)):
        assert np.abs(painted[y, x] - ((1 - TINT) * picture[y, x] + TINT * PALETTE[k])).max() <= 1


def test_the_legend_names_the_classes_that_are_there(picture):
    painter = Painter(CLASSES, PALETTE, 180, 240)
    legends = {}
    for ids in ((1,), (2,), (1, 2), (3,)):
        mask = np.zeros((180, 240), np.uint8)
        mask[170:, 200:] = ids[0]
        mask[170:, 220:] = ids[-1]
        legends[ids] = painter.paint(picture, mask)[:100]
        assert (legends[ids] != picture[:100]).any()
        seen = {tuple(colour) for colour in legends[ids].reshape(-1, 3).tolist()}
        assert {k for k in (1, 2, 3) if tuple(PALETTE[k].tolist()) in seen} == set(ids)
    assert (legends[1,] != legends[2,]).any()


def test_each_mask_is_painted_as_itself(picture):
    painter, first, second = Painter(CLASSES, PALETTE, 180, 240), square(1), square(2)
    one = painter.paint(picture, first)
    two = painter.paint(picture, second)
    assert (one != two).any()
    np.testing.assert_array_equal(painter.paint(picture, first), one)
    np.testing.assert_array_equal(painter.paint(picture, np.zeros_like(first)), picture)
    np.testing.assert_array_equal(painter.paint(picture, second), two)


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (40, 30), (300, 9)])
def test_pictures_of_any_size(size):
    classes = ("background", *(f"class {n} with a long name" for n in range(30)))
    palette = np.arange(31 * 3, dtype=np.uint8).reshape(31, 3)
    mask = np.arange(size[0] * size[1], dtype=np.uint64).reshape(size) % 31
    painted = Painter(classes, palette, *size).paint(
        np.zeros((*size, 3), np.uint8), mask.astype(np.uint8)
    )
    assert painted.shape == (*size, 3)
