"""What is measured: the cases, their configs and their inputs. NumPy only.

Both sides do the same work. In all cases sound is given as embeddings, as in the paper's recipe:
the audio encoder has no part. Drop-path is off, because each side would drop other things. The loss
looks at random points on both sides, also of the small network, whose config has a regular grid:
as many points as the grid has.
"""

import dataclasses
from typing import Any

import numpy as np

from aavs_jax.errors import UserError
from configs import avss, s4
from data_pipelines.facts import avsbench
from data_pipelines.making.audible_shapes.shapes import NUM_SHAPES

WHAT = ("inference", "train", "loss", "loader")
SIZES = ("small", "full")
TASKS = ("binary", "semantic")
DTYPES = ("float32", "tf32", "bfloat16")
PHASES = ("a", "b", "all")
# K of the semantic task's data: Audible Shapes and background, AVSS.
CLASSES = {"small": NUM_SHAPES + 1, "full": len(avsbench.CLASS_NAMES)}
AS_CONFIGURED = -1  # of frames_per_pass
SEED = 3407


@dataclasses.dataclass(frozen=True)
class Case:
    """One thing that every side does, again and again.

    Attributes:
      what: of WHAT; or 'machine', the speeds of a large matrix product and of a large copy.
      size: of SIZES.
      task: of TASKS.
      phase: of PHASES, where `what` is 'train': which parameters train.
      clips: B.
      frames: T of each clip.
      dtype: of DTYPES.
      frames_per_pass: overrides config.train.frames_per_pass; AS_CONFIGURED does not.
      image_size: of frames, pixels; 0: the config's.
      queries: Q; 0: the config's.
      devices: simulated CPU devices that share the clips; 0: the devices there are, the first one.
    """

    what: str
    size: str
    task: str = "binary"
    phase: str = ""
    clips: int = 1
    frames: int = 1
    dtype: str = "float32"
    frames_per_pass: int = AS_CONFIGURED
    image_size: int = 0
    queries: int = 0
    devices: int = 0

    @property
    def name(self) -> str:
        """For people, such as 'train b, full, 5 frames'."""
        if self.what == "machine":
            return f"the machine, {self.dtype}"
        words = [self.what + f" {self.phase}" * bool(self.phase), self.size]
        if self.task != "binary":
            words.append(self.task)
        if self.what != "loader":
            words += [_number(self.clips, "clip")] * (self.clips > 1)
            words.append(_number(self.frames, "frame"))
        words += [self.dtype] * (self.dtype != "float32")
        words += [f"{self.image_size} pixels"] * bool(self.image_size)
        words += [f"{self.queries} queries"] * bool(self.queries)
        words += [_number(self.devices, "device")] * bool(self.devices)
        return ", ".join(words)


def _number(count: int, of: str) -> str:
    return f"{count} {of}{'s' * (count != 1)}"


def phases(size: str, task: str) -> tuple[str, ...]:
    """The phases of a size's recipe, in order."""
    return tuple(_config(size, task)["stages"][_stage_name(task)]["order"])


def make(
    *,
    sizes: tuple[str, ...],
    what: tuple[str, ...],
    frames: tuple[int, ...],
    phases_wanted: tuple[str, ...],
    task: str,
    dtype: str,
    frames_per_pass: int,
) -> list[Case]:
    """All cases that are asked for; of each size those phases that its recipe has.

    Raises:
      UserError: no recipe of these sizes has one of the phases.
    """
    cases = []
    for size in sizes:
        common = {"size": size, "task": task, "dtype": dtype}
        for kind in what:
            if kind == "loader":
                cases.append(Case(kind, **common))
            elif kind == "train":
                for phase in (p for p in phases(size, task) if p in phases_wanted):
                    step = {**common, "phase": phase, "frames_per_pass": frames_per_pass}
                    cases += [Case(kind, **step, frames=n) for n in frames]
            else:
                cases += [Case(kind, **common, frames=n) for n in frames]
    if not cases:
        there = "; ".join(f"{size}: {', '.join(phases(size, task))}" for size in sizes)
        raise UserError(
            f"--phases {','.join(phases_wanted)} leaves nothing to measure ({there}): name others"
        )
    return cases


def _stage_name(task: str) -> str:
    return "localise" if task == "binary" else "understand"


def _config(size: str, task: str) -> dict[str, Any]:
    recipe = s4 if task == "binary" else avss
    return recipe.get_config("" if size == "small" else "/anything").to_dict()


def config_of(case: Case) -> dict[str, Any]:
    """The recipe's config with what the case changes, nested plain values."""
    config = _config(case.size, case.task)
    stage = config["stages"][_stage_name(case.task)]
    stage["model"]["backbone"]["drop_path_rate"] = 0.0
    stage["model"]["num_queries"] = case.queries or stage["model"]["num_queries"]
    stage["model"]["dtype"] = "bfloat16" if case.dtype == "bfloat16" else "float32"
    stage["data"]["image_size"] = case.image_size or stage["data"]["image_size"]
    if grid := stage["loss"]["grid"]:
        stage["loss"] |= {"grid": 0, "num_points": grid * grid}
    stage["train"] = config.setdefault("train", {})  # as `plan.stage.make_stage` does
    if case.frames_per_pass != AS_CONFIGURED:
        config["train"]["frames_per_pass"] = case.frames_per_pass
    return config


def stage_of(case: Case) -> dict[str, Any]:
    """The keys of the stage that the case is of."""
    return config_of(case)["stages"][_stage_name(case.task)]


def num_classes(case: Case) -> int:
    """K of the network, background counted."""
    return 2 if case.task == "binary" else CLASSES[case.size]


def inputs(case: Case) -> dict[str, np.ndarray]:
    """A batch, the same for the same case, as `data_pipelines.loader` describes it.

    Noise in large and small structure; two rectangles that sound, of two classes if there are any.
    """
    data, embedding = stage_of(case)["data"], _embedding(case)
    size, side, shape = data["image_size"], data["label_size"], (case.clips, case.frames)
    rng = np.random.default_rng(SEED)
    coarse = rng.random((*shape, 4, 4, 3), np.float32)
    frames = np.repeat(np.repeat(coarse, -(-size // 4), 2), -(-size // 4), 3)[..., :size, :size, :]
    frames = 200 * frames + 55 * rng.random(frames.shape, np.float32)
    labels = np.zeros((*shape, side, side), np.uint8)
    labels[..., side // 8 : side // 2, side // 8 : side // 2] = 1
    labels[..., side * 5 // 8 : side * 7 // 8, side // 2 :] = 1 if case.task == "binary" else 4
    batch = {
        "frames": frames.astype(np.uint8),
        "audio": rng.random((*shape, embedding), np.float32),
        "labels": labels,
        "labelled": np.ones(shape, bool),
        "valid": np.ones(shape, bool),
    }
    if case.task == "semantic":
        batch["prior_mask"] = (labels != 0).astype(np.float32)
    return batch


def logits(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """What a network might say: class logits [D,N,Q,K+1] and mask logits [D,N,Q,h,w], float32."""
    model, data = stage_of(case)["model"], stage_of(case)["data"]
    rng = np.random.default_rng(SEED)
    leading = (model["decoder_layers"] + 1, case.clips * case.frames, model["num_queries"])
    grid = data["image_size"] // 4
    classes = rng.standard_normal((*leading, num_classes(case) + 1), np.float32)
    return classes, rng.standard_normal((*leading, grid, grid), np.float32)


def _embedding(case: Case) -> int:
    return stage_of(case)["model"]["audio"]["fully_connected"][-1]
