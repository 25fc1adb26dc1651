"""Pictures, labels and masks at the sizes the networks see."""

import io

import numpy as np
import pytest
from PIL import Image

from data_pipelines.errors import DataError
from data_pipelines.facts import avsbench
from data_pipelines.loading.decoding import (
    binary_label,
    decode_frame,
    nearest_binary_label,
    predicted_mask,
    semantic_label,
    sounding,
)
from data_pipelines.loading.request import Draw
from data_pipelines.media.labels import IGNORED, colours_to_ids


def png(array):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


def test_every_palette_colour_is_its_class_and_others_are_background():
    palette = avsbench.palette(256)
    np.testing.assert_array_equal(colours_to_ids(palette), np.arange(256))
    known = {tuple(colour) for colour in palette.tolist()}
    colours = np.random.default_rng(0).integers(0, 256, (20000, 3)).astype(np.uint8)
    near = np.clip(palette.astype(int) + 1, 0, 255).astype(np.uint8)
    for colour in np.concatenate([colours, near]):
        if tuple(colour.tolist()) not in known:
            assert colours_to_ids(colour) == 0


def test_frames_shrink_antialiased():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    frame = decode_frame(png(stripes), 16)
    assert frame.shape == (16, 16, 3) and frame.dtype == np.uint8
    # Without antialiasing the stripes would be sampled to pure black or white.
    assert abs(frame.astype(int) - 127).max() <= 10


def test_grey_and_palette_pictures_become_rgb():
    assert decode_frame(png(np.full((8, 9), 77, np.uint8)), 4).shape == (4, 4, 3)
    image = Image.fromarray(np.full((8, 8), 3, np.uint8), "P")
    image.putpalette(avsbench.palette(256).tobytes())
    file = io.BytesIO()
    image.save(file, "PNG")
    assert (semantic_label(file.getvalue(), 4) == 3).all()


def test_semantic_label_takes_the_pixel_at_the_centre():
    ids = np.arange(36, dtype=np.uint8).reshape(6, 6)
    label = semantic_label(png(avsbench.palette(256)[ids]), 2)
    # Output pixel centres 0.5, 1.5 lie at 1.5, 4.5 in the input: pixels 1 and 4, not 0 and 3.
    np.testing.assert_array_equal(label, ids[np.ix_([1, 4], [1, 4])])


def test_binary_label_counts_touched_pixels():
    label = np.zeros((6, 6, 3), np.uint8)
    label[0, 1] = (64, 0, 0)
    # Four output pixels lie at 0.25, 1.75, 3.25, 4.75 of the input: the first two touch pixel 1,
    # and none has it nearest.
    found = binary_label(png(label), 4)
    assert found.dtype == np.uint8
    assert np.argwhere(found).tolist() == [[0, 0], [0, 1]] and found.max() == 1
    assert not semantic_label(png(label), 4).any()


def test_nearest_binary_label_takes_the_pixel_at_the_centre():
    label = np.zeros((6, 6, 3), np.uint8)
    label[4, 1] = (0, 0, 64)
    found = nearest_binary_label(png(label), 2)
    # Centres 0.5 and 1.5 lie at 1.5 and 4.5 of the input: pixels 1 and 4.
    assert found.dtype == np.uint8 and found.tolist() == [[0, 0], [1, 0]]
    label[4, 1], label[4, 2] = 0, (128, 0, 0)
    assert not nearest_binary_label(png(label), 2).any()


def test_every_class_colour_is_foreground():
    for class_id, colour in enumerate(avsbench.palette(256)):
        label = binary_label(png(np.full((4, 4, 3), colour, np.uint8)), 4)
        assert (label == (class_id > 0)).all()
        nearest = nearest_binary_label(png(np.full((4, 4, 3), colour, np.uint8)), 4)
        np.testing.assert_array_equal(nearest, label)


def ignored_png():
    """6 x 6: an object above, what is ignored below, on the left; background on the right."""
    ids = np.zeros((6, 6), np.uint8)
    ids[:3, :4], ids[3:, :4] = 7, IGNORED
    return png(avsbench.palette(256)[ids])


def test_ignored_pixels_stay_where_they_are():
    expected = [[7, 7, 0], [IGNORED, IGNORED, 0], [IGNORED, IGNORED, 0]]
    np.testing.assert_array_equal(semantic_label(ignored_png(), 3), expected)
    expected = [[1, 1, 0], [IGNORED, IGNORED, 0], [IGNORED, IGNORED, 0]]
    for decode in (binary_label, nearest_binary_label):
        found = decode(ignored_png(), 3, ignores=True)
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(decode(ignored_png(), 3), np.minimum(expected, 1))


