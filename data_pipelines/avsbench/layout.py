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


def class_ids(label2idx: dict[str, int]) -> dict[str, int]:
    """Class name -> class id (background 0) from the content of `label2idx.json`."""
    return {name: int(index) - 1 for name, index in label2idx.items()}


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
