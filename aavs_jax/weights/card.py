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
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from aavs_jax.errors import UserError, shown
from aavs_jax.methods.aavs.config import AAVSConfig
from aavs_jax.run.logging_writer import replace_file
from aavs_jax.state import tree
from aavs_jax.state.checkpoint import PhaseCheckpoints, load_parameters

FILE = "card.json"
VERSION = 1  # of what is written here; a reader refuses later ones
KINDS = {
    "aavs": "AAVS, without or with its audio encoder",
    "mask2former": "a Mask2Former",
    "swin": "a Swin backbone alone",
    "vggish": "an audio encoder alone",
}
PACKAGES = ("aavs_jax", "jax", "flax", "orbax-checkpoint")
# Bounds of what a stranger's card may ask to build; published networks stay below a tenth of them.
WIDEST = 65536  # of any size
DEEPEST = 300  # blocks and layers together
NESTED = 64  # origins of origins
# Without these a kind's network is unknown; what else is not said is as in AAVSConfig.
REQUIRED = {
    "aavs": ("task", "num_classes", "prior"),
    "mask2former": ("num_classes", "num_queries"),
    "swin": ("backbone",),
    "vggish": ("audio",),
}
REQUIRED_WITHIN = {
    "backbone": ("embed_dim", "depths", "num_heads", "window_size"),
    "audio": ("fully_connected",),
}
STORED_AS = ("float16", "bfloat16")  # the types besides float32 that a weight may come in


@dataclasses.dataclass(frozen=True)
class Card:
    """What is in a folder of weights.

    Attributes:
      kind: one of KINDS.
      network: sizes, nested plain values: fields of `models.config.AAVSConfig`, those that the kind
        has ('swin': {'backbone': ...}, 'vggish': {'audio': ...}). A Mask2Former's num_classes are
        its own.
      classes: names by class id; () where nobody said.
      origin: where the weights come from: {'files': [{'name', 'bytes', 'sha256'}], 'format': ...}
        or {'run': command, 'stage': ..., 'phase': ...}.
      image_size: pixels of the frames it was made for, None if unknown.
      label_size: pixels of the labels it was judged by, None if unknown.
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
    new: Mapping[str, str] = dataclasses.field(default_factory=dict)
    left_over: Mapping[str, str] = dataclasses.field(default_factory=dict)
    stored_as: Mapping[str, str] = dataclasses.field(default_factory=dict)
    huggingface: Mapping[str, Any] | None = None
    digest: str = ""
    versions: Mapping[str, str] = dataclasses.field(default_factory=lambda: _versions())

    def describe(self) -> str:
        """A few words for messages: 'the semantic network of AAVS (71 classes, 100 queries)'."""
        if self.kind == "aavs":
            what = f"the {self.network['task']} network of AAVS"
        else:
            what = KINDS[self.kind]
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
    if fault := _fault(values):
        raise _damaged(place, fault)
    return Card(**{**values, "classes": tuple(values["classes"])})


def fault_of(network: Mapping[str, Any]) -> str:
    """What is wrong with the sizes of a network; '' if nothing is.

    To be asked of sizes that a stranger gave before anything is built from them: its answer takes
    no time, whatever they are.

    Args:
      network: as `Card.network`; what it does not say is as in AAVSConfig.
    """
    if fault := _misfit(network, AAVSConfig(), ""):
        return fault
    try:
        config = AAVSConfig.from_dict(network)
    except (ValueError, TypeError, ArithmeticError) as error:
        return _shortened(str(error))
    layers = (
        sum(config.backbone.depths)
        + config.encoder_layers
        + config.decoder_layers
        + sum(map(len, config.audio.blocks))
        + len(config.audio.fully_connected)
    )
    return f"it has {layers} layers, and {DEEPEST} are the most" if layers > DEEPEST else ""


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


def _shortened(text: str) -> str:
    return text if len(text) <= 200 else text[:200] + "..."


def _damaged(place: str, fault: str) -> UserError:
    return UserError(f"{place} is damaged ({fault}): convert the origin once more")


def _fault(values: Mapping[str, Any]) -> str:
    """What is wrong with a card's values, '' if nothing is; they may be anything that JSON can."""
    fields = [field.name for field in dataclasses.fields(Card)]
    if missing := [name for name in fields if name not in values]:
        return f"it lacks {missing[0]!r}"
    if unknown := [name for name in values if name not in fields]:
        return f"it has {shown(unknown[0])}, which no card has"
    for name, fits in _FITS.items():
        if not fits(values[name]):
            return f"its {name!r} cannot be {shown(values[name])}"
    kind, network = values["kind"], values["network"]
    if missing := [key for key in REQUIRED[kind] if key not in network]:
        return f"its network lacks {missing[0]!r}, which {KINDS[kind]} has"
    # These two kinds are one part of a network and nothing else.
    if kind in ("swin", "vggish") and len(network) > 1:
        return f"its network has more than {REQUIRED[kind][0]!r} and is to be {KINDS[kind]}"
    if fault := fault_of(network):
        return f"its network cannot be: {fault}"
    for part, keys in REQUIRED_WITHIN.items():
        if missing := [key for key in keys if part in network and key not in network[part]]:
            return f"its network lacks '{part}.{missing[0]}'"
    return ""


