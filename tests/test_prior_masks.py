"""Stage two on soft masks of networks that have not seen the clip, judged by several views."""

import json

import numpy as np
import pytest
from PIL import Image

import aavs_jax
from aavs_jax.plan.folds import split_by
from data_pipelines.facts import avsbench
from data_pipelines.loading.decoding import decode_frame
from data_pipelines.prepared.source import heard, open_source

VIEWS = ("both", "predicted", "unknown", "true")


@pytest.fixture(scope="module")
def train_small(command, tiny_flags, tmp_path_factory):
    """A function: name of a folder, flags -> the folder of a run of both stages."""
    flags = tiny_flags(
        ("localise", "understand"),
        **{"phases.all.validate_every_epochs": 24.0},
    )
    root = tmp_path_factory.mktemp("prior_masks")

    def train(name, *more):
        folder = root / name
        both = ("--config=configs/avss.py", *flags, "--config.stages.understand.prior.kind=soft")
        assert "Traceback" not in command(*both, *more, f"--workdir={folder}")
        return folder

    return train


@pytest.fixture(scope="module")
def run(train_small):
    return train_small(
        "crossfit",
        "--config.stages.localise.folds=2",
        "--config.stages.understand.prior.train=crossfit",
        "--config.stages.understand.prior.dropout=0.3",
        f"--config.stages.understand.prior.evaluate={VIEWS}",
        "--config.stages.understand.model.prior_keys=linear",
        "--save-masks",
    )


@pytest.fixture(scope="module")
def data_dir(run):
    (found,) = (run.parent / "data").glob("audible_shapes-*")
    return found


def masks_of(folder, network, data_dir, split):
    """Those in a stage's folder, and what a network says of the same seconds; of two clips."""
    source = open_source(data_dir, split)
    for index, clip in enumerate(source.clips[:2]):
        record = source[index]
        stored = [decode_frame(frame, 32) for frame in record["frames"]]
        frames = np.stack([stored[0 if clip.still else t] for t in range(clip.seconds)])
        found = network.predict(frames, heard(clip, record["waveform"], 1)).classes[0]
        for second, classes in enumerate(np.asarray(found)):
            path = avsbench.mask_path(folder / "masks", clip.subset, clip.uid, second)
            yield np.asarray(Image.open(path)), classes


@pytest.mark.slow
def test_every_training_clip_has_masks_of_a_network_that_did_not_see_it(run, data_dir):
    clips = open_source(data_dir, "train").clips
    written = {}
    for fold in (1, 2):
        folder = run / f"localise_fold{fold}"
        seen, unseen = split_by(clips, fold, 2)
        assert seen and unseen
        for kind in ("masks", "masks-soft"):
            found = {f"{p.parent.name}/{p.name}" for p in (folder / kind).glob("*/*")}
            assert found == unseen
            written[fold, kind] = found
        rows = json.loads((folder / "results.json").read_text())
        assert {(row["split"], row["sound"]) for row in rows} == {("unseen", "right")}
        assert {row["clips"] for row in rows} == {len(unseen)}
    assert written[1, "masks"] | written[2, "masks"] == {clip.name for clip in clips}
    # The parts' networks differ from the whole one's, which sees everything.
    assert (run / "localise" / "masks-soft").is_dir()


@pytest.mark.slow
def test_an_earlier_checkpoint_writes_masks_of_all_training_clips(train_small, data_dir):
    run = train_small(
        "earlier",
        "--config.stages.localise.earlier=0.3",
        "--config.stages.understand.prior.train=earlier",
    )
    folder = run / "localise_earlier"
    names = {clip.name for clip in open_source(data_dir, "train").clips}
    for kind in ("masks", "masks-soft"):
        found = {f"{p.parent.name}/{p.name}" for p in (folder / kind).glob("*/*")}
        assert found == names
    (row,) = json.loads((folder / "results.json").read_text())[:1]
    assert row["split"] == "train" and row["clips"] == len(names)
    # Nobody takes the whole network's masks of these clips, and it writes none.
    own = {f"{p.parent.name}/{p.name}" for p in (run / "localise" / "masks").glob("*/*")}
    assert own == {clip.name for s in ("val", "test") for clip in open_source(data_dir, s).clips}
    # That network would draw others somewhere.
    whole = aavs_jax.load(run / "localise" / "all")
    assert any((now != then).any() for then, now in masks_of(folder, whole, data_dir, "train"))


@pytest.mark.slow
def test_a_row_for_every_view(run):
    rows = json.loads((run / "results.json").read_text())
    views = {row["prior"] for row in rows if row["stage"] == "understand"}
    assert views == set(VIEWS)
    page = (run / "report" / "index.html").read_text()
    assert "no knowledge" in page
    assert list((run / "report").glob("*.png"))


@pytest.mark.slow
def test_a_prediction_is_told_as_the_scores_were(run, data_dir):
    """Soft masks, in both views: to the bit what the evaluation kept."""
    network = aavs_jax.load(run)
    assert network.card.told == {"kind": "soft", "view": "both"}
    for kept, found in masks_of(run / "understand", network, data_dir, "test"):
        np.testing.assert_array_equal(found, kept)
