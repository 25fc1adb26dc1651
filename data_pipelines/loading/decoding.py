"""From encoded pictures to arrays at the sizes that networks see."""

import io
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from data_pipelines.errors import DataError
from data_pipelines.media.labels import IGNORED, colours_to_ids

# Grain and XLA share the cores; threads of OpenCV's own would only stand in their way.
cv2.setNumThreads(1)


RESIZES = ("squash", "centre_crop")  # both sides to the same; the shorter one, then its middle


def _place(width: int, height: int, size: int, resize: str) -> tuple[tuple[int, int], slice, slice]:
    """How a picture becomes [size, size]: what it is resized to, and which rows and columns stay.

    Of 'centre_crop' as torchvision has it: the longer side is rounded down, the corner to even.
    """
    if resize == "squash":
        return (size, size), slice(size), slice(size)
    shorter = min(width, height)
    wide, high = width * size // shorter, height * size // shorter
    left, top = round((wide - size) / 2), round((high - size) / 2)
    return (wide, high), slice(top, top + size), slice(left, left + size)


def _resized(image: Image.Image, size: int, resize: str, how: Image.Resampling) -> np.ndarray:
    new, rows, columns = _place(*image.size, size, resize)
    if image.size != new:  # Pillow would copy what fits already
        image = image.resize(new, how)
    return np.asarray(image)[rows, columns]


def decode_frame(encoded: bytes, size: int, resize: str = "squash") -> np.ndarray:
    """Decodes a frame and resizes it as Pillow's bilinear does (antialiased when shrinking).

    Args:
        encoded: JPEG or PNG.
        size: S, pixels.
        resize: of RESIZES.

    Returns:
        uint8 [S, S, 3], RGB.
    """
    image = Image.open(io.BytesIO(encoded))
    if image.mode != "RGB":
        image = image.convert("RGB")
    return _resized(image, size, resize, Image.Resampling.BILINEAR)


def semantic_label(encoded: bytes, size: int, resize: str = "squash") -> np.ndarray:
    """Class ids of a colour label: nearest (Pillow's, at pixel centres), then colour -> id.

    Args:
        encoded: PNG of class colours.
        size: G, pixels.
        resize: of RESIZES.

    Returns:
        uint8 [G, G], IGNORED (255) where the label is ignored.
    """
    return colours_to_ids(_nearest_colours(encoded, size, resize))


def binary_label(
    encoded: bytes, size: int, ignores: bool = False, resize: str = "squash"
) -> np.ndarray:
    """Foreground of a colour label: OpenCV's bilinear (no antialias), then grey > 0.

    A pixel that the object only touches counts as foreground. Ignored pixels touch nothing, and
    where the nearest one is ignored, so is the result.

    Args:
        encoded: PNG of class colours.
        size: G, pixels.
        ignores: whether the label may have ignored pixels.
        resize: of RESIZES.

    Returns:
        uint8 [G, G], 0, 1 or, with `ignores`, IGNORED (255).
    """
    colours = np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))
    if ignores:
        ignored = colours_to_ids(colours) == IGNORED
        colours = np.where(ignored[..., None], np.uint8(0), colours)
    new, rows, columns = _place(colours.shape[1], colours.shape[0], size, resize)
    colours = cv2.resize(colours, new, interpolation=cv2.INTER_LINEAR)[rows, columns]
    label = (cv2.cvtColor(colours, cv2.COLOR_RGB2GRAY) > 0).astype(np.uint8)
    return _with_ignored(label, encoded, resize) if ignores else label


def nearest_binary_label(
    encoded: bytes, size: int, ignores: bool = False, resize: str = "squash"
) -> np.ndarray:
    """Foreground of a colour label: the nearest pixel (Pillow's, at pixel centres) is not black.

    Args and result are those of `binary_label`.
    """
    label = _nearest_colours(encoded, size, resize).any(axis=-1).astype(np.uint8)
    return _with_ignored(label, encoded, resize) if ignores else label


