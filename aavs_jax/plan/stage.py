"""A stage of a run, made once: what its config says, its network, its data, its devices.

What follows takes a `Stage`, or one of its phases by `PhaseName`, and reads no other part of the
config than theirs. To make one is to check it.
"""

import dataclasses
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jax.sharding import Mesh

from aavs_jax.errors import UserError
from aavs_jax.methods import make_method
from aavs_jax.methods.method import Method
from aavs_jax.methods.tasks import TASKS, Task
from aavs_jax.plan.folds import BY_OTHERS, earlier_name, fold_name, part_of
from aavs_jax.run.resuming import RESULTS
from aavs_jax.state import tree
from aavs_jax.state.optimizer import make_optimizer
from data_pipelines.loader import labelled_clips
from data_pipelines.prepared.embeddings import Embeddings
from data_pipelines.prepared.source import ClipSource

Config = Mapping[str, Any]


# What a stage's masks are called in its folder, by `prior.kind` of who takes them.
MASKS = {"hard": "masks", "soft": "masks-soft"}


class PhaseName(NamedTuple):
    """A phase of a stage; as text '<stage>/<phase>'."""

    stage: str
    phase: str

    def __str__(self) -> str:
        return f"{self.stage}/{self.phase}"

    @classmethod
    def starts(cls, text: str) -> "dict[str, PhaseName] | None":
        """The phases that a phase's `start` names: beginning of paths -> phase; None if none.

        '' where the whole network comes of one, '<part>/' where several are its parts.
        """
        found = {}
        for piece in text.split(","):
            name, arrow, part = (word.strip() for word in piece.partition("->"))
            if (phase := cls.of(name)) is None:
                return None
            found[f"{part}/" if arrow else ""] = phase
        return found

    @classmethod
    def of(cls, text: str) -> "PhaseName | None":
        """The inverse of `str`; None where the text names no phase."""
        stage, slash, phase = text.partition("/")
        return cls(stage, phase) if slash else None


@dataclasses.dataclass(frozen=True)
class Stage:
    """A network, trained through its phases and evaluated.

    Attributes:
      name: of the stage.
      config: of the run, all keys, nested plain values.
      root: the folder of the run.
      method: its network and loss. Before the data are opened it has two classes.
      sources: split -> its clips; {} before the data are opened. Of a stage that does not see part
        of the training clips they are "train", "val" and, that part, `folds.UNSEEN`.
      heard: split -> embeddings that the network takes in place of what its front end gives.
      mesh: of the devices; None before the data are opened.
    """

    name: str
    config: Config
    root: Path
    method: Method
    sources: Mapping[str, ClipSource] = dataclasses.field(default_factory=dict)
    heard: Mapping[str, Embeddings] = dataclasses.field(default_factory=dict)
    mesh: Mesh | None = None

    @property
    def keys(self) -> Config:
        """Its part of the config."""
        return self.config["stages"][self.name]

    @property
    def where(self) -> str:
        """How its keys are called, for messages."""
        return f"config.stages.{self.name}"

    @property
    def task(self) -> Task:
        return TASKS[self.keys["task"]]

    @property
    def folder(self) -> Path:
        return self.root / self.name

    @property
    def phases(self) -> tuple[PhaseName, ...]:
        """In the order in which they train; none where the stage is only evaluated."""
        return tuple(PhaseName(self.name, phase) for phase in self.keys["order"])

    def phase(self, name: PhaseName) -> Config:
        """The keys of a phase."""
        return self.keys["phases"][name.phase]

    @property
    def is_complete(self) -> bool:
        """Whether its scores are there, which come last."""
        return (self.folder / RESULTS).exists()

    def seed(self, phase: PhaseName) -> int:
        """Of the order and the draws of a phase."""
        return zlib.crc32(f"{self.config['seed']}/{phase}".encode())

    @property
    def steps_per_epoch(self) -> float:
        """Clips that are trained on over clips in a batch."""
        return len(labelled_clips(self.sources["train"])) / self.keys["data"]["batch_size"]

    def steps(self, name: PhaseName) -> int:
        """Of a phase, one for every batch."""
        return max(1, round(self.phase(name)["epochs"] * self.steps_per_epoch))

    @property
    def fold(self) -> int:
        """Which part of the training clips its network does not see, from 1; 0: it sees all."""
        return self.keys.get("fold", 0)

    @property
    def writes_for(self) -> str | None:
        """The stage for which this one only writes masks of training clips, see `plan.folds`."""
        return self.keys.get("writes_for")

    def earlier_step(self, name: PhaseName) -> int:
        """The step of a phase whose network is kept for `earlier`; 0: none is."""
        if not self.keys["earlier"] or name.phase != self.keys["order"][-1]:
            return 0
        return max(1, round(self.keys["earlier"] * self.steps(name)))

    def inside(self, name: str) -> "Stage":
        """The stage of a network within its own, `Method.inner`, on the same data."""
        own, method = f"{self.name}/{name}", self.method.inner[name].method
        prior = {**self.keys["prior"], "train": "none", "evaluate": ("none",), "masks": ""}
        keys = {**self.keys, "task": method.task, "prior": prior, "writes_masks": False}
        config = {**self.config, "stages": {**self.config["stages"], own: keys}}
        return dataclasses.replace(self, name=own, config=config, method=method)

    @property
    def prior_in_training(self) -> str:
        """`prior.train` as loaders know it: they read predicted masks, whoever predicted them."""
        train = self.keys["prior"]["train"]
        return "predicted" if train in BY_OTHERS else train

    @property
    def masks_from(self) -> Path | None:
        """Where its predicted prior masks lie, or will lie; None if it has none."""
        prior = self.keys["prior"]
        if not (masks := prior["masks"]):
            return None
        return Path(masks) if "/" in masks else self.root / masks / MASKS[prior["kind"]]

    def training_masks(self, source: ClipSource) -> Path | dict[str, Path] | None:
        """The same of its training clips: where they are cross-fitted, that of each by its name.

        Args:
          source: the clips.
        """
        prior = self.keys["prior"]
        if prior["train"] == "earlier":
            return self.root / earlier_name(prior["masks"]) / MASKS[prior["kind"]]
        if prior["train"] != "crossfit":
            return self.masks_from
        folds = self.config["stages"][prior["masks"]]["folds"]
        folders = [
            self.root / fold_name(prior["masks"], part) / MASKS[prior["kind"]]
            for part in range(1, folds + 1)
        ]
        return {clip.name: folders[part_of(clip, folds) - 1] for clip in source.clips}

    @property
    def own_training_masks_are_wanted(self) -> bool:
        """Whether it writes masks of training clips: not where each stage that takes its masks
        trains on those that others write of these clips.
        """
        priors = [self.config["stages"][name]["prior"] for name in self.config["schedule"]]
        trained_on = [prior["train"] for prior in priors if prior["masks"] == self.name]
        return not trained_on or any(train not in BY_OTHERS for train in trained_on)

    @property
    def soft_is_wanted(self) -> bool:
        """Whether another stage of the run takes its masks as shades."""
        own = self.writes_for or self.name
        others = (stage["prior"] for stage in self.config["stages"].values())
        return any(prior["masks"] == own and prior["kind"] == "soft" for prior in others)


