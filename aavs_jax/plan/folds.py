"""Cross-fitting: networks that see all training clips but one part, and say what is in that part.

A network is better on the clips it was trained on than on new ones, so that masks it writes of its
own training clips are no example of what a later stage will get. Masks of a network that has not
seen the clip are; those of the same network when it had been trained for less long stand in for
them, and cost nothing.
"""

import re
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

from data_pipelines.prepared.source import Clip

Config = Mapping[str, Any]

# What `prior.train` may be besides what loaders know: predicted masks of training clips, though not
# by the network that predicts those of all others.
BY_OTHERS = ("crossfit", "earlier")
UNSEEN = "unseen"  # in place of the name of a split: the training clips that a network did not see
_OF_VIDEO = re.compile(r"(.{11})_\d+(_\d+)?")  # YouTube's id, and where in the video, see AVSBench


def fold_name(stage: str, fold: int) -> str:
    """What the stage is called that does not see this part of the clips."""
    return f"{stage}_fold{fold}"


def earlier_name(stage: str) -> str:
    """What the stage is called that writes masks with an earlier checkpoint of this one."""
    return f"{stage}_earlier"


def fold_names(config: Config, stage: str) -> tuple[str, ...]:
    """The stages of `stages.<stage>.folds`, in order."""
    return tuple(fold_name(stage, k + 1) for k in range(config["stages"][stage]["folds"]))


def with_writers(config: Config) -> dict[str, Any]:
    """A config in whose schedule are stages, too, that only write masks of training clips.

    They come after the stage whose keys they have. Those of `stages.<stage>.folds` train, from
    where it starts; that of `stages.<stage>.earlier` takes one of its checkpoints, and is there
    where a stage trains on its masks.

    Args:
      config: as in configs/base.py, `values.checked`.
    """
    schedule, stages = [], dict(config["stages"])
    for name in config["schedule"]:
        schedule.append(name)
        keys = stages.get(name, {"folds": 0, "earlier": 0})
        for fold in range(1, keys["folds"] + 1):
            own = fold_name(name, fold)
            phases = {
                phase: {**values, "start": _within(own, name, values["start"])}
                for phase, values in keys["phases"].items()
            }
            own_keys = {"phases": phases, "fold": fold, "writes_for": name, "earlier": 0.0}
            stages[own] = {**keys, **own_keys}
            schedule.append(own)
        if keys["earlier"] and any(
            other["prior"]["train"] == "earlier" and other["prior"]["masks"] == name
            for other in (stages[after] for after in config["schedule"] if after in stages)
        ):
            own = earlier_name(name)
            stages[own] = {**keys, "order": (), "writes_for": name}
            schedule.append(own)
    return {**config, "schedule": tuple(schedule), "stages": stages}


def part_of(clip: Clip, folds: int) -> int:
    """Which of so many parts a clip is in, from 1: that of all clips of its video."""
    video = _OF_VIDEO.fullmatch(clip.uid)
    return zlib.crc32((video[1] if video else clip.uid).encode()) % folds + 1


def split_by(clips: Iterable[Clip], fold: int, folds: int) -> tuple[set[str], set[str]]:
    """Names of the clips that are seen without a part, and of those in it."""
    parts = {clip.name: part_of(clip, folds) for clip in clips}
    unseen = {name for name, part in parts.items() if part == fold}
    return parts.keys() - unseen, unseen


def _within(own: str, name: str, start: str) -> str:
    """A phase's start, which in a stage of its own is a phase of that stage."""
    stage, slash, phase = start.partition("/")
    return f"{own}/{phase}" if slash and stage == name else start
