"""Clips that a report shows: which, and what was predicted for them."""

import io
from collections.abc import Iterable, Mapping
from pathlib import Path

import jax
import numpy as np

from aavs_jax.methods.method import Prediction
from aavs_jax.run.files import replace_file
from aavs_jax.scoring.metrics import IGNORED
from data_pipelines.prepared.source import ClipSource


def choose(source: ClipSource | None, count: int) -> list[str]:
    """Names of clips to show: of each subset in turn those with the most sounding objects.

    Without a source there are none.
    """
    if source is None:
        return []
    ranked: dict[str, list] = {}
    for clip in sorted(source.clips, key=lambda clip: -len(clip.objects)):
        ranked.setdefault(clip.subset, []).append(clip.name)
    turns = [
        name for rank in range(count) for names in ranked.values() for name in names[rank:][:1]
    ]
    return turns[:count]


class Showcase:
    """Observer that keeps the predictions and labels of some clips, for the report.

    Pictures show what is ignored as background: it has no colour, and belongs to no class.
    """

    def __init__(self, names: Iterable[str]):
        self._names = set(names)
        self.predictions: dict[str, np.ndarray] = {}  # clip -> uint8 [T,G,G]
        self.labels: dict[str, np.ndarray] = {}

    def __call__(self, batch: Mapping[str, np.ndarray], found: Prediction) -> None:
        for row, clip in enumerate(batch["ids"]):
            if clip in self._names:
                self.predictions[str(clip)] = found.classes[row]
                labels = batch["labels"][row]
                self.labels[str(clip)] = np.where(labels == IGNORED, 0, labels)


def save(stage_folder: Path, sound: str, prior: str, showcase: Showcase) -> None:
    """Keeps the predictions and labels of the clips to be shown, for when the run is complete."""
    arrays = {f"prediction/{name}": array for name, array in showcase.predictions.items()}
    arrays |= {f"label/{name}": array for name, array in showcase.labels.items()}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    name = f"{sound}-{prior}.{jax.process_index()}.npz"
    replace_file(stage_folder / "examples" / name, buffer.getvalue())


def load(stage_folder: Path, sound: str, prior: str) -> dict[str, np.ndarray]:
    """What `save` has kept, of all processes whose disk this is."""
    arrays: dict[str, np.ndarray] = {}
    for path in sorted((stage_folder / "examples").glob(f"{sound}-{prior}.*.npz")):
        with np.load(path) as file:
            arrays |= dict(file)
    return arrays
