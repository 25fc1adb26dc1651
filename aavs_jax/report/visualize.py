"""Pictures: masks over frames, and grids of frames. NumPy and Pillow only."""

import colorsys
import io
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

GAP = 3  # pixels between the pictures of a mosaic
BINARY_PALETTE = np.array([[0, 0, 0], [255, 64, 48]], np.uint8)


def class_colours(count: int) -> np.ndarray:
    """Bright, distinct colours for class ids, uint8 [count, 3]; class 0, background, is black.

    For looking at: many of VOC's colours, in which masks are stored, are too dark over a picture.
    Hues go round by the golden ratio, so that neighbouring ids are far apart.
    """
    colours = [(0, 0, 0)]
    for index in range(1, count):
        hue, saturation = index * 0.618034 % 1, (0.85, 0.6, 1.0)[index // 12 % 3]
        colours.append(tuple(round(255 * c) for c in colorsys.hsv_to_rgb(hue, saturation, 1.0)))
    return np.array(colours, np.uint8)


def resize_nearest(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """[H, W] or [H, W, 3], any dtype -> the same at `size` (height, width), nearest neighbour."""
    if image.shape[:2] == tuple(size):
        return image
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(int)
        for new, old in zip(size, image.shape[:2], strict=True)
    )
    return image[rows[:, None], columns]


def overlay(
    frame: np.ndarray,
    labels: np.ndarray,
    palette: np.ndarray | None = None,
    alpha: float = 0.65,
    fade: float = 0.75,
) -> np.ndarray:
    """Paints a mask over a frame: class colours inside, thin outlines, a faded frame outside.

    The fading lets a mask's colour stand out where the picture itself is colourful.

    Args:
      frame: uint8 [H, W, 3].
      labels: bool or integer [H', W'], class ids with 0 = nothing; resized to the frame by nearest.
      palette: uint8 [K, 3]; default: red for a bool mask, else `class_colours`.
      alpha: opacity of the class colour, 0..1.
      fade: how far the picture outside goes towards dim grey, 0 (as it is)..1.

    Returns:
      uint8 [H, W, 3].

    Raises:
      ValueError: a class id without a colour in the palette.
    """
    if palette is None:
        palette = BINARY_PALETTE if labels.dtype == bool else class_colours(256)
    labels = resize_nearest(labels, frame.shape[:2]).astype(int)
    if labels.size and not 0 <= labels.min() <= labels.max() < len(palette):
        raise ValueError(f"class ids up to {labels.max()}, but {len(palette)} colours")
    picture = frame.astype(np.float32)
    grey = picture @ np.array([0.299, 0.587, 0.114], np.float32)
    colour = palette[labels].astype(np.float32)
    outside = picture * (1 - fade) + 0.7 * fade * grey[..., None]
    # Inside, the picture is kept as brightness, so that the hue is the class's alone.
    inside = (1 - alpha) * grey[..., None] + alpha * colour
    edge = _inner_edge(labels, max(1, round(min(frame.shape[:2]) / 180)))
    result = np.where((labels > 0)[..., None], inside, outside)
    result = np.where(edge[..., None], 0.5 * colour + 127.5, result)
    return np.clip(result + 0.5, 0, 255).astype(np.uint8)


def _inner_edge(labels: np.ndarray, width: int) -> np.ndarray:
    """bool [H, W]: pixels of a class that lie within `width` of another label."""
    padded = np.pad(labels, width, mode="edge")
    height, columns = labels.shape
    edge = np.zeros(labels.shape, bool)
    for shift in range(1, width + 1):
        for dy, dx in ((shift, 0), (-shift, 0), (0, shift), (0, -shift)):
            y, x = width + dy, width + dx
            edge |= padded[y : y + height, x : x + columns] != labels
    return edge & (labels > 0)


def mosaic(
    rows: Sequence[Sequence[np.ndarray | None]],
    row_labels: Sequence[str] | None = None,
    scale: int = 1,
) -> np.ndarray:
    """A grid of pictures on white, such as frames, truth and predictions with a column per second.

    Args:
      rows: uint8 [h, w, 3] pictures; None leaves a cell empty, rows may differ in length. All take
        the first picture's size.
      row_labels: text to the left of each row.
      scale: enlarges every picture by this whole factor.

    Returns:
      uint8 [H, W, 3].
    """
    first = next(image for row in rows for image in row if image is not None)
    height, width = first.shape[0] * scale, first.shape[1] * scale
    count = max(map(len, rows))
    margin = 0
    if row_labels:
        font = ImageFont.load_default(max(11, height // 9))
        margin = 2 * GAP + max(math.ceil(font.getlength(label)) for label in row_labels)
    sheet = np.full(
        (len(rows) * (height + GAP) - GAP, margin + count * (width + GAP) - GAP, 3), 255, np.uint8
    )
    for r, row in enumerate(rows):
        for c, image in enumerate(row):
            if image is not None:
                y, x = r * (height + GAP), margin + c * (width + GAP)
                sheet[y : y + height, x : x + width] = resize_nearest(image, (height, width))
    if not row_labels:
        return sheet
    canvas = Image.fromarray(sheet)
    for r, label in enumerate(row_labels):
        centre = r * (height + GAP) + height // 2
        ImageDraw.Draw(canvas).text((GAP, centre), label, (40, 44, 52), font, anchor="lm")
    return np.array(canvas)


def to_png_bytes(image: np.ndarray) -> bytes:
    """uint8 [H, W, 3] or [H, W] -> an encoded PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "png", optimize=True)
    return buffer.getvalue()
