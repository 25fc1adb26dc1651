"""A COCO folder of stamps, made of packages that the tests draw, and the VPO-MSMI of it."""

import dataclasses
import filecmp

import numpy as np
import pytest
from PIL import Image

from data_pipelines.errors import DataError
from data_pipelines.facts.vpo import COCO_IDS
from data_pipelines.make import main
from data_pipelines.making.audible_stamps import media as media_files
from data_pipelines.making.coco_of_stamps import make
from data_pipelines.making.coco_of_stamps.pictures import OTHERS, draw
from data_pipelines.making.vpo import build
from data_pipelines.preparing.read import ReadOptions, read_clip
from data_pipelines.reading.recognise import read_table

SEED, IMAGES, SIZE = 3, 24, 192
CLASSES = {"bird", "dog", "elephant", "horse", "sheep"}


@pytest.fixture(scope="module")
def folder(packages, tmp_path_factory):
    out = tmp_path_factory.mktemp("coco") / "stamps"
    numbers = ["--images", str(IMAGES), "--size", str(SIZE), "--seed", str(SEED)]
    assert main(["coco", "--out", str(out), "--packages", str(packages), *numbers]) == 0
    return out


@pytest.fixture(scope="module")
def clips(folder):
    """Picture number -> its clip of VPO-MSMI, and the table's folders."""
    out = folder.parent / "vpo"
    report = build.build(
        folder / "coco", folder / "sounds", out, settings=("msmi",), seed=SEED, progress=False
    )
    assert report.complete
    table = read_table(out)
    return {int(clip.uid): clip for clip in table.clips}, table.roots


@pytest.fixture(scope="module")
def draw_one(packages):
    """(seed, index) -> a picture."""
    media = media_files.load(media_files.find(packages), SIZE)
    stamps = {
        name: [i for i, stamp in enumerate(media.stamps) if stamp.name == name] for name in CLASSES
    }
    return lambda seed, index: draw(seed, index, stamps, media, SIZE)


@pytest.fixture(scope="module")
def pictures(draw_one):
    """Number -> what the folder shows."""
    return {i + 1: draw_one(SEED, i) for i in range(IMAGES)}


def _heard(clip, roots, *, stereo=True):
    """int16 [S, channels]."""
    result = read_clip(clip, ReadOptions(stereo=stereo), 1 + len(COCO_IDS), roots)
    return result.example["waveform"]


def _mirrored(clip):
    sounds = [dataclasses.replace(s, position=1 - s.position) for s in clip.sounds]
    return dataclasses.replace(clip, sounds=tuple(sounds))


def _mask(clip):
    return np.asarray(Image.open(clip.labels[0][1]))


def _twins(pictures):
    return {n: p for n, p in pictures.items() if len(p.things) > OTHERS}


def test_of_four_of_one_class_those_of_the_louder_side_sound(clips, pictures):
    clips, roots = clips
    sides = set()
    for number, picture in _twins(pictures).items():
        name = picture.things[0].name
        assert name in CLASSES and all(thing.name == name for thing in picture.things)
        mask, waveform = _mask(clips[number]), _heard(clips[number], roots)
        left, right = np.square(waveform.astype(float)).mean(axis=0)
        louder = int(right > left)
        sides.add(louder)
        # The difference is one that a network can hear.
        assert max(left, right) > 3 * min(left, right)
        sounding = np.zeros_like(mask, bool)
        for thing, seen in zip(picture.things, picture.masks, strict=True):
            assert seen.sum() > 1000
            if int(thing.centre[0] > 0.5) == louder:
                sounding |= seen
        np.testing.assert_array_equal(mask, np.where(sounding, COCO_IDS[name], 0))
        # As many silent ones of the same class are on the other side.
        assert sorted(thing.centre[0] > 0.5 for thing in picture.things) == [0, 0, 1, 1]
    assert sides == {0, 1}


def test_mono_sound_is_the_same_whichever_side_sounds(clips, pictures):
    clips, roots = clips
    for number in _twins(pictures):
        clip = clips[number]
        mono, stereo = _heard(clip, roots, stereo=False), _heard(clip, roots)
        np.testing.assert_array_equal(_heard(_mirrored(clip), roots), stereo[:, ::-1])
        np.testing.assert_array_equal(_heard(_mirrored(clip), roots, stereo=False), mono)


def test_others_show_three_classes_of_which_two_or_three_sound(clips, pictures):
    for number in pictures.keys() - _twins(pictures).keys():
        picture, clip = pictures[number], clips[0][number]
        assert len({thing.name for thing in picture.things}) == OTHERS
        assert 2 <= len(clip.sounds) <= OTHERS
        heard = {sound.path.stem.rsplit("_", 1)[0] for sound in clip.sounds}
        for thing, seen in zip(picture.things, picture.masks, strict=True):
            value = COCO_IDS[thing.name] if thing.name in heard else 0
            assert (_mask(clip)[seen] == value).all()


def test_all_pictures_become_clips_of_both_splits(clips, pictures):
    assert clips[0].keys() == pictures.keys()
    held = {number for number, clip in clips[0].items() if clip.split == "test"}
    assert held == {5, 10, 15, 20}


def test_the_same_seed_gives_the_same_files_whatever_the_number(folder, packages, tmp_path):
    fewer = make(
        tmp_path / "fewer", packages=packages, images=20, size=SIZE, seed=SEED, progress=False
    )
    for kind in ("coco/train2017", "coco/val2017", "sounds/dog"):
        names = [path.name for path in sorted((fewer / kind).iterdir())]
        assert names
        assert filecmp.cmpfiles(fewer / kind, folder / kind, names, shallow=False)[0] == names


def test_another_seed_gives_other_pictures(draw_one, pictures):
    assert (draw_one(SEED + 1, 0).pixels != pictures[1].pixels).any()


def test_the_licence_goes_with_it(folder):
    text = (folder / "LICENSE-MEDIA.md").read_text()
    assert "GPL-2" in text and "make coco" in text and "tuxpaint-stamps-default" in text


@pytest.mark.parametrize(
    "flags", [["--images", "19"], ["--size", "191"], ["--seed", "-1"], ["--packages", "nowhere"]]
)
def test_the_command_refuses_what_cannot_be(flags, tmp_path, capsys):
    assert main(["coco", "--out", str(tmp_path / "out"), *flags]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert not (tmp_path / "out").exists()


def test_packages_with_too_few_classes_are_refused(packages, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "data_pipelines.making.coco_of_stamps.write.COCO_IDS", {"dog": 18, "bird": 16}
    )
    with pytest.raises(DataError, match="2 of VPO's classes"):
        make(tmp_path / "out", packages=packages, images=20, progress=False)
    assert list(tmp_path.iterdir()) == []
