"""A COCO folder: which pictures there are and which objects of VPO's classes they show.

An annotation file is believed as a whole or not at all. But names may not lead out of the picture
folders, sizes are checked against the picture, and an object whose outline is broken stays in the
list without one, since it is still seen in the picture.
"""

import collections
import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from data_pipelines import media
from data_pipelines.errors import DataError, lies_in
from data_pipelines.facts.vpo import COCO_NAME_TO_IDS, PEOPLE, PERSON
from data_pipelines.reading.raw import Finding

MAX_ID = 10**12 - 1  # file names have twelve digits


@dataclasses.dataclass(frozen=True, slots=True)
class Object:
    """One annotation of a VPO class."""

    annotation: int  # COCO's number of it
    class_name: str | None  # of VPO; None: a person of whom nobody said which kind
    crowd: bool  # whether it is a region with several of them
    # Polygons (float32 [2n] each: x, y, x, y, ... in pixels), a run-length dict, or None where the
    # file holds something else.
    outline: Any


@dataclasses.dataclass(frozen=True, slots=True)
class Picture:
    """One picture with at least one object of a VPO class."""

    number: int  # COCO's number of it
    name: str  # its file's name in one of `folders`, not yet checked
    size: tuple[int, int] | None  # height and width that the annotations are for; None: not said
    folders: tuple[Path, ...]  # where to look for it
    split: str | None  # train or val; None: the annotation file's name does not tell
    objects: tuple[Object, ...]  # those of VPO's classes


def read_people(path: Path) -> dict[int, str]:
    """Which person is what: a JSON object {"<annotation number>": "male" | "female" | "baby"}.

    Raises:
        DataError: the file cannot be read or says something else.
    """
    entries = _load_json(path)
    form = f'give an object like {{"183126": "male", ...}} with the kinds {", ".join(PEOPLE)}.'
    if not isinstance(entries, dict):
        raise DataError(f"{path} holds no JSON object; {form}")
    people = {}
    for key, kind in entries.items():
        number = int(key) if key.isascii() and key.isdecimal() and len(key) <= 12 else None
        if number is None or kind not in PEOPLE:
            raise DataError(f"{path} says {str(kind)[:40]!r} of annotation {key[:40]!r}; {form}")
        people[number] = kind
    return people


def read_folder(
    root: Path, people: dict[int, str], *, progress: bool = True
) -> tuple[list[Picture], list[Finding]]:
    """Reads all `instances_*.json` of a folder, or of its `annotations`.

    Takes about three times the size of the largest file of memory (1.4 GB for train2017).

    Args:
        root: the folder; pictures lie in `<name>`, `images/<name>` or `images` beneath it, where
            the annotations are `instances_<name>.json`.
        people: annotation number -> kind of person.
        progress: whether to show a bar.

    Returns:
        Pictures with objects of VPO's classes, ascending by number, and what was wrong.

    Raises:
        DataError: there is no such folder or no such file in it.
    """
    if not root.is_dir():
        raise DataError(f"there is no folder {root}; give --coco the folder of a COCO data set.")
    files = sorted([*root.glob("annotations/instances_*.json"), *root.glob("instances_*.json")])
    if not files:
        raise DataError(
            f"there is no annotations/instances_*.json in {root}; give --coco a folder that holds "
            "COCO's instance annotations."
        )
    pictures: dict[int, Picture] = {}
    findings: list[Finding] = []
    for file in tqdm(files, desc="annotations", unit="file", disable=not progress):
        try:
            found = _read_file(file, root, people)
        except DataError as error:
            findings.append(left_out(file.name, "annotation file unreadable", str(error)))
            continue
        for number in pictures.keys() & found.keys():
            message = f"picture {number} of {file} is in another annotation file, too."
            findings.append(left_out(number, "picture number twice", message))
        pictures = found | pictures
    return [pictures[number] for number in sorted(pictures)], findings


