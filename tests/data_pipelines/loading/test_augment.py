"""Each augmentation alone, what all have in common, and the batches that come of them."""

import dataclasses
import itertools

import numpy as np
import pytest
from PIL import Image

from data_pipelines.errors import DataError
from data_pipelines.loader import open_source, train_loader
from data_pipelines.loading.augment import (
    MixSounds,
    SoundGain,
    SwapSound,
    TimeShift,
    augmentations,
    changed_waveform,
)
from data_pipelines.loading.augment_pictures import (
    MEAN_COLOUR,
    ColourJitter,
    Flip,
    ResizedCrop,
    ScaledCrop,
    crop_labels,
    crop_pictures,
)
from data_pipelines.loading.front_ends import LOG_MEL
from data_pipelines.loading.partners import Partners
from data_pipelines.loading.read_clip import ReadClip
from data_pipelines.loading.request import Request
from data_pipelines.prepared.source import Clip, heard

WHOLE = (0.0, 0.0, 1.0, 1.0)
CLIPS = tuple(
    Clip("v1m", f"c{i}", 5, tuple(range(5)), objects, False)
    for i, objects in enumerate([(1,), (2,), (1, 3), (2, 4), ()])
)
REQUEST = Request(0, (0, 1), (0, 1), (True, True), 0)


@dataclasses.dataclass(frozen=True)
class Samples:
    """A front end: the samples of each second themselves."""

    channels: int = 1

    def __call__(self, waveform, seconds):
        return np.resize(waveform, (seconds, 16000, self.channels))


def element(seed=0, **changes):
    """Two seconds: red grows to the right, green downwards; labels where red is bright."""
    ramp = np.arange(48, dtype=np.uint8) * 5
    frames = np.zeros((2, 48, 48, 3), np.uint8)
    frames[..., 0], frames[..., 1] = ramp, ramp[:, None]
    labels = np.zeros((2, 36, 36), np.uint8)
    labels[:, :, 18:] = 7
    return {
        "frames": frames,
        "labels": labels,
        "prior_mask": (labels != 0).astype(np.float32),
        "audio": np.random.default_rng(1).normal(size=(2, 96, 64)).astype(np.float32),
        "labelled": np.ones(2, bool),
        "valid": np.ones(2, bool),
        "ids": "v1m/c0",
        "flip": False,
        "seed": seed,
    } | changes


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


# --- all of them ------------------------------------------------------------------------------

PICTURES = (
    lambda p: ResizedCrop(p, (0.3, 0.6), (0.8, 1.25)),
    lambda p: ColourJitter(p, (0.6, 1.4), (0.6, 1.4), (0.6, 1.4), (-0.1, 0.1)),
)
SOUNDS = (
    lambda p: SwapSound(p, Partners(CLIPS)),
    lambda p: MixSounds(p, (-3, 3), Partners(CLIPS)),
    lambda p: TimeShift(p, 1000),
    lambda p: SoundGain(p, (-6, 6)),
)


@pytest.mark.parametrize("make", PICTURES)
def test_seed_and_probability_decide_about_arrays(make):
    original = element()
    assert_same(make(0.0).map(element()), original)
    first = make(1.0).map(element())
    assert_same(make(1.0).map(element()), first)
    changed = {name for name in first if not np.array_equal(first[name], original[name])}
    assert "frames" in changed <= {"frames", "labels", "prior_mask"}
    other = make(1.0).map(element(seed=1))
    assert any(not np.array_equal(first[name], other[name]) for name in changed)
    for name in first:
        if isinstance(first[name], np.ndarray):
            assert (first[name].shape, first[name].dtype) == (
                original[name].shape,
                original[name].dtype,
            )
    untouched = []
    for seed in range(300):
        given = element(seed)
        untouched.append(make(0.3).map(given) is given)
    assert abs(np.mean(untouched) - 0.7) < 0.106  # four standard deviations


@pytest.mark.parametrize("make", SOUNDS)
def test_seed_and_probability_decide_about_requests(make):
    assert make(0.0).map(REQUEST) == REQUEST
    changed = [make(0.3).map(dataclasses.replace(REQUEST, seed=s)) for s in range(2000)]
    again = [make(0.3).map(dataclasses.replace(REQUEST, seed=s)) for s in range(2000)]
    assert changed == again
    share = np.mean([c != dataclasses.replace(REQUEST, seed=s) for s, c in enumerate(changed)])
    assert abs(share - 0.3) < 0.041  # four standard deviations


