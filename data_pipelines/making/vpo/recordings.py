"""Recordings sorted by class: who hears which, and their copies in the data set."""

import dataclasses
from pathlib import Path

import numpy as np
import soundfile

from data_pipelines import media
from data_pipelines.errors import DataError, lies_in
from data_pipelines.facts.avsbench import SAMPLE_RATE
from data_pipelines.facts.vpo import CLASS_NAMES, COCO_IDS, SECONDS
from data_pipelines.making.vpo.coco import left_out
from data_pipelines.making.vpo.compose import MAX_SOURCES
from data_pipelines.media.sound_files import read_sound
from data_pipelines.media.waveforms import resample, to_int16
from data_pipelines.reading.raw import Finding

SUFFIXES = (".wav", ".flac", ".ogg", ".mp4", ".webm", ".mkv")
KEPT_SECONDS = 10  # of the middle of a recording; VGGSound's own are as long
MIN_SECONDS = 0.1  # what is shorter and repeated to 3 s is a hum, not the sound of an object
SILENCE = 1e-3  # highest sample (-60 dB) of the middle 3 s below which nothing is heard
SPLITS = ("train", "val")


@dataclasses.dataclass
class _Pool:
    """Recordings of a class for a split: those still to be looked at, and those found good."""

    waiting: list[tuple[str, Path]]
    good: list[str] = dataclasses.field(default_factory=list)
    taken: int = 0


class Recordings:
    """Deals out recordings. One that cannot be used is left out when its turn comes.

    A class's recordings are shared between train and val, so that what is heard in one is not
    heard in the other; where a class has but one, both have it. Each recording of a class comes
    once before any comes again.

    Attributes:
        sources: name of a copy -> recording it was made from, relative to the folder of sounds.
        shared: classes of which train and val have the same recordings.
    """

    def __init__(
        self,
        root: Path,
        copies: Path,
        *,
        seed: int,
        val_share: float,
        findings: list[Finding],
        follow_links: bool = False,
    ):
        """Lists the folder.

        Args:
            root: `<class>/<any name>.wav|flac|ogg|mp4|webm|mkv` beneath it.
            copies: an existing folder that the copies are written to.
            seed: of the shares and of the order.
            val_share: of the recordings of a class.
            findings: what is left out is added to it.
            follow_links: whether links may lead out of the folder.

        Raises:
            DataError: no such folder, or nothing of any class in it.
        """
        if not root.is_dir():
            raise DataError(
                f"there is no folder {root}; give --sounds a folder with one folder of recordings "
                "per class in it."
            )
        self.sources: dict[str, str] = {}
        self.shared: list[str] = []
        self._root, self._copies = root, copies
        self._findings, self._follow_links = findings, follow_links
        listed = _listed(root)
        if not listed:
            raise DataError(
                f"there are no recordings in {root}; put them into folders named after VPO's "
                f"classes ({', '.join(CLASS_NAMES[1:])})."
            )
        self._pools: dict[tuple[str, str], _Pool] = {}
        for name, paths in listed.items():
            self._share_out(name, paths, seed, val_share)

    def counts(self, split: str) -> dict[str, int]:
        """Class -> recordings of the split, no more counted than can sound at once."""
        return {
            name: sum(self._ready(pool, i) for i in range(MAX_SOURCES))
            for (name, of), pool in self._pools.items()
            if of == split
        }

    def take(self, class_name: str, split: str) -> str:
        """The name of the next recording's copy, which is there now."""
        pool = self._pools[class_name, split]
        self._ready(pool, pool.taken)
        name = pool.good[pool.taken % len(pool.good)]
        pool.taken += 1
        return name

    def drop_unused(self) -> dict[str, str]:
        """Deletes copies that nobody took; returns the rest: name -> recording."""
        used = set()
        for pool in self._pools.values():
            used.update(pool.good[: pool.taken])
        for name in self.sources.keys() - used:
            (self._copies / f"{name}.wav").unlink()
        return {name: self.sources[name] for name in sorted(used)}

    def _share_out(self, name, paths, seed, val_share):
        order = np.random.default_rng([seed, COCO_IDS[name]]).permutation(len(paths))
        stem = name.replace(" ", "_")
        named = [(f"{stem}_{i:05d}", paths[i]) for i in order]
        # Two for val where it leaves two for train: MSMI needs two of a class.
        least = min(2, len(paths) // 2)
        held = min(max(least, round(val_share * len(paths))), len(paths) - least)
        pools = {"val": _Pool(named[:held]), "train": _Pool(named[held:])}
        usable = [pool for pool in pools.values() if self._ready(pool, 0)]
        if len(usable) == 1:
            self.shared.append(name)
            pools = dict.fromkeys(SPLITS, usable[0])
        self._pools.update({(name, split): pool for split, pool in pools.items()})

    def _ready(self, pool: _Pool, index: int) -> bool:
        """Whether there is a good recording of this index; looks at as many as it takes."""
        while len(pool.good) <= index and pool.waiting:
            name, path = pool.waiting.pop(0)
            try:
                self._copy(path, name)
            except DataError as error:
                where = path.relative_to(self._root)
                self._findings.append(left_out(where, "recording unusable", str(error)))
            else:
                pool.good.append(name)
        return len(pool.good) > index

    def _copy(self, path: Path, name: str) -> None:
        if not self._follow_links and not lies_in(path, self._root):
            raise DataError(f"the recording {path} is a link that leads out of {self._root}.")
        samples = read_middle(path)
        soundfile.write(self._copies / f"{name}.wav", samples, SAMPLE_RATE, "PCM_16")
        self.sources[name] = media.printable(path.relative_to(self._root).as_posix())


def read_middle(path: Path) -> np.ndarray:
    """The middle of a recording, or of a video's sound track, as it is kept.

    Returns:
        int16 [S], 16 kHz, the mean of all channels, at most KEPT_SECONDS.

    Raises:
        DataError: it cannot be read, is very short, or its middle is silent.
    """
    excerpt = read_sound(path, seconds=KEPT_SECONDS, middle=True)
    waveform = excerpt.samples[:, 0]
    if len(waveform) < MIN_SECONDS * excerpt.rate:
        raise DataError(f"the recording {path} is shorter than {MIN_SECONDS} s.")
    waveform = resample(waveform, excerpt.rate)
    start = max(0, (len(waveform) - SECONDS * SAMPLE_RATE) // 2)
    if np.abs(waveform[start : start + SECONDS * SAMPLE_RATE]).max() < SILENCE:
        raise DataError(f"the recording {path} is silent in its middle {SECONDS} s.")
    return to_int16(waveform)


def _listed(root: Path) -> dict[str, list[Path]]:
    """Class -> files that look like recordings, by name."""
    listed: dict[str, list[Path]] = {}
    try:
        for folder in sorted(root.iterdir()):
            name = folder.name.lower().replace("_", " ").replace("-", " ")
            if name in CLASS_NAMES[1:] and folder.is_dir():
                files = [p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES]
                listed.setdefault(name, []).extend(sorted(p for p in files if p.is_file()))
    except OSError as error:
        raise DataError(f"{error.filename} cannot be listed ({error.strerror}).") from error
    return {name: listed[name] for name in CLASS_NAMES if listed.get(name)}
