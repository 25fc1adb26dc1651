"""The comparison of speeds: both sides read the same."""

import dataclasses
import itertools
import re
import sys

import numpy as np
import pytest

from data_pipelines.benchmark import __main__ as benchmark
from data_pipelines.benchmark import measuring, public_loader
from data_pipelines.benchmark.measuring import Seconds
from data_pipelines.errors import DataError
from data_pipelines.making import audible_shapes
from data_pipelines.reading.recognise import read_table


@pytest.fixture(scope="module")
def raw_shapes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes") / "raw"
    return audible_shapes.make(folder, clips=24, size=64, progress=False)


@pytest.fixture(scope="module")
def chosen(raw_shapes):
    return benchmark.choose(read_table(raw_shapes), 6)


@pytest.fixture(scope="module")
def prepared(raw_shapes, chosen, tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    benchmark.prepare_clips(read_table(raw_shapes), chosen, folder, None)
    return folder


def test_clips_are_whole_and_spread_over_the_table(raw_shapes):
    table = read_table(raw_shapes)
    some = benchmark.choose(table, 6)
    assert len(some) == len(set(some)) == 6
    assert all(len(clip.labels) == clip.seconds for clip in some)
    places = [table.clips.index(clip) for clip in some]
    assert places == sorted(places) and places[-1] - places[0] > len(table.clips) / 2
    assert list(benchmark.choose(table, 10**6)) == [
        clip for clip in table.clips if len(clip.labels) == clip.seconds
    ]


def test_where_no_clip_is_whole_others_are_read_as_far_as_they_are_shown(raw_shapes):
    table = read_table(raw_shapes)
    first_only = tuple(clip for clip in table.clips if len(clip.labels) == 1)
    assert first_only
    some = benchmark.choose(dataclasses.replace(table, clips=first_only), 3)
    assert len(public_loader.shown(some[0])) == len(some[0].labels) == 1 and some[0].seconds == 5
    without = tuple(dataclasses.replace(clip, sounds=()) for clip in table.clips)
    with pytest.raises(DataError, match="no clip of this folder has its frames as pictures"):
        benchmark.choose(dataclasses.replace(table, clips=without), 3)


@pytest.mark.slow
def test_both_sides_read_the_same(chosen, prepared):
    ours = {
        str(batch["ids"][0]): batch
        for batch in itertools.islice(measuring.training_batches(prepared), len(chosen))
    }
    theirs = public_loader.batches(
        chosen,
        image_size=measuring.IMAGE_SIZE,
        label_size=measuring.LABEL_SIZE,
        num_workers=0,
    )
    assert len(ours) == len(chosen)
    mean, std = (np.reshape(v, (3, 1, 1)) for v in (public_loader.MEAN, public_loader.STD))
    for clip in chosen:
        batch, other = ours[clip.name], next(theirs)
        seconds = clip.seconds
        assert batch["valid"].shape == (1, seconds) and batch["valid"].all()  # no padding
        assert batch["labelled"].all()
        frames = (np.asarray(other["frames"][0]) * std + mean).transpose(0, 2, 3, 1) * 255
        np.testing.assert_allclose(frames, batch["frames"][0], atol=1e-2)
        masks = np.asarray(other["labels"][0, :, 0])
        assert masks.shape == (seconds, 224, 224)
        # Nearest against bilinear: only pixels along the edges differ.
        assert (masks != batch["labels"][0]).mean() < 0.05
        assert other["audio"].shape == (1, seconds, 128)
        assert other["audio"].std() > 0


def test_a_second_round_gives_the_same_batches(chosen, prepared):
    count = len(chosen)
    batches = list(itertools.islice(measuring.training_batches(prepared), 2 * count))
    names = [str(batch["ids"][0]) for batch in batches]
    assert len(set(names)) == count and names[:count] == names[count:]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_the_command(raw_shapes, capsys, workers):
    if workers > benchmark.cores():
        pytest.skip("needs two cores")
    flags = [str(raw_shapes), "--clips", "2", "--rounds", "1", "--workers", str(workers)]
    assert benchmark.main(flags) == 0
    said = capsys.readouterr().out
    assert re.search(r"2 clips, \d+ frames shown at 384 x 384, labels at 224 x 224", said)
    for way in ("frames as they came", "frames --size 384", "the public way"):
        line = re.search(rf"{way} +{workers}((?: +[\d.]+)+)\n", said)
        assert line, said
        numbers = [float(number) for number in line[1].split()]
        assert len(numbers) == 4 and all(number > 0 for number in numbers)


def test_wrong_requests_are_one_sentence(raw_shapes, tmp_path, capsys):
    for flags, words in (
        ([str(tmp_path / "none")], "none"),
        ([str(raw_shapes), "--clips", "0"], "--clips is 0"),
        ([str(raw_shapes), "--rounds", "0"], "--rounds is 0"),
        ([str(raw_shapes), "--workers", "100000"], "--workers 100000: give 1 to"),
    ):
        assert benchmark.main(flags) == 2
        output = capsys.readouterr()
        assert words in output.err and output.err.count("\n") == 1 and not output.out


def test_without_torch_it_says_so_before_anything_is_read(raw_shapes, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(benchmark, "read_table", lambda *_: pytest.fail("data was read first"))
    assert benchmark.main([str(raw_shapes)]) == 2
    output = capsys.readouterr()
    assert output.err.startswith("error: ") and output.err.count("\n") == 1 and not output.out
    assert 'pip install -e ".[test]"' in output.err and "--alone" in output.err


def test_alone_needs_no_torch_and_measures_this_pipeline_only(raw_shapes, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)
    measured = []

    def in_this_process(data_dir, clips, workers):
        # What is to be measured is there and can be read.
        assert next(measuring.training_batches(data_dir))["frames"].shape[0] == 1
        measured.append((len(clips), workers))
        return Seconds(1.0, 1.0)

    monkeypatch.setattr(measuring, "in_a_process", in_this_process)
    flags = [str(raw_shapes), "--clips", "2", "--rounds", "1", "--workers", "1", "--alone"]
    assert benchmark.main(flags) == 0
    ways = ("this pipeline, frames as they came", "this pipeline, frames --size 384")
    assert measured == [(2, 1)] * 2
    said = capsys.readouterr().out
    assert all(way in said for way in ways) and benchmark.PUBLIC not in said


def test_scores_are_medians_and_ratios_of_the_same_number_of_workers():
    assert benchmark.medians([Seconds(1, 9), Seconds(5, 8), Seconds(2, 1)]) == Seconds(2, 8)
    speeds = {
        ("ours", 1): Seconds(1.0, 0.5),
        (benchmark.PUBLIC, 1): Seconds(20.0, 6.0),
        ("ours", 2): Seconds(0.5, 2.5),
        (benchmark.PUBLIC, 2): Seconds(10.0, 5.0),
    }
    lines = benchmark.speed_table(speeds, 10, 50).splitlines()
    assert lines[2].split() == "ours 1 10.0 100.0 20.0 12.0".split()
    assert lines[3].split() == "the public way 1 0.5 8.3 1.0 1.0".split()
    assert lines[4].split() == "ours 2 20.0 20.0 20.0 2.0".split()