def test_the_draws_of_one_do_not_depend_on_another():
    gain, jitter = SoundGain(0.5, (-6, 6)), PICTURES[1](0.5)
    for seed in range(20):
        request = dataclasses.replace(REQUEST, seed=seed)
        shifted = TimeShift(1.0, 9).map(request)
        assert gain.map(shifted).gain == gain.map(request).gain
        relabelled = element(seed, labels=np.ones((2, 36, 36), np.uint8))
        np.testing.assert_array_equal(
            jitter.map(relabelled)["frames"], jitter.map(element(seed))["frames"]
        )


# --- pictures ---------------------------------------------------------------------------------


def test_flip_swaps_pictures():
    flipped, plain = Flip().map(element(flip=True)), element()
    for name in ("frames", "labels", "prior_mask"):
        np.testing.assert_array_equal(flipped[name], plain[name][:, :, ::-1])
    np.testing.assert_array_equal(flipped["audio"], plain["audio"])
    assert_same(Flip().map(element()), element())


def test_the_whole_picture_is_the_picture():
    original = element()
    np.testing.assert_array_equal(crop_pictures(original["frames"], WHOLE), original["frames"])
    np.testing.assert_array_equal(crop_labels(original["labels"], WHOLE), original["labels"])


def test_a_crop_is_enlarged_about_pixel_centres():
    """The right half of a ramp, twice as wide: it rises half as steeply and starts at its value."""
    frames = element()["frames"]
    right = crop_pictures(frames, (0.5, 0.0, 0.5, 1.0))
    # Output pixel c lies at (c + 0.5) / 2 + 24 - 0.5 of the input.
    expected = np.minimum((np.arange(48) + 0.5) / 2 + 23.5, 47) * 5
    np.testing.assert_allclose(right[0, 10, :, 0], expected, atol=0.6)
    np.testing.assert_array_equal(right[..., 1], frames[..., 1])
    mask = element()["prior_mask"]
    assert (crop_pictures(mask, (0.5, 0.0, 0.5, 1.0))[:, :, 1:] == 1).all()


def test_labels_are_never_interpolated():
    ids = np.random.default_rng(0).choice([0, 3, 70], (2, 36, 36)).astype(np.uint8)
    for seed in range(50):
        cropped = ResizedCrop(1.0, (0.05, 1.0), (0.5, 2.0)).map(element(seed, labels=ids))
        assert set(np.unique(cropped["labels"])) <= {0, 3, 70}
    # Every pixel twice as large, in both directions.
    quarter = crop_labels(ids, (0.25, 0.5, 0.5, 0.5))
    np.testing.assert_array_equal(quarter, ids[:, 18:36, 9:27].repeat(2, 1).repeat(2, 2))


def test_labels_masks_and_frames_of_other_sizes_stay_together():
    """Labels are where red is bright, on a grid of their own size, in every crop."""
    seen = set()
    for seed in range(100):
        cropped = ResizedCrop(1.0, (0.1, 1.0), (0.5, 2.0)).map(element(seed))
        bright = cropped["frames"][0, 24, :, 0] > 23.5 * 5
        label = cropped["labels"][0, 18] == 7
        prior = cropped["prior_mask"][0, 18] > 0.5
        edges = [np.argmax(row) / len(row) if row.any() else 1.0 for row in (bright, label, prior)]
        assert max(edges) - min(edges) <= 1.01 / 36
        assert (cropped["frames"][0] == cropped["frames"][1]).all()  # the same box in all seconds
        seen.add(edges[0])
    assert len(seen) > 20


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_scaled_pictures_keep_their_size(scale):
    size = 8
    frames = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), np.uint8)
    labels = np.arange(2 * size * size, dtype=np.uint8).reshape(2, size, size)
    found = ScaledCrop(1.0, (scale,)).map(element(frames=frames, labels=labels))
    assert found["frames"].shape == frames.shape and found["labels"].shape == labels.shape
    if scale < 1:
        half = size // 2
        np.testing.assert_array_equal(found["labels"][:, :half, :half], labels[:, 1::2, 1::2])
        assert (found["labels"][:, half:] == 255).all() and (
            found["labels"][..., half:] == 255
        ).all()
        assert (found["frames"][:, half:] == (123, 116, 103)).all()
        for old, new in zip(frames, found["frames"], strict=True):
            whole = Image.fromarray(old).resize((half, half), Image.Resampling.BICUBIC)
            np.testing.assert_array_equal(new[:half, :half], whole)
    else:
        # A part of neighbours, each twice; both seconds alike.
        rows = found["labels"][:, :, 0].astype(int) // size
        assert set(np.diff(rows[0]).tolist()) == {0, 1} and np.unique(rows[0]).size in (4, 5)
        np.testing.assert_array_equal(found["labels"][1], found["labels"][0] + size * size)


