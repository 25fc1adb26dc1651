"""What may change in the config of a run that is taken up again, and what it means for the run.

Parameters that were trained stay what they are: a key that had a part in them cannot change. Others
can: those that change no score, those of scores alone, those of what has not begun; and a phase
from which nobody has started yet can be given more epochs.
"""

import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Config = Mapping[str, Any]

RESULTS = "results.json"  # the scores of a run or of a stage, which come last

# A run resumes with other values of these: they change no score.
FREE_KEYS = (
    *("data.cache", "data.num_workers", "checkpoint_every", "log_every"),
    *("train.frames_per_pass", "train.remat"),
)
# What they do stands in the keys of each stage.
SHARED_KEYS = ("backbone", "dtype", "batch_size", "epochs")
# Where the data came from; the same data may lie elsewhere by now.
DATA_KEYS = ("data.folder", "data.clips", "data.size", "data.seed")


@dataclasses.dataclass(frozen=True)
class Changes:
    """What differs between the config of a run and that of the command that takes it up again.

    Attributes:
      refused: '<key> was <value>, is <value>' of the first that cannot change, and how many more;
        '' if there are none.
      said: what the others mean, a line each.
      stages: names of the stages whose scores have to be computed again.
      rewritten: those of them whose parameters will be others, too.
      anew: whether the table of the whole run has to be made again.
    """

    refused: str = ""
    said: tuple[str, ...] = ()
    stages: frozenset[str] = frozenset()
    rewritten: frozenset[str] = frozenset()
    anew: bool = False


def compare(before: Config, now: Config, root: Path, *, same_data: bool = False) -> Changes:
    """Sorts the differences between two configs.

    Args:
      before: plain values, as JSON has them.
      now: the same.
      root: the folder of the run; what is begun is looked up there.
      same_data: whether what both take as data is known to be the same.
    """
    old, new = flatten(before), flatten(now)
    free = FREE_KEYS + SHARED_KEYS + (DATA_KEYS if same_data else ())
    refused, said, stages, rewritten, anew = [], [], set(), set(), False
    for key in sorted(old.keys() | new.keys()):
        was, is_ = old.get(key), new.get(key)
        budget = key.endswith(".data.features_gib")
        if was == is_ or key in free or budget or _not_begun(key, before, root):
            continue
        difference = f"{key} was {was!r}, is {is_!r}"
        names = key.split(".")
        if names[0] == "eval":
            stages |= {path.parent.name for path in root.glob(f"*/{RESULTS}")}
            anew = True
            said.append(f"{difference}: scores are computed again; nothing is trained again")
        elif key == "schedule" and list(is_[: len(was)]) == list(was):
            anew = True
            said.append(f"{difference}: the stages there are stay as they are")
        elif names[-1] == "max_targets" and _has_grown(was, is_):
            said.append(f"{difference}")
        elif names[2:] == ["data", "features"]:
            said.append(f"{difference}: what is computed is the same, but for its last bits")
        elif (
            names[2:5:2] == ["phases", "epochs"]
            and _has_grown(was, is_)
            and _is_last(names[1], names[3], now, root)
            # The step whose network is to be kept may have passed.
            and not _earlier_is_taken(names[1], now)
        ):
            stage, phase = names[1], f"{names[1]}/{names[3]}"
            stages.add(stage)
            rewritten.add(stage)
            anew = True
            said.append(
                f"{difference}: {phase} resumes from its last state, with the learning rates of "
                f"{is_:g} epochs from there on"
            )
        else:
            refused.append(difference)
    if refused:
        more = f" and {len(refused) - 1} more" if len(refused) > 1 else ""
        return Changes(refused=refused[0] + more)
    return Changes("", tuple(said), frozenset(stages), frozenset(rewritten), anew)


def _earlier_is_taken(name: str, config: Mapping[str, Any]) -> bool:
    """Whether a stage of the schedule trains on masks of an earlier network of this one."""
    priors = (config["stages"][other]["prior"] for other in config["schedule"])
    return any(prior["train"] == "earlier" and prior["masks"] == name for prior in priors)


def _has_grown(was: Any, is_: Any) -> bool:
    """Whether a number has; a key that only one of the configs has is None in the other."""
    return was is not None and is_ is not None and was < is_


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by dotted key: {'a': {'b': 1}} -> {'a.b': 1}."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def forget_scores(root: Path, changes: Changes) -> None:
    """Removes what has to be made again: tables, and of other parameters masks and examples."""
    if changes.anew:
        (root / RESULTS).unlink(missing_ok=True)
    for stage in changes.stages:
        (root / stage / RESULTS).unlink(missing_ok=True)
    for stage in changes.rewritten:
        for folder in (*(root / stage).glob("masks*"), root / stage / "examples"):
            shutil.rmtree(folder, ignore_errors=True)


def _not_begun(key: str, before: Config, root: Path) -> bool:
    """Whether a key belongs to a stage or phase in which nothing has happened yet."""
    names = key.split(".")
    if names[0] != "stages" or len(names) < 2:
        return False
    stage = names[1]
    if not (root / stage).exists():
        return True
    if names[2] != "phases" or len(names) < 5:
        return False
    known = stage in before["stages"] and names[3] in before["stages"][stage]["phases"]
    return known and not (root / stage / names[3]).exists()


def _is_last(stage: str, phase: str, config: Config, root: Path) -> bool:
    """Whether nothing has started from a phase, or with its keys: neither a phase nor a stage after
    it."""
    order = list(config["stages"][stage]["order"])
    schedule = list(config["schedule"])
    later = [root / stage / name for name in order[order.index(phase) + 1 :]]
    later += [root / name for name in schedule[schedule.index(stage) + 1 :]]
    # Stages that only write masks, as plan.folds calls them.
    later += [*root.glob(f"{stage}_fold*"), root / f"{stage}_earlier"]
    return not any(folder.exists() for folder in later)
