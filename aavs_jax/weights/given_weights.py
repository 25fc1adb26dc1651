"""Weights that are to be evaluated: which stage's they are, and whether its network is whole.

Nothing is drawn at random here: a parameter that is missing, too many or of another shape is an
error that names it. Only an audio encoder may come from a folder of its own.
"""

import dataclasses
import json
from collections.abc import Collection, Container, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aavs_jax.errors import UserError
from aavs_jax.methods import find, make_method
from aavs_jax.methods.method import Method
from aavs_jax.methods.tasks import TASKS
from aavs_jax.run.progress import say
from aavs_jax.run.resuming import flatten
from aavs_jax.state import tree
from aavs_jax.state.checkpoint import PhaseCheckpoints
from aavs_jax.weights import card
from aavs_jax.weights.beside import beside
from aavs_jax.weights.card import Card
from aavs_jax.weights.keeping import kept_phases
from aavs_jax.weights.naming import in_words
from aavs_jax.weights.pretrained import check_converted
from data_pipelines.errors import tidy_path
from data_pipelines.prepared.source import ClipSource

Config = Mapping[str, Any]

# Task and whether there are prior masks -> the configs that have such a network last.
CONFIGS = {
    ("binary", False): "configs/s4.py or configs/ms3.py",
    ("semantic", True): "configs/avss.py",
    ("semantic", False): "configs/avss_end_to_end.py",
}
# Of a card's network: the stage decides on these.
NOT_SIZES = ("task", "num_classes", "prior", "dtype")


@dataclasses.dataclass(frozen=True)
class Given:
    """A stage's weights.

    Attributes:
      folder: as given.
      card: of the folder.
      stage: the stage's config, with the sizes of the weights.
      parameters: all of the network's, by path.
      digest: of them.
    """

    folder: Path
    card: Card
    stage: Config
    parameters: dict[str, np.ndarray]
    digest: str


def read(config: Config, name: str, folders: str) -> dict[str, Given]:
    """The weights of every stage that there are some for, in the order of the schedule.

    Args:
      config: as in configs/base.py.
      name: of the config, such as "s4".
      folders: separated by commas: `<run>/<stage>/<phase>`, of which the best checkpoint is taken;
        a whole run, of which what its stages keep is taken; or what `aavs_jax.convert` wrote.

    Raises:
      UserError: no weights there; not of a network that can be evaluated, or of none that the
        schedule has; parameters missing, too many or misfitting.
    """
    cards = {folder: card.read(folder) for folder in _folders(folders)}
    chosen = _assign(config, name, cards)
    for stage_name in config["schedule"]:
        if stage_name not in chosen:
            say(f"[{stage_name}] is left out: no weights are given for it")
    return {
        stage_name: _read(config, stage_name, chosen[stage_name], cards[chosen[stage_name]])
        for stage_name in config["schedule"]
        if stage_name in chosen
    }


def check_classes(stage_name: str, given: Given, source: ClipSource) -> None:
    """Whether a semantic network and the data have the same classes; other names are said.

    Raises:
      UserError: not as many.
    """
    if given.stage["task"] != "semantic":
        return
    count = given.card.network["num_classes"]
    if count != source.num_classes:
        raise UserError(
            f"{given.folder} is {given.card.describe()}, and the data has {source.num_classes} "
            f"classes, background included: give the stage {stage_name} weights for these classes, "
            "or the data that these weights are for"
        )
    for class_id, (theirs, ours) in enumerate(
        zip(given.card.classes, source.class_names, strict=False)
    ):
        if theirs != ours:
            say(
                f"[{stage_name}] classes are called otherwise by {given.folder} than by the data: "
                f"class {class_id} is {theirs!r} there and {ours!r} here"
            )
            break


def _folders(folders: str) -> list[Path]:
    found: list[Path] = []
    for text in filter(None, (part.strip() for part in folders.split(","))):
        folder = tidy_path(text)
        check_converted(folder, "--evaluate")
        found += kept_phases(folder) if (folder / "config.json").exists() else [folder]
    if not found:
        raise UserError("--evaluate names no folder of weights: give --evaluate=DIR")
    return found


def _is_phase(folder: Path) -> bool:
    return (folder / "checkpoints").is_dir()


def _parameters(folder: Path) -> dict[str, np.ndarray]:
    if not _is_phase(folder):
        return card.weights(folder)[0]
    with PhaseCheckpoints(folder, reading=True) as checkpoints:
        return checkpoints.best_parameters()


def _assign(config: Config, name: str, cards: Mapping[Path, Card]) -> dict[str, Path]:
    """Stage -> folder of weights."""
    chosen: dict[str, Path] = {}
    for folder, found in cards.items():
        methods = {config["stages"][stage]["method"] for stage in config["schedule"]}
        if found.kind not in methods:
            raise UserError(_not_evaluated(folder, found, methods))
        task, prior = found.network["task"], found.network["prior"]
        fitting = [
            stage_name
            for stage_name in config["schedule"]
            if config["stages"][stage_name]["task"] == task
            and (config["stages"][stage_name]["prior"]["train"] != "none") == prior
        ]
        if not fitting:
            raise UserError(_no_stage(config, name, folder, found))
        free = [stage_name for stage_name in fitting if stage_name not in chosen]
        if not free:
            raise UserError(
                f"{chosen[fitting[0]]} and {folder} are both for the stage {fitting[0]}: give one "
                "of them"
            )
        chosen[free[0]] = folder
    return chosen


