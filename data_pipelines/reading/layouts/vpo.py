"""VPO (Chen et al., arXiv 2304.02970) in the two layouts in which it is passed on.

As its authors' loaders read it (cyh-0/CAVP, dataset/vpo_stereo), with one row of the table for each
source that sounds; picture and annotation are COCO's numbers, 12 digits, and masks have its ids:

    VPO/VPO-SS/data/<class>/<picture>.jpg
    VPO/VPO-SS/mask/<class>/<picture>_<annotation>.png
    VPO/VPO-MS|VPO-MSMI/data/<picture>.jpg
    VPO/VPO-MS|VPO-MSMI/mask/<picture>.png          one of a picture, with all of its sources
    VPO/VPO-SS|VPO-MS|VPO-MSMI/vpo_<ss|ms|msmi>_data_stereo.csv
    VGGSound/audios/<vgg_file>.wav           also vggsound_bench/VGGSound/audios, or audios

In SS each row is a clip. Pictures of MSMI that show no class twice (multi_instance 0) lie in VPO-MS
with their masks. And as DDESeg arranges it anew, with sounds mixed and class ids 0 to 21 in the
masks:

    VPO-SS|VPO-MS|VPO-MSMI/<uid>/{frames/<jpg>,labels_semantic/<png>,mono_audio.wav,stereo_audio.wav}
    vpo_data_clean.csv
"""

import os
from pathlib import Path

from data_pipelines.errors import DataError
from data_pipelines.facts.vpo import CLASS_NAMES
from data_pipelines.reading import tables
from data_pipelines.reading.layouts import vpo_published, vpo_rearranged
from data_pipelines.reading.names import check_inside, leads_outside, outside_message
from data_pipelines.reading.raw import RawTable

SOUND_FOLDERS = ("vggsound_bench/VGGSound/audios", "VGGSound/audios", "audios")


def recognises(root: Path) -> bool:
    """Whether a folder holds one of VPO's subsets in either layout."""
    return _home(root) is not None


def read(root: Path, *, sounds: Path | None = None, follow_links: bool = False) -> RawTable:
    """Reads the tables of the subsets there are.

    Args:
        root: the folder that holds `VPO`, or that holds `VPO-SS`, `VPO-MS` or `VPO-MSMI`.
        sounds: folder of VGGSound's recordings, where they lie neither in nor beside `root`; of
            no use to the second layout, which brings its own.
        follow_links: whether links may lead out of these folders.

    Returns:
        The table: one still picture and 3 seconds a clip.

    Raises:
        DataError: tables or sounds missing, or not as the layouts have them; no clip at all.
    """
    home = _home(root)
    if home is None:
        raise DataError(f"no VPO in {root}: it should hold VPO-SS, VPO-MS or VPO-MSMI")
    rearranged_here = (home / vpo_rearranged.TABLE).is_file()
    paths = [home / vpo_rearranged.TABLE] if rearranged_here else vpo_published.tables_in(home)
    roots = (Path(os.path.realpath(root)),)
    for path in paths:
        check_inside(path, roots, follow_links)
    if rearranged_here:
        name = "VPO, as DDESeg arranges it"
        clips, findings = vpo_rearranged.read(home)
    else:
        name = "VPO, as published"
        sounds = _sounds(root, home, sounds, follow_links)
        roots += (Path(os.path.realpath(sounds)),)
        clips, findings = vpo_published.read(home, sounds)
    if not clips:
        raise tables.no_clips(root, findings, "its tables have no rows")
    return RawTable(
        layout=name,
        roots=roots,
        class_names=CLASS_NAMES,
        clips=tuple(clips),
        fingerprint=tables.fingerprint(name, paths, clips),
        stereo=True,
        findings=tuple(findings),
    )


def _home(root: Path) -> Path | None:
    """The folder in which the subsets lie."""
    for home in (root, root / "VPO"):
        if (home / vpo_rearranged.TABLE).is_file() or vpo_published.tables_in(home):
            return home
    return None


def _sounds(root: Path, home: Path, given: Path | None, follow_links: bool) -> Path:
    """The folder that holds VGGSound's recordings."""
    if given is not None:
        # Any folder above the recordings will do.
        for folder in (*(given / name for name in SOUND_FOLDERS), given):
            if folder.is_dir():
                return folder
        raise DataError(f"folder of sounds missing: {given}")
    around = Path(os.path.realpath(root)).parent
    for base in (root, home, around):
        for name in SOUND_FOLDERS:
            folder = base / name
            if folder.is_dir():
                if not follow_links and leads_outside(folder, (around,)):
                    raise DataError(f"{outside_message(folder)}, or name it with --sounds")
                return folder
    raise DataError(
        f"no sounds found in or beside {root}: VPO's tables name recordings of VGGSound, say where "
        "they are with --sounds DIR"
    )
