"""A plan becomes frames, labels and a waveform."""

import numpy as np
from PIL import Image

from data_pipelines.making.audible_stamps import sounds
from data_pipelines.making.audible_stamps.media import Media
from data_pipelines.making.audible_stamps.plan import DRAW, SOUND
from data_pipelines.making.compositions import Clip, Composition, generator
from data_pipelines.making.drawing import drifting_paths, mix, paint

# Square root of an object's solid area as part of the frame's side, by how many share the frame.
_SIZES = {1: (0.36, 0.50), 2: (0.33, 0.46), 3: (0.29, 0.39)}
_LONGEST = 0.85  # of the frame's side: thin things are made smaller until they fit


def draw(seed: int, plan: Composition, media: Media, size: int) -> Clip:
    """Draws clip `plan.index` of the data set `seed`, frames of `size` x `size` pixels."""
    seconds = plan.seconds
    sources = [(media.recordings[s.index], s.active) for s in plan.sources if s.active.any()]
    waveform = mix(sources, seconds, generator(seed, SOUND, plan.index), sounds.source)

    rng = generator(seed, DRAW, plan.index)
    frames = background(rng, media.backgrounds, seconds, size)
    count = len(plan.objects)
    cutouts = [Cutout(rng, media.cutouts[s.index], _SIZES[count]) for s in plan.objects]
    paths = drifting_paths(rng, np.array([cutout.radius for cutout in cutouts]), seconds)
    return paint(rng, plan, frames, zip(paths, cutouts, strict=True), (0.2, 0.4, 0.2), waveform)


class Cutout:
    """One instance of a stamp: its size, light, and whether it is mirrored. A `drawing.Sprite`."""

    def __init__(self, rng, rgba, sizes, longest=_LONGEST):
        """Draws them; `sizes` and `longest` are as _SIZES and _LONGEST."""
        if rng.random() < 0.5:
            rgba = rgba[:, ::-1]
        self._image = Image.fromarray(np.ascontiguousarray(rgba))
        self._light, self._contrast = rng.uniform(0.8, 1.15), rng.uniform(0.85, 1.1)
        height, width = rgba.shape[:2]
        area = (rgba[..., 3] > 127).sum()
        # Pixels of the picture -> parts of the frame's side.
        self._unit = min(rng.uniform(*sizes) / np.sqrt(area), longest / max(width, height))
        # Between the circle around it and one of its area: for thin things neither is fair.
        self.radius = self._unit * (max(width, height) + np.sqrt(width * height)) / 4

    def place(self, centre, growth, angle, size):
        """See `drawing.Sprite`; the slices are the whole frame."""
        scale = self._unit * growth * size
        image = self._image
        # First down to its size with a filter that sees every pixel, then moved.
        shape = tuple(max(1, round(scale * side)) for side in image.size)
        if scale < 1:
            image = image.resize(shape, Image.Resampling.BOX)
        scale_x, scale_y = (
            scale * a / b for a, b in zip(self._image.size, image.size, strict=True)
        )
        cos, sin = np.cos(angle), np.sin(angle)
        x, y = centre * size
        rows = np.array([[cos / scale_x, sin / scale_x], [-sin / scale_y, cos / scale_y]])
        shift = np.array(image.size) / 2 - rows @ (x, y)
        turned = image.transform(
            (size, size),
            Image.Transform.AFFINE,
            (*rows[0], shift[0], *rows[1], shift[1]),
            Image.Resampling.BICUBIC,
        )
        pixels = np.asarray(turned) / 255.0
        colours = (pixels[..., :3] - 0.5) * self._contrast + 0.5
        whole = slice(None)
        return whole, whole, np.clip(colours * self._light, 0, 1), pixels[..., 3]


def background(rng, photographs, seconds, size):
    """A window that moves slowly over a photograph. Returns float64 [T, S, S, 3] in [0, 1]."""
    pixels = photographs[int(rng.random() * len(photographs))]
    if rng.random() < 0.5:
        pixels = pixels[:, ::-1]
    height, width = pixels.shape[:2]
    photograph = Image.fromarray(np.ascontiguousarray(pixels))
    room = np.array([width, height])
    sides = (
        min(width, height)
        * rng.uniform(0.6, 0.95)
        * np.linspace(1, rng.uniform(0.95, 1.05), seconds)
    )
    start = rng.uniform(0, 1, 2) * (room - sides[0])
    move = rng.uniform(-0.15, 0.15, 2) * sides[0]
    light = rng.uniform(0.7, 1.15) * (1 + rng.uniform(-0.02, 0.02, seconds))
    frames = np.zeros((seconds, size, size, 3))
    for t, side in enumerate(sides):
        corner = np.clip(start + move * t / max(seconds - 1, 1), 0, room - side)
        window = photograph.resize(
            (size, size), Image.Resampling.BICUBIC, box=(*corner, *(corner + side))
        )
        frames[t] = np.asarray(window) / 255.0 * light[t]
    return np.clip(frames, 0, 1)
