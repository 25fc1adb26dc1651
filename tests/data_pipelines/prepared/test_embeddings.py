"""Embeddings beside a data set: every clip finds its own rows, and nothing is mixed up."""

import dataclasses
import json
import pickle
import shutil

import numpy as np
import pytest

from data_pipelines.errors import DataError
from data_pipelines.loading.front_ends import LOG_MEL, LogMel
from data_pipelines.prepared import embeddings
from data_pipelines.prepared.embeddings import Embeddings
from data_pipelines.prepared.source import heard, open_source

DIGEST = "0123456789abcdef" * 4


@dataclasses.dataclass(frozen=True)
class Samples:
    """A front end: the samples of each second themselves."""

    channels: int = 1

    def __call__(self, waveform, seconds):
        return np.resize(waveform, (seconds, 16000, self.channels))


def encode(examples):
    """Three numbers that tell one example from any other."""
    return np.stack([examples.mean((1, 2)), examples.max((1, 2)), examples[:, 5, 7]], 1)


def examples(source, index):
    """The log-mel examples of a clip."""
    clip = source.clips[index]
    return LOG_MEL(heard(clip, source[index]["waveform"], 1), clip.seconds)


@pytest.fixture(scope="module")
def folder(data_dir):
    return embeddings.write(data_dir, DIGEST, LOG_MEL, encode)


@pytest.fixture
def copy(folder, tmp_path):
    """The same folder, to be damaged."""
    target = tmp_path / "embeddings"
    target.mkdir()
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize("subsets", [None, ("v1s",), ("v1s", "v2")])
def test_every_clip_has_its_own_rows(data_dir, folder, split, subsets):
    if split == "val" and subsets:
        subsets = ("v1s",)
    source = open_source(data_dir, split, subsets)
    rows = Embeddings(folder, source)
    assert len(rows) == len(source)
    for index, clip in enumerate(source.clips):
        assert rows[index].shape == (clip.seconds, 3) and rows[index].dtype == np.float32
        np.testing.assert_array_equal(rows[index], encode(examples(source, index)), clip.name)
    np.testing.assert_array_equal(
        rows.silence, encode(LOG_MEL(np.zeros((16000, 1), np.float32), 1))[0]
    )


def test_batches_run_over_the_ends_of_clips_and_keep_the_order(data_dir, folder, monkeypatch):
    sizes = []

    def see(examples):
        sizes.append(len(examples))
        return encode(examples)

    monkeypatch.setattr(embeddings, "BATCH", 7)  # no multiple of any clip's seconds
    other = embeddings.write(data_dir, "7" * 64, LOG_MEL, see)
    assert set(sizes[1:-3]) >= {7} and max(sizes) == 7
    for split in ("train", "val", "test"):
        name = f"{split}.npy"
        assert (other / name).read_bytes() == (folder / name).read_bytes()


def test_a_worker_process_gets_the_same_rows(data_dir, folder):
    rows = Embeddings(folder, open_source(data_dir, "test", ("v1m", "v2")))
    sent = pickle.dumps(rows)
    assert len(sent) < 2000  # where the rows lie, not the rows
    again = pickle.loads(sent)
    assert len(again) == len(rows)
    for index in range(len(rows)):
        np.testing.assert_array_equal(again[index], rows[index])


def test_what_was_given_may_be_changed_by_who_got_it(data_dir, folder):
    rows = Embeddings(folder, open_source(data_dir, "test"))
    before = rows[0].copy()
    rows[0][:] = 0
    np.testing.assert_array_equal(rows[0], before)


def test_written_once(data_dir, folder):
    def refuse(examples):
        raise AssertionError("encoded again")

    clips = []
    assert embeddings.write(data_dir, DIGEST, LOG_MEL, refuse, progress=clips.append) == folder
    assert not clips
    assert embeddings.find(data_dir, DIGEST, LOG_MEL) == folder


def test_progress_counts_the_clips(data_dir):
    told = []
    embeddings.write(data_dir, "6" * 64, LOG_MEL, encode, progress=told.append)
    assert sum(told) == embeddings.count(data_dir) == 19


def test_other_weights_have_another_folder(data_dir, folder):
    other = embeddings.write(
        data_dir, "f" + DIGEST[1:], LOG_MEL, lambda examples: -encode(examples)
    )
    assert other != folder
    source = open_source(data_dir, "test")
    np.testing.assert_array_equal(Embeddings(other, source)[0], -Embeddings(folder, source)[0])


