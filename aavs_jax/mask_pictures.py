"""What a picture of a mask holds: masks, shades or classes, of any size and in any encoding.

A folder of masks is of one kind, which few of its pictures give away: a black one can be any, and
of class ids 0 and 1 a mask looks like the ids of one class. So a folder is looked at until one kind
is left, and its pictures are then read as that.
"""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from aavs_jax.errors import UserError
from data_pipelines.avsbench import layout
from data_pipelines.media.labels import MOST_STRAY, colours_to_ids

COLOURS = "class colours"  # AVSBench's
IDS = "class ids"
HARD = "masks of 0 and 1"
GREY = "grey masks"  # 0 to 255, which stand for 0 to 1; 0 and 255 only where the mask is hard
IDS_FOLDER = "labels_semantic"  # AVSBench's: what lies in it are class ids, dark as it may look
# Which kind is taken where a folder can be several, by task. Shades that never get as high as the
# number of classes are of a network that is hardly ever sure: as ids all of them would sound.
PREFERRED = {"binary": (HARD, COLOURS, GREY, IDS), "semantic": (COLOURS, IDS)}


ONE, WHITE, SHADES = "one", "white", "shades"  # see `_brightness`


@dataclasses.dataclass(frozen=True)
class Picture:
    """A decoded picture, as far as it can be read in each way.

    Attributes:
      grey: uint8 [H,W], if it has no colours; of 16 bits rounded, 65535 to 255.
      indices: uint8 [H,W], if it has a palette: the places in it.
      colours: uint8 [H,W,3], if it is RGB or has a palette.
      wide: uint16 [H,W], if it is grey of 16 bits: its values.
    """

    grey: np.ndarray | None
    indices: np.ndarray | None
    colours: np.ndarray | None
    wide: np.ndarray | None = None

    def ids(self) -> np.ndarray | None:
        """The values as they stand: of a palette that is not grey the places in it."""
        if self.wide is not None:
            return self.wide
        return self.grey if self.grey is not None else self.indices

    @property
    def white(self) -> int:
        """The value that stands for 1 in a grey mask."""
        return 255 if self.wide is None else 65535


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
    if mode in ("1", "L", "LA"):
        return Picture(np.asarray(image.convert("L")), None, None)
    if mode.startswith("I") and 0 <= np.min(image) and np.max(image) <= 65535:
        wide = np.asarray(image).astype(np.uint16)
        return Picture(np.rint(wide / 257).astype(np.uint8), None, None, wide)
    if mode not in ("P", "PA", "RGB", "RGBA"):
        raise UserError(f"the mask {path} is a picture of mode {mode}: write it as grey or RGB PNG")
    indices = None
    if mode in ("P", "PA"):
        indices = np.asarray(image if mode == "P" else image.getchannel("P"))
        palette = np.zeros((256, 3), np.uint8)
        entries = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
        palette[: len(entries)] = entries
        colours = palette[indices]
    else:
        colours = np.asarray(image.convert("RGB"))
    is_grey = (colours == colours[..., :1]).all()
    return Picture(colours[..., 0] if is_grey else None, indices, colours)


def kinds(picture: Picture, num_classes: int) -> set[str]:
    """The kinds that a picture can be, of K classes."""
    if picture.grey is not None and not picture.ids().any():
        return {COLOURS, IDS, HARD, GREY}
    found = set()
    if picture.colours is not None:
        ids = colours_to_ids(picture.colours)
        stray = stray_pixels(picture)
        if ids.max() < num_classes and (ids.any() or stray <= MOST_STRAY * ids.size):
            found.add(COLOURS)
        if picture.indices is not None and not stray and (ids == picture.indices).all():
            if ids.any():
                return found  # AVSBench's palette, though all that is to be seen of it may be grey
    if picture.ids() is not None and picture.ids().max() < num_classes:
        found.add(IDS)
    if picture.grey is not None:
        if not _too_dark(picture):
            found.add(GREY)
        if picture.ids().max() <= 1:
            found.add(HARD)
    return found


def stray_pixels(picture: Picture) -> int:
    """How many pixels are not black and have the colour of no class."""
    if picture.colours is None:
        return 0
    coloured = picture.colours.any(axis=-1)
    return int(np.count_nonzero(coloured & (colours_to_ids(picture.colours) == 0)))


