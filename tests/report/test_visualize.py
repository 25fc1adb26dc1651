import io

import numpy as np
import pytest
from PIL import Image

from aavs_jax.report import visualize
from data_pipelines.facts.avsbench import palette


def frame(height=40, width=60):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def test_overlay_colours_inside_fades_outside_and_outlines():
    grey = np.full((40, 60, 3), 100, np.uint8)
    labels = np.zeros((40, 60), np.uint8)
    labels[10:30, 20:40] = 4  # VOC's (0, 0, 128)
    painted = visualize.overlay(grey, labels, palette(8), alpha=0.5, fade=0.0)
    assert painted.dtype == np.uint8 and painted.shape == grey.shape
    np.testing.assert_array_equal(painted[20, 30], [50, 50, 114])
    np.testing.assert_array_equal(painted[5, 5], [100, 100, 100])
    np.testing.assert_array_equal(painted[10, 30], [128, 128, 192])  # half the colour, half white
    np.testing.assert_array_equal(painted[9, 30], [100, 100, 100])  # the outline lies inside


def test_nothing_sounding_and_no_fading_is_the_frame():
    picture = frame()
    labels = np.zeros((40, 60), bool)
    np.testing.assert_array_equal(visualize.overlay(picture, labels, fade=0.0), picture)
    assert visualize.overlay(picture, labels).mean() < picture.mean()


def test_mask_up_to_the_border_has_no_outline_there():
    grey = np.full((8, 8, 3), 100, np.uint8)
    painted = visualize.overlay(grey, np.ones((8, 8), bool))
    assert len(np.unique(painted.reshape(-1, 3), axis=0)) == 1


def test_touching_classes_are_outlined_against_each_other():
    grey = np.full((20, 20, 3), 100, np.uint8)
    labels = np.repeat(np.array([[1] * 10 + [2] * 10], np.uint8), 20, 0)
    painted = visualize.overlay(grey, labels)
    assert (painted[10, 9] != painted[10, 5]).any() and (painted[10, 10] != painted[10, 15]).any()


def test_small_labels_are_enlarged_by_nearest():
    labels = np.array([[1, 0], [0, 2]], np.uint8)
    large = visualize.overlay(frame(), np.kron(labels, np.ones((20, 30), np.uint8)))
    np.testing.assert_array_equal(visualize.overlay(frame(), labels), large)


def test_resize_nearest_takes_pixel_centres():
    row = np.arange(6)[None]
    np.testing.assert_array_equal(visualize.resize_nearest(row, (1, 2)), [[1, 4]])
    np.testing.assert_array_equal(visualize.resize_nearest(row[:, :2], (2, 4)), [[0, 0, 1, 1]] * 2)


def test_class_without_a_colour_is_an_error():
    with pytest.raises(ValueError, match="7"):
        visualize.overlay(frame(), np.full((40, 60), 7), palette(3))


def test_mosaic_places_cells_and_leaves_gaps_white():
    red, blue = np.zeros((2, 5, 4, 3), np.uint8)
    red[..., 0], blue[..., 2] = 200, 200
    sheet = visualize.mosaic([[red, None], [blue, red]], scale=2)
    assert sheet.shape == (20 + visualize.GAP, 16 + visualize.GAP, 3)
    assert tuple(sheet[0, 0]) == (200, 0, 0) and tuple(sheet[0, -1]) == (255, 255, 255)
    assert tuple(sheet[-1, 0]) == (0, 0, 200) and tuple(sheet[-1, -1]) == (200, 0, 0)
    assert (sheet[10 : 10 + visualize.GAP] == 255).all()


def test_mosaic_labels_stand_left_of_the_rows():
    black = np.zeros((40, 40, 3), np.uint8)
    plain = visualize.mosaic([[black]])
    sheet = visualize.mosaic([[black]], ["truth"])
    margin = sheet.shape[1] - plain.shape[1]
    assert margin > 20 and (sheet[:, :margin] < 128).any()
    np.testing.assert_array_equal(sheet[:, margin:], plain)


def test_png_round_trip():
    picture = frame()
    decoded = np.array(Image.open(io.BytesIO(visualize.to_png_bytes(picture))))
    np.testing.assert_array_equal(decoded, picture)


def test_class_colours_are_bright_and_distinct():
    colours = visualize.class_colours(71)
    assert not colours[0].any() and (colours[1:].max(axis=1) == 255).all()
    assert len({tuple(colour) for colour in colours}) == 71
    # Those that share a small picture most often, the first dozen, are far apart.
    first = colours[1:10].astype(int)
    gaps = np.abs(first[:, None] - first[None]).sum(-1) + 999 * np.eye(9, dtype=int)
    assert gaps.min() > 60
