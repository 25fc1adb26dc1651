"""Plain folders of one's own: a clip is a folder, or a video file.

    <root>/classes.json                  optional: {"background": 0, "dog": 1, ...} or a list
    <root>/<clip>/frames/*.jpg|png       one a second, in the order of the numbers in their names
    <root>/<clip>/video.mp4              instead of frames; or any one video file
    <root>/<clip>/audio.wav|flac|ogg     or the sound track of the video
    <root>/<clip>/labels/<frame>.png     optional: by the name of its frame; of a video: 0.png, ...
    <root>/<clip>.mp4                    a clip without labels

The clips may lie in folders train, val and test. If they don't, the digest of a clip's name says
which split it belongs to, and clips without labels are for training if others have some. Clips
longer than 10 seconds are cut into clips of 10 seconds.
"""

import hashlib
import os
from collections import Counter
from pathlib import Path

from data_pipelines.errors import DataError
from data_pipelines.facts.avsbench import SPLITS
from data_pipelines.facts.plain_folders import passed_over
from data_pipelines.reading import tables
from data_pipelines.reading.layouts.clip_folder import (
    MIXED,
    VIDEO_SUFFIXES,
    Skipped,
    Whole,
    read_folder,
    video_seconds,
)
from data_pipelines.reading.names import (
    LONGEST_NAME,
    check_inside,
    fault_of_name,
    leads_outside,
    natural_key,
    outside_message,
    shown,
)
from data_pipelines.reading.raw import Finding, RawClip, RawTable, Sound

NAME = "plain folders"
SUBSET = "clips"
SHARES = {"train": 80, "val": 10, "test": 10}  # percent of the clips
NAMED_AT_MOST = 10  # names in one sentence
PIECE_SECONDS = 10  # longest clip
CLASSES_NAME = "classes.json"
DEFAULT_CLASSES = ("background", "object")
LOOKED_AT = 1000  # entries that are looked at to recognise a folder


def recognises(root: Path) -> bool:
    """Whether a folder, or a folder of a split in it, holds something like a clip."""
    if (root / CLASSES_NAME).is_file():
        return True
    for folder in (root, *(root / split for split in SPLITS)):
        try:
            with os.scandir(folder) as entries:
                for _, entry in zip(range(LOOKED_AT), entries, strict=False):
                    if _is_clip(Path(entry.path)):
                        return True
        except OSError:
            continue
    return False


def read(root: Path, *, follow_links: bool = False) -> RawTable:
    """Lists the clips of a folder.

    Args:
        root: the folder.
        follow_links: whether links may lead out of it.

    Returns:
        The table. Without `classes.json` there are two classes, background and object.

    Raises:
        DataError: `classes.json` cannot be read; no clip at all.
    """
    path = root / CLASSES_NAME
    described = path.exists()
    if described:
        check_inside(path, (root,), follow_links)
    class_names = _read_classes(path) if described else DEFAULT_CLASSES
    wholes, findings = _wholes(root, follow_links, described)
    any_labels = any(whole.labels for whole in wholes.values())
    by_digest = _splits({uid: bool(w.labels) for (split, uid), w in wholes.items() if not split})
    if wholes and not any_labels:
        which = "all clips are test" if by_digest else f"not one clip in {root} has any"
        message = f"no labels: {which}, there is nothing to train on"
        findings.append(Finding("noticed", "", "no labels", message))
    clips = []
    for (split, uid), whole in wholes.items():
        if any_labels and not whole.labels:
            message = f"{uid} has no labels, but other clips in {root} have"
            findings.append(Finding("noticed", f"{SUBSET}/{uid}", "no labels", message))
        clips += _pieces(uid, split or by_digest[uid], whole, described)
    if not clips:
        raise tables.no_clips(root, findings, "it holds none")
    return RawTable(
        layout=NAME,
        roots=(Path(os.path.realpath(root)),),
        class_names=class_names,
        clips=tuple(clips),
        fingerprint=tables.fingerprint(NAME, [path] if described else [], clips),
        findings=tuple(findings),
    )


def _is_clip(path: Path) -> bool:
    try:
        if not path.is_dir():
            return path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()
        if (path / "frames").is_dir():
            return True
        with os.scandir(path) as entries:
            first = [entry.name for _, entry in zip(range(LOOKED_AT), entries, strict=False)]
    except OSError:
        return False
    return any(os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES for name in first)


def _read_classes(path: Path) -> tuple[str, ...]:
    content = tables.read_json(path)
    if isinstance(content, list):
        if not all(isinstance(name, str) for name in content) or len(set(content)) < len(content):
            raise DataError(f"{path} should list names of classes, each once")
        content = {name: index for index, name in enumerate(content)}
    return tables.ordered_classes(content, path, first=0)


