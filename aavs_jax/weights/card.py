"""What a folder of weights says of itself: `card.json`, beside the Orbax checkpoint in it.

    <folder>/card.json         origin, network, classes, what was new, what was left over
    <folder>/parameters/ ...   the Orbax checkpoint (`checkpoint.save_parameters`), or of a trained
    <run>/<stage>/<phase>/     phase its checkpoints/ and frozen/

A network's sizes cannot be told from an Orbax checkpoint without knowing them; with its card a
folder can be evaluated, converted and trained from by its name alone.
"""

import dataclasses
import importlib.metadata
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from aavs_jax.errors import UserError, shown
from aavs_jax.methods import METHODS, module_of
from aavs_jax.run.files import replace_file
from aavs_jax.state import tree
from aavs_jax.state.checkpoint import PhaseCheckpoints
from aavs_jax.state.parameter_folders import load_parameters
from aavs_jax.weights.card_faults import KINDS, fault_in

FILE = "card.json"
VERSION = 1  # of what is written here; a reader refuses later ones
# Whole networks, as people call them.
NETWORKS = {name: module_of(name, "config").TITLE for name in METHODS}
PACKAGES = ("aavs_jax", "jax", "flax", "orbax-checkpoint")


@dataclasses.dataclass(frozen=True)
class Card:
    """What is in a folder of weights.

    Attributes:
      kind: one of KINDS, or the module of a method of one's own.
      network: sizes, nested plain values: of a method its SIZES with task, num_classes and prior;
        of a part what it has of these ('swin': {'backbone': ...}, 'vggish': {'audio': ...}, 'pvt':
        {'pvt': ...}, 'resnet': {'resnet': ...}). A Mask2Former's num_classes are its own.
      classes: names by class id; () where nobody said.
      origin: where the weights come from: {'files': [{'name', 'bytes', 'sha256'}], 'format': ...}
        or {'run': command, 'stage': ..., 'phase': ...}.
      image_size: pixels of the frames it was made for, None if unknown.
      label_size: pixels of the labels it was judged by, None if unknown.
      told: of a network that is told where it sounds: kind and view, `prior.kind` and the first
        of `prior.evaluate` as in configs/base.py; {}: 'hard' and 'predicted'.
      new: path -> why the parameter was drawn and not taken from the origin.
      left_over: name in the origin -> why it has no place in the network. The tensors lie in the
        checkpoint's item `left_over`, so that the way back is complete.
      stored_as: name in the origin -> dtype, where that is not float32.
      huggingface: the origin's config.json, None if there was none.
      digest: `tree.digest` of the parameters; '' of a phase, whose parameters change.
      versions: of the libraries that wrote the folder.
    """

    kind: str
    network: Mapping[str, Any]
    classes: tuple[str, ...] = ()
    origin: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    image_size: int | None = None
    label_size: int | None = None
    told: Mapping[str, str] = dataclasses.field(default_factory=dict)
    new: Mapping[str, str] = dataclasses.field(default_factory=dict)
    left_over: Mapping[str, str] = dataclasses.field(default_factory=dict)
    stored_as: Mapping[str, str] = dataclasses.field(default_factory=dict)
    huggingface: Mapping[str, Any] | None = None
    digest: str = ""
    versions: Mapping[str, str] = dataclasses.field(default_factory=lambda: _versions())

    def describe(self) -> str:
        """A few words for messages: 'the semantic network of AAVS (71 classes, 100 queries)'."""
        if self.kind in NETWORKS:
            what = f"the {self.network['task']} network of {NETWORKS[self.kind]}"
        else:
            what = KINDS.get(self.kind, f"a network of {self.kind}")
        sizes = [
            f"{self.network[key]} {word}"
            for key, word in (("num_classes", "classes"), ("num_queries", "queries"))
            if key in self.network
        ]
        return what + (f" ({', '.join(sizes)})" if sizes else "")


def write(folder: Path, card: Card) -> None:
    """Writes a card into a folder, which must be there.

    Raises:
      UserError: it cannot be written.
    """
    replace_file(Path(folder) / FILE, to_json(card).encode())


def to_json(card: Card) -> str:
    """What `write` writes."""
    return json.dumps({"version": VERSION, **dataclasses.asdict(card)}, indent=1)


def read(folder: Path) -> Card:
    """The card of a folder of weights.

    Raises:
      UserError: there is none, it is damaged, or a later version wrote it.
    """
    folder = Path(folder)
    path = folder / FILE
    if not folder.is_dir():
        raise UserError(f"there is no folder of weights at {folder}: check the path")
    if not path.exists() and (folder / "checkpoints").is_dir():
        raise UserError(
            f"{folder} has lost its {FILE}, which says what network it holds: put the file back, "
            "or train this phase once more"
        )
    if not path.exists():
        raise UserError(
            f"{folder} has no {FILE}, so it is no folder of weights: make one of a published file "
            f"with python -m aavs_jax.convert FILE --out DIR, or name <run>/<stage>/<phase>"
        )
    try:
        text = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error})") from error
    return from_json(text, str(path))


def from_json(text: str | bytes, place: str) -> Card:
    """The inverse of `to_json`.

    Args:
      text: JSON.
      place: where it stands, for errors.

    Raises:
      UserError: it is damaged, or a later version wrote it.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _damaged(place, "it is no JSON") from error
    if not isinstance(values, dict) or type(values.get("version")) is not int:
        raise _damaged(place, "it has no version")
    if (version := values.pop("version")) != VERSION:
        raise UserError(
            f"{place} was written by another version of aavs_jax (card version "
            f"{shown(version)}; this one reads {VERSION}): update aavs_jax, or convert the "
            "origin once more"
        )
    if fault := fault_in(values):
        raise _damaged(place, fault)
    return Card(**{**values, "classes": tuple(values["classes"])})


def weights(folder: Path) -> tuple[dict[str, np.ndarray], Card]:
    """Parameters by path, as host arrays, and the card of a folder of weights.

    Args:
      folder: written by `aavs_jax.convert`, or `<run>/<stage>/<phase>`, of which the best
        checkpoint is taken. Nothing in it is changed.

    Raises:
      UserError: no such folder; it cannot be read, by these versions; it is not what its card says.
    """
    folder, card = Path(folder), read(folder)
    if (folder / "checkpoints").is_dir():
        with PhaseCheckpoints(folder, reading=True) as checkpoints:
            return checkpoints.best_parameters(), card
    try:
        parameters = load_parameters(folder)
    except UserError as error:
        skew = ", ".join(
            f"{package} {then} (here {now})"
            for package, now in _versions().items()
            if (then := card.versions.get(package)) != now
        )
        hint = f"; it was written by {skew}: install that, or convert the origin once more"
        raise UserError(f"{error}{hint if skew else ''}") from error
    if card.digest and tree.digest(parameters) != card.digest:
        raise UserError(
            f"the parameters in {folder} are not those its card was written for (their digests "
            "differ): convert the origin once more"
        )
    return parameters, card


def _damaged(place: str, fault: str) -> UserError:
    return UserError(f"{place} is damaged ({fault}): convert the origin once more")


def _versions() -> dict[str, str]:
    return {package: importlib.metadata.version(package) for package in PACKAGES}