def make_stage(config: Config, name: str, root: Path, num_classes: int = 2) -> Stage:
    """A stage before its data are opened.

    Args:
      config: as in configs/base.py, `values.checked`.
      name: of the stage.
      root: the folder of the run.
      num_classes: K, where it is known; no pattern depends on it.

    Raises:
      UserError: a stage or phase that is not described; a network or loss that cannot be; a
        pattern that matches nothing.
    """
    keys = _described(config["stages"], name, "config.stages")
    for phase in keys["order"]:
        _described(keys["phases"], phase, f"config.stages.{name}.phases")
    stage = Stage(name, config, root, make_method({**keys, "train": config["train"]}, num_classes))
    for phase in stage.phases:
        _check_patterns(stage, phase)
    return stage


def make_stages(config: Config, root: Path) -> tuple[Stage, ...]:
    """All stages of a schedule, in its order, see `make_stage`.

    Raises:
      UserError: as `make_stage`; a pattern of config.init.allow that matches nothing.
    """
    stages = tuple(make_stage(config, name, root) for name in config["schedule"])
    paths = {path: None for stage in stages for path in stage.method.shapes}
    tree.matching(paths, config["init"]["allow"], "init allow")
    return stages


def trained_paths(method: Method, keys: Config, name: PhaseName) -> tuple[dict, dict]:
    """The shapes of what a phase trains, and of what it never changes; by path.

    Running statistics are in neither: no gradient changes them, and yet they change.
    """
    fixed = {path: leaf for path, leaf in method.shapes.items() if path not in method.mutable}
    return tree.partition(fixed, keys["trains"], f"{name} trains")


def depends_on_classes(method: Method, path: str) -> bool:
    """Whether the shape of a parameter depends on the number of classes, which only data know."""
    return any(
        re.fullmatch(pattern, path) and resizable.what == "classes"
        for pattern, resizable in method.resizable.items()
    )


def _check_patterns(stage: Stage, name: PhaseName) -> None:
    phase, shapes = stage.phase(name), stage.method.shapes
    for key in ("fresh", "zero"):
        tree.matching(shapes, phase[key], f"{name} {key}")
    chosen, _ = trained_paths(stage.method, phase, name)
    if not chosen:
        raise UserError(f"{name} trains is empty: name the parameters that shall train")
    # What is wrong with it shows when it is made; how many steps it makes does not matter there.
    make_optimizer(phase["optimizer"], 2, list(chosen), str(name))


def _described(descriptions: Config, name: str, where: str) -> Config:
    if name not in descriptions:
        names = ", ".join(descriptions) or "none"
        raise UserError(f"there is no {where}.{name}: there are {names}")
    return descriptions[name]
