"""Clips of any lengths: batches of one length each in training, and whole passes in evaluation."""

import collections
import dataclasses
import io
import itertools
import pickle

import numpy as np
import pytest
from PIL import Image

from data_pipelines.errors import DataError
from data_pipelines.loader import eval_loader, labelled_clips, train_loader
from data_pipelines.loading.front_ends import LogMel
from data_pipelines.loading.lengths import ByLength, batch_lengths
from data_pipelines.loading.read_clip import ReadClip
from data_pipelines.loading.request import Request
from data_pipelines.prepared.source import Clip, heard

SIZES = dict(image_size=8, label_size=4)


def png(value: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(file, "PNG")
    return file.getvalue()


class Source:
    """Clips of the lengths given: grey tells the second, sound the clip and the second."""

    num_classes = 3

    def __init__(self, *lengths, labelled=None, still=False, stereo=False):
        self.clips = tuple(
            Clip(
                "clips",
                f"c{i}",
                seconds,
                tuple(range(seconds)) if labelled is None else labelled,
                (1 + i % 2,),
                still,
            )
            for i, seconds in enumerate(lengths)
        )
        self.stereo = stereo

    def __len__(self):
        return len(self.clips)

    def __getitem__(self, index):
        clip = self.clips[index]
        stored = 1 if clip.still else clip.seconds
        sound = np.repeat(100 * index + np.arange(clip.seconds), 16000)[:, None]
        return {
            "frames": [png(10 * t) for t in range(stored)],
            "labels": [png(128)] * min(stored, len(clip.labelled)),
            "waveform": np.concatenate([sound, -sound][: 1 + self.stereo], 1).astype(np.int16),
        }


@dataclasses.dataclass(frozen=True)
class Numbers:
    """Hears the numbers that a `Source` says, [T, channels]."""

    channels: int = 1

    def __call__(self, waveform, seconds):
        return waveform[: 16000 * seconds : 16000] * 32768


def training(source, **options):
    defaults = dict(
        SIZES,
        task="binary",
        batch_size=4,
        seconds=12,
        sampling="clip",
        seed=3,
        bucket_by_length=True,
        front_end=Numbers(),
    )
    return train_loader(source, **{**defaults, **options})


def evaluated(source, **options):
    defaults = dict(SIZES, task="binary", frames_per_batch=20, front_end=Numbers())
    return eval_loader(source, **{**defaults, **options})


def take(iterator, count):
    return list(itertools.islice(iterator, count))


MIXED = Source(*[5] * 7, *[10] * 6)


# --- which lengths share a batch --------------------------------------------------------------


def test_few_lengths_are_exact_and_many_rounded_up():
    assert batch_lengths([10, 5, 5]) == {5: 5, 10: 10}
    assert batch_lengths([3]) == {3: 3}
    assert batch_lengths([2, 7, 11]) == {2: 2, 7: 7, 11: 11}
    # No batch is longer than the longest clip.
    assert batch_lengths([1, 5, 6, 12]) == {1: 5, 5: 5, 6: 10, 12: 12}


# --- training ---------------------------------------------------------------------------------


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_nothing_is_lost_or_counted_twice(batch_size, shuffle):
    """13 clips: after 12 epochs 39 batches of 4, of which no clip is left over."""
    epochs = 12 if batch_size == 4 else 3
    source = MIXED
    batches = take(
        training(source, batch_size=batch_size, shuffle=shuffle), epochs * 13 // batch_size
    )
    for batch in batches:
        assert batch["valid"].all()
        seconds = {clip.name: clip.seconds for clip in source.clips}
        assert {seconds[str(name)] for name in batch["ids"]} == {batch["valid"].shape[1]}
    for length, count in ((5, 7), (10, 6)):
        ids = [str(name) for b in batches if b["valid"].shape[1] == length for name in b["ids"]]
        whole = [ids[i : i + count] for i in range(0, len(ids) // count * count, count)]
        assert all(len(set(epoch)) == count for epoch in whole)  # every clip once in each
        # What does not fill a batch yet is all that is missing.
        assert epochs * count - batch_size < len(ids) <= epochs * count


def test_batches_of_one_clip_come_in_the_order_of_padded_ones():
    padded = take(training(MIXED, batch_size=1, bucket_by_length=False, augment={"flip": 0.5}), 30)
    bucketed = take(training(MIXED, batch_size=1, augment={"flip": 0.5}), 30)
    for a, b in zip(padded, bucketed, strict=True):
        seconds = b["valid"].shape[1]
        assert a["valid"].shape[1] == 12
        for name in a:
            expected = a[name] if name == "ids" else a[name][:, :seconds]
            np.testing.assert_array_equal(expected, b[name], err_msg=name)


def test_batches_come_as_soon_as_they_are_full():
    """In a fixed order 5 5 10 5 10 10, in pairs."""

    class Walk:
        lengths = (5, 5, 10, 5, 10, 10)

        def __len__(self):
            return 6 * 10**6

        def __getitem__(self, place):
            return place % 6

    lengths = dict(enumerate(Walk.lengths))
    order = ByLength(Walk(), lengths, 2, 0, 1)
    expected = [0, 1, 2, 4, 3, 6, 5, 8, 7, 9, 10, 11]
    assert [order[i] for i in range(12)] == expected
    # After two epochs nothing is laid aside. Far elements need nothing before them.
    far = ByLength(Walk(), lengths, 2, 0, 1)
    assert [far[12 * 5000 + i] for i in range(12)] == [12 * 5000 + place for place in expected]


def test_a_length_with_fewer_clips_than_a_batch():
    source = Source(*[5] * 9, 10)
    batches = take(training(source), 25)  # ten epochs
    lengths = [batch["valid"].shape[1] for batch in batches]
    assert collections.Counter(lengths) == {5: 23, 10: 2}
    assert all(set(b["ids"]) == {"clips/c9"} for b in batches if b["valid"].shape[1] == 10)


@pytest.mark.parametrize("processes", [2, 4])
def test_shares_make_the_same_global_batch(processes):
    whole = take(training(MIXED), 8)
    shares = [
        take(training(MIXED, process_index=p, process_count=processes), 8) for p in range(processes)
    ]
    for number, batch in enumerate(whole):
        for name, values in batch.items():
            joined = np.empty_like(values)
            for p in range(processes):
                joined[p::processes] = shares[p][number][name]
            np.testing.assert_array_equal(joined, values, err_msg=name)


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_resumes_exactly(workers):
    iterator = training(MIXED, num_workers=workers)
    take(iterator, 3)
    state = iterator.get_state()
    expected = take(iterator, 9)
    again = training(MIXED, num_workers=workers)
    again.set_state(state)
    for a, b in zip(take(again, 9), expected, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_order_can_be_pickled():
    order = ByLength([0, 1, 2] * 100, {0: 5, 1: 10, 2: 5}, 2, 0, 1)
    expected = [order[i] for i in range(20)]
    assert [pickle.loads(pickle.dumps(order))[i] for i in range(20)] == expected


def test_many_lengths_are_padded_to_few():
    source = Source(3, 4, 5, 7, 9, 12)
    seen = {}
    for batch in take(training(source, batch_size=1), 12):
        seen[str(batch["ids"][0])] = (batch["valid"].shape[1], int(batch["valid"].sum()))
    assert [seen[clip.name] for clip in source.clips] == [
        *((5, n) for n in (3, 4, 5)),
        *((10, n) for n in (7, 9)),
        (12, 12),
    ]


def test_random_seconds_need_no_buckets():
    options = dict(sampling="frame", seconds=1, batch_size=3)
    padded = take(training(MIXED, bucket_by_length=False, **options), 9)
    for a, b in zip(padded, take(training(MIXED, **options), 9), strict=True):
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


def test_clips_without_a_label_are_not_trained_on():
    source = Source(5, 5, 5)
    first, second, third = source.clips
    source.clips = (first, Clip("clips", "c1", 5, (), (1,), False), third)
    assert labelled_clips(source) == [0, 2]
    for options in (dict(), dict(sampling="frame", seconds=1)):
        ids = {str(n) for b in take(training(source, **options), 6) for n in b["ids"]}
        assert ids == {"clips/c0", "clips/c2"}
    assert [str(n) for b in evaluated(source) for n in b["ids"] if n] == [
        clip.name for clip in source.clips
    ]
    with pytest.raises(DataError, match="no clip of the training split has a label"):
        training(Source(5, labelled=()))


# --- evaluation -------------------------------------------------------------------------------


@pytest.mark.parametrize("lengths", [(7, 9, 9, 11), (3,) * 5, (1, 2, 3, 4, 6, 8, 17, 17)])
@pytest.mark.parametrize(("processes", "devices"), [(1, 1), (1, 8), (2, 4)])
def test_any_lengths_are_evaluated_once(lengths, processes, devices):
    source = Source(*lengths)
    per_process = [
        list(evaluated(source, devices=devices, process_index=p, process_count=processes))
        for p in range(processes)
    ]
    valid = collections.Counter()
    for number, batch in enumerate(per_process[0]):
        clips, seconds = batch["valid"].shape
        assert clips * processes * seconds % devices == 0
        assert seconds in set(batch_lengths(lengths).values())
        for other in per_process:
            assert other[number]["valid"].shape == (clips, seconds)
            for name, row in zip(other[number]["ids"], other[number]["valid"], strict=True):
                assert bool(name) == row.any() and list(row) == sorted(row, reverse=True)
                valid[str(name)] += int(row.sum())
    del valid[""]
    assert valid == {clip.name: clip.seconds for clip in source.clips}
    assert all(len(batches) == len(per_process[0]) for batches in per_process)


# --- stills, channels, embeddings -------------------------------------------------------------


def test_a_still_is_seen_in_every_second_with_the_sound_of_each():
    source = Source(3, still=True)
    for batch in (next(iter(evaluated(source, prior="none"))), next(training(source))):
        assert (batch["frames"][0] == 0).all() and batch["frames"].shape[1] == 3
        assert (batch["labels"][0] == 1).all() and batch["labelled"][0].all()
        assert batch["audio"][0, :, 0].tolist() == [0, 1, 2]


def test_a_clip_that_is_labelled_here_and_there():
    source = Source(5, labelled=(1, 4))
    batch = next(training(source))
    assert batch["labelled"][0].tolist() == [False, True, False, False, True]
    assert batch["frames"][0, :, 0, 0, 0].tolist() == [0, 10, 20, 30, 40]
    assert batch["labels"][0].any((1, 2)).tolist() == batch["labelled"][0].tolist()
    seconds = {
        int(second)
        for b in take(training(source, sampling="frame", seconds=1), 10)
        for second in b["audio"][:, 0, 0]
    }
    assert seconds == {1, 4}


def test_two_channels():
    source, both = Source(2, 2, stereo=True), Numbers(2)
    batch = next(training(source, front_end=both, batch_size=2, shuffle=False))
    assert batch["audio"].tolist() == [[[0, 0], [1, -1]], [[100, -100], [101, -101]]]
    flipped = next(
        training(source, front_end=both, batch_size=2, shuffle=False, augment={"flip": 1.0})
    )
    np.testing.assert_array_equal(flipped["audio"], batch["audio"][..., ::-1])
    mono = next(training(Source(2, 2), front_end=both, batch_size=2, shuffle=False))["audio"]
    np.testing.assert_array_equal(mono, batch["audio"][..., [0, 0]])
    [silent] = evaluated(source, front_end=both, sound="silence", frames_per_batch=4)
    assert silent["audio"].shape == (2, 2, 2) and not silent["audio"].any()


def test_mono_is_the_mean_of_left_and_right_or_their_sum():
    """Of sources with positions left and right are parts of it."""
    for is_sum, expected in ((False, [[200], [201]]), (True, [[400], [402]])):
        clip = Clip("clips", "c", 2, (), (), mono_is_sum=is_sum)
        stored = np.array([[100, 300], [101, 301]], np.int16)
        assert (heard(clip, stored, 1) * 32768).tolist() == expected


@pytest.mark.parametrize("changes_sounds", [False, True])
def test_what_is_kept_is_what_the_front_end_made_unless_sounds_change(changes_sounds):
    heard_of = []

    class Counting(Numbers):
        def __call__(self, waveform, seconds):
            heard_of.append(seconds)
            return super().__call__(waveform, seconds)

    reader = ReadClip(
        Source(3, 3),
        "binary",
        8,
        4,
        front_end=Counting(),
        cache=True,
        changes_sounds=changes_sounds,
    )
    for second, index, flip in itertools.product((1, 0), (0, 1), (False, True)):
        request = Request(index, (second,), (second,), (True,), index, flip=flip)
        assert reader.map(request)["audio"].tolist() == [[100 * index + second]]
    # What is kept serves other seconds; else no more is heard than is asked for.
    assert heard_of == ([2] * 4 + [1] * 4 if changes_sounds else [3, 3])


class Embedded:
    """As `embeddings.Embeddings`: of each second its clip's number and its own."""

    silence = np.full(3, -1, np.float32)

    def __getitem__(self, index):
        return np.array([[index, t, 0] for t in range(5)], np.float32)


def test_embeddings_are_heard_in_place_of_sounds():
    source = Source(5, 5)
    batch = next(training(source, embeddings=Embedded(), batch_size=2, shuffle=False))
    assert batch["audio"].shape == (2, 5, 3)
    assert batch["audio"][..., 0].tolist() == [[0] * 5, [1] * 5]
    assert batch["audio"][0, :, 1].tolist() == list(range(5))
    for sound, clips in (("right", [0, 1]), ("other", [1, 0]), ("silence", [-1, -1])):
        [batch] = evaluated(source, embeddings=Embedded(), sound=sound, frames_per_batch=10)
        assert batch["audio"][:, 0, 0].tolist() == clips
    swapped = next(
        training(source, embeddings=Embedded(), augment={"swap_sound": 1.0}, shuffle=False)
    )
    assert swapped["audio"][:2, 0, 0].tolist() == [1, 0]
    with pytest.raises(DataError, match="embeddings are of mono sound"):
        training(source, embeddings=Embedded(), front_end=LogMel(2))
    with pytest.raises(DataError, match=r"augment\.sound_gain changes sounds, but they are read"):
        gain = {"sound_gain": {"probability": 0.5, "decibels": (-3, 3)}}
        training(source, embeddings=Embedded(), augment=gain)
