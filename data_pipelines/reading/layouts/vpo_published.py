"""VPO as its authors publish it (layout.py draws the tree)."""

import itertools
import math
import os
from pathlib import Path

from data_pipelines.errors import DataError
from data_pipelines.facts.vpo import (
    BACKGROUND_ID,
    CLASS_NAMES,
    COCO_IDS,
    IGNORED_ID,
    SECONDS,
    SUBSETS,
)
from data_pipelines.media.labels import IGNORED
from data_pipelines.reading import tables
from data_pipelines.reading.names import fault_of_name, shown
from data_pipelines.reading.raw import Finding, RawClip, Sound

COLUMNS = {
    name: (name.lower(),)
    for name in "cateName img_Id ann_Ids vgg_file split audio_pos multi_instance".split()
}
OPTIONAL = ("audio_pos", "multi_instance")
# What the tables call "val" is what papers report as test.
SPLITS = {"train": "train", "val": "test", "test": "test"}
SOUND_SUFFIXES = (".wav", ".flac", ".ogg")
LABEL_IDS = tuple(
    sorted(
        {
            BACKGROUND_ID: 0,
            IGNORED_ID: IGNORED,
            **{number: CLASS_NAMES.index(name) for name, number in COCO_IDS.items()},
        }.items()
    )
)


def tables_in(home: Path) -> list[Path]:
    """The tables that there are, in the order SS, MS, MSMI."""
    return [path for name in SUBSETS if (path := table_of(home, name)).is_file()]


class _Fault(Exception):
    """Why a clip is left out: code and sentence."""


def read(home: Path, sounds: Path) -> tuple[list[RawClip], list[Finding]]:
    """Reads the tables of a folder.

    Args:
        home: the folder in which VPO-SS, VPO-MS and VPO-MSMI lie.
        sounds: the folder of recordings.

    Raises:
        DataError: a table cannot be read, or the recordings cannot be listed.
    """
    recordings = _recordings(sounds)
    clips, findings = [], []
    for name in SUBSETS:
        subset = f"vpo_{name}"
        path = table_of(home, name)
        if not path.is_file():
            message = f"no table for: {subset} in {home}"
            findings.append(Finding("noticed", subset, "subset absent", message))
            continue
        groups: dict[str, list[dict]] = {}
        for row in tables.read_rows(path, COLUMNS, OPTIONAL):
            where = f"{path}, line {row.line}"
            if row.fault:
                code, message = "unreadable row", f"{where}: the row {row.fault}"
                findings.append(Finding("left out", "", code, message))
                continue
            key, fault = _key(row.cells, name)
            if fault:
                findings.append(Finding("left out", "", "bad name", f"{where}: {fault}"))
                continue
            if name == "ss" and key in groups:
                # A second row of an object is another clip, with a sound of its own.
                key = next(k for n in itertools.count(2) if (k := f"{key}_{n}") not in groups)
            groups.setdefault(key, []).append({**row.cells, "where": where})
        for key, rows in groups.items():
            try:
                clips.append(_clip(home, name, key, rows, sounds, recordings))
            except _Fault as fault:
                findings.append(Finding("left out", f"{subset}/{key}", *fault.args))
    return clips, findings


def folder_of(home: Path, name: str) -> Path:
    """Where SS, MS or MSMI lies in the folder VPO."""
    return home / f"VPO-{name.upper()}"


def table_of(home: Path, name: str) -> Path:
    """The table of SS, MS or MSMI."""
    return folder_of(home, name) / f"vpo_{name}_data_stereo.csv"


def _recordings(folder: Path) -> dict[str, str]:
    """Name in the tables -> file name. Listed once: VGGSound has 200,000 files."""
    try:
        names = sorted(os.listdir(folder))
    except OSError as fault:
        raise DataError(f"{folder} cannot be listed: {fault.strerror}") from fault
    found = {}
    for name in names:
        stem, suffix = os.path.splitext(name)
        if suffix.lower() in SOUND_SUFFIXES:
            found.setdefault(stem, name)
            found[name] = name
    return found


