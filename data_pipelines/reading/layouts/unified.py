"""AVSBench's unified release (layout.py draws it), and any set of one's own in the same layout."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from data_pipelines.errors import DataError
from data_pipelines.facts import avsbench
from data_pipelines.reading import tables
from data_pipelines.reading.names import (
    check_inside,
    fault_of_name,
    leads_outside,
    outside_message,
    shown,
)
from data_pipelines.reading.raw import Finding, RawClip, RawTable, Sound

NAME = "AVSBench, unified release"
FRAME_SUFFIXES = (".jpg", ".jpeg", ".png")
COLUMNS = {"uid": ("uid",), "a_obj": ("a_obj",), "split": ("split",), "label": ("label",)}


def recognises(root: Path) -> bool:
    """Whether a folder is, or is meant to be, in the unified layout."""
    metadata = root / avsbench.METADATA_NAME
    if (root / avsbench.LABEL2IDX_NAME).is_file():
        return True
    if not metadata.is_file():
        return False
    return tables.has_columns(metadata, COLUMNS) or any(
        (root / subset).is_dir() for subset in avsbench.SUBSETS
    )


def read(root: Path, *, follow_links: bool = False) -> RawTable:
    """Reads `metadata.csv` and `label2idx.json`, and lists the pictures of every clip.

    Args:
        root: a folder in the unified layout; of the three subsets any may be absent.
        follow_links: whether links may lead out of it.

    Returns:
        The table. Rows that cannot be used are left out and found.

    Raises:
        DataError: files missing or not as the layout has them; no clip at all.
    """
    metadata, classes = root / avsbench.METADATA_NAME, root / avsbench.LABEL2IDX_NAME
    if not metadata.exists():
        raise DataError(
            f"{metadata.name} missing in {root}: this is no folder in AVSBench's unified layout"
        )
    read_from = [path for path in (metadata, classes) if path.exists()]
    for path in read_from:
        check_inside(path, (root,), follow_links)
    findings = []
    if classes.exists():
        class_names = tables.ordered_classes(tables.read_json(classes), classes, first=1)
    else:
        class_names = avsbench.CLASS_NAMES
        message = f"{classes.name} missing in {root}: AVSBench's 71 classes are taken"
        findings.append(Finding("noticed", "", "no class table", message))
    rows = list(_rows(metadata, class_names, findings))
    roots = (Path(os.path.realpath(root)),)
    clips, absent = [], Counter()
    present = {subset for subset in avsbench.SUBSETS if (root / subset).is_dir()}
    for subset, uid, split, objects in rows:
        # The deepest folder that is listed; links above it lead it outside, too.
        listed = avsbench.clip_dir(root, subset, uid) / "frames"
        if subset not in present:
            absent[subset] += 1
        elif not follow_links and leads_outside(listed, roots):
            message = outside_message(listed)
            findings.append(Finding("left out", f"{subset}/{uid}", "link leads outside", message))
        else:
            clips.append(_clip(root, subset, uid, split, objects))
    findings += [tables.absent(subset, count, root) for subset, count in sorted(absent.items())]
    if not clips:
        gone = f"folders missing: {', '.join(s for s in avsbench.SUBSETS if s in absent)}"
        raise tables.no_clips(root, findings, gone if absent else "its table has no rows")
    in_table = Counter((subset, split) for subset, _, split, _ in rows)
    published = class_names == avsbench.CLASS_NAMES
    return RawTable(
        layout=NAME,
        roots=roots,
        class_names=class_names,
        clips=tuple(clips),
        fingerprint=tables.fingerprint(NAME, read_from, clips),
        expected=avsbench.published_clips(in_table) if published else {},
        findings=tuple(findings),
    )


def _rows(path: Path, class_names: tuple[str, ...], findings: list[Finding]) -> Iterator[tuple]:
    """(subset, uid, split, objects) of the rows that can be used."""
    ids = {name: index for index, name in enumerate(class_names)}

    def judge(cells):
        subset, uid, split = cells["label"], cells["uid"], cells["split"]
        _, stranger = _objects(cells["a_obj"], ids)
        fault = None
        if reason := fault_of_name(uid):
            fault = "bad name", f"uid {shown(uid)} cannot be the name of a folder: it {reason}"
        elif subset not in avsbench.SUBSETS:
            known = ", ".join(avsbench.SUBSETS)
            fault = "unknown subset", f"label {shown(subset)} is no subset (they are {known})"
        elif split not in avsbench.SPLITS:
            known = ", ".join(avsbench.SPLITS)
            fault = "unknown split", f"split {shown(split)} is none of {known}"
        elif stranger:
            message = f"a_obj names {shown(stranger)}, no class of {avsbench.LABEL2IDX_NAME}"
            fault = "unknown class", message
        return (subset, uid), fault

    for clip, cells in tables.usable_rows(path, COLUMNS, judge, findings):
        yield *clip, cells["split"], _objects(cells["a_obj"], ids)[0]


def _objects(text: str, ids: dict[str, int]) -> tuple[tuple[int, ...], str | None]:
    """Class ids of an `a_obj` entry, and the first token that is no class.

    The release has three tokens that are no class names, one of them "h orse".
    """
    found = set()
    for token in text.split(avsbench.OBJECT_SEPARATOR):
        token = token.replace(" ", "")
        if token in ("", avsbench.OFF_SCREEN, avsbench.BACKGROUND):
            continue
        if token not in ids:
            return (), token
        found.add(ids[token])
    return tuple(sorted(found)), None


def _clip(root: Path, subset: str, uid: str, split: str, objects) -> RawClip:
    seconds = avsbench.SUBSET_SECONDS[subset]
    frames_folder = avsbench.clip_dir(root, subset, uid) / "frames"
    present = _names_in(frames_folder)
    names = (
        next((name for suffix in FRAME_SUFFIXES if (name := f"{t}{suffix}") in present), f"{t}.jpg")
        for t in range(seconds)
    )
    frames = tuple(frames_folder / name for name in names)
    # Some copies keep index masks only.
    coloured, semantic = (
        os.path.isdir(path(root, subset, uid, 0).parent)
        for path in (avsbench.rgb_label_path, avsbench.semantic_label_path)
    )
    semantic = semantic and not coloured
    label_path = avsbench.semantic_label_path if semantic else avsbench.rgb_label_path
    return RawClip(
        subset=subset,
        uid=uid,
        split=split,
        seconds=seconds,
        frames=frames,
        labels=tuple(
            (t, label_path(root, subset, uid, t))
            for t in range(avsbench.labelled_seconds(subset, split))
        ),
        sounds=(Sound(avsbench.audio_path(root, subset, uid)),),
        label_encoding="ids" if semantic else "colours",
        objects=objects,
    )


def _names_in(folder: Path) -> set[str]:
    """Names in a folder; none where it cannot be listed (its files are missed later, by name)."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries}
    except OSError:
        return set()
