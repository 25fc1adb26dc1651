"""A plan becomes frames, labels and a waveform."""

import numpy as np

from data_pipelines.making.audible_shapes import sounds
from data_pipelines.making.audible_shapes.plan import DRAW
from data_pipelines.making.audible_shapes.shapes import HUE_SPREAD, SHAPES, hsv_to_rgb, rasterise
from data_pipelines.making.compositions import Clip, Composition, generator
from data_pipelines.making.drawing import drifting_paths, mix, paint

# Diameter of an object as part of the frame's side, by how many objects share the frame.
_DIAMETERS = {1: (0.36, 0.46), 2: (0.35, 0.46), 3: (0.32, 0.42), 4: (0.29, 0.37)}
_OCTAVES = ((3, 0.5), (6, 0.25), (12, 0.15), (24, 0.10))  # cells across the frame, strength


def draw(seed: int, plan: Composition, size: int) -> Clip:
    """Draws clip `plan.index` of the data set `seed`, frames of `size` x `size` pixels."""
    rng = generator(seed, DRAW, plan.index)
    seconds = plan.seconds
    # Sound first: it is then the same at every frame size.
    sources = [(s.index, s.active) for s in plan.sources if s.active.any()]
    waveform = mix(sources, seconds, rng, sounds.synthesise)

    frames = _backgrounds(rng, seconds, size)
    low, high = _DIAMETERS[len(plan.objects)]  # in parts of the frame's side, as are paths
    radii = rng.uniform(low, high, len(plan.objects)) / 2
    paths = drifting_paths(rng, radii, seconds)
    # A look is drawn just before the object is.
    looks = (_Look(rng, s.index, radius) for s, radius in zip(plan.objects, radii, strict=True))
    objects = zip(paths, looks, strict=True)
    return paint(rng, plan, frames, objects, (0.35, 0.6, 0.12), waveform)


class _Look:
    """Shape, size, colour and surface of one instance."""

    def __init__(self, rng, shape, radius):
        self._shape, self._radius = shape, radius
        hue = SHAPES[shape].hue + rng.uniform(-HUE_SPREAD, HUE_SPREAD)
        self._rgb = hsv_to_rgb(hue, rng.uniform(0.78, 1.0), rng.uniform(0.85, 1.0))
        light = rng.uniform(0, 2 * np.pi)
        self._light = np.cos(light), np.sin(light)
        self._strength = rng.uniform(0.05, 0.15)
        self._rim = rng.uniform(0.6, 0.8)
        # Faint waves over the surface; a wavelength well above a pixel of a small frame.
        self._waves = rng.uniform(0.0, 0.07)
        turn, wave = rng.uniform(0, np.pi), rng.uniform(6, 10)
        self._wave = wave * np.cos(turn), wave * np.sin(turn)

    def place(self, centre, growth, angle, size):
        """See `drawing.Sprite`."""
        rows, columns, coverage, depth, u, v = rasterise(
            self._shape, size, tuple(centre), self._radius * growth, angle
        )
        return rows, columns, self._colours(depth, u, v), coverage

    def _colours(self, depth, u, v):
        """float64 [h, w, 3] from depth inside the outline and coordinates, all in radii."""
        shade = 1.0 - self._strength * (1 - self._light[0] * u - self._light[1] * v)
        shade = shade + self._waves * np.sin(self._wave[0] * u + self._wave[1] * v)
        edge = np.clip((depth - 0.06) / 0.08, 0.0, 1.0)  # a darker rim
        shade = shade * (self._rim + (1 - self._rim) * edge)
        return shade[..., None] * self._rgb


def _noise(rng, cells, seconds, size, drift):
    """Smooth value noise that slides over the seconds. Returns float64 [T, S, S] in [-1, 1]."""
    slack = int(np.ceil(np.abs(drift).max() * cells)) + 1  # cells that slide into view
    grid = rng.uniform(-1, 1, (cells + 2 * slack + 2, cells + 2 * slack + 2))
    shift = np.linspace(0, 1, seconds)[:, None] * drift * cells + slack + rng.random(2)
    taps = []
    for axis in range(2):
        at = (np.arange(size) + 0.5) / size * cells + shift[:, axis, None]  # [T, S]
        cell = np.floor(at).astype(int)
        part = at - cell
        part = part * part * (3 - 2 * part)
        weights = np.zeros((seconds, size, grid.shape[0]))
        np.put_along_axis(weights, cell[..., None], (1 - part)[..., None], 2)
        np.put_along_axis(weights, cell[..., None] + 1, part[..., None], 2)
        taps.append(weights)
    return taps[0] @ grid @ np.swapaxes(taps[1], 1, 2)


def _backgrounds(rng, seconds, size):
    """Textures of low saturation that slide slowly. Returns float64 [T, S, S, 3] in [0, 1]."""
    drift = rng.uniform(-0.2, 0.2, 2)
    texture = sum(a * _noise(rng, cells, seconds, size, drift) for cells, a in _OCTAVES)
    if rng.random() < 0.5:
        turn, waves = rng.uniform(0, np.pi), 2 * np.pi * rng.uniform(4, 12)
        y, x = np.meshgrid(*2 * [(np.arange(size) + 0.5) / size], indexing="ij")
        slide = np.linspace(0, 1, seconds)[:, None, None]
        along = (x + slide * drift[1]) * np.cos(turn) + (y + slide * drift[0]) * np.sin(turn)
        stripes = np.sin(waves * along + 2.0 * texture)
        texture = 0.7 * texture + rng.uniform(0.1, 0.35) * stripes
    light = rng.uniform(0.28, 0.72) + rng.uniform(-0.02, 0.02, seconds)[:, None, None]
    value = np.clip(light + rng.uniform(0.18, 0.34) * texture, 0.05, 0.95)[..., None]
    tints = [hsv_to_rgb(rng.uniform(0, 360), rng.uniform(0.0, 0.22), 1.0) for _ in range(2)]
    share = 0.5 + 0.5 * np.clip(1.5 * _noise(rng, 2, seconds, size, drift), -1, 1)[..., None]
    return value * (share * tints[0] + (1 - share) * tints[1])