def test_other_front_ends_have_other_folders(data_dir, folder):
    places = {embeddings.folder_of(data_dir, DIGEST, each) for each in (LOG_MEL, LogMel(2))}
    assert len(places) == 2 and folder in places
    assert embeddings.find(data_dir, DIGEST, Samples()) is None
    loudest = embeddings.write(data_dir, DIGEST, Samples(), lambda rows: rows.max((1, 2))[:, None])
    source = open_source(data_dir, "test")
    rows = Embeddings(loudest, source)
    for index in range(len(source)):
        waveform = heard(source.clips[index], source[index]["waveform"], 1)
        np.testing.assert_array_equal(rows[index][:, 0], waveform.reshape(-1, 16000).max(1))
    assert rows.silence == 0


class Killed(BaseException):
    """What no `except Exception` sees."""


@pytest.mark.parametrize("after", [0, 1, 2])
def test_what_is_interrupted_is_not_taken_for_complete(data_dir, monkeypatch, after):
    digest = f"{after}" * 64
    left = [after]
    monkeypatch.setattr(embeddings, "BATCH", 50)

    def die(examples):
        if not left[0]:
            raise Killed
        left[0] -= 1
        return encode(examples)

    # A process that is killed cleans nothing up.
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)
    with pytest.raises(Killed):
        embeddings.write(data_dir, digest, LOG_MEL, die)
    monkeypatch.undo()
    assert embeddings.find(data_dir, digest, LOG_MEL) is None
    with pytest.raises(DataError, match="nothing is kept in .*: compute it first"):
        Embeddings(embeddings.folder_of(data_dir, digest, LOG_MEL), open_source(data_dir, "test"))
    folder = embeddings.write(data_dir, digest, LOG_MEL, encode)
    source = open_source(data_dir, "test")
    np.testing.assert_array_equal(Embeddings(folder, source)[1], encode(examples(source, 1)))
    assert not [path for path in folder.parent.iterdir() if path.name.endswith(".partial")]


def test_of_another_data_set(data_dir, copy):
    index = json.loads((copy / "index.json").read_text())
    (copy / "index.json").write_text(json.dumps(index | {"fingerprint": "other"}))
    with pytest.raises(DataError, match="belong to another data set .* delete that folder"):
        Embeddings(copy, open_source(data_dir, "test"))


@pytest.mark.parametrize("change", ["fingerprint", "clips"])
def test_written_anew_when_other_data_was_prepared_in_the_place(data_dir, change):
    folder = embeddings.write(data_dir, "8" * 64, LOG_MEL, encode)
    index = json.loads((folder / "index.json").read_text())
    if change == "fingerprint":
        index["fingerprint"] = "of what was here"
    else:
        index["offsets"]["train"].pop()
    (folder / "index.json").write_text(json.dumps(index))
    assert embeddings.find(data_dir, "8" * 64, LOG_MEL) is None
    assert (
        embeddings.write(data_dir, "8" * 64, LOG_MEL, lambda examples: 2 * encode(examples))
        == folder
    )
    source = open_source(data_dir, "test")
    np.testing.assert_array_equal(Embeddings(folder, source)[0], 2 * encode(examples(source, 0)))
    shutil.rmtree(folder)


def damage_nothing_there(folder):
    (folder / "test.npy").unlink()


def damage_short(folder):
    content = (folder / "test.npy").read_bytes()
    (folder / "test.npy").write_bytes(content[:-12])


def damage_other_rows(folder):
    np.save(folder / "test.npy", np.zeros((3, 3), np.float32))


def damage_type(folder):
    np.save(folder / "silence.npy", np.zeros(3))


def damage_index(folder):
    (folder / "index.json").write_text('{"digest": ')


def damage_keys(folder):
    (folder / "index.json").write_text("{}")


def damage_counts(folder):
    index = json.loads((folder / "index.json").read_text())
    index["offsets"]["test"][2] += 1
    (folder / "index.json").write_text(json.dumps(index))


def damage_splits(folder):
    index = json.loads((folder / "index.json").read_text())
    del index["offsets"]["test"]
    (folder / "index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    "damage",
    [
        damage_nothing_there,
        damage_short,
        damage_other_rows,
        damage_type,
        damage_index,
        damage_keys,
        damage_counts,
        damage_splits,
    ],
)
def test_damage_is_said(data_dir, copy, damage):
    damage(copy)
    with pytest.raises(DataError, match="damaged or incomplete: delete that folder"):
        Embeddings(copy, open_source(data_dir, "test"))
