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
from collections.abc import Iterator
from pathlib import Path

from data_pipelines.errors import DataError
from data_pipelines.facts import avsbench
from data_pipelines.reading import tables
from data_pipelines.reading.names import check_inside, fault_of_name, shown
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
        check_inside(path, (root,), follow_links)
        data = home / part.data
        # Some unpack the archive into a folder of its own name.
        data = data / part.data if (data / part.data).is_dir() else data
        rows = list(_rows(path, part, findings))
        if data.is_dir():
            clips += [_clip(data, *row) for row in rows]
        else:
            findings.append(tables.absent(part.subset, len(rows), home))
        read_from.append(path)
        named.update((part.subset, split) for _, _, split, _ in rows)
    if not clips:
        raise tables.no_clips(root, findings, "its tables have no rows with data")
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


def _rows(path: Path, part: _Part, findings: list[Finding]) -> Iterator[tuple[str, ...]]:
    """(subset, name, split, category) of every row that can be used."""
    columns = {"name": NAME_COLUMNS, "split": ("split",)}
    if part.subset == "v1s":
        columns["category"] = ("category",)

    def judge(cells):
        # The videos were called so; folders and sounds are not.
        name, split = cells["name"].removesuffix(".mp4"), cells["split"]
        category = cells.get("category")
        fault = None
        if reason := fault_of_name(name):
            fault = "bad name", f"{shown(name)} cannot be the name of a folder: it {reason}"
        elif split not in avsbench.SPLITS:
            known = ", ".join(avsbench.SPLITS)
            fault = "unknown split", f"split {shown(split)} is none of {known}"
        elif category is not None and category not in avsbench.S4_CATEGORIES:
            fault = "unknown class", f"category {shown(category)} is none of the 23 of S4"
        return (part.subset, name), fault

    for clip, cells in tables.usable_rows(path, columns, judge, findings):
        yield *clip, cells["split"], cells.get("category", "")


def _clip(data: Path, subset: str, name: str, split: str, category: str) -> RawClip:
    seconds = avsbench.SUBSET_SECONDS[subset]
    inner = Path(split, category)  # of MS3, which has no categories, the split alone
    if subset == "v1s":
        class_id = avsbench.CLASS_NAMES.index(avsbench.S4_CATEGORIES[category])
        frames = data / "visual_frames" / inner / name / name
    else:
        class_id = None
        frames = data / "visual_frames" / name / f"{name}.mp4"
    return RawClip(
        subset=subset,
        uid=name,
        split=split,
        seconds=seconds,
        frames=tuple(frames.with_name(f"{frames.name}_{i}.png") for i in range(1, seconds + 1)),
        labels=tuple(
            (t, data / "gt_masks" / inner / name / f"{name}_{t + 1}.png")
            for t in range(avsbench.labelled_seconds(subset, split))
        ),
        sounds=(Sound(data / "audio_wav" / inner / f"{name}.wav"),),
        label_encoding="foreground",
        foreground=class_id,
        objects=() if class_id is None else (class_id,),
    )