def _wholes(
    root: Path, follow_links: bool, described: bool
) -> tuple[dict[tuple[str, str], Whole], list[Finding]]:
    """(split or "", uid) -> clip before it is cut, and what is wrong with the others."""
    findings = []
    # A folder called like a split may be a clip of that name: trains sound, too.
    split_folders = [
        s for s in SPLITS if (root / s).is_dir() and not (root / s / "frames").is_dir()
    ]
    places = [(split, root / split) for split in split_folders] or [("", root)]
    if split_folders:
        findings += _not_taken(root, split_folders)
    entries = [
        (split, folder / name) for split, folder in places for name in _sorted_names(folder, root)
    ]
    times = Counter(_uid(path) for _, path in entries)
    wholes: dict[tuple[str, str], Whole] = {}
    taken = set()
    for split, path in entries:
        uid = _uid(path)
        # The same name in two splits is two clips.
        if split and times[uid] > 1:
            uid = f"{split}-{uid}"
        name = f"{SUBSET}/{shown(uid)[1:-1]}"
        try:
            fault = fault_of_name(uid)
            if fault or len(f"{uid}@00000".encode()) > LONGEST_NAME:
                raise Skipped("bad name", f"{shown(str(path))} {fault or 'has too long a name'}")
            if not follow_links and leads_outside(path, (root,)):
                raise Skipped("link leads outside", outside_message(path))
            if uid in taken:
                raise Skipped("listed twice", f"{path}: there is another clip {uid}")
            if os.path.isdir(path):
                whole, noticed = read_folder(path, () if follow_links else (root,))
            else:
                whole, noticed = Whole(video_seconds(path), Sound(path), video=path), []
            # Without classes.json whatever is not black is the object, in either.
            if described and whole.label_encoding == MIXED:
                what = f"some in {path / 'labels'} are RGB, others grey or with a palette"
                raise Skipped("labels mixed", f"labels mixed: {what}: save all of them alike")
            wholes[split, uid] = whole
            taken.add(uid)
            findings += [Finding("noticed", name, *about) for about in noticed]
        except Skipped as skipped:
            findings.append(Finding(skipped.kind, name, *skipped.args))
    return wholes, findings


def _not_taken(root: Path, split_folders: list[str]) -> list[Finding]:
    """What lies beside the folders of splits, and is passed over."""
    names = [shown(n)[1:-1] for n in _sorted_names(root, root) if n not in split_folders]
    if not names:
        return []
    more = f" and {len(names) - NAMED_AT_MOST} more" if names[NAMED_AT_MOST:] else ""
    message = (
        f"not taken: {', '.join(names[:NAMED_AT_MOST])}{more} (beside {', '.join(split_folders)})"
    )
    return [Finding("noticed", "", "not taken", message)]


def _sorted_names(folder: Path, root: Path) -> list[str]:
    """Names of what may be a clip: folders and video files, without what is hidden."""
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if passed_over(entry.name):
                    continue
                # Unlike the entry's own methods these don't mind links in a circle.
                video = os.path.splitext(entry.name)[1].lower() in VIDEO_SUFFIXES
                if os.path.isdir(entry.path) or (video and os.path.isfile(entry.path)):
                    found.append(entry.name)
    except OSError as fault:
        raise DataError(f"{folder} in {root} cannot be listed: {fault.strerror}") from fault
    return sorted(found, key=natural_key)


def _uid(path: Path) -> str:
    return path.name if path.suffix.lower() not in VIDEO_SUFFIXES else path.stem


def _splits(labelled: dict[str, bool]) -> dict[str, str]:
    """Splits of clips by the digests of their names.

    Args:
        labelled: uid -> whether the clip has labels.

    Returns:
        uid -> split. val and test are made of labelled clips, as others measure nothing; every
        split gets one if there are three. All are test if there is none.
    """
    uids = [uid for uid, has_labels in labelled.items() if has_labels]
    if not uids:
        return dict.fromkeys(labelled, "test")
    digests = {uid: hashlib.sha256(uid.encode()).digest() for uid in uids}
    splits = {}
    for uid, digest in digests.items():
        percent = int.from_bytes(digest[:8], "big") % 100
        train, val = SHARES["train"], SHARES["train"] + SHARES["val"]
        splits[uid] = "train" if percent < train else "val" if percent < val else "test"
    if len(uids) >= len(SPLITS):
        for split in SPLITS:
            counts = Counter(splits.values())
            if not counts[split]:
                largest = max(SPLITS, key=lambda s: counts[s])
                moved = min((u for u in uids if splits[u] == largest), key=digests.__getitem__)
                splits[moved] = split
    return {uid: splits.get(uid, "train") for uid in labelled}


def _pieces(uid: str, split: str, whole: Whole, described: bool) -> list[RawClip]:
    """The clips of at most PIECE_SECONDS into which one is cut."""
    clips = []
    for start in range(0, whole.seconds, PIECE_SECONDS):
        end = min(start + PIECE_SECONDS, whole.seconds)
        clips.append(
            RawClip(
                subset=SUBSET,
                uid=f"{uid}@{start}" if whole.seconds > PIECE_SECONDS else uid,
                split=split,
                seconds=end - start,
                frames=whole.frames[start:end],
                labels=tuple(
                    (second - start, path) for second, path in whole.labels if start <= second < end
                ),
                sounds=(whole.sound,),
                label_encoding=whole.label_encoding if described else "foreground",
                foreground=None if described else 1,
                video=whole.video,
                start=start,
            )
        )
    return clips
