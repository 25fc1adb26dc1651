"""Folders of masks, as they are exchanged with other tools: written, and found in their layouts.

    <subset>/<uid>/<i>.png                         Stepping Stones, and what is written here
    <subset>/<uid>/labels_semantic/<i>.png         AVSBench's unified release; or labels_rgb
    <name>/masks/<i>.png                           what aavs_jax.predict writes of several clips
    <split>/<category>/<name>/<name>_<i>.png       AVSBench's first release, S4; i from 1
    <split>/<name>/<name>_<i>.png                  and MS3; i from 1
    <category>/<name>/<name>_<i>.png               what AVSBench's and AVSegFormer's test scripts
    <name>/<name>_<i>.png                          write; i from 0

What they have in common is a folder called like the clip. Whatever lies above it only tells two
clips of one name apart.
"""

import contextlib
import dataclasses
import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import grain
import numpy as np

from aavs_jax.errors import UserError
from aavs_jax.run.files import SUMMARY, record_of
from aavs_jax.scoring import mask_pictures
from data_pipelines.facts import avsbench
from data_pipelines.prepared.source import Clip, ClipSource

PREDICTED = "masks"
PLACES = ("", "labels_semantic", "labels_rgb", PREDICTED)  # between a clip's folder and its masks
JPEG = (".jpg", ".jpeg")
LAYOUTS = "<subset>/<uid>/<i>.png, <category>/<name>/<name>_<i>.png and the like"


@dataclasses.dataclass(frozen=True)
class FoundMasks:
    """The masks of a split's labelled seconds.

    Attributes:
      layout: for people: "<uid>/<i>.png, i from 0".
      files: clip name -> second -> path.
      others: how many PNG files in the folder are none of these.
    """

    layout: str
    files: dict[str, dict[int, Path]]
    others: int

    @property
    def paths(self) -> list[Path]:
        return [path for seconds in self.files.values() for path in seconds.values()]