def _key(cells: dict[str, str], name: str) -> tuple[str, str | None]:
    """What the rows of one clip have in common, which becomes its uid, and what is wrong with it.

    In SS every row is a clip of its own; in MS and MSMI all that sound in a picture are one, and
    their annotations, which may be different ones, name no file.
    """
    for column in ("img_Id", "ann_Ids") if name == "ss" else ("img_Id",):
        if reason := fault_of_name(cells[column]):
            return "", f"{column} {shown(cells[column])} cannot be part of a file name: it {reason}"
    picture = cells["img_Id"].zfill(12)
    return (f"{picture}_{cells['ann_Ids'].zfill(12)}" if name == "ss" else picture), None


def _clip(home, name, key, rows, sounds, recordings) -> RawClip:
    first = rows[0]
    for column in ("split", "multi_instance"):
        for row in rows:
            if row[column] != first[column]:
                other = f"{shown(first[column])} in an earlier row of picture {key}"
                message = f"{row['where']}: {column} is {shown(row[column])}, but {other}"
                raise _Fault("rows disagree", message)
    if first["split"] not in SPLITS:
        message = f"split {shown(first['split'])} is none of {', '.join(SPLITS)}"
        raise _Fault("unknown split", f"{first['where']}: {message}")
    # Pictures that show no class twice are those of MS.
    of_ms = name == "msmi" and first["multi_instance"] in ("0", "0.0", "False")
    classes = tuple(sorted({index for row in rows for index in _classes(row)}))
    frame, mask = files_of(
        folder_of(home, "ms" if of_ms else name),
        first["img_Id"],
        (first["cateName"], first["ann_Ids"]) if name == "ss" else None,
    )
    return RawClip(
        subset=f"vpo_{name}",
        uid=key,
        split=SPLITS[first["split"]],
        seconds=SECONDS,
        frames=(frame,),
        labels=tuple((second, mask) for second in range(SECONDS)),
        sounds=tuple(_sound(row, sounds, recordings) for row in rows),
        label_encoding="ids",
        label_ids=LABEL_IDS,
        centred=True,
        objects=classes,
    )


def files_of(folder: Path, picture: str | int, source: tuple[str, str | int] | None):
    """Picture and mask of a clip, as CAVP's loaders look for them.

    Args:
        folder: VPO-SS, VPO-MS or VPO-MSMI.
        picture: COCO's number of it.
        source: in VPO-SS class and annotation of what sounds; None in VPO-MS and VPO-MSMI, where a
            picture has one mask.

    Returns:
        Two paths.
    """
    number = str(picture).zfill(12)
    if source is None:
        return folder / "data" / f"{number}.jpg", folder / "mask" / f"{number}.png"
    name, annotation = source
    mask = f"{number}_{str(annotation).zfill(12)}.png"
    return folder / "data" / name / f"{number}.jpg", folder / "mask" / name / mask


def _classes(row: dict[str, str]) -> list[int]:
    names = [name.strip() for name in row["cateName"].split(",")]
    for name in names:
        if name not in COCO_IDS:
            message = f"{row['where']}: cateName {shown(name)} is no class of VPO"
            raise _Fault("unknown class", message)
    return [CLASS_NAMES.index(name) for name in names]


def _sound(row: dict[str, str], sounds: Path, recordings: dict[str, str]) -> Sound:
    position = _position(row["audio_pos"])
    if position is not None and not 0 <= position <= 1:
        message = f"{row['where']}: audio_pos {shown(row['audio_pos'])} is not from 0 to 1"
        raise _Fault("bad position", message)
    if row["vgg_file"] not in recordings:
        message = f"{row['where']}: no recording {shown(row['vgg_file'])} in {sounds}"
        raise _Fault("sound file missing", message)
    return Sound(sounds / recordings[row["vgg_file"]], position)


def _position(text: str) -> float | None:
    """NaN where the text is no number; None where there is none."""
    if not text:
        return None
    try:
        return float(text)
    except ValueError:
        return math.nan