def _misfit(values: Any, example: Any, place: str) -> str:
    """What in nested sizes is not of the form that the example (a configuration) has."""
    if not isinstance(values, Mapping):
        return f"{place.rstrip('.') or 'the network'!r} is no sizes but {shown(values)}"
    known = {field.name: getattr(example, field.name) for field in dataclasses.fields(example)}
    for key, value in values.items():
        if key not in known:
            return f"there is no size called {shown(place + str(key))}"
        if dataclasses.is_dataclass(known[key]):
            if fault := _misfit(value, known[key], f"{place}{key}."):
                return fault
        elif not _is_like(value, known[key]):
            return f"{place + key!r} is {shown(value)}"
    return ""


def _is_like(value: Any, example: Any) -> bool:
    """Whether a value is of the example's type and of a size that can be built."""
    if isinstance(example, tuple):
        inner = example[0]
        return (
            isinstance(value, list | tuple)
            and 0 < len(value) <= DEEPEST
            and all(_is_like(each, inner) for each in value)
        )
    if isinstance(example, float):
        return type(value) in (int, float) and 0 <= value <= WIDEST
    if type(example) is int:
        return type(value) is int and 1 <= value <= WIDEST
    return type(value) is type(example)


def _are_words(values: Any) -> bool:
    return isinstance(values, dict) and all(isinstance(value, str) for value in values.values())


def _are_names(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def _is_origin(origin: Any) -> bool:
    """Whether what `origin` is read for is of the right type, through all origins of origins."""
    if not _is_shallow(origin):
        return False
    while isinstance(origin, dict):
        words = ("format", "form", "wrapping", "prefix")
        if not all(isinstance(origin.get(key, ""), str) for key in words):
            return False
        if not _are_names(origin.get("without_prefix", [])):
            return False
        if "of" not in origin:
            return True
        origin = origin["of"]
    return False


def _is_shallow(values: Any) -> bool:
    """Whether those who walk through nested values, one inside the other, will come back."""
    level = [values]
    for _ in range(NESTED):
        level = [
            inner
            for each in level
            if isinstance(each, dict | list)
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return True
    return False


def _is_side(value: Any) -> bool:
    return value is None or _is_like(value, 1)


_FITS: Mapping[str, Callable[[Any], bool]] = {
    "kind": lambda value: isinstance(value, str) and value in KINDS,
    "network": lambda value: isinstance(value, dict),
    "classes": _are_names,
    "origin": _is_origin,
    "image_size": _is_side,
    "label_size": _is_side,
    "new": _are_words,
    "left_over": _are_words,
    "stored_as": lambda value: _are_words(value) and set(value.values()) <= set(STORED_AS),
    "huggingface": lambda v: v is None or (isinstance(v, dict) and _is_shallow(v)),
    "digest": lambda value: isinstance(value, str),
    "versions": _are_words,
}


def _versions() -> dict[str, str]:
    return {package: importlib.metadata.version(package) for package in PACKAGES}
