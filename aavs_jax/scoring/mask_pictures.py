"""What a picture of a mask holds, of any size and in any encoding.

A picture says by itself what it holds only where its colours are AVSBench's, or where it is black
and white and the question is where it sounds. Values of 0 and 1 or levels of grey may be several
things, and are never guessed: whoever scores such masks says which (`--masks-kind`).
"""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from aavs_jax.errors import UserError
from data_pipelines.facts import avsbench
from data_pipelines.media.labels import MOST_STRAY, colours_to_ids

BINARY, SOFT, IDS, COLOURS = "binary", "soft", "ids", "colours"
KINDS = {  # what they mean, for people
    BINARY: "black, and one other value where it sounds",
    SOFT: "levels of grey, white for 1",
    IDS: "values, or places in a palette, are class ids",
    COLOURS: "AVSBench's class colours",
}
SEMANTIC = (IDS, COLOURS)  # kinds that say what sounds, not only where
_WHERE_CONFIGS = (
    "score such masks with --config=configs/s4.py or configs/ms3.py, or with "
    "--config=configs/avss.py and --config.schedule=\"('localise',)\""
)


@dataclasses.dataclass(frozen=True)
class Picture:
    """A decoded picture, as far as it can be read in each way.

    Attributes:
      grey: uint8 or uint16 [H,W], if it has no colours.
      values: the same as they stand in the file: of a palette the places in it. None of RGB
        pictures with colours.
      colours: uint8 [H,W,3]; None of 16 bits.
    """

    grey: np.ndarray | None
    values: np.ndarray | None
    colours: np.ndarray | None

    @property
    def white(self) -> int:
        """The value that stands for 1 in a soft mask."""
        return 65535 if self.colours is None else 255


def load(path: Path) -> Picture:
    """Decodes a picture.

    Raises:
      UserError: it is missing, damaged, in a mode that no mask has, or partly transparent.
    """
    try:
        with Image.open(path) as image:
            image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(
            f"the mask {path} cannot be read ({type(error).__name__}): write it again as PNG"
        ) from error
    mode = image.mode
    if mode in ("LA", "PA", "RGBA") and len(set(image.getchannel("A").getextrema())) > 1:
        raise UserError(
            f"the mask {path} is transparent in some places only, so that its colours may not be "
            "the mask: write it as PNG without an alpha channel"
        )
    if mode.startswith("I") and 0 <= np.min(image) and np.max(image) <= 65535:
        wide = np.asarray(image).astype(np.uint16)
        return Picture(wide, wide, None)
    if mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA"):
        raise UserError(f"the mask {path} is a picture of mode {mode}: write it as grey or RGB PNG")
    image.info.pop("transparency", None)  # a palette's, which Pillow would warn of
    colours = np.asarray(image.convert("RGB"))
    grey = colours[..., 0] if (colours == colours[..., :1]).all() else None
    values = np.asarray(image.getchannel("P")) if mode in ("P", "PA") else grey
    return Picture(grey, values, colours)


def check_kind(kind: str | None, task: str) -> None:
    """Asked before masks are looked for.

    Args:
      kind: one of KINDS, or None where the pictures have to say it.
      task: "binary" or "semantic".

    Raises:
      UserError: there is no such kind, or it does not serve the task.
    """
    if kind is not None and kind not in KINDS:
        raise UserError(f"--masks-kind={kind} is no kind of masks: there are {', '.join(KINDS)}")
    if kind is not None and task == "semantic" and kind not in SEMANTIC:
        raise UserError(
            f"masks of --masks-kind={kind} say where it sounds, but classes are asked for: "
            f"{_WHERE_CONFIGS}"
        )


def kind_of(paths: Iterable[Path], task: str) -> str:
    """The kind of a folder's pictures, by the first that is not black.

    Args:
      paths: of its pictures.
      task: "binary" or "semantic".

    Raises:
      UserError: a picture cannot be read, does not serve the task, or does not say what it holds.
    """
    for path in paths:
        picture = load(path)
        if picture.grey is None or picture.grey.any():
            return _kind_of(path, picture, task)
    return BINARY if task == "binary" else IDS  # all of them are black


