"""The folder: pictures and annotations as COCO has them, and recordings sorted by class."""

import json
import os
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image
from tqdm import tqdm

from data_pipelines.errors import DataError
from data_pipelines.facts.avsbench import SAMPLE_RATE
from data_pipelines.facts.vpo import COCO_IDS, SECONDS
from data_pipelines.making import writer
from data_pipelines.making.audible_stamps import media as media_files
from data_pipelines.making.audible_stamps import notes, sounds
from data_pipelines.making.coco_of_stamps.pictures import OTHERS, Picture, draw
from data_pipelines.making.compositions import generator
from data_pipelines.making.drawing import mix

DEFAULT_IMAGES = 1000
DEFAULT_SIZE = 256  # pixels
# Of smaller pictures many objects would be smaller than VPO lets sound.
MIN_SIZE = 192
MIN_IMAGES = 20
VAL_PERIOD = 5  # every so many pictures one is for val
RECORDINGS = 40  # of a class; VPO keeps a tenth of them for val
SPLITS = {False: "train2017", True: "val2017"}

# Stream of chance below the seed, beside that of the pictures; a recording's own is (seed, stream,
# COCO's number of the class, recording).
_RECORDING = 1


def make(
    out: str | os.PathLike,
    *,
    packages: str | os.PathLike | None = None,
    images: int = DEFAULT_IMAGES,
    size: int = DEFAULT_SIZE,
    seed: int = 0,
    progress: bool = True,
) -> Path:
    """Makes the folder `out`, whole or not at all: `coco`, `sounds`, and whose media they are.

    Every class that VPO and the stamps have in common is in it. Each recording is one of the
    stamps', from somewhere in it and at another pace, so that VPO can keep some for val.

    Args:
        out: folder to make; it may exist if it is empty.
        packages: where the packages were unpacked; None: they are installed.
        images: how many pictures. Picture i does not depend on this number.
        size: side of the pictures in pixels.
        seed: not negative.
        progress: whether to show a bar.

    Returns:
        `out` as an absolute path.

    Raises:
        DataError: the packages are not there or cannot be read, `out` is in use or cannot be
            written, or a number is out of range.
    """
    for option, number, least, most in (
        ("--images", images, MIN_IMAGES, writer.MAX_CLIPS),
        ("--size", size, MIN_SIZE, writer.MAX_SIZE),
    ):
        if not least <= number <= most:
            raise DataError(f"{option} is {number}; give between {least} and {most}.")
    if seed < 0:
        raise DataError(f"--seed is {seed}; give a number that is not negative.")
    places = media_files.find(packages)
    with writer.whole_folder(out) as root:
        media = media_files.load(places, size)
        stamps = {
            name: [i for i, stamp in enumerate(media.stamps) if stamp.name == name]
            for name in sorted({stamp.name for stamp in media.stamps} & COCO_IDS.keys())
        }
        if len(stamps) < OTHERS:
            raise DataError(
                f"the packages hold stamps of {len(stamps)} of VPO's classes, but {OTHERS} are "
                "needed; install them anew."
            )
        _write_pictures(root / "coco", seed, images, stamps, media, size, progress)
        _write_recordings(root / "sounds", seed, stamps, media)
        notes.write_licence(root, places, _made(images, stamps))
    return Path(out).absolute()


def _write_pictures(root, seed, images, stamps, media, size, progress):
    tables = {split: {"images": [], "annotations": []} for split in SPLITS.values()}
    categories = [{"id": COCO_IDS[name], "name": name} for name in stamps]
    for split in tables:
        (root / split).mkdir(parents=True)
    for i in tqdm(range(images), desc="COCO of stamps", unit="picture", disable=not progress):
        picture = draw(seed, i, stamps, media, size)
        split = SPLITS[i % VAL_PERIOD == VAL_PERIOD - 1]
        number = i + 1
        name = f"{number:012d}.jpg"
        Image.fromarray(picture.pixels).save(
            root / split / name, quality=writer.JPEG_QUALITY, subsampling=0
        )
        entry = {"id": number, "file_name": name, "height": size, "width": size}
        tables[split]["images"].append(entry)
        tables[split]["annotations"] += _annotations(number, picture)
    for split, table in tables.items():
        path = root / "annotations" / f"instances_{split}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"categories": categories, **table}), encoding="utf-8")


def _annotations(number: int, picture: Picture) -> list[dict]:
    """Those of a picture: of what is annotated and seen."""
    return [
        {
            "id": 10 * number + i,
            "image_id": number,
            "category_id": COCO_IDS[thing.name],
            "iscrowd": 0,
            "area": int(np.count_nonzero(mask)),
            "bbox": _box(mask),
            "segmentation": {"size": list(mask.shape), "counts": _runs(mask)},
        }
        for i, (thing, mask) in enumerate(zip(picture.things, picture.masks, strict=True))
        if thing.annotated and mask.any()
    ]


def _box(mask: np.ndarray) -> list[int]:
    """Left, top, width and height, pixels."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    left, top = int(columns[0]), int(rows[0])
    return [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top]


def _runs(mask: np.ndarray) -> list[int]:
    """Lengths of outside and inside by turns, column by column."""
    changes = np.flatnonzero(np.diff(mask.T.ravel(), prepend=False))
    return np.diff(changes, prepend=0, append=mask.size).tolist()


def _write_recordings(root, seed, stamps, media):
    for name, indices in stamps.items():
        (root / name).mkdir(parents=True)
        for i in range(RECORDINGS):
            rng = generator(seed, _RECORDING, COCO_IDS[name], i)
            recording = media.recordings[indices[i % len(indices)]]
            waveform = mix([(recording, np.ones(SECONDS, bool))], SECONDS, rng, sounds.source)
            soundfile.write(root / name / f"{i:03d}.wav", waveform, SAMPLE_RATE, "PCM_16")


def _made(images, stamps) -> str:
    return f"""`python -m data_pipelines.make coco` made of them {images} pictures, annotated as
COCO's are, and {RECORDINGS} recordings of each class.

Classes: {", ".join(stamps)}.
"""