def _not_evaluated(folder: Path, found: Card, methods: Collection[str]) -> str:
    taking = {key: p for name in methods for key, p in find(name).PRETRAINED.items()}
    keys = [key for key, part in taking.items() if found.kind in part.kinds]
    if not keys:
        return (
            f"{folder} is {found.describe()}, and the config's stages are of the method "
            f"{' and '.join(sorted(methods))}: give a config of that method"
        )
    return (
        f"{folder} is {found.describe()}: a start for training (--config.init.{keys[-1]}={folder}) "
        "and no network that can be evaluated"
    )


def _no_stage(config: Config, name: str, folder: Path, found: Card) -> str:
    task, prior = found.network["task"], found.network["prior"]
    tasks = list(dict.fromkeys(config["stages"][s]["task"] for s in config["schedule"]))
    asks = " and ".join(TASKS[t].question for t in tasks)
    if task in tasks:
        asks = f"{TASKS[task].question} {'without' if prior else 'with'} prior masks"
    fitting = CONFIGS.get((task, prior), "one with such a stage")
    return (
        f"{folder} is {found.describe()}, and the config {name} asks {asks}: use --config={fitting}"
    )


def _read(config: Config, stage_name: str, folder: Path, found: Card) -> Given:
    if _is_phase(folder) and not (folder.absolute().parent / "results.json").exists():
        say(f"[{stage_name}] the run of {folder} is not complete: the best of it so far is taken")
    parameters = _parameters(folder)
    stage = _with_sizes(config["stages"][stage_name], found.network)
    pretrained = find(stage["method"]).PRETRAINED
    # A phase has all of its network.
    if not _is_phase(folder):
        for key, part in pretrained.items():
            if part.lacking and not any(path.startswith(part.prefix) for path in parameters):
                others, sizes = beside(folder, key, part, config["init"][key])
                parameters |= others
                stage = _with_sizes(stage, sizes)
    if found.image_size:
        stage = stage | {"data": stage["data"] | {"image_size": found.image_size}}
    method = make_method(stage, found.network["num_classes"])
    asked = config["stages"][stage_name]
    _say_sizes(stage_name, asked, stage, folder, method.training_only)
    size = stage["data"]["label_size"]
    if found.label_size and found.label_size != size:
        say(
            f"[{stage_name}] is scored at {size} pixels; it was trained and judged at "
            f"{found.label_size}, which --config.stages.{stage_name}.data.label_size="
            f"{found.label_size} would be"
        )
    kind = stage["prior"]["kind"]
    by_a_network = "/" not in stage["prior"]["masks"]
    if by_a_network and found.told.get("kind", kind) != kind:
        say(
            f"[{stage_name}] is told {kind} masks; it was trained and judged with "
            f"{found.told['kind']} ones, which --config.stages.{stage_name}.prior.kind="
            f"{found.told['kind']} would be"
        )
    check_whole(folder, parameters, method)
    return Given(folder, found, stage, parameters, tree.digest(parameters))


def _with_sizes(stage: Config, network: Mapping[str, Any]) -> dict[str, Any]:
    sizes = {key: value for key, value in network.items() if key not in NOT_SIZES}
    return {**stage, "model": _merged(stage["model"], sizes)}


def _merged(values: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(values)
    for key, value in others.items():
        inner = values.get(key)
        merged[key] = _merged(inner, value) if isinstance(inner, Mapping) else value
    return merged


def _say_sizes(
    stage_name: str, asked: Config, taken: Config, folder: Path, training_only: Container[str]
) -> None:
    """Tells where the weights' sizes are not the config's."""
    differing = []
    for part in ("model", "data"):
        before, now = _flat(asked[part]), _flat(taken[part])
        differing += [
            f"{part}.{key} {now[key]} (not {before[key]})"
            for key in before
            if now[key] != before[key] and key not in training_only
        ]
    if differing:
        say(f"[{stage_name}] is of the sizes of {folder}: {', '.join(differing)}")


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """By dotted key, as JSON has it, where a tuple is a list."""
    return json.loads(json.dumps(flatten(values)))


def check_whole(folder: Path, parameters: Mapping[str, np.ndarray], method: Method) -> None:
    """Raises UserError where parameters are missing, too many or of another shape; names them."""
    wanted = {path: tuple(leaf.shape) for path, leaf in method.shapes.items()}
    faults: Sequence[tuple[str, Mapping[str, str]]] = (
        ("lacks", dict.fromkeys(wanted.keys() - parameters.keys(), "")),
        ("holds what the network has not:", dict.fromkeys(parameters.keys() - wanted.keys(), "")),
        (
            "does not fit the network:",
            {
                path: f"of shape {list(parameters[path].shape)}, not {list(shape)}"
                for path, shape in wanted.items()
                if path in parameters and parameters[path].shape != shape
            },
        ),
    )
    mend = "convert the origin once more, or train"
    if _is_phase(folder):
        mend = f"put its folder {folder / 'frozen'} back, or name another phase"
    for what, paths in faults:
        if paths:
            raise UserError(
                f"{folder} {what} {in_words(paths, method.parts)}, so nothing would be known of "
                f"its scores: {mend}"
            )