def kind_of(paths: Iterable[Path], task: str, num_classes: int) -> str:
    """The kind of a folder's pictures; looks at as many of them as it takes.

    Args:
      paths: of its pictures; walked until one kind is left.
      task: "binary" or "semantic".
      num_classes: K.

    Raises:
      UserError: a picture cannot be read, or is of no kind that serves the task, or of another
        than those before it.
    """
    possible, first, examples = set(PREFERRED[task]), None, {}
    for path in paths:
        picture = load(path)
        here = kinds(picture, num_classes)
        if not here & set(PREFERRED[task]):
            raise UserError(_wrong(path, picture, task, num_classes))
        if not here & possible:
            raise UserError(
                f"the masks are of different kinds: {first} and those before {path} hold "
                f"{' or '.join(sorted(possible))}, and that one {' or '.join(sorted(here))}: write "
                "all of them in one way"
            )
        if first is None:
            first = path
        possible &= here
        if GREY in possible:
            examples.setdefault(_brightness(picture), path)
        # Where all are black and white there may still be one that has 1 for white.
        if len(possible) == 1 and (GREY not in possible or SHADES in examples):
            break
    preferred = PREFERRED[task]
    if task == "binary" and first is not None and first.parent.name == IDS_FOLDER:
        preferred = (HARD, COLOURS, IDS, GREY)
    kind = next(kind for kind in preferred if kind in possible)
    if kind == GREY and SHADES not in examples and {ONE, WHITE} <= set(examples):
        raise UserError(
            f"the masks are of different kinds: {examples[ONE]} holds 0 and 1, and "
            f"{examples[WHITE]} black and white: write all of them as 0 and 255"
        )
    return kind


def _brightness(picture: Picture) -> str:
    """What a picture without colours holds besides black: nothing, ONE, WHITE or SHADES."""
    values = picture.ids()
    highest = values.max()
    if highest <= 1:
        return ONE if highest else "nothing"
    hard = highest == picture.white and not ((values > 0) & (values < highest)).any()
    return WHITE if hard else SHADES


def read(path: Path, kind: str, task: str, size: int, num_classes: int) -> tuple[np.ndarray, int]:
    """A picture as what is scored.

    Args:
      path: of the picture.
      kind: of its folder.
      task: "binary" or "semantic".
      size: G. Classes and masks of 0 and 1 are resized by nearest, shades bilinearly.
      num_classes: K.

    Returns:
      uint8 [G,G]: binary 0 to 255, semantic class ids; and how many pixels have the colour of no
      class, which are background.

    Raises:
      UserError: it cannot be read, or is of another kind.
    """
    picture = load(path)
    if kind not in kinds(picture, num_classes):
        raise UserError(
            f"the masks before {path} hold {kind}, but "
            f"{_wrong(path, picture, task, num_classes, kind)}"
        )
    stray, colours = 0, picture.colours if kind == COLOURS else None  # black may have none
    if task == "semantic":
        stray = 0 if colours is None else stray_pixels(picture)
        values = picture.ids().astype(np.uint8) if colours is None else colours_to_ids(colours)
    elif colours is not None:
        values = colours.any(axis=-1) * np.uint8(255)
    elif kind == GREY:
        values = picture.grey
    else:
        values = (picture.ids() != 0) * np.uint8(255)
    return _resized(values, size, shades=task == "binary"), stray


def _resized(values: np.ndarray, size: int, *, shades: bool) -> np.ndarray:
    if values.shape == (size, size):
        return values
    if shades and ((values != 0) & (values != 255)).any():
        return cv2.resize(values, (size, size), interpolation=cv2.INTER_LINEAR)
    image = Image.fromarray(np.ascontiguousarray(values))
    return np.asarray(image.resize((size, size), Image.Resampling.NEAREST))


def _wrong(
    path: Path, picture: Picture, task: str, num_classes: int, kind: str | None = None
) -> str:
    """What a picture holds that cannot be used."""
    if picture.colours is not None and picture.grey is None:
        ids = colours_to_ids(picture.colours)
        if ids.any() and ids.max() >= num_classes:
            return (
                f"{path} holds the colour of class id {ids.max()}, but the data has "
                f"{num_classes} classes, ids from 0"
            )
        if not ids.any():
            stray = picture.colours[picture.colours.any(axis=-1)][0]
            return (
                f"{path} holds the colour ({', '.join(map(str, stray))}) and none that stands for "
                "a class: AVSBench's are those of Pascal VOC, (128, 0, 0) for id 1"
            )
        return f"{path} holds class colours"
    highest = int(picture.ids().max())
    if task == "binary" and _too_dark(picture):
        return f"{path} has 16 bits and holds 0 and 255, but white is 65535 there"
    if task == "semantic" and _looks_hard(picture.grey):
        return (
            f"{path} holds 0 and {highest}, a mask of where it sounds, but classes are asked for: "
            "score such masks with --config=configs/s4.py or configs/ms3.py, or with "
            "--config=configs/avss.py and --config.schedule=\"('localise',)\""
        )
    if task == "semantic" or kind == IDS:
        return (
            f"{path} holds class id {highest}, but the data has {num_classes} classes, ids from 0"
        )
    return f"{path} holds values up to {highest}"


def _too_dark(picture: Picture) -> bool:
    """Whether white is that of 8 bits, though there are 16: no shades are like that."""
    if picture.wide is None or picture.wide.max() != 255:
        return False
    return not ((picture.wide > 0) & (picture.wide < 255)).any()


def _looks_hard(grey: np.ndarray | None) -> bool:
    return grey is not None and set(np.unique(grey).tolist()) <= {0, 255}


def palette_picture(ids: np.ndarray) -> Image.Image:
    """Class ids [H,W] as a picture with AVSBench's palette, for readers of ids and of colours."""
    image = Image.fromarray(ids).convert("P")
    image.putpalette(layout.palette(256).tobytes())
    return image
