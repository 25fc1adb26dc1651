"""Maps in place of frames: of every clip its own, computed once, whole or not at all."""

import itertools
import json
import pickle
import shutil
import types

import numpy as np
import pytest

from data_pipelines.errors import DataError
from data_pipelines.loader import open_source, train_loader
from data_pipelines.loading import features
from data_pipelines.loading.features import Features, Wanted

SHAPES = ((2, 2, 3), (1, 1, 6))
DIGEST = "0123456789abcdef"


def encode(frames):
    """Maps of two levels that tell one frame from any other."""
    frames = frames.astype(np.float32)
    corners = frames[:, ::15, ::15]  # [n,2,2,3]
    means = frames.mean((1, 2))
    return corners, np.concatenate([means, -means], -1)[:, None, None]


@pytest.fixture(scope="module")
def source(data_dir):
    return open_source(data_dir, "train")  # 5 clips of v1s, 3 of v1m, 3 of v2


def wanted(source, sampling="clip", image_size=16):
    return Wanted(source, sampling, image_size, SHAPES)


@pytest.fixture(scope="module")
def folder(data_dir, source):
    return features.write(data_dir, wanted(source), DIGEST, encode)


@pytest.fixture(params=["memory", "disk"])
def kept(request, source, folder):
    if request.param == "disk":
        return Features(wanted(source), folder)
    return features.in_memory(wanted(source), encode)


def batches(source, count=4, **options):
    defaults = dict(
        task="semantic",
        image_size=16,
        label_size=8,
        batch_size=2,
        seconds=10,
        sampling="clip",
        seed=5,
    )
    return list(itertools.islice(train_loader(source, **{**defaults, **options}), count))


def assert_maps_of(frames, batch):
    """The maps of a batch are those of another's frames; everything else is the same."""
    maps = encode(frames["frames"].reshape(-1, 16, 16, 3))
    for level, each in enumerate(maps):
        found = batch.pop(f"features_{level}")
        assert found.dtype == np.float32 and found.shape[:2] == frames["frames"].shape[:2]
        np.testing.assert_array_equal(found.reshape(each.shape), each)
    assert batch.keys() == frames.keys() - {"frames"}
    for name, values in batch.items():
        np.testing.assert_array_equal(values, frames[name], err_msg=name)


def test_batches_have_the_maps_of_their_frames(source, kept):
    for frames, batch in zip(batches(source), batches(source, features=kept), strict=True):
        assert_maps_of(frames, batch)


def test_one_picture_has_its_maps_once(data_dir):
    s4 = open_source(data_dir, "train", ("v1s",))
    kept = features.in_memory(wanted(s4), encode)
    once = batches(s4, stills=True, features=kept)
    assert {batch["features_1"].shape for batch in once} == {(2, 1, 1, 1, 6)}
    for frames, batch in zip(batches(s4, stills=True), once, strict=True):
        assert_maps_of(frames, batch)


def test_worker_processes_read_the_same(source, folder):
    kept = Features(wanted(source), folder)
    assert len(pickle.dumps(kept)) < 3000  # where the maps lie, not the maps
    options = dict(batch_size=4, count=2)
    for one, two in zip(
        batches(source, features=kept, **options),
        batches(source, features=kept, num_workers=1, **options),
        strict=True,
    ):
        assert one.keys() == two.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], two[name], err_msg=name)


def test_what_was_given_may_be_changed_by_who_got_it(kept):
    before = [each.copy() for each in kept[0, 0]]
    for each in kept[0, 0]:
        each[:] = 0
    for one, two in zip(kept[0, 0], before, strict=True):
        np.testing.assert_array_equal(one, two)


def test_each_frame_that_may_be_shown_and_no_other(source):
    """Of v1s the first frame only, whose label is the only one; of v1m and v2 all."""
    found = wanted(source)
    assert len(found.frames) == len(set(found.frames)) == 5 * 1 + 3 * 5 + 3 * 10
    assert found.size == 4 * 50 * (2 * 2 * 3 + 6)
    seen = []
    features.in_memory(found, lambda frames: seen.append(len(frames)) or encode(frames))
    assert sum(seen) == 50 and max(seen) == features.BATCH


def test_written_once_for_the_same_and_anew_for_others(data_dir, source, folder):
    def refuse(frames):
        raise AssertionError("computed again")

    assert features.write(data_dir, wanted(source), DIGEST, refuse) == folder
    s4 = open_source(data_dir, "train", ("v1s",))
    others = [
        (wanted(source), "f" + DIGEST[1:]),
        (wanted(source, image_size=8), DIGEST),
        (wanted(s4), DIGEST),
        (wanted(source, sampling="frame"), DIGEST),
    ]
    # Of these clips every frame that is shown is labelled, whatever the sampling.
    places = [features.folder_of(data_dir, *each) for each in others]
    assert len({folder, *places[:3]}) == 4 and places[3] == folder
    assert features.find(data_dir, *others[0]) is None


def test_data_that_was_prepared_anew_has_maps_of_its_own(data_dir, source):
    told = (data_dir, wanted(source), "8" * 16)
    place = features.write(*told, encode)
    (place / "index.json").write_text(json.dumps({"fingerprint": "of what was here"}))
    assert features.find(*told) is None
    assert features.write(*told, lambda frames: [2 * each for each in encode(frames)]) == place
    rows = np.load(place / "frames.npy")
    np.testing.assert_array_equal(rows, 2 * features.in_memory(wanted(source), encode)._rows)


class Killed(BaseException):
    """What no `except Exception` sees."""


def test_what_is_interrupted_is_not_taken_for_complete(data_dir, source, monkeypatch):
    told = (data_dir, wanted(source), "9" * 16)
    left = [2]

    def die(frames):
        if not left[0]:
            raise Killed
        left[0] -= 1
        return encode(frames)

    # A process that is killed cleans nothing up.
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)
    with pytest.raises(Killed):
        features.write(*told, die)
    monkeypatch.undo()
    place = features.folder_of(*told)
    partial = place.with_name(f".{place.name}.partial")
    assert partial.is_dir() and features.find(*told) is None
    # Another that writes clears away what was left, whatever it was of.
    features.write(data_dir, wanted(source), "a" * 16, encode)
    assert not partial.exists()
    assert features.write(*told, encode) == place and features.find(*told) == place


def test_a_disk_that_is_too_small_is_known_before_anything_is_computed(
    data_dir, source, monkeypatch
):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: types.SimpleNamespace(free=1000))

    def refuse(frames):
        raise AssertionError("computed")

    with pytest.raises(OSError, match="No space left on device"):
        features.write(data_dir, wanted(source), "b" * 16, refuse)
    assert features.find(data_dir, wanted(source), "b" * 16) is None


def test_damage_is_said(data_dir, source):
    place = features.write(data_dir, wanted(source), "c" * 16, encode)
    content = (place / "frames.npy").read_bytes()
    (place / "frames.npy").write_bytes(content[:-12])
    with pytest.raises(DataError, match="the features in .* are damaged .*: delete that folder"):
        Features(wanted(source), place)


def test_pictures_that_change_have_other_maps(source, kept):
    for name, value in (("flip", 0.5), ("resized_crop", {"probability": 0.5})):
        with pytest.raises(DataError, match=f"augment.{name} changes pictures, but their maps"):
            batches(source, features=kept, augment={name: value})
    assert batches(source, 1, features=kept, augment={"flip": 0.0, "swap_sound": 0.5})