def test_scales_are_drawn_alike():
    crop = ScaledCrop(1.0, (0.5, 1.0))
    smaller = 0
    for seed in range(200):
        labels = np.zeros((1, 8, 8), np.uint8)
        smaller += 255 in crop.map(element(seed=seed, labels=labels))["labels"]
    assert 70 < smaller < 130  # four standard deviations


def test_areas_and_ratios_of_crops_are_those_asked_for():
    crop = ResizedCrop(1.0, (0.25, 0.25), (0.5, 2.0))
    slopes = []
    for seed in range(200):
        frame = crop.map(element(seed))["frames"][0].astype(float)
        width = (frame[24, 40, 0] - frame[24, 8, 0]) / (32 * 5)
        height = (frame[40, 24, 1] - frame[8, 24, 1]) / (32 * 5)
        slopes.append((width, height))
    widths, heights = np.array(slopes).T
    np.testing.assert_allclose(widths * heights, 0.25, atol=0.02)
    ratios = widths / heights
    assert 0.45 < ratios.min() < 0.6 and 1.7 < ratios.max() < 2.2
    assert 0.35 < (ratios < 1).mean() < 0.65  # as often high as wide


def grey(frames):
    return frames @ np.array([0.299, 0.587, 0.114])


def jitter(**ranges):
    still = dict(brightness=(1, 1), contrast=(1, 1), saturation=(1, 1), hue=(0, 0))
    return ColourJitter(1.0, **{**still, **ranges})


def colours():
    return np.random.default_rng(0).integers(60, 120, (2, 48, 48, 3)).astype(np.uint8)


def test_brightness_contrast_saturation_and_hue():
    frames = colours()
    changed = [
        jitter(**{name: (value, value)}).map(element(frames=frames))["frames"].astype(float)
        for name, value in (
            ("brightness", 1.5),
            ("contrast", 1.5),
            ("saturation", 0.0),
            ("hue", 0.25),
            ("brightness", 1.0),
        )
    ]
    brighter, starker, greyer, turned, same = changed
    np.testing.assert_array_equal(same, frames)
    np.testing.assert_allclose(brighter, np.minimum(frames * 1.5, 255), atol=0.51)
    mean = grey(frames.mean((0, 1, 2)))
    np.testing.assert_allclose(starker, (frames - mean) * 1.5 + mean, atol=0.51)
    np.testing.assert_allclose(greyer, grey(frames)[..., None].repeat(3, -1), atol=0.51)
    np.testing.assert_allclose(grey(turned), grey(frames), atol=1.0)
    assert np.abs(turned - frames).mean() > 10
    # Four quarter turns are a whole one.
    back = frames
    for _ in range(4):
        back = jitter(hue=(0.25, 0.25)).map(element(frames=back))["frames"]
    np.testing.assert_allclose(back.astype(float), frames, atol=4)


def test_colours_change_alike_in_all_seconds_and_padding_does_not_count():
    frames = np.concatenate([colours()[:1]] * 2)
    changed = ColourJitter(1.0, (0.6, 1.4), (0.6, 1.4), (0.6, 1.4), (-0.1, 0.1)).map(
        element(frames=frames)
    )["frames"]
    np.testing.assert_array_equal(changed[0], changed[1])
    other = colours()
    stark = jitter(contrast=(0.5, 0.5))
    padded = stark.map(element(frames=other, valid=np.array([True, False])))["frames"]
    alone = stark.map(element(frames=other[:1], valid=np.array([True])))["frames"]
    np.testing.assert_array_equal(padded[:1], alone)


# --- sounds -----------------------------------------------------------------------------------