def test_ignored_pixels_touch_nothing():
    """Enlarged, borders are mixed: the object reaches out, what is ignored does not."""
    ids = np.zeros((4, 4), np.uint8)
    ids[0, 0], ids[3, 3] = 7, IGNORED
    found = binary_label(png(avsbench.palette(256)[ids]), 8, ignores=True)
    assert found[:3, :3].sum() == 9 and (found[6:, 6:] == IGNORED).all()
    assert (found == IGNORED).sum() == 4 and (found == 1).sum() == 9


def test_what_sounds_is_neither_background_nor_ignored():
    assert sounding(np.array([0, 1, 254, 255], np.uint8)).tolist() == [False, True, True, False]


def test_predicted_masks(tmp_path):
    ramp = np.tile(np.arange(0, 240, 40, dtype=np.uint8), (6, 1))
    Image.fromarray(ramp).save(tmp_path / "0.png")
    np.testing.assert_array_equal(predicted_mask(tmp_path / "0.png", 6), ramp)
    small = predicted_mask(tmp_path / "0.png", 3)
    np.testing.assert_array_equal(small, [[20, 100, 180]] * 3)
    with pytest.raises(DataError, match=r"1\.png; a stage of the run writes its masks"):
        predicted_mask(tmp_path / "1.png", 3)
    (tmp_path / "2.png").write_bytes(b"nonsense")
    with pytest.raises(DataError, match=r"cannot be read: .*2\.png"):
        predicted_mask(tmp_path / "2.png", 3)


HARD = np.array([[0, 1], [1, 0]], np.uint8)
GREYS = np.arange(256).repeat(3).reshape(256, 3)


def with_palette(values, palette):
    image = Image.fromarray(values).convert("P")
    image.putpalette(np.asarray(palette, np.uint8).tobytes())
    return image


@pytest.mark.parametrize(
    ("picture", "expected"),
    [
        (HARD * np.uint8(255), 255 * HARD),
        (HARD * np.uint8(2), 2 * HARD),
        (HARD * np.uint8(0), 0 * HARD),
        (Image.fromarray(HARD * np.uint8(255)).convert("1"), 255 * HARD),
        (with_palette(HARD * np.uint8(200), GREYS), 200 * HARD),
        (with_palette(HARD, [[0] * 3, [255] * 3]), 255 * HARD),
        (np.stack([HARD * np.uint8(255)] * 3, axis=-1), 255 * HARD),
        (np.array([[0, 300], [51500, 65535]], np.uint16), [[0, 1], [200, 255]]),
        (HARD.astype(np.uint16) * np.uint16(0), 0 * HARD),
    ],
    ids=["hard", "dark", "black", "bits", "palette", "black_white", "three", "wide", "wide_black"],
)
def test_greys_of_predicted_masks(tmp_path, picture, expected):
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    image.save(tmp_path / "0.png")
    found = predicted_mask(tmp_path / "0.png", 2)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("picture", "words"),
    [
        (HARD, "holds only 0 and 1"),
        (with_palette(HARD, GREYS), "holds only 0 and 1"),
        (HARD.astype(np.uint16), "has 16 bits, but holds no value above 1"),
        (HARD.astype(np.uint16) * np.uint16(255), "has 16 bits, but holds no value above 255"),
        (with_palette(HARD, avsbench.palette()), "mode P with colours"),
        # Class 7 is grey, (128, 128, 128).
        (with_palette(HARD * np.uint8(7), avsbench.palette()), "mode P with colours"),
        (avsbench.palette()[HARD], "mode RGB with colours"),
        (avsbench.palette()[HARD * np.uint8(7)], "mode RGB with colours"),
        (Image.fromarray(HARD * np.uint8(255)).convert("LA"), "mode LA"),
    ],
    ids=[
        "0_1",
        "palette_0_1",
        "wide_0_1",
        "wide_0_255",
        "palette",
        "class_7",
        "colours",
        "grey_7",
        "alpha",
    ],
)
def test_a_prior_is_not_guessed(tmp_path, picture, words):
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    image.save(tmp_path / "0.png")
    with pytest.raises(DataError, match=rf"0\.png .*{words}: write masks as grey PNG"):
        predicted_mask(tmp_path / "0.png", 2)


def draw(**options):
    defaults = dict(
        labelled=((0,), (0, 1, 2, 3, 4), tuple(range(10))),
        lengths=(5, 5, 10),
        sampling="frame",
        seconds=(1, 1, 1),
        prior="none",
        mixture=0.5,
        untold=0.0,
        flip=0.0,
    )
    return Draw(**{**defaults, **options})


