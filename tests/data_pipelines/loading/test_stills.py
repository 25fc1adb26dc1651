"""One picture for all seconds of a clip: given once, and everything else as if it were repeated."""

import itertools

import numpy as np
import pytest

from data_pipelines.loader import open_source, train_loader
from data_pipelines.loading.request import shows_one
from data_pipelines.prepared.source import Clip

PICTURES = {
    "flip": 0.5,
    "resized_crop": {"probability": 0.7, "scale": (0.3, 1.0), "ratio": (0.75, 1.33)},
    "colour_jitter": {
        "probability": 0.7,
        "brightness": (0.6, 1.4),
        "contrast": (0.6, 1.4),
        "saturation": (0.6, 1.4),
        "hue": (-0.1, 0.1),
    },
    "sound_gain": {"probability": 0.7, "decibels": (-6.0, 6.0)},
}


def batches(source, count=4, **options):
    defaults = dict(
        task="semantic",
        image_size=16,
        label_size=8,
        batch_size=2,
        seconds=7,
        sampling="clip",
        stills=True,
        seed=5,
    )
    return list(itertools.islice(train_loader(source, **{**defaults, **options}), count))


@pytest.fixture(scope="module")
def s4(data_dir):
    return open_source(data_dir, "train", ("v1s",))


@pytest.mark.parametrize(
    "options",
    [
        dict(augment=PICTURES, prior="predicted"),
        dict(augment=PICTURES, prior="true", cache=True, bucket_by_length=True),
    ],
    ids=["padded", "bucketed"],
)
def test_one_picture_is_given_once_and_nothing_else_changes(s4, masks_dir, options):
    options = {"prior_dir": masks_dir} | options
    once, repeated = batches(s4, **options), batches(s4, stills=False, **options)
    seconds = 5 if "bucket_by_length" in options else 7
    for one, many in zip(once, repeated, strict=True):
        assert one.keys() == many.keys()
        assert one["frames"].shape == (2, 1, 16, 16, 3)
        assert many["frames"].shape == (2, seconds, 16, 16, 3)
        # The mean grey of a repeated picture may round to another side.
        difference = many["frames"].astype(int) - one["frames"]
        assert np.abs(difference).max() <= 1
        for name in one.keys() - {"frames"}:
            np.testing.assert_array_equal(one[name], many[name], err_msg=name)
        assert one["labels"].shape[1] == one["audio"].shape[1] == seconds


def test_all_clips_of_a_source_or_none(data_dir):
    """Or else shapes would depend on which clips a process happens to get."""
    source = open_source(data_dir, "train", ("v1s", "v1m"))
    shapes = {batch["frames"].shape for batch in batches(source)}
    assert shapes == {(2, 7, 16, 16, 3)}


def test_processes_share_the_same_batches(s4):
    whole = batches(s4)
    for process in range(2):
        share = batches(s4, process_index=process, process_count=2)
        for one, all_ in zip(share, whole, strict=True):
            for name, values in one.items():
                np.testing.assert_array_equal(values, all_[name][process::2], err_msg=name)


@pytest.mark.parametrize(
    ("seconds", "labelled", "still", "one"),
    [
        (5, (0,), False, True),
        (5, (0, 1), False, False),
        (5, (1,), False, False),
        (5, (0, 1, 2, 3, 4), True, True),
        (1, (0,), False, True),
    ],
)
def test_what_shows_one_picture(seconds, labelled, still, one):
    clip = Clip("clips", "a", seconds, labelled, (1,), still)
    assert shows_one(clip, "clip") is one
    assert not shows_one(clip, "frame")
