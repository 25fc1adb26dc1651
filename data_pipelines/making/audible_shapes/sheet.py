"""A contact sheet: some clips with their frames, what sounds in each second, and a spectrogram."""

import os

import numpy as np

from data_pipelines.making import contact_sheet
from data_pipelines.making.audible_shapes.plan import plans
from data_pipelines.making.audible_shapes.scene import Clip, draw
from data_pipelines.making.audible_shapes.shapes import CLASS_NAMES, SHAPES, hsv_to_rgb
from data_pipelines.making.audible_shapes.write import check_numbers


def save(path: str | os.PathLike, *, clips: int, size: int, seed: int) -> None:
    """Draws a dozen clips of the data set (clips, size, seed) into the PNG `path`.

    Raises:
      DataError: the picture cannot be written, or a number is out of range.
    """
    check_numbers(clips, size, seed)
    chosen = contact_sheet.choose(list(plans(seed, clips)))
    head = contact_sheet.head(
        "Audible Shapes", [(name, _colour(shape)) for shape, name in enumerate(CLASS_NAMES)]
    )
    contact_sheet.save(path, [head, *(_row(draw(seed, plan, size)) for plan in chosen)])


def _colour(shape: int, saturation: float = 0.85, value: float = 0.92) -> tuple[int, ...]:
    rgb = hsv_to_rgb(SHAPES[shape].hue, saturation, value)
    return tuple(int(c) for c in np.round(255 * rgb))


def _row(clip: Clip):
    plan = clip.plan
    sources = [(s, False) for s in plan.objects] + [(s, True) for s in plan.off_screen]
    sources.sort(key=lambda pair: (pair[1], not pair[0].active.any(), pair[0].shape))
    lanes = [
        contact_sheet.Lane(
            CLASS_NAMES[source.shape],
            source.active,
            _colour(source.shape),
            _colour(source.shape, 0.25, 0.97),
            off_screen,
        )
        for source, off_screen in sources
    ]
    return contact_sheet.row(plan, clip.frames, clip.labels, clip.waveform, lanes)
