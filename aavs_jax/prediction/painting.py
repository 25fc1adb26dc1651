"""Masks painted over the frames of a film, quickly: what a mask needs is computed once."""

from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from data_pipelines.media import printable

TINT = 0.45  # opacity of a class's colour inside its outline
PANEL = 0.62  # of the legend's ground, which is black


class Painter:
    """Paints class masks over pictures of one size."""

    def __init__(
        self,
        classes: Sequence[str],
        palette: np.ndarray,
        height: int,
        width: int,
        *,
        legend: bool = True,
    ):
        """For pictures of a size.

        Args:
          classes: names by class id; 0 is background, and not painted.
          palette: uint8 [K,3], colours by class id.
          height: of the pictures.
          width: likewise.
          legend: whether the classes are named in the picture.
        """
        self._named = legend
        self._classes, self._size = tuple(classes), (height, width)
        self._palette = np.zeros((1, 256, 3), np.uint8)
        self._palette[0, : len(palette)] = palette
        self._mask: np.ndarray | None = None
        self._area: tuple[slice, slice] | None = None
        self._legends: dict[tuple[int, ...], tuple[np.ndarray, np.ndarray] | None] = {}

    def paint(self, picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """A picture with a mask over it: tint, outlines, and a legend of the classes in it.

        What the mask needs is kept while the same array is given again.

        Args:
          picture: uint8 [H,W,3], RGB; it stays as it is.
          mask: uint8 [H,W], class ids; not to be changed afterwards.

        Returns:
          uint8 [H,W,3]; outside of the masks and the legend it is the picture.
        """
        if mask is not self._mask:
            self._prepare(mask)
        result = picture.copy()
        if self._area is None:
            return result
        part = result[self._area]
        tinted = cv2.addWeighted(part, 1 - TINT, self._colours, TINT, 0)
        cv2.copyTo(tinted, self._inside, part)
        cv2.copyTo(self._colours, self._edge, part)
        if self._legend is not None:
            ink, ground = self._legend
            part = result[: len(ink), : ink.shape[1]]
            part[:] = (part * ground + ink) // 255
        return result

    def _prepare(self, mask: np.ndarray) -> None:
        """What is painted for a mask, within the rectangle that holds all of it."""
        self._mask = mask
        x, y, width, height = cv2.boundingRect((mask > 0).view(np.uint8))
        if not width:
            self._area = None
            return
        self._area = slice(y, y + height), slice(x, x + width)
        thick = max(1, round(min(self._size) / 360))
        kernel = np.ones((2 * thick + 1, 2 * thick + 1), np.uint8)
        # With a margin around the rectangle, or a mask would have no outline where it ends there.
        wide = (
            slice(max(0, y - thick), y + height + thick),
            slice(max(0, x - thick), x + width + thick),
        )
        changes = cv2.morphologyEx(mask[wide], cv2.MORPH_GRADIENT, kernel)
        top, left = y - wide[0].start, x - wide[1].start
        inner = np.ascontiguousarray(mask[self._area])
        self._inside = (inner > 0).view(np.uint8)
        around = changes[top : top + height, left : left + width] > 0
        self._edge = (around & (inner > 0)).view(np.uint8)
        self._colours = cv2.LUT(cv2.merge([inner] * 3), self._palette)
        self._legend = self._legend_of(tuple(int(k) for k in np.unique(inner) if k))

    def _legend_of(self, ids: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray] | None:
        if not self._named:
            return None
        if ids not in self._legends:
            colours = self._palette[0].tolist()
            lines = [(printable(self._classes[k]), tuple(colours[k])) for k in ids]
            self._legends[ids] = _legend(lines, self._size)
        return self._legends[ids]


def _legend(lines: list, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray] | None:
    """What is added, and by what the picture is multiplied: uint16 [h,w,3], of 255, for the upper
    left corner; None where a picture is too small to be written on."""
    height, width = size
    text = max(9, round(min(size) / 28))
    pad, row = round(text * 0.5), round(text * 1.45)
    most = (height - 2 * pad) // row
    if most < 1 or width < 6 * text:
        return None
    if len(lines) > most:
        lines = lines[: most - 1] + [(f"and {len(lines) - most + 1} more", (0, 0, 0))]
    font = ImageFont.load_default(text)
    room = width - 4 * pad - text
    names = [_shortened(name, font, room) for name, _ in lines]
    wide = max(round(font.getlength(name)) for name in names) + 3 * pad + text
    panel = Image.new("RGBA", (pad + wide, pad + len(lines) * row + pad), (0, 0, 0, 0))
    draw = ImageDraw.Draw(panel)
    box = (pad // 2, pad // 2, panel.width - 1, panel.height - 1)
    draw.rounded_rectangle(box, radius=pad, fill=(0, 0, 0, round(255 * PANEL)))
    for number, (name, (_, colour)) in enumerate(zip(names, lines, strict=True)):
        middle = pad + number * row + row // 2
        left, half = pad + pad // 2, text // 2
        draw.rounded_rectangle(
            (left, middle - half, left + 2 * half, middle + half), radius=half // 2, fill=colour
        )
        draw.text((left + text + pad, middle), name, (255, 255, 255), font, anchor="lm")
    drawn = np.asarray(panel).astype(np.uint16)
    opacity = drawn[..., 3:]
    return drawn[..., :3] * opacity + 127, np.repeat(255 - opacity, 3, axis=2)


def _shortened(name: str, font, room: int) -> str:
    if font.getlength(name) <= room:
        return name
    while name and font.getlength(name + "...") > room:
        name = name[:-1]
    return name + "..."
