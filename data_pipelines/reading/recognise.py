"""Says what a folder is by looking at it, and reads it."""

import os
from pathlib import Path

from data_pipelines.errors import DataError
from data_pipelines.reading.layouts import first_release, folders, unified, vpo
from data_pipelines.reading.raw import RawTable

# Those that have tables; plain folders are what is none of them.
PUBLISHED = (unified, first_release, vpo)
LOOKED_AT = 1000  # entries of a folder in which a published layout is looked for


def read_table(
    root: Path, *, sounds: str | os.PathLike[str] | None = None, follow_links: bool = False
) -> RawTable:
    """Reads a folder in any layout that is known (docs/data.md draws them).

    Args:
        root: the folder, or one that holds nothing else of the kind.
        sounds: VGGSound's recordings, for VPO, where they lie neither in nor beside `root`.
        follow_links: whether links may lead out of the folder.

    Returns:
        Its table.

    Raises:
        DataError: no such folder, none of the layouts, or faults in its tables.
    """
    root = Path(root)
    sounds = None if sounds is None else Path(sounds)
    try:
        if not root.is_dir():
            raise DataError(f"data folder missing: {root}")
        return _read(root, sounds, follow_links)
    except OSError as fault:
        where = f" ({fault.filename})" if fault.filename else ""
        raise DataError(f"{root} cannot be read: {fault.strerror or fault}{where}") from fault


def _read(root: Path, sounds: Path | None, follow_links: bool) -> RawTable:
    layout = _layout_of(root)
    if layout is None:
        inner = _folders_in(root, follow_links)
        if len(inner) > 1:
            names = ", ".join(path.name for path in inner)
            raise DataError(f"{root} holds several data sets: name one of {names}")
        if inner:
            root, layout = inner[0], _layout_of(inner[0])
    if layout is vpo:
        return vpo.read(root, sounds=sounds, follow_links=follow_links)
    if layout is not None:
        return layout.read(root, follow_links=follow_links)
    if folders.recognises(root):
        return folders.read(root, follow_links=follow_links)
    raise DataError(
        f"no data set recognised in {root}: it is neither AVSBench (metadata.csv; or s4_data, "
        "ms3_data), nor VPO (VPO-SS, VPO-MS, VPO-MSMI), nor a folder of clips with frames or "
        "videos (docs/data.md draws what is looked for)"
    )


def _layout_of(root: Path):
    try:
        return next((layout for layout in PUBLISHED if layout.recognises(root)), None)
    except OSError:  # not ours to read
        return None


def _folders_in(root: Path, follow_links: bool) -> list[Path]:
    """Folders one level down that are in a published layout."""
    with os.scandir(root) as entries:
        names = [entry.name for _, entry in zip(range(LOOKED_AT), entries, strict=False)]
    inner = [root / name for name in sorted(names)]
    return [
        path
        for path in inner
        if path.is_dir() and (follow_links or not path.is_symlink()) and _layout_of(path)
    ]