def find_masks(folder: Path, source: ClipSource) -> FoundMasks:
    """Looks for a mask of every labelled second of every clip.

    One of a still stands for all its seconds if there are no others.

    Args:
      folder: in one of the layouts above; links are followed.
      source: the clips.

    Raises:
      UserError: there is no such folder; masks are missing; two are of one clip; they are not of
        whole seconds.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"there is no folder of masks at {folder}: check the path")
    tables, pictures, jpegs = _tables(folder, {clip.uid for clip in source.clips})
    lossy = f"; {jpegs} JPEG files do not count, as they alter values" if jpegs else ""
    if not tables:
        clip = source.clips[0]
        raise UserError(
            f"none of the {pictures} PNG files in {folder} is a mask of a clip of split "
            f"{source.split} (such as {clip.name}): masks are PNG files called {LAYOUTS}{lossy}"
        )
    # Of several layouts in one folder, such as the data set's own, that of most clips.
    (place, named), table = max(
        tables.items(), key=lambda item: (len(item[1]), -PLACES.index(item[0][0]))
    )
    first = 0 if any(0 in files for homes in table.values() for files in homes.values()) else 1
    splits = any(source.split in home.parts[:-1] for homes in table.values() for home in homes)
    found: dict[str, dict[int, Path]] = {}
    missing = []
    for clip in source.clips:
        home = _home(folder, clip, source, table.get(clip.uid, {}), splits=splits)
        files = table[clip.uid][home] if home is not None else {}
        if home is not None and place == PREDICTED:
            _check_seconds(folder / home)
        if clip.still and len(files) == 1:
            files = {second + first: path for second in clip.labelled for path in files.values()}
        for second in clip.labelled:
            number = second + first
            if number in files:
                found.setdefault(clip.name, {})[second] = files[number]
            else:
                parent = folder / (home if home is not None else clip.name) / place
                missing.append(parent / f"{f'{clip.uid}_' if named else ''}{number}.png")
    if missing:
        wanted = sum(len(clip.labelled) for clip in source.clips)
        raise UserError(
            f"{len(missing)} of {wanted} masks of split {source.split} are missing, the first is "
            f"{missing[0]} (numbers are taken to start at {first}, as a mask of number 0 is "
            f"{'there' if first == 0 else 'nowhere'}): write them all, or name the subsets that "
            f"there are in config.stages.<stage>.data.subsets{lossy}"
        )
    shape = "/".join(filter(None, ("<clip>", place, "<clip>_<i>.png" if named else "<i>.png")))
    used = {path for files in found.values() for path in files.values()}
    return FoundMasks(f"{shape}, i from {first}", found, pictures - len(used))


def _check_seconds(home: Path) -> None:
    """Raises a UserError where aavs_jax.predict wrote masks whose number is not their second."""
    record = record_of(home / SUMMARY)
    if record and (record.get("masks_per_second"), record.get("start")) != (1, 0):
        raise UserError(
            f"the masks in {home} are not those of seconds 0, 1, 2 and so on, which are compared: "
            "predict at --fps=1 without --start"
        )


def _tables(folder: Path, uids: set[str]) -> tuple[dict[tuple[str, bool], Any], int, int]:
    """((place, whether the clip's name is in the file's) -> uid -> clip folder -> number -> path),
    and how many PNG and JPEG files there are in all."""
    tables: dict = {}
    pictures = jpegs = 0
    for parent, files in _walk(folder):
        home = parent.relative_to(folder)
        place = home.name if home.name in PLACES else ""
        home = home.parent if place else home
        for name in files:
            jpegs += name.lower().endswith(JPEG)
            # A link may lead nowhere.
            if not name.lower().endswith(".png") or not os.path.exists(parent / name):
                continue
            pictures += 1
            stem = name[:-4]
            named = stem.startswith(f"{home.name}_") and bool(home.name)
            number = stem.removeprefix(f"{home.name}_") if named else stem
            if home.name not in uids or not (number.isascii() and number.isdecimal()):
                continue
            homes = tables.setdefault((place, named), {}).setdefault(home.name, {})
            homes.setdefault(home, {})[int(number)] = parent / name
    return tables, pictures, jpegs


def _walk(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """Folders and the names of the files in them, in order; links are followed, but not to a
    folder that they lie in."""
    for parent, folders, files in os.walk(folder, followlinks=True):
        if any(os.path.samefile(parent, above) for above in Path(parent).parents):
            folders.clear()
            continue
        folders.sort()
        yield Path(parent), sorted(files)


def state_of_files(folder: Path) -> str:
    """Changes when a PNG file in the folder does; links are followed, to where there is something.

    Returns:
      16 hexadecimal digits.
    """
    state = hashlib.sha256()
    for parent, files in _walk(folder):
        for path in (parent / name for name in files if name.lower().endswith(".png")):
            with contextlib.suppress(OSError):  # a link to nothing
                status = path.stat()
                told = f"{path.relative_to(folder)} {status.st_size} {status.st_mtime_ns}\n"
                state.update(told.encode(errors="surrogateescape"))
    return state.hexdigest()[:16]


def _home(
    folder: Path, clip: Clip, source: ClipSource, homes: Mapping[Path, Any], *, splits: bool
) -> Path | None:
    """Of the folders called like a clip that of the clip, relative to the masks' folder.

    Args:
      splits: whether a folder above any of the masks is called like the source's split. Otherwise
        one called `train` may be of that class.
    """
    subsets = {other.subset for other in source.clips} | set(avsbench.SUBSETS)
    subsets -= {clip.subset}
    others = set(avsbench.SPLITS) - {source.split}

    def of_other_split(home: Path) -> bool:
        above = set(home.parts[:-1])
        return bool(above & others) and source.split not in above

    fitting = [home for home in homes if not subsets & set(home.parts[:-1])]
    if splits:
        fitting = [home for home in fitting if not of_other_split(home)]
    for mark in (clip.subset, source.split):
        marked = [home for home in fitting if mark in home.parts[:-1]]
        fitting = marked or fitting
    fitting = [home for home in fitting if not of_other_split(home)] or fitting
    if len({os.path.realpath(folder / home) for home in fitting}) > 1:
        raise UserError(
            f"{folder} holds two folders of masks for {clip.name}, {fitting[0]} and {fitting[1]}: "
            "take one of them away"
        )
    return fitting[0] if fitting else None


@dataclasses.dataclass(frozen=True)
class ReadMasks(grain.transforms.Map):
    """Puts masks from files beside the arrays of a clip, as `masks` uint8 [T,G,G], see
    `mask_pictures.read`; 0 where a second has no label.

    Attributes:
      files: clip name -> second -> path.
      kind: of the pictures.
      task: "binary" or "semantic".
      size: G.
      num_classes: K.
    """

    files: Mapping[str, Mapping[int, Path]]
    kind: str
    task: str
    size: int
    num_classes: int

    def map(self, element: dict[str, Any]) -> dict[str, Any]:
        masks = np.zeros((len(element["labelled"]), self.size, self.size), np.uint8)
        stray = 0
        for second in np.flatnonzero(element["labelled"]):
            path = self.files[element["ids"]][int(second)]
            found = mask_pictures.read(path, self.kind, self.task, self.size, self.num_classes)
            masks[second], stray = found[0], stray + found[1]
        return element | {"masks": masks, "stray_pixels": np.int64(stray)}
