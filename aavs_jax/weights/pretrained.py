"""The folders of config.init, from which a phase with start 'pretrained' takes its parameters.

Their cards and the shapes in them are looked at before anything is done, so that a wrong folder
costs seconds and not the hours that preparing data takes; values are read when a phase starts.
"""

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx
from orbax.checkpoint import v1 as ocp

from aavs_jax.errors import UserError
from aavs_jax.methods.aavs.config import DROP_PATH_OPTIONS, AAVSConfig
from aavs_jax.methods.aavs.init import abstract_model
from aavs_jax.state.checkpoint import PARAMETERS
from aavs_jax.weights import card, foreign
from aavs_jax.weights.size_keys import BACKBONE, flat_sizes, preset_of, size_flags, without_key
from data_pipelines.errors import tidy_path

AUDIO_ENCODER = "audio_encoder/"  # beginning of its parameters' paths
# What each key of config.init takes, later ones winning, and how the paper's is made.
KINDS = {"mask2former": ("mask2former", "aavs", "swin"), "vggish": ("vggish",)}
MAKING = {
    "mask2former": (
        "facebook/mask2former-swin-base-ade-semantic",
        "python -m aavs_jax.convert mask2former-swin-base-ade-semantic --out weights/m2f_swin_b",
    ),
    "vggish": (
        "vggish-10086976.pth",
        "python -m aavs_jax.convert vggish-10086976.pth --out weights/vggish",
    ),
}
# Of training alone.
DROP_PATH = {"backbone.drop_path_rate", *(f"backbone.{key}" for key in DROP_PATH_OPTIONS)}
# Two networks that differ in these can share parameters: classes and queries that do not fit are
# initialised at random, and the others are not in the parameters.
MAY_DIFFER = {"task", "num_classes", "num_queries", "prior", "dtype", *DROP_PATH}


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


def missing(init: Mapping[str, Any]) -> list[str]:
    """The keys of config.init that name no folder."""
    return [key for key in KINDS if not init[key]]


def how_to_give(keys: Sequence[str]) -> str:
    """What to do about missing folders, for the end of a sentence.

    Args:
      keys: some of config.init's, at least one.
    """
    options = " and ".join(f"--config.init.{key}=DIR" for key in keys)
    files, commands = zip(*(MAKING[key] for key in keys), strict=True)
    return (
        f"pass {options}, made once from {' and '.join(files)} with {' and '.join(commands)}, or "
        "take the small network, which needs none, with --config=...:FOLDER,small"
    )


def read_origins(init: Mapping[str, Any]) -> list[Origin]:
    """The folders that are given, in the order in which later ones win.

    Raises:
      UserError: one is not there, has no card, cannot be read or is of another kind.
    """
    return [_read(key, tidy_path(init[key])) for key in KINDS if init[key]]


def check_pretrained(
    config: Mapping[str, Any], name: str, network: Mapping[str, Any]
) -> list[Origin]:
    """What config.init gives a phase: folders of weights of the right kinds and sizes.

    Args:
      config: as in configs/base.py.
      name: "<stage>/<phase>".
      network: sizes of the stage's, as `Method.network`.

    Raises:
      UserError: none is given; `read_origins`; one is of other sizes: says of which, and which keys
        make all stages fit.
    """
    origins = read_origins(config["init"])
    if not origins:
        raise UserError(
            f"{name} starts from pretrained parameters, and none are given: "
            f"{how_to_give(missing(config['init']))}"
        )
    for origin in origins:
        _check_sizes(config, name, network, origin)
    return origins


def holds_sound(origins: Sequence[Origin]) -> bool:
    """Whether any of the folders holds an audio encoder."""
    return any(path.startswith(AUDIO_ENCODER) for origin in origins for path in origin.shapes)


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


def load_audio_encoder(init: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The audio encoder that config.init gives, by path in the network; {} where it gives none.

    Raises:
      UserError: as `read_origins` and `load`.
    """
    holding = [origin for origin in read_origins(init) if holds_sound([origin])]
    return {
        path: value for path, value in load(holding[-1:]).items() if path.startswith(AUDIO_ENCODER)
    }


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


def _read(key: str, folder: Path) -> Origin:
    check_converted(folder, f"--config.init.{key}")
    try:
        description = card.read(folder)
    except UserError as error:
        raise UserError(f"--config.init.{key}: {error}") from error
    if description.kind not in KINDS[key]:
        places = [f"--config.init.{other}" for other in KINDS if description.kind in KINDS[other]]
        kinds = " or ".join(card.KINDS[kind] for kind in KINDS[key])
        raise UserError(
            f"{folder} is given as --config.init.{key} and holds {description.describe()}: give it "
            f"as {places[0]}, and as --config.init.{key} {kinds}"
        )
    return Origin(key, folder, description, _shapes(folder, description))


def _check_sizes(
    config: Mapping[str, Any], name: str, network: Mapping[str, Any], origin: Origin
) -> None:
    wanted = flat_sizes(network)
    theirs = decisive_sizes(origin.card.network, with_sound=holds_sound([origin]))
    differing = {key: value for key, value in theirs.items() if wanted.get(key) != value}
    if not differing:
        return
    words = ", ".join(f"{key} {value} (here {wanted.get(key)})" for key, value in differing.items())
    models = {s: flat_sizes(config["stages"][s]["model"]) for s in config["schedule"]}
    of_backbone = any(key.startswith(BACKBONE) for key in differing)
    if without_key(models, wanted, theirs):
        mend = f"take another --config.init.{origin.key}"
    elif config.get("backbone") and of_backbone and not preset_of(theirs):
        # A preset wins over the keys of the stages, so it has to go, and they have to say it all.
        for model in models.values():
            model |= {key: None for key in model if key.startswith(BACKBONE)}
        mend = f"leave --config.backbone out and set {' '.join(size_flags(models, theirs))}"
    else:
        mend = f"set {' '.join(size_flags(models, theirs))}"
    raise UserError(
        f"{origin.describe()}, is given as --config.init.{origin.key} and is not of the sizes of "
        f"the network of {name.split('/')[0]}: it has {words}; {mend}"
    )


def decisive_sizes(network: Mapping[str, Any], *, with_sound: bool) -> dict[str, Any]:
    """The sizes of given weights that a network has to have to take them, by dotted key.

    Args:
      network: as `Card.network`.
      with_sound: whether the weights hold an audio encoder; otherwise its sizes are nobody's.
    """
    return {
        key: value
        for key, value in flat_sizes(network).items()
        if key not in MAY_DIFFER and (with_sound or not key.startswith("audio."))
    }


def network_shapes(network: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Path -> shape of every parameter of a whole network of AAVS, of the sizes of its card."""
    model = abstract_model(AAVSConfig.from_dict(network))
    leaves = nnx.to_flat_state(nnx.state(model, nnx.Param))
    return {"/".join(map(str, path)): leaf.shape for path, leaf in leaves}


def _shapes(folder: Path, description: card.Card) -> dict[str, tuple[int, ...]]:
    """Without reading values."""
    if (folder / "checkpoints").is_dir():  # a trained phase has all of its network
        return network_shapes(description.network)
    try:
        metadata = ocp.metadata(folder.absolute(), PARAMETERS).metadata
        return {path: tuple(array.shape) for path, array in metadata.items()}
    # Orbax, TensorStore and JSON each have errors of their own for what is damaged; loading says
    # them in words.
    except Exception:
        return {path: value.shape for path, value in card.weights(folder)[0].items()}
