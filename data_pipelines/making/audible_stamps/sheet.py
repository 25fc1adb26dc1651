"""A contact sheet: some clips with their frames, what sounds in each second, and a spectrogram."""

import colorsys
import os

from data_pipelines.making import contact_sheet
from data_pipelines.making.audible_stamps import media as media_files
from data_pipelines.making.audible_stamps.plan import plans
from data_pipelines.making.audible_stamps.scene import Clip, draw
from data_pipelines.making.audible_stamps.write import check_numbers


def save(
    path: str | os.PathLike,
    *,
    packages: str | os.PathLike | None,
    clips: int,
    size: int,
    seed: int,
    held_out: bool,
) -> None:
    """Draws a dozen clips of the data set that `make` makes of the same arguments.

    Args:
      path: of the PNG.
      packages: where the packages were unpacked; None: they are installed.
      clips: how many clips there are.
      size: side of the frames in pixels.
      seed: of all chance.
      held_out: whether some stamps are kept for the test split.

    Raises:
      DataError: the picture cannot be written, the packages cannot be read, or a number is out of
        range.
    """
    check_numbers(clips, size, seed)
    media = media_files.load(media_files.find(packages), size)
    chosen = contact_sheet.choose(list(plans(seed, clips, media.stamps, held_out)))
    rows = [_row(draw(seed, plan, media, size)) for plan in chosen]
    contact_sheet.save(path, [contact_sheet.head("Audible Stamps"), *rows])


def _colour(class_id: int, saturation: float = 0.75, value: float = 0.85) -> tuple[int, ...]:
    hue = class_id * 0.618034 % 1  # the golden section keeps neighbours far apart
    return tuple(round(255 * c) for c in colorsys.hsv_to_rgb(hue, saturation, value))


def _row(clip: Clip):
    plan = clip.plan
    sources = [(s, False) for s in plan.objects] + [(s, True) for s in plan.off_screen]
    sources.sort(key=lambda pair: (pair[1], not pair[0].active.any(), pair[0].class_id))
    lanes = [
        contact_sheet.Lane(
            source.stamp.name,
            source.active,
            _colour(source.class_id),
            _colour(source.class_id, 0.25, 0.97),
            off_screen,
        )
        for source, off_screen in sources
    ]
    return contact_sheet.row(plan, clip.frames, clip.labels, clip.waveform, lanes)