def sound(seconds=1, channels=1, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(0, 0.1, (seconds * 16000, channels)).astype(np.float32)


def changed(waveform, other=None, **changes):
    found = changed_waveform(waveform, dataclasses.replace(REQUEST, **changes), other)
    assert found.dtype == np.float32 and found.shape == waveform.shape
    return found


def test_nothing_asked_nothing_changed():
    assert changed(sound()) is not None
    np.testing.assert_array_equal(changed(sound()), sound())


@pytest.mark.parametrize("decibels", [-20, 6])
def test_gain_is_a_factor(decibels):
    factor = np.float32(10 ** (decibels / 20))
    np.testing.assert_array_equal(changed(sound(), gain=decibels), factor * sound())


def test_mixed_is_the_sum_while_both_last():
    first, second = sound(3), sound(2, seed=1)
    found = changed(first, second, mixed_index=1, mixed_level=-20.0)
    np.testing.assert_allclose(found[:32000], first[:32000] + 0.1 * second, atol=1e-6)
    np.testing.assert_array_equal(found[32000:], first[32000:])
    longer = changed(second, first, mixed_index=1)
    np.testing.assert_allclose(longer, second + first[:32000], atol=1e-6)
    np.testing.assert_array_equal(first, sound(3))  # what may be kept is left as it was


@pytest.mark.parametrize("shift", [7, -7, 100, -100, 200, -200])
def test_a_shift_leaves_silence_behind(shift):
    """In windows of 10 ms; the sound lasts 100 of them."""
    padded = np.pad(sound(), ((32000, 32000), (0, 0)))
    start = 32000 + shift * 160
    np.testing.assert_array_equal(changed(sound(), shift=shift), padded[start : start + 16000])


def test_flip_swaps_ears_of_both_sounds():
    first, second = sound(1, 2), sound(1, 2, seed=1)
    found = changed(first, second, mixed_index=1, flip=True)
    np.testing.assert_allclose(found, (first + second)[:, ::-1], atol=1e-6)
    np.testing.assert_array_equal(changed(sound(), flip=True), sound())


def test_partners_share_no_class():
    partners = Partners(CLIPS)
    rng = np.random.default_rng(0)
    drawn = {i: {partners.draw(i, rng) for _ in range(200)} for i in range(5)}
    # The fifth tells no class: it can take any sound, and nobody takes its.
    assert drawn == {0: {1, 3}, 1: {0, 2}, 2: {1, 3}, 3: {0, 2}, 4: {0, 1, 2, 3}}
    with pytest.raises(DataError, match="no sound of other classes for clip v1m/c0: every clip of"):
        Partners(CLIPS[:1] + CLIPS[2:3] + CLIPS[4:])


def test_swapped_and_mixed_sounds_are_partners():
    for seed in range(50):
        request = dataclasses.replace(REQUEST, seed=seed)
        swapped = SwapSound(1.0, Partners(CLIPS)).map(request)
        assert swapped.sound_index in (1, 3) and swapped.empty
        mixed = MixSounds(1.0, (-6, -3), Partners(CLIPS)).map(request)
        assert mixed.mixed_index in (1, 3) and -6 <= mixed.mixed_level <= -3
        assert mixed.sound_index == 0 and not mixed.empty


def test_shifts_go_both_ways_up_to_the_most():
    shifts = {TimeShift(1.0, 3).map(dataclasses.replace(REQUEST, seed=s)).shift for s in range(200)}
    assert shifts == set(range(-3, 4))


# --- reading what is asked for ----------------------------------------------------------------


@pytest.fixture(scope="module")
def train(data_dir):
    return open_source(data_dir, "train")


def read(source, front_end=LOG_MEL, **changes):
    whole = tuple(range(5))
    request = dict(index=5, frames=whole, sounds=whole, valid=(True,) * 5, sound_index=5)
    reader = ReadClip(source, "semantic", 16, 8, front_end=front_end)
    return reader.map(Request(**{**request, **changes}))


def waveform(source, index):
    return heard(source.clips[index], source[index]["waveform"], 1)


def test_the_waveform_is_changed_before_it_is_heard(train):
    """Of a single second, too: what is shifted into it comes of its neighbours."""
    asked = dict(mixed_index=0, mixed_level=-3.0, shift=7, gain=-6.0)
    expected = changed(waveform(train, 5), waveform(train, 0), **asked).reshape(5, 16000, 1)
    for seconds in ((0, 1, 2, 3, 4), (2,)):
        valid = (True,) * len(seconds)
        given = read(
            train, frames=seconds, sounds=seconds, valid=valid, front_end=Samples(), **asked
        )
        np.testing.assert_array_equal(given["audio"], expected[list(seconds)])


def test_a_swapped_sound_empties_labels_and_true_priors(train, masks_dir):
    swapped = read(train, sound_index=0, empty=True, prior="true")
    assert not swapped["labels"].any() and not swapped["prior_mask"].any()
    assert swapped["labelled"].all()
    np.testing.assert_array_equal(swapped["audio"], read(train, index=0, sound_index=0)["audio"])
    np.testing.assert_array_equal(swapped["frames"], read(train)["frames"])
    reader = ReadClip(train, "semantic", 16, 8, prior_dir=str(masks_dir))
    whole = tuple(range(5))
    request = Request(5, whole, whole, (True,) * 5, 0, prior="predicted", empty=True)
    assert reader.map(request)["prior_mask"].any()


def test_a_mixed_sound_leaves_the_rest(train):
    mixed, plain = read(train, mixed_index=0, mixed_level=-3.0), read(train)
    assert (mixed.pop("audio") != plain.pop("audio")).any()
    assert_same(mixed, plain)


# --- batches ----------------------------------------------------------------------------------

ALL = {
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
    "mix_sounds": {"probability": 0.5, "decibels": (-6.0, 0.0)},
    "swap_sound": 0.3,
    "time_shift": {"probability": 0.5, "windows": 20},
}


def batches(source, count=6, **options):
    defaults = dict(
        task="semantic",
        image_size=16,
        label_size=8,
        batch_size=4,
        seconds=10,
        sampling="clip",
        prior="true",
        seed=5,
        augment=ALL,
    )
    return list(itertools.islice(train_loader(source, **{**defaults, **options}), count))


@pytest.mark.slow
def test_batches_do_not_depend_on_processes_workers_or_cache(train):
    expected = batches(train)
    for options in (dict(cache=True), dict(num_workers=2)):
        for a, b in zip(batches(train, **options), expected, strict=True):
            assert_same(a, b)
    shares = [batches(train, process_index=p, process_count=2) for p in range(2)]
    for number, batch in enumerate(expected):
        for p in range(2):
            assert_same(shares[p][number], {name: value[p::2] for name, value in batch.items()})


def test_colours_change_before_a_crop_pads(train):
    """Or the mean colour around a small picture would change, too."""
    jitter = ALL["colour_jitter"] | {"probability": 1.0, "brightness": (0.3, 0.3)}
    half = {"probability": 1.0, "scales": (0.5,)}
    for batch in batches(train, count=2, augment={"scaled_crop": half, "colour_jitter": jitter}):
        corners = batch["frames"][:, 0, [0, 0, -1, -1], [0, -1, 0, -1]]
        assert (corners == MEAN_COLOUR).all(-1).mean() >= 0.5


def test_augmentations_change_nothing_but_what_they_are_for(train):
    plain = batches(train, augment=None)
    for name, changed in (
        ("flip", {"frames", "labels", "prior_mask"}),
        ("resized_crop", {"frames", "labels", "prior_mask"}),
        ("colour_jitter", {"frames"}),
        ("sound_gain", {"audio"}),
        ("mix_sounds", {"audio"}),
        ("swap_sound", {"audio", "labels", "objects", "prior_mask"}),
        ("time_shift", {"audio"}),
    ):
        found = batches(train, augment={name: ALL[name]})
        different = {
            key
            for a, b in zip(plain, found, strict=True)
            for key in a
            if not np.array_equal(a[key], b[key])
        }
        # Every frame is of one colour, which a flip or crop leaves as it is.
        assert different == changed - ({"frames"} if name in ("flip", "resized_crop") else set())


def test_faults():
    def asked(**options):
        return augmentations(options, CLIPS)

    assert asked() == asked(flip=0.0, sound_gain={"probability": 0.0, "decibels": (3, -3)})
    with pytest.raises(DataError, match=r"augment\.rotate is no augmentation: there are flip, "):
        asked(rotate=0.5)
    with pytest.raises(DataError, match=r"augment\.flip: the probability is 1\.5: give 0 to 1"):
        asked(flip=1.5)
    with pytest.raises(DataError, match=r"resized_crop\.scale is \(0\.5, 0\.1\): give two numbers"):
        asked(resized_crop={"probability": 1.0, "scale": (0.5, 0.1), "ratio": (1, 1)})
    with pytest.raises(DataError, match=r"sound_gain\.decibels is \(-1, 500\)"):
        asked(sound_gain={"probability": 1.0, "decibels": (-1, 500)})
    with pytest.raises(DataError, match=r"colour_jitter\.hue is \(-1, 1\): .* -0\.5 to 0\.5"):
        asked(colour_jitter=ALL["colour_jitter"] | {"hue": (-1, 1)})
    with pytest.raises(DataError, match=r"time_shift\.windows is -1"):
        asked(time_shift={"probability": 1.0, "windows": -1})
    with pytest.raises(DataError, match="no sound of other classes for clip"):
        augmentations({"swap_sound": 0.1}, CLIPS[:1])