def _kind_of(path: Path, picture: Picture, task: str) -> str:
    if picture.values is None:
        return COLOURS
    if picture.colours is not None and (colours_to_ids(picture.colours) == picture.values).all():
        return COLOURS  # AVSBench's palette
    hard = picture.grey is not None and set(np.unique(picture.grey)) <= {0, picture.white}
    if hard and task == "binary":
        return BINARY
    if hard:
        raise UserError(
            f"{path} holds black and white, a mask of where it sounds, but classes are asked for: "
            f"{_WHERE_CONFIGS}"
        )
    choices = KINDS if task == "binary" else SEMANTIC
    raise UserError(
        f"{path} holds values up to {picture.values.max()} and does not say what they mean: add "
        + " or ".join(f"--masks-kind={kind} ({KINDS[kind]})" for kind in choices)
    )


def read(path: Path, kind: str, task: str, size: int, num_classes: int) -> tuple[np.ndarray, int]:
    """A picture as what is scored.

    Args:
      path: of the picture.
      kind: one of KINDS that serves the task.
      task: "binary" or "semantic".
      size: G. Soft masks are resized bilinearly, all others by nearest.
      num_classes: K.

    Returns:
      uint8 [G,G]: binary 0 to 255, semantic class ids; and how many pixels of a semantic task have
      the colour of no class, which are background.

    Raises:
      UserError: it cannot be read, or is not of this kind.
    """
    picture = load(path)
    if fault := _fault(picture, kind, num_classes):
        raise UserError(
            f"{path} {fault}, but masks of the kind {kind} are scored ({KINDS[kind]}): write all "
            f"masks alike, or add another --masks-kind, one of {', '.join(KINDS)}"
        )
    stray = 0
    if kind == SOFT:
        values = np.rint(picture.grey / (picture.white / 255)).astype(np.uint8)
    elif task == "binary":
        values = picture.values if kind == IDS else picture.grey
        values = picture.colours.any(axis=-1) if values is None else values != 0
        values = values * np.uint8(255)
    elif kind == IDS:
        values = picture.values.astype(np.uint8)
    else:
        values, stray = colours_to_ids(picture.colours), _stray_pixels(picture)
    return _resized(values, size, smoothly=kind == SOFT), stray


def _fault(picture: Picture, kind: str, num_classes: int) -> str:
    """What a picture holds that does not fit a kind, '' if it fits."""
    if (picture.grey if kind in (BINARY, SOFT) else picture.values) is None and kind != COLOURS:
        return "holds colours"
    if kind == BINARY and (levels := len(np.unique(picture.grey[picture.grey > 0]))) > 1:
        return f"holds {levels} values besides 0"
    if kind == IDS and picture.values.max() >= num_classes:
        return _above(f"class id {picture.values.max()}", num_classes)
    if kind != COLOURS:
        return ""
    if picture.colours is None:
        return "has 16 bits and no colours"
    ids = colours_to_ids(picture.colours)
    if ids.max() >= num_classes:
        return _above(f"the colour of class id {ids.max()}", num_classes)
    if not ids.any() and _stray_pixels(picture) > MOST_STRAY * ids.size:
        stray = picture.colours[picture.colours.any(axis=-1)][0]
        return (
            f"holds the colour ({', '.join(map(str, stray))}) and none that stands for a class "
            "(AVSBench's are those of Pascal VOC, (128, 0, 0) for id 1)"
        )
    return ""


def _above(what: str, num_classes: int) -> str:
    return f"holds {what} where the data has {num_classes} classes, ids from 0"


def _stray_pixels(picture: Picture) -> int:
    """How many pixels are not black and have the colour of no class."""
    coloured = picture.colours.any(axis=-1)
    return int(np.count_nonzero(coloured & (colours_to_ids(picture.colours) == 0)))


def _resized(values: np.ndarray, size: int, *, smoothly: bool) -> np.ndarray:
    if values.shape == (size, size):
        return values
    if smoothly and ((values != 0) & (values != 255)).any():
        return cv2.resize(values, (size, size), interpolation=cv2.INTER_LINEAR)
    image = Image.fromarray(np.ascontiguousarray(values))
    return np.asarray(image.resize((size, size), Image.Resampling.NEAREST))


def palette_picture(ids: np.ndarray) -> Image.Image:
    """Class ids [H,W] as a picture with AVSBench's palette, for readers of ids and of colours."""
    image = Image.fromarray(ids).convert("P")
    image.putpalette(avsbench.palette(256).tobytes())
    return image