def read_picture(picture: Picture, *, follow_links: bool = False) -> tuple[bytes, int, int]:
    """The picture as a JPEG file, as it came if it is one, and its height and width in pixels.

    Raises:
        DataError: it is missing, lies elsewhere than in its folders, cannot be decoded, or is of
            another size than its annotations.
    """
    path = _find(picture, follow_links)
    encoded, image = media.read_picture(path, "picture")
    if picture.size not in (None, (image.height, image.width)):
        height, width = picture.size
        raise DataError(
            f"the picture {path} has {image.width} x {image.height} pixels, but its annotations "
            f"are for {width} x {height}."
        )
    if image.format != "JPEG" or image.mode not in ("RGB", "L"):
        encoded = media.encode(media.to_rgb(image), media.JPEG_OPTIONS)
    return encoded, image.height, image.width


def left_out(name: object, code: str, message: str) -> Finding:
    return Finding("left out", str(name), code, message)


def _load_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes(), object_hook=_compact)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as JSON ({error}).") from error


def _compact(entry: dict[str, Any]) -> dict[str, Any]:
    """Packs an annotation's polygons while the file is being parsed.

    As lists of Python's numbers those of train2017 would take gigabytes.
    """
    outline = entry.get("segmentation")
    if isinstance(outline, list):
        try:
            with np.errstate(over="ignore"):  # becomes infinite, which is looked for later
                entry["segmentation"] = [np.array(polygon, np.float32) for polygon in outline]
        except (TypeError, ValueError, OverflowError):
            entry["segmentation"] = None
    return entry


def _read_file(file: Path, root: Path, people: dict[int, str]) -> dict[int, Picture]:
    """The pictures of an annotation file by their numbers.

    Raises:
        DataError: it is none, or has no folder of pictures.
    """
    kind = file.stem.removeprefix("instances_")
    places = (root / kind, root / "images" / kind, root / "images")
    folders = tuple(place for place in places if place.is_dir())
    split = "train" if "train" in kind else "val" if "val" in kind or "test" in kind else None
    table = _load_json(file)
    try:
        objects = _objects(table, people)
        pictures = {
            entry["id"]: Picture(
                number=_number(entry["id"]),
                name=str(entry["file_name"]),
                size=(entry["height"], entry["width"]) if "height" in entry else None,
                folders=folders,
                split=split,
                objects=tuple(objects[entry["id"]]),
            )
            for entry in table["images"]
            if entry["id"] in objects
        }
    except (TypeError, KeyError, ValueError) as fault:
        raise DataError(
            f"{file} holds no instance annotations as COCO writes them "
            f"({type(fault).__name__}: {str(fault)[:80]})."
        ) from fault
    if pictures and not folders:
        raise DataError(f"none of the picture folders {', '.join(map(str, places))} is there.")
    return pictures


def _objects(table: dict[str, Any], people: dict[int, str]) -> dict[int, list[Object]]:
    """The objects of VPO's classes by picture number."""
    names = {entry["id"]: entry["name"] for entry in table["categories"]}
    objects = collections.defaultdict(list)
    for entry in table["annotations"]:
        name, number = names.get(entry["category_id"]), entry["id"]
        if name in COCO_NAME_TO_IDS:
            name = people.get(number) if name == PERSON else name
            crowd = bool(entry.get("iscrowd"))
            thing = Object(_number(number), name, crowd, entry.get("segmentation"))
            objects[entry["image_id"]].append(thing)
    return objects


def _number(value: object) -> int:
    if type(value) is not int or not 0 <= value <= MAX_ID:
        raise ValueError(f"{str(value)[:40]} is no number of at most 12 digits")
    return value


def _find(picture: Picture, follow_links: bool) -> Path:
    name = picture.name
    parts = name.replace("\\", "/").split("/")
    if not name or "\0" in name or ".." in parts or parts[0] == "" or ":" in parts[0]:
        raise DataError(
            f"picture {picture.number} has the file name {name[:80]!r}, a path outside."
        )
    for folder in picture.folders:
        path = folder / name
        if os.path.isfile(path):
            if not follow_links and not lies_in(path, folder):
                raise DataError(f"the picture {path} is a link that leads out of its folder.")
            return path
    places = " or ".join(map(str, picture.folders))
    raise DataError(f"the picture {name[:80]!r} is not in {places}.")
