"""AVSBench's first release (Zhou et al., ECCV 2022): S4 and MS3 in folders of their own.

    Single-source/s4_meta_data.csv                          name, start time, category, split
    Single-source/s4_data/visual_frames/<split>/<category>/<name>/<name>_<i>.png    i = 1 to 5
    Single-source/s4_data/audio_wav/<split>/<category>/<name>.wav
    Single-source/s4_data/gt_masks/<split>/<category>/<name>/<name>_<i>.png         train: i = 1
    Multi-sources/ms3_meta_data.csv                         name, split
    Multi-sources/ms3_data/visual_frames/<name>/<name>.mp4_<i>.png
    Multi-sources/ms3_data/audio_wav/<split>/<name>.wav
    Multi-sources/ms3_data/gt_masks/<split>/<name>/<name>_<i>.png

Beside `audio_wav` lie pickles of log-mel examples, which are never opened: a pickle can run
anything. S4 becomes the subset v1s of the unified release and MS3 its v1m, with the same clips.
"""

import dataclasses
import os
from collections import Counter
from pathlib import Path

from data_pipelines.errors import DataError
from data_pipelines.facts import avsbench
from data_pipelines.reading import tables
from data_pipelines.reading.names import fault_of_name, leads_outside, outside_message, shown
from data_pipelines.reading.raw import Finding, RawClip, RawTable, Sound

NAME = "AVSBench, first release"
# MS3's table was published under more than one header.
NAME_COLUMNS = ("name", "video_id", "video_name", "uid", "vid", "video", "video_ids")


@dataclasses.dataclass(frozen=True)
class _Part:
    subset: str
    folder: str  # of the table and the data, in the release
    data: str
    table: str


PARTS = (
    _Part("v1s", "Single-source", "s4_data", "s4_meta_data.csv"),
    _Part("v1m", "Multi-sources", "ms3_data", "ms3_meta_data.csv"),
)


def recognises(root: Path) -> bool:
    """Whether a folder holds one of the two parts."""
    return any(_home(root, part) is not None for part in PARTS)


def read(root: Path, *, follow_links: bool = False) -> RawTable:
    """Reads the tables of both parts, or of the one there is.

    Args:
        root: `avsbench_data`, its parent, or a folder that holds `s4_data` or `ms3_data`.
        follow_links: whether links may lead out of it.

    Returns:
        The table. MS3's masks tell foreground from background, but no classes.

    Raises:
        DataError: a table is missing or cannot be read; no clip at all.
    """
    clips, findings, read_from, named = [], [], [], Counter()
    for part in PARTS:
        home = _home(root, part)
        if home is None:
            message = f"no folder for: {part.subset} ({part.folder}) in {root}"
            findings.append(Finding("noticed", part.subset, "subset absent", message))
            continue
        path = home / part.table
        if not path.exists():
            raise DataError(f"{part.table} missing in {home}: it says which clip is of which split")
        if not follow_links and leads_outside(path, (root,)):
            raise DataError(outside_message(path))
        data = home / part.data
        # Some unpack the archive into a folder of its own name.
        data = data / part.data if (data / part.data).is_dir() else data
        rows, faults = _read_rows(path, part)
        make = _s4_clip if part.subset == "v1s" else _ms3_clip
        if data.is_dir():
            clips += [make(data, *row) for row in rows]
        else:
            message = f"no folder for: {part.subset} ({len(rows)} clips) in {home}"
            findings.append(Finding("noticed", part.subset, "subset absent", message))
        findings += faults
        read_from.append(path)
        named.update((part.subset, split) for _, split, _ in rows)
    if not clips:
        why = next((f.message for f in findings if f.kind == "left out"), None)
        raise DataError(f"no clips in {root}: {why or 'its tables have no rows with data'}")
    return RawTable(
        layout=NAME,
        roots=(Path(os.path.realpath(root)),),
        class_names=avsbench.CLASS_NAMES,
        clips=tuple(clips),
        fingerprint=tables.fingerprint(NAME, read_from, clips),
        binary_only=("v1m",) if any(clip.subset == "v1m" for clip in clips) else (),
        expected=avsbench.published_clips(named),
        findings=tuple(findings),
    )


def _home(root: Path, part: _Part) -> Path | None:
    """The folder of a part's table and data."""
    for base in (root, root / "avsbench_data"):
        for home in (base / part.folder, base):
            if (home / part.table).is_file() or (home / part.data).is_dir():
                return home
    return None


def _read_rows(path: Path, part: _Part):
    """(name, split, category) of every row that can be used, and what is wrong with the others."""
    columns = {"name": NAME_COLUMNS, "split": ("split",)}
    if part.subset == "v1s":
        columns["category"] = ("category",)
    rows, findings, seen = [], [], set()
    for row in tables.read_rows(path, columns):
        name, split = row.cells.get("name", ""), row.cells.get("split", "")
        category = row.cells.get("category", "")
        # The videos were called so; folders and sounds are not.
        name = name.removesuffix(".mp4")
        if row.fault:
            fault = ("unreadable row", f"the row {row.fault}")
        elif reason := fault_of_name(name):
            fault = ("bad name", f"{shown(name)} cannot be the name of a folder: it {reason}")
        elif split not in avsbench.SPLITS:
            known = ", ".join(avsbench.SPLITS)
            fault = ("unknown split", f"split {shown(split)} is none of {known}")
        elif part.subset == "v1s" and category not in avsbench.S4_CATEGORIES:
            fault = ("unknown class", f"category {shown(category)} is none of the 23 of S4")
        elif name in seen:
            fault = ("listed twice", f"{name} stands in the table twice: the first is kept")
        else:
            seen.add(name)
            rows.append((name, split, category))
            continue
        code, message = fault
        clip = f"{part.subset}/{shown(name)[1:-1]}" if row.cells else ""
        findings.append(Finding("left out", clip, code, f"{path}, line {row.line}: {message}"))
    return rows, findings


def _s4_clip(data: Path, name: str, split: str, category: str) -> RawClip:
    seconds = avsbench.SUBSET_SECONDS["v1s"]
    class_id = avsbench.CLASS_NAMES.index(avsbench.S4_CATEGORIES[category])
    frames, masks, sounds = (
        data / kind / split / category for kind in ("visual_frames", "gt_masks", "audio_wav")
    )
    return RawClip(
        subset="v1s",
        uid=name,
        split=split,
        seconds=seconds,
        frames=tuple(frames / name / f"{name}_{i}.png" for i in range(1, seconds + 1)),
        labels=tuple(
            (t, masks / name / f"{name}_{t + 1}.png")
            for t in range(avsbench.labelled_seconds("v1s", split))
        ),
        sounds=(Sound(sounds / f"{name}.wav"),),
        label_encoding="foreground",
        foreground=class_id,
        objects=(class_id,),
    )


def _ms3_clip(data: Path, name: str, split: str, _: str) -> RawClip:
    seconds = avsbench.SUBSET_SECONDS["v1m"]
    masks = data / "gt_masks" / split / name
    return RawClip(
        subset="v1m",
        uid=name,
        split=split,
        seconds=seconds,
        frames=tuple(
            data / "visual_frames" / name / f"{name}.mp4_{i}.png" for i in range(1, seconds + 1)
        ),
        labels=tuple((t, masks / f"{name}_{t + 1}.png") for t in range(seconds)),
        sounds=(Sound(data / "audio_wav" / split / f"{name}.wav"),),
        label_encoding="foreground",
        foreground=None,
        objects=(),
    )
