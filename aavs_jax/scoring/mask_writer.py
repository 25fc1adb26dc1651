"""Masks that a network predicts, as files in AVSBench's naming."""

import contextlib
import io
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from aavs_jax.errors import UserError
from aavs_jax.methods.method import Prediction
from aavs_jax.methods.telling import prior_mask
from aavs_jax.run.files import writing
from aavs_jax.run.progress import say
from aavs_jax.scoring import mask_pictures
from aavs_jax.state.sharding import everyone_is_here
from data_pipelines.errors import reason, remedy
from data_pipelines.facts import avsbench


class MaskWriter:
    """Observer that writes predictions as `<folder>/<subset>/<uid>/<second>.png`.

    These are AVSBench's names, so that the masks can be exchanged with other tools. Binary masks
    are grey, 0 or 255, soft ones round(255 p). Classes have AVSBench's palette, so that a picture's
    values are class ids and its colours those of the classes.
    """

    def __init__(self, folder: Path, task: str, kind: str = "hard"):
        """`kind`: of a binary task's masks, see `telling.prior_mask`."""
        self._folder = folder
        self._semantic = task == "semantic"
        self._kind = kind
        self._pool = ThreadPoolExecutor(2)
        self._writes: list = []

    def __call__(self, batch: Mapping[str, np.ndarray], found: Prediction) -> None:
        predictions = found.classes if self._semantic else self._greys(found)
        for clip, valid, masks in zip(batch["ids"], batch["valid"], predictions, strict=True):
            if clip:  # padding has no id
                self._writes.append(self._pool.submit(self._write, str(clip), masks[valid]))

    def _greys(self, found: Prediction) -> np.ndarray:
        return np.rint(255 * np.asarray(prior_mask(found, self._kind))).astype(np.uint8)

    def _write(self, clip: str, masks: np.ndarray) -> None:
        subset, uid = clip.split("/")
        for second, mask in enumerate(masks):
            path = avsbench.mask_path(self._folder, subset, uid, second)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self._encoded(mask))

    def _encoded(self, mask: np.ndarray) -> bytes:
        buffer = io.BytesIO()
        if self._semantic:
            mask_pictures.palette_picture(mask).save(buffer, "png", optimize=True)
        else:
            Image.fromarray(mask).save(buffer, "png")
        return buffer.getvalue()

    def close(self) -> None:
        """Waits for what is being written.

        Raises:
          UserError: the disk is full or the folder cannot be written.
        """
        self._pool.shutdown()
        for write in self._writes:
            if error := write.exception():
                raise UserError(
                    f"cannot write masks to {self._folder} ({reason(error)}): {remedy(error)}, or "
                    "choose another folder with --workdir; the same command then resumes the run"
                ) from error


@contextlib.contextmanager
def mask_writers(folder: Path):
    """Gives a function: name, task and kind -> `MaskWriter` into a folder of that name, or None
    if it is there already. Folders get their names at the end, when all are whole.

    Args:
      folder: of the stage.
    """
    places: dict[str, bool] = {}  # whether it is being written

    def writer(place: str, task: str, kind: str) -> MaskWriter | None:
        partial = folder / f"{place}.partial"
        if place not in places:
            places[place] = not (folder / place).exists()
            if jax.process_index() == 0:
                shutil.rmtree(partial, ignore_errors=True)
            everyone_is_here(f"{partial} begins")
        return MaskWriter(partial, task, kind) if places[place] else None

    yield writer
    for place in [place for place, written in places.items() if written]:
        everyone_is_here(f"{folder / place} written")
        if jax.process_index() == 0:
            with writing(folder / place):
                (folder / f"{place}.partial").rename(folder / place)
        everyone_is_here(f"{folder / place} in place")
        say(f"[{folder.name}] has written its masks: {folder / place}")