def test_random_seconds_are_labelled_and_all_are_drawn():
    rng = np.random.default_rng(0)
    requests = [draw().random_map(1, rng) for _ in range(200)]
    assert {r.frames for r in requests} == {(t,) for t in range(5)}
    assert all(r.frames == r.sounds and r.valid == (True,) for r in requests)
    assert {draw().random_map(0, rng).frames for _ in range(50)} == {(0,)}


def test_whole_clips_repeat_a_single_label_and_pad_shorter_clips():
    rng = np.random.default_rng(0)
    whole = draw(sampling="clip", seconds=(10, 10, 10))
    single = whole.random_map(0, rng)
    assert single.frames == (0,) * 10 and single.sounds == (0, 1, 2, 3, 4, 4, 4, 4, 4, 4)
    assert single.valid == (True,) * 5 + (False,) * 5
    short = whole.random_map(1, rng)
    assert short.frames == short.sounds == (0, 1, 2, 3, 4, 4, 4, 4, 4, 4)
    assert whole.random_map(2, rng).frames == tuple(range(10))
    bucketed = draw(sampling="clip", seconds=(5, 5, 10)).random_map(1, rng)
    assert bucketed.frames == tuple(range(5)) and bucketed.valid == (True,) * 5


def test_shares_of_the_mixture_and_of_flips():
    rng = np.random.default_rng(0)
    drawn = [draw(prior="mixture", mixture=0.25, flip=0.3).random_map(1, rng) for _ in range(4000)]
    share = np.mean([r.prior == "predicted" for r in drawn])
    flips = np.mean([r.flip for r in drawn])
    # Four standard deviations of 4000 draws.
    assert abs(share - 0.25) < 0.028 and abs(flips - 0.3) < 0.029
    assert {r.prior for r in drawn} == {"predicted", "true"}
    assert len({r.seed for r in drawn}) == len(drawn)


def test_the_share_of_seconds_that_are_told_nothing():
    rng = np.random.default_rng(0)
    options = dict(sampling="clip", seconds=(10, 10, 10), prior="true", untold=0.3)
    drawn = [draw(**options).random_map(2, rng) for _ in range(400)]
    # Four standard deviations of 4000 draws, and every second by itself.
    assert abs(np.mean([r.untold for r in drawn]) - 0.3) < 0.029
    assert len({r.untold for r in drawn}) > 100
    assert draw(**options | {"prior": "none"}).random_map(2, rng).untold == ()
    # Nobody else's draws change by it.
    one, other = (draw(untold=u).random_map(1, np.random.default_rng(5)) for u in (0.0, 0.3))
    assert (one.frames, one.seed) == (other.frames, other.seed)


@pytest.mark.parametrize(("height", "width", "size"), [(90, 161, 32), (161, 90, 33), (40, 40, 16)])
def test_the_middle_of_a_picture_is_torchvisions(height, width, size):
    """The longer side to int(longer x size / shorter), the corner rounded half to even."""
    picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    shorter = min(height, width)
    wide, high = int(size * width / shorter), int(size * height / shorter)
    left, top = int(round((wide - size) / 2.0)), int(round((high - size) / 2.0))
    box = (left, top, left + size, top + size)
    for decode, how in (
        (lambda b: decode_frame(b, size, "centre_crop"), Image.Resampling.BILINEAR),
        (lambda b: semantic_label(b, size, "centre_crop"), Image.Resampling.NEAREST),
    ):
        wanted = np.asarray(Image.fromarray(picture).resize((wide, high), how).crop(box))
        wanted = colours_to_ids(wanted) if how == Image.Resampling.NEAREST else wanted
        np.testing.assert_array_equal(decode(png(picture)), wanted)
    shape = (size, size)
    nearest = nearest_binary_label(png(picture), size, resize="centre_crop")
    smooth = binary_label(png(picture), size, resize="centre_crop")
    assert nearest.shape == smooth.shape == shape and (smooth >= nearest).mean() > 0.99


def test_a_film_shows_each_second_as_it_is():
    def requested(sampling, labelled):
        chances = {name: 0.0 for name in ("mixture", "untold", "flip")}
        draw = Draw((labelled,), (4,), sampling, (5,), prior="none", **chances)
        return draw.random_map(0, np.random.default_rng(0))

    film = requested("film", (0,))
    assert film.frames == film.sounds == (0, 1, 2, 3, 3)
    assert film.valid == (True,) * 4 + (False,)
    assert requested("clip", (0,)).frames == (0,) * 5
    assert requested("clip", (0, 1)) == requested("film", (0, 1))
