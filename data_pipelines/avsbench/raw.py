"""AVSBench's unified layout as it lies on disk, read and checked clip by clip.

Every fault of a folder is found here, before anything is stored: what comes out can be decoded.
"""

import csv
import dataclasses
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_pipelines import audio
from data_pipelines.avsbench import layout
from data_pipelines.errors import DataError
from data_pipelines.transforms import colours_to_ids

FRAME_SUFFIXES = (".jpg", ".jpeg", ".png")
MAX_CLASSES = 256  # what uint8 label maps and the palette can tell apart
# Size of label maps in the first release, whatever the shape of the frames (width, height).
SQUARE_LABEL = (224, 224)


@dataclasses.dataclass(frozen=True)
class RawClip:
    """One row of the table: a clip, its split, and the class ids said to sound in the picture."""

    subset: str
    uid: str
    split: str
    objects: tuple[int, ...]

    @property
    def name(self) -> str:
        return f"{self.subset}/{self.uid}"


@dataclasses.dataclass(frozen=True)
class RawTable:
    """What a folder holds.

    Attributes:
        class_names: by class id, background first.
        clips: in the order of the table, without those of absent subsets.
        absent: subset -> number of clips in the table whose subset has no folder.
        fingerprint: changes with the table, the classes, or the subsets present.
    """

    class_names: tuple[str, ...]
    clips: tuple[RawClip, ...]
    absent: dict[str, int]
    fingerprint: str


