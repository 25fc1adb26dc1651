"""The facts of AVSBench's unified layout which its reader and its writer share.

    <root>/metadata.csv                     one row per clip (METADATA_COLUMNS)
    <root>/label2idx.json                       class name -> 1-based index; background is 1
    <root>/<subset>/<uid>/frames/<i>.jpg        one per second, i from 0
    <root>/<subset>/<uid>/labels_rgb/<i>.png    class colours; only i = 0 for v1s clips of train
    <root>/<subset>/<uid>/labels_semantic/<i>.png   class ids
    <root>/<subset>/<uid>/audio.wav

A *subset* is what `metadata.csv` calls `label`. A *class id* is the index of `label2idx.json` minus
one, so background is 0. Masks of stage one are kept as `masks/<subset>/<uid>/<i>.png`.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np

SUBSETS = ("v1s", "v1m", "v2")
SUBSET_SECONDS = {"v1s": 5, "v1m": 5, "v2": 10}  # seconds = frames of one clip
SPLITS = ("train", "val", "test")
SAMPLE_RATE = 16_000  # Hz, of the sound as the networks see it; files may hold other rates

METADATA_NAME = "metadata.csv"
METADATA_COLUMNS = ("vid", "uid", "s_min", "s_sec", "a_obj", "split", "label")
LABEL2IDX_NAME = "label2idx.json"
BACKGROUND = "background"
# Token of `a_obj` for a sound whose source is not in the picture; it is no class.
OFF_SCREEN = "off-the-screen"
OBJECT_SEPARATOR = "_"  # joins the tokens of `a_obj`

# Clips of the published release (Zhou et al., arXiv 2301.13190), counted in its metadata.csv.
PUBLISHED_CLIPS = {
    (subset, split): clips
    for subset, *counts in (("v1s", 3452, 740, 740), ("v1m", 296, 64, 64), ("v2", 4750, 500, 750))
    for split, clips in zip(SPLITS, counts, strict=True)
}

# The classes of the release's label2idx.json, by class id.
CLASS_NAMES = tuple(
    """
    background accordion airplane axe baby bassoon bell bird boat boy bus car cat cello clarinet
    clipper clock dog donkey drum duck elephant emergency-car erhu flute frying-food girl goose
    guitar gun guzheng hair-dryer handpan harmonica harp helicopter hen horse keyboard leopard lion
    man marimba missile-rocket motorcycle mower parrot piano pig pipa saw saxophone sheep sitar
    sorna squirrel tabla tank tiger tractor train trombone truck trumpet tuba ukulele utv
    vacuum-cleaner violin wolf woman
    """.split()
)

# The sound categories of the first release's single-source clips (S4), in alphabetical order, and
# the classes which their objects are called in the unified release: one of each for one of each.
S4_CATEGORIES = {
    "ambulance_siren": "emergency-car",
    "baby_laughter": "baby",
    "cap_gun_shooting": "gun",
    "cat_meowing": "cat",
    "chainsawing_trees": "saw",
    "coyote_howling": "wolf",
    "dog_barking": "dog",
    "driving_buses": "bus",
    "female_singing": "woman",
    "helicopter": "helicopter",
    "horse_clip-clop": "horse",
    "lawn_mowing": "mower",
    "lions_roaring": "lion",
    "male_speech": "man",
    "mynah_bird_singing": "bird",
    "playing_acoustic_guitar": "guitar",
    "playing_glockenspiel": "marimba",
    "playing_piano": "piano",
    "playing_tabla": "tabla",
    "playing_ukulele": "ukulele",
    "playing_violin": "violin",
    "race_car": "car",
    "typing_on_computer_keyboard": "keyboard",
}


def palette(n: int = 256) -> np.ndarray:
    """Colours of class ids 0..n-1 by the Pascal-VOC bit rule.

    Returns:
      uint8 [n, 3], RGB. The colours of 256 classes are all different.
    """
    ids = np.arange(n)
    colours = np.zeros((n, 3), np.uint8)
    for level in range(8):
        for channel in range(3):
            bit = (ids >> (3 * level + channel)) & 1
            colours[:, channel] |= (bit << (7 - level)).astype(np.uint8)
    return colours


def published_clips(rows: Mapping[tuple[str, str], int]) -> dict[tuple[str, str], int]:
    """What a complete copy holds of the subsets that a table can be a copy of.

    A table that names less than nine tenths of a subset's published clips is no copy of it, but a
    set of one's own in AVSBench's layout.

    Args:
        rows: (subset, split) -> rows of the table.
    """
    named, published = Counter(), Counter()
    for (subset, _), count in rows.items():
        named[subset] += count
    for (subset, _), count in PUBLISHED_CLIPS.items():
        published[subset] += count
    return {
        key: count
        for key, count in PUBLISHED_CLIPS.items()
        if 10 * named[key[0]] >= 9 * published[key[0]]
    }


def labelled_seconds(subset: str, split: str) -> int:
    """How many seconds from the start of a clip have labels (v1s trains on its first only)."""
    return 1 if subset == "v1s" and split == "train" else SUBSET_SECONDS[subset]


def clip_dir(root, subset: str, uid: str) -> Path:
    return Path(root) / subset / uid


def frame_path(root, subset: str, uid: str, second: int) -> Path:
    return clip_dir(root, subset, uid) / "frames" / f"{second}.jpg"


def rgb_label_path(root, subset: str, uid: str, second: int) -> Path:
    return clip_dir(root, subset, uid) / "labels_rgb" / f"{second}.png"


def semantic_label_path(root, subset: str, uid: str, second: int) -> Path:
    return clip_dir(root, subset, uid) / "labels_semantic" / f"{second}.png"


def audio_path(root, subset: str, uid: str) -> Path:
    return clip_dir(root, subset, uid) / "audio.wav"


def mask_path(masks_root, subset: str, uid: str, second: int) -> Path:
    """Where stage one writes its mask (0/255) of one frame; `masks_root` ends in `masks`."""
    return Path(masks_root) / subset / uid / f"{second}.png"
