"""What is written of a clip: masks, objects, films and a page; whole or not at all.

<folder>/masks/<index>.png     class ids in AVSBench's palette, at the clip's own upright size
<folder>/objects.json          COCO results: each class in each frame, its mask run-length coded
<folder>/overlay.mp4           the clip with its masks and its sound
<folder>/index.html            a page that plays it
<folder>/summary.json          what was asked and found; the time of each index
"""

import contextlib
import dataclasses
import io
import json
import shutil
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco

from aavs_jax.errors import UserError
from aavs_jax.prediction.result import Result
from aavs_jax.run.files import PREDICT, SUMMARY, record_of, replace_file, writing
from aavs_jax.scoring.mask_pictures import palette_picture

ADVICE = "or choose another folder with --out"
WAITING = 8  # results that may wait to be written


@contextlib.contextmanager
def whole(folder: Path, record: str = SUMMARY, written_by: str = PREDICT) -> Iterator[Path]:
    """Gives a folder to write into, which gets its name at the end, or is removed.

    An earlier one of that name is replaced then, see `check_free`; where the name is a link, what
    it points to is.

    Raises:
      UserError: something else is there; it cannot be written.
    """
    check_free(folder, record, written_by)
    if folder.is_symlink():
        folder = folder.resolve()
    partial = folder.with_name(f".{folder.name}.partial")
    with writing(folder, ADVICE):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    try:
        yield partial
        with writing(folder, ADVICE):
            old = folder.with_name(f".{folder.name}.old")
            shutil.rmtree(old, ignore_errors=True)
            if folder.exists():
                folder.rename(old)
            partial.rename(folder)
            shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_free(folder: Path, record: str = SUMMARY, written_by: str = PREDICT) -> None:
    """Raises a UserError where something lies at a folder's name that is not an earlier one.

    Args:
      folder: to be written.
      record: the file in it by which it is known again.
      written_by: what that says under this key.
    """
    with writing(folder, ADVICE):
        _check_free(folder, record, written_by)


def _check_free(folder: Path, record: str, written_by: str) -> None:
    if folder.name in ("", ".."):
        raise UserError(f"{folder} is no folder that can be made: name a new one with --out")
    if not folder.exists() and not folder.is_symlink():
        return
    if not folder.is_dir():
        raise UserError(f"{folder} is a file: choose another folder with --out")
    if any(folder.iterdir()) and record_of(folder / record, written_by) is None:
        raise UserError(
            f"{folder} holds something else than what {written_by} wrote earlier: choose another "
            "folder with --out"
        )


@dataclasses.dataclass
class Files:
    """Writes masks and objects of results as they come, in threads of its own."""

    folder: Path
    masks: bool
    objects: bool

    def __post_init__(self):
        self._pool = ThreadPoolExecutor(2)
        self._waiting: deque[Future] = deque()
        self._json = None
        with writing(self.folder, ADVICE):
            if self.masks:
                (self.folder / "masks").mkdir()
            if self.objects:
                self._json = open(self.folder / "objects.json", "w")
                self._json.write("[")
        self._first = True

    def __enter__(self) -> "Files":
        return self

    def __exit__(self, *_) -> None:
        self._pool.shutdown(cancel_futures=True)
        if self._json is not None:
            with contextlib.suppress(OSError):  # what was not written is known by then
                self._json.close()

    def add(self, result: Result) -> None:
        """Raises a UserError where the disk is full or the folder cannot be written."""
        self._waiting.append(self._pool.submit(self._write, result))
        while len(self._waiting) > WAITING:
            self._note(self._waiting.popleft())

    def finish(self) -> None:
        """Waits for what is being written; errors are those of `add`."""
        while self._waiting:
            self._note(self._waiting.popleft())
        if self._json is not None:
            with writing(self.folder / "objects.json", ADVICE):
                self._json.write("\n]\n")
                self._json.close()

    def _write(self, result: Result) -> list[str]:
        if self.masks:
            buffer = io.BytesIO()
            palette_picture(result.mask).save(buffer, "png")
            (self.folder / "masks" / f"{result.index}.png").write_bytes(buffer.getvalue())
        return [json.dumps(row) for row in coco_results(result)] if self.objects else []

    def _note(self, written: Future) -> None:
        with writing(self.folder, ADVICE):
            for row in written.result():
                self._json.write(("" if self._first else ",") + "\n" + row)
                self._first = False


def coco_results(result: Result) -> list[dict[str, Any]]:
    """The objects of a frame as COCO's result format has them, with the time besides.

    `image_id` is the index of the frame, `category_id` the class id, `bbox` x, y, width and height,
    `area` in pixels, `segmentation` a compressed run-length code.
    """
    rows = []
    for found in result.objects:
        here = np.asfortranarray(result.mask == found.class_id, dtype=np.uint8)
        code = coco.encode(here)
        rows.append(
            {
                "image_id": result.index,
                "category_id": found.class_id,
                "segmentation": {"size": code["size"], "counts": code["counts"].decode("ascii")},
                "score": round(found.score, 4),
                "bbox": list(found.box),
                "area": int(here.sum()),
                "seconds": round(result.seconds, 6),
                "name": found.name,
            }
        )
    return rows


def write_summary(folder: Path, facts: dict[str, Any]) -> None:
    """Writes summary.json, by which the folder is known again."""
    content = json.dumps({"written_by": PREDICT, **facts}, indent=1)
    replace_file(folder / SUMMARY, content.encode(), ADVICE)
