"""The folders of config.init, from which a phase with start 'pretrained' takes its parameters.

Their cards and the shapes in them are looked at before anything is done, so that a wrong folder
costs seconds and not the hours that preparing data takes; values are read when a phase starts.
"""

import dataclasses
import shlex
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from orbax.checkpoint import v1 as ocp

from aavs_jax.errors import UserError
from aavs_jax.methods.method import Method, Pretrained
from aavs_jax.plan.stage import PhaseName, Stage
from aavs_jax.state.parameter_folders import PARAMETERS
from aavs_jax.weights import card, foreign
from aavs_jax.weights.card_method import method_of
from aavs_jax.weights.size_keys import BACKBONE, flat_sizes, preset_of, size_flags
from data_pipelines.errors import tidy_path


@dataclasses.dataclass(frozen=True)
class Origin:
    """A folder of weights given in config.init.

    Attributes:
      key: of config.init.
      folder: as given.
      card: of it.
      shapes: path -> shape of every parameter in it.
    """

    key: str
    folder: Path
    card: card.Card
    shapes: dict[str, tuple[int, ...]]

    def describe(self) -> str:
        """'weights/vggish, an audio encoder alone'."""
        return f"{self.folder}, {self.card.describe()}"


def missing(method: Method, init: Mapping[str, Any]) -> list[str]:
    """The keys of config.init that name no folder."""
    return [key for key in method.pretrained if not init[key]]


def could_give(method: Method, key: str, paths: Iterable[str]) -> bool:
    """Whether the weights of a key of config.init hold any of these parameters.

    An audio encoder comes with no Mask2Former, and the other way round.
    """
    prefix = method.pretrained[key].prefix
    others = tuple(other.prefix for other in method.pretrained.values() if other.prefix)
    return any(path.startswith(prefix) if prefix else not path.startswith(others) for path in paths)


def how_to_give(method: Method, keys: Sequence[str]) -> str:
    """What to do about missing folders, for the end of a sentence.

    Args:
      method: that takes them.
      keys: some of config.init's, at least one.
    """
    options = " and ".join(f"--config.init.{key}=DIR" for key in keys)
    given = [method.pretrained[key] for key in keys]
    return (
        f"pass {options}, made once from {' and '.join(each.file for each in given)} with "
        f"{' and '.join(each.command for each in given)}, or take "
        "the small network, which needs none, with --config=...:FOLDER,small"
    )


def read_origins(method: Method, init: Mapping[str, Any]) -> list[Origin]:
    """The folders that are given, in the order in which later ones win.

    Raises:
      UserError: one is not there, has no card, cannot be read or is of another kind.
    """
    return [_read(method, key, tidy_path(init[key])) for key in method.pretrained if init[key]]


def check_pretrained(stage: Stage, name: PhaseName) -> list[Origin]:
    """What config.init gives a phase: folders of weights of the right kinds and sizes.

    Raises:
      UserError: none is given; `read_origins`; one is of other sizes: says of which, and which keys
        make all stages fit.
    """
    method, init = stage.method, stage.config["init"]
    origins = read_origins(method, init)
    if not origins:
        raise UserError(
            f"{name} starts from pretrained parameters, and none are given: "
            f"{how_to_give(method, missing(method, init))}"
        )
    for origin in origins:
        _check_sizes(stage, origin)
    return origins


def shapes_of(origins: Sequence[Origin]) -> dict[str, tuple[int, ...]]:
    """Path -> shape of what the folders hold together."""
    merged: dict[str, tuple[int, ...]] = {}
    for origin in origins:
        merged |= origin.shapes
    return merged


def load(origins: Sequence[Origin]) -> dict[str, np.ndarray]:
    """The parameters of all folders, by path, as host arrays.

    Raises:
      UserError: one cannot be read, or is not what its card says.
    """
    merged: dict[str, np.ndarray] = {}
    for origin in origins:
        merged |= card.weights(origin.folder)[0]
    return merged


def load_part(method: Method, init: Mapping[str, Any], prefix: str) -> dict[str, np.ndarray]:
    """What config.init gives of a part, by path in the network; {} where it gives nothing.

    Args:
      method: of the stage.
      init: config.init.
      prefix: beginning of the part's paths.

    Raises:
      UserError: as `read_origins` and `load`.
    """
    holding = [
        origin
        for origin in read_origins(method, init)
        if any(path.startswith(prefix) for path in origin.shapes)
    ]
    return {path: value for path, value in load(holding[-1:]).items() if path.startswith(prefix)}


