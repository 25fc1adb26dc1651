"""A contact sheet of made clips: their frames, what sounds in each second, and a spectrogram."""

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from data_pipelines.errors import DataError, reason, remedy
from data_pipelines.making.compositions import Clip, Composition

_PAPER, _INK, _FAINT = (250, 249, 246), (40, 40, 44), (214, 212, 206)
_CELL = 132  # side of a frame on the sheet, in pixels; one second is as wide as one frame
_GAP = 4
_NAMES = 156  # width of the column of names
_LANE = 15  # height of the line that shows one source
_SPECTROGRAM = 48
_SHOWN = (("v1s", 3), ("v1m", 4), ("v2", 5))

Colour = tuple[int, ...]  # red, green, blue
Colours = Callable[[int], tuple[Colour, Colour]]  # class id -> full and pale


def choose(plans: Sequence[Composition]) -> list[Composition]:
    """Some clips of each subset, spread over the data set; off-screen sounds surely among them."""
    chosen = []
    for subset, count in _SHOWN:
        pool = [plan for plan in plans if plan.subset == subset]
        at = np.linspace(0, len(pool) - 1, min(count, len(pool))).astype(int)
        picked = [pool[i] for i in at]
        hidden = [plan for plan in pool if plan.off_screen]
        if hidden and not any(plan.off_screen for plan in picked):
            picked[-1] = hidden[0]
        chosen += picked
    return chosen


def save(
    path: str | os.PathLike,
    title: str,
    plans: Sequence[Composition],
    draw: Callable[[Composition], Clip],
    colours: Colours,
    classes: Sequence[tuple[str, Colour]] = (),
) -> None:
    """Draws some of the clips of a data set into the PNG `path`.

    `classes` are names and colours to explain.

    Raises:
      DataError: the picture cannot be written.
    """
    blocks = [head(title, classes), *(row(draw(plan), colours) for plan in choose(plans))]
    width = max(block.width for block in blocks)
    sheet = Image.new("RGB", (width, sum(block.height for block in blocks)), _PAPER)
    top = 0
    for block in blocks:
        sheet.paste(block, (0, top))
        top += block.height
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        sheet.save(path, format="PNG")
    except OSError as error:
        raise DataError(
            f"cannot write the contact sheet {path}: {reason(error)}; {remedy(error)}, or give "
            "--show another place"
        ) from error


def head(title: str, classes: Sequence[tuple[str, Colour]] = ()) -> Image.Image:
    """Title and how to read the sheet. `classes`: names and colours to explain."""
    image = Image.new("RGB", (_NAMES + 10 * (_CELL + _GAP) + 12, 74), _PAPER)
    pen = ImageDraw.Draw(image)
    pen.text((12, 10), title, _INK, _font(20))
    left = 12
    for name, colour in classes:
        pen.rectangle((left, 47, left + 14, 61), colour)
        pen.text((left + 20, 46), name, _INK, _font())
        left += 30 + int(pen.textlength(name, _font()))
    left += 24 if classes else 0
    legend = "bar: sounds      thin line: silent      hatched bar: sounds off screen      "
    pen.text((left, 46), legend + "white outline: truth", _INK, _font())
    return image


def row(clip: Clip, colours: Colours) -> Image.Image:
    """One clip: its frames, a line for each source that says when it sounds, a spectrogram."""
    plan = clip.plan
    lanes = [(s, False) for s in plan.objects] + [(s, True) for s in plan.off_screen]
    lanes.sort(key=lambda pair: (pair[1], not pair[0].active.any(), pair[0].class_id))
    pitch = _CELL + _GAP
    height = _CELL + 8 + _LANE * len(lanes) + 4 + _SPECTROGRAM + 18
    image = Image.new("RGB", (_NAMES + plan.seconds * pitch + 12, height), _PAPER)
    pen = ImageDraw.Draw(image)
    pen.text((12, 2), f"{plan.subset}  {plan.split}", _INK, _font(15))
    pen.text((12, 24), plan.uid, _INK, _font(10))
    for t in range(plan.seconds):
        image.paste(_outlined(clip.frames[t], clip.labels[t]), (_NAMES + t * pitch, 0))
    top = _CELL + 8
    for source, off_screen in lanes:
        note = "  off screen" if off_screen else "" if source.active.any() else "  silent"
        pen.text((12, top - 2), source.name + note, _INK, _font(11))
        full, pale = colours(source.class_id)
        for t in range(plan.seconds):
            left, right = _NAMES + t * pitch, _NAMES + t * pitch + _CELL
            if source.active[t]:
                _bar(pen, (left, top, right, top + _LANE - 5), full, pale if off_screen else None)
            else:
                pen.line((left, top + 5, right, top + 5), _FAINT, 1)
        top += _LANE
    image.paste(_spectrogram(clip.waveform, plan.seconds * pitch - _GAP), (_NAMES, top + 4))
    return image


@functools.cache  # it is unpacked at each call
def _font(size=12):
    return ImageFont.load_default(size)


def _outlined(frame, label):
    """One frame enlarged, with a white line inside the outline of every labelled class."""
    image = np.asarray(Image.fromarray(frame).resize((_CELL, _CELL), Image.Resampling.LANCZOS))
    big = np.asarray(Image.fromarray(label).resize((_CELL, _CELL), Image.Resampling.NEAREST))
    padded = np.pad(big, 2, mode="edge")
    offsets = [(dy, dx) for dy in range(5) for dx in range(5) if abs(dy - 2) + abs(dx - 2) <= 2]
    differs = np.any(
        [padded[dy : dy + _CELL, dx : dx + _CELL] != big for dy, dx in offsets], axis=0
    )
    return Image.fromarray(np.where((differs & (big > 0))[..., None], 255, image).astype(np.uint8))


def _bar(pen, box, full, pale):
    """A bar in the full colour, or hatched on a pale ground."""
    left, top, right, bottom = box
    if pale is None:
        pen.rectangle(box, full)
        return
    pen.rectangle(box, pale, full)
    for x in range(left, right, 7):
        reach = min(bottom - top, right - x)
        pen.line((x, top + reach, x + reach, top), full, 2)


def _spectrogram(waveform, width):
    """Log magnitude up to 8 kHz, low frequencies below, as a grey picture `width` pixels wide."""
    window, hop = 512, 128
    starts = np.arange(0, waveform.size - window + 1, hop)
    parts = waveform[starts[:, None] + np.arange(window)] / 32768.0
    level = np.log(np.abs(np.fft.rfft(parts * np.hanning(window))) + 0.01).T[::-1]
    # A square-root frequency axis: as much room for the low sounds as for the high ones.
    bins = level.shape[0]
    rows = bins - 1 - np.round((np.linspace(1, 0, _SPECTROGRAM) ** 2) * (bins - 1)).astype(int)
    dark = 1 - np.clip((level[rows] - np.log(0.01)) / 8.0, 0, 1)
    paper = np.array(_PAPER)
    rgb = dark[..., None] * paper + (1 - dark[..., None]) * np.array((38, 44, 84))
    image = Image.fromarray(np.round(rgb).astype(np.uint8))
    return image.resize((width, _SPECTROGRAM), Image.Resampling.BILINEAR)
