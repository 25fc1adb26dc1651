"""Made clips on disk, in AVSBench's unified layout: whole or not at all."""

import contextlib
import csv
import json
import os
import shutil
import wave
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from data_pipelines.errors import DataError, reason, remedy, tidy_path
from data_pipelines.facts import avsbench

MAX_CLIPS = 100_000  # the ids have five digits
MIN_SIZE = 16
MAX_SIZE = 1024  # a clip's frames are drawn in memory, all at once
JPEG_QUALITY = 95


def check_numbers(clips: int, size: int, seed: int, *, least: int) -> None:
    """Raises DataError where a number of the command is out of its range.

    Args:
      clips: how many clips, from `least` (every subset in every split) to MAX_CLIPS.
      size: side of the frames in pixels, from MIN_SIZE to MAX_SIZE.
      seed: not negative.
      least: clips that are needed.
    """
    if not least <= clips <= MAX_CLIPS:
        raise DataError(
            f"--clips is {clips}; give between {least} (every subset in every split) and "
            f"{MAX_CLIPS}."
        )
    if not MIN_SIZE <= size <= MAX_SIZE:
        raise DataError(f"--size is {size}; give between {MIN_SIZE} and {MAX_SIZE} pixels.")
    if seed < 0:
        raise DataError(f"--seed is {seed}; give a number that is not negative.")


def check_free(out: Path) -> None:
    """Raises DataError where `out` is a file or a folder with something in it."""
    if out.is_dir():
        if any(out.iterdir()):
            raise DataError(
                f"the folder {out} is not empty; name a new one with --out, or empty it first."
            )
    elif out.exists() or out.is_symlink():
        raise DataError(f"{out} is not a folder; name a new one with --out.")


@contextlib.contextmanager
def whole_folder(out: str | os.PathLike) -> Iterator[Path]:
    """A folder to write into that becomes `out` at the end, or vanishes if the body raises.

    Args:
      out: folder to make; it may exist if it is empty.

    Yields:
      An empty folder beside `out`, so that the last step is one rename. What a killed run left
      there is removed first.

    Raises:
      DataError: `out` is in use, or the body met an OSError (no space, no permission).
    """
    out = tidy_path(Path(out).absolute())
    partial = out.parent / f".{out.name}.partial"
    try:
        check_free(out)
        if partial.exists():
            shutil.rmtree(partial)
        partial.mkdir(parents=True)
        yield partial
        os.replace(partial, out)
    except OSError as error:
        raise DataError(
            f"cannot write the data set to {out}: {reason(error)}; {remedy(error)}, or give --out "
            "another folder"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_tables(root: Path, class_names: Sequence[str], plans: Iterable) -> None:
    """Writes label2idx.json and metadata.csv.

    Args:
      root: the data folder.
      class_names: by class id, without the background.
      plans: of all clips (`compositions.Composition`), in the order of the table.
    """
    with open(root / avsbench.METADATA_NAME, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, avsbench.METADATA_COLUMNS, lineterminator="\n")
        writer.writeheader()
        for plan in plans:
            writer.writerow(
                {
                    "vid": plan.vid,
                    "uid": plan.uid,
                    "s_min": plan.start // 60,
                    "s_sec": plan.start % 60,
                    "a_obj": plan.a_obj,
                    "split": plan.split,
                    "label": plan.subset,
                }
            )
    indices = {name: i for i, name in enumerate((avsbench.BACKGROUND, *class_names), start=1)}
    text = json.dumps(indices, indent=1) + "\n"
    (root / avsbench.LABEL2IDX_NAME).write_text(text, encoding="utf-8")


def write_clip(root: Path, plan, frames, labels, waveform, num_classes: int) -> None:
    """Writes the files of one clip.

    Args:
      root: the data folder; the clip must not be there yet.
      plan: says subset, split and uid (`compositions.Composition`).
      frames: uint8 [T, H, W, 3].
      labels: uint8 [T, H, W], class ids; only the labelled seconds are written.
      waveform: int16 [T * 16000].
      num_classes: K, background counted.
    """
    where = (root, plan.subset, plan.uid)
    for path in (avsbench.frame_path, avsbench.rgb_label_path, avsbench.semantic_label_path):
        path(*where, 0).parent.mkdir(parents=True)
    colours = avsbench.palette(num_classes)
    for t in range(plan.seconds):
        frame = Image.fromarray(frames[t])
        frame.save(avsbench.frame_path(*where, t), quality=JPEG_QUALITY, subsampling=0)
    for t in range(avsbench.labelled_seconds(plan.subset, plan.split)):
        Image.fromarray(colours[labels[t]]).save(avsbench.rgb_label_path(*where, t))
        Image.fromarray(labels[t]).save(avsbench.semantic_label_path(*where, t))
    with wave.open(str(avsbench.audio_path(*where)), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(avsbench.SAMPLE_RATE)
        file.writeframes(np.asarray(waveform, "<i2").tobytes())
