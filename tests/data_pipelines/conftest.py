"""Tiny folders in AVSBench's unified layout: every frame, label and sound can be told apart."""

import csv
import json

import numpy as np
import pytest
import soundfile
from PIL import Image

from data_pipelines.facts import avsbench
from data_pipelines.prepare import prepare

CLASSES = ("background", "cat", "dog", "emergency-car", "horse")
SIZE = 32  # pixels of frames and labels

# (subset, uid, split, a_obj); odd numbers of clips, and the odd tokens of the real table.
CLIPS = (
    *(("v1s", f"s{i}_0_5000", "train", CLASSES[1 + i % 4]) for i in range(5)),
    *(("v1m", f"m{i}_0", "train", f"cat_{CLASSES[2 + i % 3]}") for i in range(3)),
    *(("v2", f"w{i}_0_10000", "train", CLASSES[1 + i % 4]) for i in range(3)),
    ("v1s", "s5_0_5000", "val", "dog"),
    ("v1s", "s6_0_5000", "test", "dog"),
    ("v1s", "s7_0_5000", "test", "cat"),
    ("v1m", "m3_0", "test", "cat_off-the-screen"),
    ("v1m", "m4_0", "test", "background_h orse"),
    ("v1m", "m5_0", "test", "off-the-screen"),
    ("v2", "w3_0_10000", "test", "dog_cat"),
    ("v2", "w4_0_10000", "test", "emergency-car"),
)


def colour_of(number: int, second: int) -> tuple[int, int, int]:
    """The frame colour of second `second` in the clip with row number `number`."""
    return (number * 10 % 256, second * 20, 100)


def tone(number: int, second: int) -> float:
    """The frequency heard in a second of a clip, Hz."""
    return 300.0 + 60 * number + 150 * second


def write_folder(root, clips=CLIPS, size=SIZE):
    """Writes the clips. The left half of every label is the clip's first class."""
    root.mkdir(parents=True)
    (root / avsbench.LABEL2IDX_NAME).write_text(
        json.dumps({c: i for i, c in enumerate(CLASSES, 1)})
    )
    with (root / avsbench.METADATA_NAME).open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(avsbench.METADATA_COLUMNS)
        for subset, uid, split, objects in clips:
            table.writerow(["v", uid, 0, 0, objects, split, subset])
    palette = avsbench.palette(256)
    for number, (subset, uid, split, objects) in enumerate(clips):
        folder = avsbench.clip_dir(root, subset, uid)
        (folder / "frames").mkdir(parents=True)
        (folder / "labels_rgb").mkdir()
        seconds = avsbench.SUBSET_SECONDS[subset]
        first = objects.replace(" ", "").split("_")[0]
        class_id = CLASSES.index(first) if first in CLASSES else 0
        for t in range(seconds):
            frame = np.full((size, size, 3), colour_of(number, t), np.uint8)
            # PNG under half of the names: readers go by content and take either suffix.
            path = avsbench.frame_path(root, subset, uid, t)
            Image.fromarray(frame).save(path.with_suffix(".png") if number % 2 else path)
        for t in range(avsbench.labelled_seconds(subset, split)):
            label = np.zeros((size, size, 3), np.uint8)
            label[:, : size // 2] = palette[class_id]
            Image.fromarray(label).save(avsbench.rgb_label_path(root, subset, uid, t))
        times = np.arange(16000) / 16000
        sound = [0.3 * np.sin(2 * np.pi * tone(number, t) * times) for t in range(seconds)]
        soundfile.write(
            avsbench.audio_path(root, subset, uid), np.concatenate(sound), 16000, subtype="PCM_16"
        )
    return root


@pytest.fixture(scope="session")
def clips():
    """The rows of the whole folder: (subset, uid, split, a_obj)."""
    return CLIPS


@pytest.fixture(scope="session")
def frame_colour():
    return colour_of


@pytest.fixture(scope="session")
def make_folder():
    """A function: folder, rows, size -> a data folder of these clips."""
    return write_folder


@pytest.fixture(scope="session")
def raw_dir(tmp_path_factory):
    """A folder with all subsets and splits; not to be changed by tests."""
    return write_folder(tmp_path_factory.mktemp("raw") / "avsbench")


@pytest.fixture(scope="session")
def data_dir(raw_dir, tmp_path_factory):
    """The same, prepared."""
    path = tmp_path_factory.mktemp("prepared")
    prepare(raw_dir, path, progress=False)
    return path


@pytest.fixture
def small_raw_dir(tmp_path):
    """Three clips to be damaged: v1s/a (train), v1m/b (train), v1m/c (test)."""
    clips = (
        ("v1s", "a", "train", "cat"),
        ("v1m", "b", "train", "dog"),
        ("v1m", "c", "test", "dog"),
    )
    return write_folder(tmp_path / "small", clips)


@pytest.fixture(scope="session")
def masks_dir(raw_dir, tmp_path_factory):
    """Predicted masks of every frame, 24x24: value 10 * second + row number of the clip + 2."""
    root = tmp_path_factory.mktemp("masks")
    for number, (subset, uid, _, _) in enumerate(CLIPS):
        for t in range(avsbench.SUBSET_SECONDS[subset]):
            path = avsbench.mask_path(root, subset, uid, t)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((24, 24), 10 * t + number + 2, np.uint8)).save(path)
    return root
