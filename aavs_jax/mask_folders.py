"""Folders of masks, as they are exchanged with other tools."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from aavs_jax.errors import UserError
from aavs_jax.visualize import to_png_bytes
from data_pipelines.avsbench import layout


class MaskWriter:
    """Observer that writes binary predictions as `<folder>/<subset>/<uid>/<second>.png`, 0 or 255.

    These are AVSBench's names, so that the masks can be exchanged with other tools.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._pool = ThreadPoolExecutor(2)
        self._writes: list = []

    def __call__(self, batch: Mapping[str, np.ndarray], predictions: np.ndarray) -> None:
        for clip, valid, masks in zip(batch["ids"], batch["valid"], predictions, strict=True):
            if clip:  # padding has no id
                self._writes.append(self._pool.submit(self._write, str(clip), masks[valid]))

    def _write(self, clip: str, masks: np.ndarray) -> None:
        subset, uid = clip.split("/")
        for second, mask in enumerate(masks):
            path = layout.mask_path(self._folder, subset, uid, second)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(to_png_bytes(mask * np.uint8(255)))

    def close(self) -> None:
        """Waits for what is being written.

        Raises:
          UserError: the disk is full or the folder cannot be written.
        """
        self._pool.shutdown()
        for write in self._writes:
            if error := write.exception():
                raise UserError(
                    f"Cannot write masks to {self._folder} ({error}): free some space, or choose "
                    "another folder with --workdir; the run continues where it stopped."
                ) from error