def read_table(root: Path) -> RawTable:
    """Reads and checks `metadata.csv` and `label2idx.json`.

    Args:
        root: a folder in the unified layout; of the three subsets any may be absent.

    Returns:
        The table.

    Raises:
        DataError: folder or files missing, or not as the layout has them; no clip at all.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"data folder missing: {root}")
    for name in (layout.METADATA_NAME, layout.LABEL2IDX_NAME):
        if not (root / name).is_file():
            raise DataError(
                f"{name} missing in {root}: this is no folder in AVSBench's unified layout"
            )
    class_names = _read_classes(root / layout.LABEL2IDX_NAME)
    clips, absent = [], {}
    for clip in _read_rows(root / layout.METADATA_NAME, class_names):
        if (root / clip.subset).is_dir():
            clips.append(clip)
        else:
            absent[clip.subset] = absent.get(clip.subset, 0) + 1
    if not clips:
        why = f"folders missing: {', '.join(absent)}" if absent else "its table has no rows"
        raise DataError(f"no clips in {root}: {why}")
    digest = hashlib.sha256()
    for name in (layout.METADATA_NAME, layout.LABEL2IDX_NAME):
        digest.update((root / name).read_bytes())
    digest.update(",".join(sorted({clip.subset for clip in clips})).encode())
    return RawTable(class_names, tuple(clips), absent, digest.hexdigest())


def read_clip(root: Path, clip: RawClip, num_classes: int) -> dict[str, Any]:
    """Reads one clip, decoding everything once to see that it can be.

    Args:
        root: the data folder.
        clip: a row of its table.
        num_classes: K, background counted.

    Returns:
        The example as the builder stores it: uid, subset, frames (T encoded images), labels
        (encoded images of the labelled seconds), labelled (bool [T]), objects (class ids),
        audio (float32 [T, 96, 64]).

    Raises:
        DataError: naming the file at fault.
    """
    seconds = layout.SUBSET_SECONDS[clip.subset]
    labelled = layout.labelled_seconds(clip.subset, clip.split)
    folder = layout.clip_dir(root, clip.subset, clip.uid)
    if not folder.is_dir():
        raise DataError(f"clip folder missing: {folder}")
    frames = _read_frames(folder / "frames", seconds)
    labels = []
    label_size = None
    for second in range(labelled):
        path = layout.rgb_label_path(root, clip.subset, clip.uid, second)
        if not path.is_file():
            raise DataError(f"label missing: {path}")
        encoded, image = _decode(path, "label")
        _check_label_size(path, image.size, frames[second][1], label_size or image.size)
        label_size = image.size
        _check_label_values(path, image, num_classes)
        labels.append(encoded)
    sound = layout.audio_path(root, clip.subset, clip.uid)
    try:
        examples = audio.log_mel_examples(audio.load_waveform(sound))
        examples = audio.fit_examples(examples, seconds)
    except DataError as fault:
        raise fault if str(sound) in str(fault) else DataError(f"{fault}: {sound}") from fault
    return {
        "uid": clip.uid,
        "subset": clip.subset,
        "frames": [encoded for encoded, _ in frames],
        "labels": labels,
        "labelled": np.arange(seconds) < labelled,
        "objects": list(clip.objects),
        "audio": examples,
    }


def _read_classes(path: Path) -> tuple[str, ...]:
    try:
        ids = layout.class_ids(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, AttributeError) as fault:
        raise DataError(
            f"{path} cannot be read: it should map class names to whole numbers ({fault})"
        ) from fault
    names = sorted(ids, key=ids.__getitem__)
    if [ids[name] for name in names] != list(range(len(names))) or len(names) < 2:
        raise DataError(f"{path}: indices should run 1, 2, 3, ... without gap or repetition")
    if names[0] != layout.BACKGROUND:
        raise DataError(f"{path}: index 1 should be {layout.BACKGROUND!r}, it is {names[0]!r}")
    if len(names) > MAX_CLASSES:
        raise DataError(f"{path}: {len(names)} classes, there can be {MAX_CLASSES} at most")
    return tuple(names)


def _read_rows(path: Path, class_names: tuple[str, ...]) -> list[RawClip]:
    clips, seen = [], set()
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = {"uid", "a_obj", "split", "label"} - set(reader.fieldnames or ())
            if missing:
                raise DataError(f"{path} lacks the columns {', '.join(sorted(missing))}")
            rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as fault:
        raise DataError(f"{path} cannot be read as a table ({fault})") from fault
    for line, row in enumerate(rows, start=2):
        where = f"{path}, line {line}"
        uid, subset, split = ((row[key] or "").strip() for key in ("uid", "label", "split"))
        # The name becomes part of paths that are read and, for masks, written.
        if not uid or uid in (".", "..") or any(c in uid for c in "/\\\0"):
            raise DataError(f"{where}: uid {uid!r} cannot be the name of a folder")
        if subset not in layout.SUBSETS:
            raise DataError(
                f"{where}: label {subset!r} is no subset (they are {', '.join(layout.SUBSETS)})"
            )
        if split not in layout.SPLITS:
            raise DataError(f"{where}: split {split!r} is none of {', '.join(layout.SPLITS)}")
        if (subset, uid) in seen:
            raise DataError(f"{where}: clip {subset}/{uid} stands in the table twice")
        seen.add((subset, uid))
        objects = _read_objects(row["a_obj"] or "", class_names, where)
        clips.append(RawClip(subset, uid, split, objects))
    return clips


def _read_objects(text: str, class_names: tuple[str, ...], where: str) -> tuple[int, ...]:
    """Class ids of an `a_obj` entry. The release has three tokens that are no class names."""
    ids = set()
    for token in text.split(layout.OBJECT_SEPARATOR):
        token = token.replace(" ", "")  # "h orse"
        if token in ("", layout.OFF_SCREEN, layout.BACKGROUND):
            continue
        if token not in class_names:
            raise DataError(f"{where}: a_obj names {token!r}, no class of label2idx.json")
        ids.add(class_names.index(token))
    return tuple(sorted(ids))


def _read_frames(folder: Path, seconds: int) -> list[tuple[bytes, tuple[int, int]]]:
    """Encoded frames with their sizes (width, height), all checked to decode."""
    paths = [
        next((p for s in FRAME_SUFFIXES if (p := folder / f"{t}{s}").is_file()), None)
        for t in range(seconds)
    ]
    missing = [f"{t}.jpg" for t, path in enumerate(paths) if path is None]
    if missing:
        raise DataError(
            f"frames missing in {folder}: {', '.join(missing)} (the clip has {seconds} seconds)"
        )
    frames = []
    for path in paths:
        encoded, image = _decode(path, "frame")
        frames.append((encoded, image.size))
    return frames


def _decode(path: Path, what: str) -> tuple[bytes, Image.Image]:
    encoded = path.read_bytes()
    try:
        image = Image.open(io.BytesIO(encoded), formats=("JPEG", "PNG"))
        image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as fault:
        reason = "the file is empty" if not encoded else "no whole JPEG or PNG image"
        raise DataError(f"corrupt {what}: {path} ({reason})") from fault
    return encoded, image


def _check_label_size(path, size, frame_size, first_size) -> None:
    """A label map covers its frame: same shape up to scale and rounding."""
    (width, height), (frame_width, frame_height) = size, frame_size
    skew = abs(width * frame_height - height * frame_width)
    if size != SQUARE_LABEL and skew > 2 * max(frame_size):
        raise DataError(
            f"label of wrong size: {path} is {width}x{height}, its frame "
            f"{frame_width}x{frame_height}"
        )
    if size != first_size:
        raise DataError(
            f"label of wrong size: {path} is {width}x{height}, those before it in the clip "
            f"{first_size[0]}x{first_size[1]}"
        )


def _check_label_values(path: Path, image: Image.Image, num_classes: int) -> None:
    colours = np.asarray(image.convert("RGB"))
    ids = colours_to_ids(colours)
    highest = int(ids.max())
    if highest >= num_classes:
        colour = tuple(int(v) for v in colours[ids == highest][0])
        raise DataError(
            f"label value out of range: {path} holds colour {colour} of class id {highest}, but "
            f"{layout.LABEL2IDX_NAME} has only ids 0 to {num_classes - 1}"
        )