def check_converted(path: Path, option: str) -> None:
    """Whether a path is not somebody else's file or folder of weights, which are converted first.

    Nothing is said of a path at which there is nothing.

    Args:
      path: as given.
      option: that it was given with, such as "--evaluate".

    Raises:
      UserError: it is; says what to type.
    """
    try:
        theirs = foreign.weight_files(path) if path.is_dir() else []
    except OSError:  # a folder that cannot be read is told of by who reads it
        theirs = []
    # A card makes a folder one of ours, unless it is the model card of a downloaded one.
    if path.is_dir() and (path / card.FILE).exists() and not set(theirs) & set(foreign.NAMES):
        return
    if theirs or path.is_file():
        what = f"holds {theirs[0]}" if theirs else "is a file"
        raise UserError(
            f"{path} {what} and is no folder of weights of this program: convert it first with "
            f"python -m aavs_jax.convert {shlex.quote(str(path))} --out DIR, then give "
            f"{option}=DIR"
        )


def _read(method: Method, key: str, folder: Path) -> Origin:
    check_converted(folder, f"--config.init.{key}")
    try:
        description = card.read(folder)
    except UserError as error:
        raise UserError(f"--config.init.{key}: {error}") from error
    taken = method.pretrained[key].kinds
    if description.kind not in taken:
        kinds = " or ".join(card.KINDS.get(kind, kind) for kind in taken)
        places = [
            f"give it as --config.init.{other}, and as"
            for other, weights in method.pretrained.items()
            if description.kind in weights.kinds
        ]
        raise UserError(
            f"{folder} is given as --config.init.{key} and holds {description.describe()}: "
            f"{places[0] if places else 'give as'} --config.init.{key} {kinds}"
        )
    return Origin(key, folder, description, _shapes(folder, description))


def _check_sizes(stage: Stage, origin: Origin) -> None:
    method, config = stage.method, stage.config
    wanted = flat_sizes(method.network)
    theirs = decisive_sizes(
        origin.card.network, origin.shapes, method.pretrained, method.may_differ
    )
    differing = {key: value for key, value in theirs.items() if wanted.get(key) != value}
    if not differing:
        return
    words = ", ".join(f"{key} {value} (here {wanted.get(key)})" for key, value in differing.items())
    models = {s: flat_sizes(config["stages"][s]["model"]) for s in config["schedule"]}
    of_backbone = any(key.startswith(BACKBONE) for key in differing)
    if config.get("backbone") and of_backbone and not preset_of(theirs):
        # A preset wins over the keys of the stages, so it has to go, and they have to say it all.
        for model in models.values():
            model |= {key: None for key in model if key.startswith(BACKBONE)}
        mend = f"leave --config.backbone out and set {' '.join(size_flags(models, theirs))}"
    else:
        mend = f"set {' '.join(size_flags(models, theirs))}"
    raise UserError(
        f"{origin.describe()}, is given as --config.init.{origin.key} and is not of the sizes of "
        f"the network of {stage.name}: it has {words}; {mend}"
    )


def decisive_sizes(
    network: Mapping[str, Any],
    paths: Iterable[str],
    pretrained: Mapping[str, Pretrained],
    may_differ: Container[str],
) -> dict[str, Any]:
    """The sizes of given weights that a network has to have to take them, by dotted key.

    Args:
      network: as `Card.network`.
      paths: of the weights' parameters. Where they hold nothing of a part its sizes are nobody's.
      pretrained: as `Method.pretrained`.
      may_differ: as `Method.may_differ`.
    """
    absent = tuple(
        part.sizes
        for part in pretrained.values()
        if part.sizes and not any(path.startswith(part.prefix) for path in paths)
    )
    return {
        key: value
        for key, value in flat_sizes(network).items()
        if key not in may_differ and not key.startswith(absent)
    }


def _shapes(folder: Path, description: card.Card) -> dict[str, tuple[int, ...]]:
    """Without reading values."""
    if (folder / "checkpoints").is_dir():  # a trained phase has all of its network
        return {path: leaf.shape for path, leaf in method_of(description).shapes.items()}
    try:
        metadata = ocp.metadata(folder.absolute(), PARAMETERS).metadata
        return {path: tuple(array.shape) for path, array in metadata.items()}
    # Orbax, TensorStore and JSON each have errors of their own for what is damaged; loading says
    # them in words.
    except Exception:
        return {path: value.shape for path, value in card.weights(folder)[0].items()}