def _nearest_colours(encoded: bytes, size: int, resize: str) -> np.ndarray:
    """uint8 [G, G, 3] of a label; resized before it is converted: fewer pixels, the same ones."""
    image = Image.open(io.BytesIO(encoded))
    new, rows, columns = _place(*image.size, size, resize)
    image = image.resize(new, Image.Resampling.NEAREST)
    return np.asarray(image.convert("RGB"))[rows, columns]


def _with_ignored(label: np.ndarray, encoded: bytes, resize: str) -> np.ndarray:
    """A binary label [G, G], IGNORED where the nearest pixel of the label map is."""
    ids = semantic_label(encoded, len(label), resize)
    return np.where(ids == IGNORED, np.uint8(IGNORED), label)


def sounding(labels: np.ndarray) -> np.ndarray:
    """Where labels show something that sounds, bool; an ignored pixel shows nothing."""
    return (labels != 0) & (labels != IGNORED)


def predicted_mask(path: Path, size: int) -> np.ndarray:
    """Reads a mask that stage one, or another tool, wrote.

    Args:
        path: grey PNG, 0 to 255; also of 16 bits, 0 to 65535, with a palette of greys; or
            black and white in three channels.
        size: G; a mask of another size is resized bilinearly.

    Returns:
        uint8 [G, G]; divided by 255 it is the prior.

    Raises:
        DataError: the file is missing or no picture; it is of colours or class ids; or so dark
            that white must have been meant otherwise.
    """
    try:
        with Image.open(path) as image:
            image.load()
    except FileNotFoundError as fault:
        raise DataError(
            f"predicted mask missing: {path}; a stage of the run writes its masks when it is "
            "complete, and a folder of another tool has to hold one for every second"
        ) from fault
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as fault:
        raise DataError(
            f"predicted mask cannot be read: {path}; delete the folder masks and results.json of "
            "the stage that wrote it, and start the command again"
        ) from fault
    mask = _greys(path, image)
    if mask.shape != (size, size):
        mask = cv2.resize(mask, (size, size), interpolation=cv2.INTER_LINEAR)
    return mask


def _greys(path: Path, image: Image.Image) -> np.ndarray:
    """The greys of a predicted mask, uint8 [H, W]."""
    if image.mode == "L":
        mask = np.asarray(image)
        # No mask of shades is worth reading whose highest is 1 of 255: a hard one is meant, or ids.
        if mask.max() == 1:
            raise _no_greys(path, "holds only 0 and 1")
        return mask
    # What is not shown counts, too: a class may have a grey colour in a palette of others.
    palette = image.getpalette("RGB") if image.mode == "P" else None
    if image.mode == "1" or (palette and palette[::3] == palette[1::3] == palette[2::3]):
        return _greys(path, image.convert("L"))
    if image.mode == "RGB":
        channels = np.asarray(image)
        # Black and white in three channels, as some tools save it; other greys may be a class's.
        if np.isin(channels, (0, 255)).all() and (channels == channels[..., :1]).all():
            return channels[..., 0]
    # Of 32 bits, "I", Pillow also has what other formats hold, whose white nobody knows.
    if image.mode.startswith("I;16"):
        wide = np.asarray(image)
        if 0 < wide.max() <= 255:
            raise _no_greys(path, f"has 16 bits, but holds no value above {wide.max()}")
        return np.rint(wide / 257).astype(np.uint8)
    coloured = " with colours" if image.mode in ("P", "PA", "RGB") else ""
    raise _no_greys(path, f"is a picture of mode {image.mode}{coloured}")


def _no_greys(path: Path, what: str) -> DataError:
    return DataError(
        f"predicted mask {path} {what}: write masks as grey PNG from 0 to 255 (of 16 bits to "
        "65535), where hard ones hold 0 and 255 and empty ones 0 only"
    )
