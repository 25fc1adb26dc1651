"""The report of a data folder as one page of HTML that needs no other file."""

import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from data_pipelines.media.labels import IGNORED, colours_to_ids
from data_pipelines.media.waveforms import FULL_SCALE, SAMPLE_RATE
from data_pipelines.pages import data_uri, render
from data_pipelines.preparing.folder_report import KINDS
from data_pipelines.preparing.read import ReadOptions, read_clip
from data_pipelines.preparing.report_text import completeness, in_bytes
from data_pipelines.reading.raw import RawClip, RawTable

SAMPLES = 4  # clips of a subset
FRAMES = 10  # of a clip
TRIES = 3  # clips that are read for a sample, in case some were left out
SIDE = 128  # pixels of the longer side of a frame
TINT = 0.55  # share of the label's colour where there is a label
BARS = 8  # of loudness, per second
QUIETEST = -60.0  # dB of full scale that are shown
LISTED = 2000  # findings


@dataclasses.dataclass(frozen=True)
class Sample:
    """A clip to be shown."""

    title: str  # its name, split and classes
    subset: str  # it belongs to
    frames: tuple[np.ndarray, ...]  # uint8 [H,W,3], labels laid over them
    loudness: np.ndarray  # float [T * BARS], 0 (silence) to 1


def samples(table: RawTable, options: ReadOptions) -> list[Sample]:
    """A few clips of each subset, spread over it."""
    found = []
    options = dataclasses.replace(options, size=None)  # in the shape of their labels
    for subset in dict.fromkeys(clip.subset for clip in table.clips):
        clips = [clip for clip in table.clips if clip.subset == subset]
        count = min(SAMPLES, len(clips))
        for place in range(count):
            start = place * len(clips) // count
            for clip in clips[start : min(start + TRIES, (place + 1) * len(clips) // count)]:
                example = read_clip(clip, options, len(table.class_names), table.roots).example
                if example is not None:
                    found.append(_sample(clip, example, table.class_names))
                    break
    return found


def page(report: dict[str, Any], samples: Sequence[Sample]) -> str:
    """The page.

    Args:
        report: by `folder_report.gather`.
        samples: by `samples`.
    """
    return render(
        Path(__file__).with_name("folder_page.html"),
        title=report["folder"],
        report=report,
        samples=samples,
        state=("well", "", "bad", "some")[report["exit_code"]],
        kinds=KINDS,
        listed=LISTED,
        completeness=completeness,
        in_bytes=in_bytes,
        picture=lambda frame: data_uri(Image.fromarray(frame), format="jpeg", quality=80),
    )


def _sample(clip: RawClip, example: dict[str, Any], class_names: Sequence[str]) -> Sample:
    labelled = np.flatnonzero(example["labelled"]).tolist()
    labels = dict(zip(labelled, example["labels"], strict=True))
    stored = len(example["frames"])
    shown = sorted(labels)[:FRAMES] or range(stored)[:FRAMES]
    frames = tuple(_frame(example["frames"][t % stored], labels.get(t)) for t in shown)
    names = ", ".join(class_names[i] for i in example["objects"]) or "no class"
    loudness = _loudness(example["waveform"], clip.seconds)
    return Sample(f"{clip.name} ({clip.split}): {names}", clip.subset, frames, loudness)


def _loudness(waveform: np.ndarray, seconds: int) -> np.ndarray:
    """The level of each bar, float [T * BARS], from 0 (below QUIETEST dB) to 1 (full scale)."""
    heard = np.zeros(seconds * SAMPLE_RATE)
    heard[: len(waveform)] = waveform.mean(axis=1) / FULL_SCALE
    power = np.square(heard.reshape(seconds * BARS, -1)).mean(axis=1)
    return 1 - np.clip(10 * np.log10(np.maximum(power, 1e-12)) / QUIETEST, 0, 1)


def _frame(encoded: bytes, label: bytes | None) -> np.ndarray:
    """A small frame, with its label laid over it."""
    image = Image.open(io.BytesIO(encoded)).convert("RGB")
    image.thumbnail((SIDE, SIDE))
    frame = np.asarray(image, np.float32)
    if label is not None:
        colours = Image.open(io.BytesIO(label)).convert("RGB").resize(image.size, Image.NEAREST)
        colours = np.array(colours)
        colours[colours_to_ids(colours) == IGNORED] = 0
        colours = colours.astype(np.float32)
        mask = colours.any(axis=2)
        tint = TINT * mask[..., None]
        frame = frame * (1 - tint) + colours * tint
        cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
        inner = cv2.erode(mask.astype(np.uint8), cross) > 0
        frame[mask & ~inner] = 255  # an outline, as colours may be alike
    return frame.round().astype(np.uint8)
