"""What was found in one frame, at the frame's own size."""

import dataclasses
import functools
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from aavs_jax.report.visualize import BINARY_PALETTE, class_colours, overlay
from data_pipelines.pages import data_uri, render

LARGEST = 480  # pixels of the longer side of a picture in a notebook


@dataclasses.dataclass(frozen=True)
class Found:
    """One class in one frame.

    Attributes:
      class_id: from 1; 0 is background and is not found.
      name: of the class.
      score: mean of the network's confidence over its pixels, in [0,1].
      share: of the frame's area, in (0,1].
      box: x, y, width, height, in pixels of the frame.
    """

    class_id: int
    name: str
    score: float
    share: float
    box: tuple[int, int, int, int]


@dataclasses.dataclass(frozen=True)
class Result:
    """What sounds in a frame, and where.

    Attributes:
      index: of the frame among those that were asked for, from 0.
      seconds: when it is shown, by the clip's own clock.
      frame: uint8 [H,W,3], RGB, upright.
      grid: uint8 [G,G], class ids as the network gives them.
      confidence: float32 [G,G] in [0,1]: the share of the chosen class in the scores of all.
      classes: names by class id.
    """

    index: int
    seconds: float
    frame: np.ndarray
    grid: np.ndarray
    confidence: np.ndarray
    classes: tuple[str, ...]

    @functools.cached_property
    def mask(self) -> np.ndarray:
        """uint8 [H,W], class ids at the frame's own size, see `at_size`."""
        return at_size(self.grid, self.frame.shape[:2])

    @functools.cached_property
    def objects(self) -> tuple[Found, ...]:
        """What was found, by class id."""
        return tuple(self._found(int(k)) for k in np.unique(self.mask) if k)

    def _found(self, class_id: int) -> Found:
        here = self.mask == class_id
        on_grid = self.grid == class_id
        return Found(
            class_id,
            self.classes[class_id],
            float(self.confidence[on_grid].mean()),
            float(here.mean()),
            cv2.boundingRect(here.astype(np.uint8)),
        )

    def overlay(self) -> np.ndarray:
        """The frame with its masks painted over it, uint8 [H,W,3]."""
        return overlay(self.frame, self.mask, palette_of(self.classes))

    def _repr_html_(self) -> str:
        """How a notebook shows it."""
        picture = Image.fromarray(self.overlay())
        picture.thumbnail((LARGEST, LARGEST))
        colours = palette_of(self.classes).tolist()
        return render(
            Path(__file__).with_name("result.html"),
            picture=data_uri(picture, format="jpeg", quality=90),
            seconds=self.seconds,
            objects=[(found, colours[found.class_id]) for found in self.objects],
        )


def palette_of(classes: tuple[str, ...]) -> np.ndarray:
    """Colours to look at, uint8 [K,3], by class id; background is black."""
    return BINARY_PALETTE if len(classes) == 2 else class_colours(len(classes))


def at_size(grid: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Class ids at another size, with smooth outlines.

    Each class is resized by itself, bilinearly, and the greatest wins: enlarged, the outlines are
    those of the class's share, and sampling the result at the grid's points gives the grid again.

    Args:
      grid: uint8 [G,G'], class ids.
      size: height and width.

    Returns:
      uint8 [H,W].
    """
    if grid.shape == tuple(size):
        return grid
    height, width = size
    shrinks = height < grid.shape[0] or width < grid.shape[1]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    result = np.zeros(size, np.uint8)
    most = np.zeros(size, np.uint8)
    for class_id in np.unique(grid):
        share = cv2.resize((grid == class_id) * np.uint8(255), (width, height), interpolation=how)
        wins = share > most
        result[wins], most[wins] = class_id, share[wins]
    return result
