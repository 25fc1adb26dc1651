"""VPO as DDESeg arranges it anew (layout.py draws the tree)."""

import os
import re
from pathlib import Path

from data_pipelines.facts.vpo import CLASS_NAMES, IGNORED_ID, SECONDS, SUBSETS
from data_pipelines.media.labels import IGNORED
from data_pipelines.reading import tables
from data_pipelines.reading.layouts.vpo_published import SPLITS
from data_pipelines.reading.names import fault_of_name, shown
from data_pipelines.reading.raw import Finding, RawClip, Sound

TABLE = "vpo_data_clean.csv"
# The names of its columns are not documented, their order is.
COLUMNS = ("uid", "frame", "mask", "category", "split", "type")
LABEL_IDS = (*((index, index) for index in range(len(CLASS_NAMES))), (IGNORED_ID, IGNORED))


def read(home: Path) -> tuple[list[RawClip], list[Finding]]:
    """Reads the table of a folder.

    Args:
        home: the folder in which the table and VPO-SS, VPO-MS, VPO-MSMI lie.

    Raises:
        DataError: the table cannot be read.
    """
    path = home / TABLE
    clips, findings, seen, absent = [], [], set(), {}
    for row in tables.read_rows(path, COLUMNS):
        where = f"{path}, line {row.line}"
        if row.fault:
            fault = ("unreadable row", f"the row {row.fault}")
            findings.append(Finding("left out", "", fault[0], f"{where}: {fault[1]}"))
            continue
        # Some copies write the folder of the subset before the name.
        prefix, _, uid = row.cells["uid"].rpartition("/")
        kind = row.cells["type"].upper()
        subset = kind.lower().replace("-", "_")
        fault = _fault(row.cells, prefix, uid, kind)
        if not fault and (subset, uid) in seen:
            fault = ("listed twice", f"{kind}/{uid} stands in the table twice: the first is kept")
        if fault:
            name = f"{shown(subset)[1:-1]}/{shown(uid)[1:-1]}"
            findings.append(Finding("left out", name, fault[0], f"{where}: {fault[1]}"))
            continue
        seen.add((subset, uid))
        if subset not in absent:
            absent[subset] = 0 if (home / kind).is_dir() else 1
        elif absent[subset]:
            absent[subset] += 1
        if not absent[subset]:
            clips.append(_clip(home / kind / uid, subset, row.cells, uid))
    for subset, count in absent.items():
        if count:
            message = f"no folder for: {subset} ({count} clips) in {home}"
            findings.append(Finding("noticed", subset, "subset absent", message))
    return clips, findings


def _fault(cells: dict[str, str], prefix: str, uid: str, kind: str) -> tuple[str, str] | None:
    if kind not in (f"VPO-{name.upper()}" for name in SUBSETS):
        return "unknown subset", f"type {shown(cells['type'])} is no subset of VPO"
    if prefix and prefix.upper() not in (kind, f"VPO/{kind}"):
        return "bad name", f"uid {shown(cells['uid'])} lies in another folder than its type says"
    for column, name in (("uid", uid), ("frame", cells["frame"]), ("mask", cells["mask"])):
        if reason := fault_of_name(name):
            return "bad name", f"{column} {shown(name)} cannot be the name of a file: it {reason}"
    if cells["split"] not in SPLITS:
        return "unknown split", f"split {shown(cells['split'])} is none of {', '.join(SPLITS)}"
    if not all(index < len(CLASS_NAMES) for index in _classes(cells)):
        text = shown(cells["category"])
        return "unknown class", f"category {text} holds more than ids 0 to {len(CLASS_NAMES) - 1}"
    return None


def _classes(cells: dict[str, str]) -> list[int]:
    """The ids of a list in Python's notation: "[3, 14]"."""
    return [int(digits[:9]) for digits in re.findall("[0-9]+", cells["category"])]


def _clip(folder: Path, subset: str, cells: dict[str, str], uid: str) -> RawClip:
    mask = folder / "labels_semantic" / cells["mask"]
    stereo = folder / "stereo_audio.wav"
    return RawClip(
        subset=subset,
        uid=uid,
        split=SPLITS[cells["split"]],
        seconds=SECONDS,
        frames=(folder / "frames" / cells["frame"],),
        labels=tuple((second, mask) for second in range(SECONDS)),
        sounds=(Sound(stereo if os.path.isfile(stereo) else folder / "mono_audio.wav"),),
        label_encoding="ids",
        label_ids=LABEL_IDS,
        centred=True,
        objects=tuple(sorted({index for index in _classes(cells) if index})),
    )
