"""Pictures, masks and rows of VPO's settings on disk."""

import collections
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from data_pipelines.errors import DataError
from data_pipelines.facts.vpo import COCO_IDS, SUBSETS
from data_pipelines.making.vpo import coco, compose
from data_pipelines.making.vpo.outlines import OutlineError, rasterise
from data_pipelines.making.vpo.recordings import SPLITS, Recordings
from data_pipelines.reading.layouts.vpo_published import files_of, folder_of
from data_pipelines.reading.raw import Finding

COLUMNS = (
    *("cateName", "cateId", "img_Id", "ann_Ids"),
    *("vgg_file", "split", "audio_pos", "multi_instance"),
)


class Maker:
    """Makes the settings of one picture after the other.

    Attributes:
        rows: setting -> rows of its table, without those that MSMI has of MS.
        silent: why a class or a picture was passed over -> how often.
    """

    def __init__(
        self,
        root: Path,
        recordings: Recordings,
        seed: int,
        findings: list[Finding],
        follow_links: bool,
    ):
        self.rows = {setting: [] for setting in SUBSETS}
        self.silent: collections.Counter = collections.Counter()
        self._root, self._recordings, self._seed = root, recordings, seed
        self._findings, self._follow_links = findings, follow_links
        self._counts = {split: recordings.counts(split) for split in SPLITS}

    def make(self, picture: coco.Picture, settings: Sequence[str]) -> list[str]:
        """Writes those of the settings that the picture is good for; returns them."""
        counts = self._counts[picture.split]
        objects, silent = compose.possible(picture.objects, counts)
        self.silent += silent
        if compose.several(picture.objects):
            self.silent["two of one class in the picture (not for ss and ms)"] += 1
        fitting = compose.settings_of(picture.objects, objects)
        settings = [setting for setting in settings if setting in fitting]
        if not settings:
            return []
        try:
            data, height, width = coco.read_picture(picture, follow_links=self._follow_links)
        except DataError as error:
            self._findings.append(coco.left_out(picture.number, "picture unusable", str(error)))
            return []
        sources = self._sources(picture, objects, height, width)
        small = sum(source.area < compose.MIN_AREA for source in sources)
        if small:
            self.silent[f"too small (an object of fewer than {compose.MIN_AREA} pixels)"] += small
        single, groups = compose.alone(sources), compose.together(sources, counts)
        if "msmi" in settings and not groups:
            self.silent["several of a class, but too near, too small or too few recordings"] += 1
        done = []
        for setting in settings:
            key = [self._seed, SUBSETS.index(setting), picture.number]
            chosen = compose.draw(setting, single, groups, np.random.default_rng(key))
            if not chosen:
                continue
            mask = compose.paint(chosen)
            if mask is None:
                self.silent["objects that hide one another"] += 1
                continue
            self._write(setting, picture, data, mask, chosen)
            done.append(setting)
        return done

    def _sources(self, picture, objects, height, width) -> list[compose.Source]:
        """Objects with their masks; without the classes of which an outline is broken."""
        sources, broken = [], set()
        for thing in objects:
            try:
                mask = rasterise(thing.outline, height, width)
                sources.append(compose.Source.of(thing, mask))
            except OutlineError as error:
                broken.add(thing.class_name)
                message = f"Annotation {thing.annotation} of picture {picture.number}: {error}."
                self._findings.append(
                    coco.left_out(thing.annotation, "annotation unusable", message)
                )
        return [source for source in sources if source.class_name not in broken]

    def _write(self, setting, picture, data, mask, sources):
        first = sources[0]  # the only one in SS
        frame_path, mask_path = files_of(
            folder_of(self._root, setting),
            picture.number,
            (first.class_name, first.annotation) if setting == "ss" else None,
        )
        for path in (frame_path, mask_path):
            path.parent.mkdir(parents=True, exist_ok=True)
        frame_path.write_bytes(data)
        Image.fromarray(mask).save(mask_path)
        for source in sources:
            self.rows[setting].append(
                {
                    "cateName": source.class_name,
                    "cateId": COCO_IDS[source.class_name],
                    "img_Id": picture.number,
                    "ann_Ids": source.annotation,
                    "vgg_file": self._recordings.take(source.class_name, picture.split),
                    "split": picture.split,
                    "audio_pos": source.position,
                    "multi_instance": int(setting == "msmi"),
                }
            )
