"""VPO as DDESeg arranges it anew (layout.py draws the tree)."""

import os
import re
from collections import Counter
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
    clips, findings, absent = [], [], Counter()
    for (subset, uid), cells in tables.usable_rows(home / TABLE, COLUMNS, _judge, findings):
        folder = home / cells["type"].upper()
        if folder.is_dir():
            clips.append(_clip(folder / uid, subset, cells, uid))
        else:
            absent[subset] += 1
    findings += [tables.absent(subset, count, home) for subset, count in absent.items()]
    return clips, findings


def _judge(cells: dict[str, str]) -> tuple[tables.Name, tables.Fault | None]:
    # Some copies write the folder of the subset before the name.
    prefix, _, uid = cells["uid"].rpartition("/")
    kind = cells["type"].upper()
    return (kind.lower().replace("-", "_"), uid), _fault(cells, prefix, uid, kind)


def _fault(cells: dict[str, str], prefix: str, uid: str, kind: str) -> tables.Fault | None:
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
