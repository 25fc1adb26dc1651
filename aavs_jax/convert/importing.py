"""Sources -> parameters and their card."""

import dataclasses
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aavs_jax.convert import engine, files, recognising, sizes
from aavs_jax.convert.engine import Fate
from aavs_jax.convert.formats import KINDS, OURS
from aavs_jax.convert.naming import plan
from aavs_jax.errors import UserError
from aavs_jax.methods.parts.key_tables import Format
from aavs_jax.run.progress import progress_bar
from aavs_jax.state import tree
from aavs_jax.state.parameter_folders import PARAMETERS, load_left_over
from aavs_jax.weights import card as cards
from aavs_jax.weights import foreign
from aavs_jax.weights.card import Card

CARD = "card"  # key of a safetensors file's metadata, where the file holds a folder of ours
LEFT_OVER = "left_over/"  # before the names of what was left over, in such a file
MOST_JSON = 2**24  # bytes of a config.json


@dataclasses.dataclass(frozen=True)
class Source:
    """What was given to convert, recognised, its values not yet read.

    Attributes:
      path: of the file or folder.
      card: what is known of it before its values are.
      state: the tensors of a file; None of a folder of ours.
      format: of the file; None of a folder of ours.
      config: the config.json that was found beside a file given alone.
    """

    path: Path
    card: Card
    state: files.StateDict | None = None
    format: Format | None = None
    config: Path | None = None


@dataclasses.dataclass(frozen=True)
class Weights:
    """Parameters on their way from somewhere to somewhere.

    Attributes:
      parameters: float32 by path.
      left_over: tensors of the origin without a place in the network, by name.
      card: of both; without a digest.
      fates: what became of each tensor and each parameter; of a folder of ours none.
    """

    parameters: dict[str, np.ndarray]
    left_over: dict[str, np.ndarray]
    card: Card
    fates: tuple[Fate, ...] = ()


def open_source(path: Path) -> Source:
    """Recognises a file or a folder.

    Args:
      path: a file of weights, a folder with one, or a folder of ours (`card.weights`).

    Raises:
      UserError: there is nothing readable, or nothing that is known.
    """
    if _is_ours(path):
        return Source(path, cards.read(path))
    state = files.read_state_dict(path)
    names = [name for name in state.tensors if not name.startswith(LEFT_OVER)]
    try:
        # A card says whose names these are, of a method of one's own, too.
        format = OURS if CARD in state.metadata else recognising.recognise(names)
        origin: dict[str, Any] = {"files": files.digest(state.files), "format": format.name}
        if state.wrapping:
            origin["wrapping"] = state.wrapping
        if not format.kind:  # a folder of ours as one file
            return Source(path, _carried(path, state, origin), state, format)
        origin |= _prefix(format, names, state.wrapping) | {"form": state.form}
        config_file, config = _config(path)
        shapes = {name: tensor.shape for name, tensor in state.tensors.items()}
        network = sizes.network_of(format, shapes, config)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    classes = sizes.classes_of(config)
    card = Card(format.kind, network, classes=classes, origin=origin, huggingface=config)
    return Source(path, card, state, format, None if path.is_dir() else config_file)


def read(source: Source, allow: Sequence[str] = ()) -> Weights:
    """Reads and accounts for every tensor, showing a bar.

    Args:
      source: from `open_source`; its tensors are let go of, and with them the mapped file.
      allow: patterns of names and paths that may be left over or missing.

    Raises:
      UserError: a tensor or parameter that is not accounted for; nothing readable.
    """
    card, format = source.card, source.format
    if source.state is None:
        parameters, _ = cards.weights(source.path)
        return Weights(parameters, load_left_over(source.path), card)
    tensors, kept = dict(source.state.tensors), {}
    source.state.tensors.clear()
    if format.kind:
        wanted = sizes.wanted(card.kind, card.network)
    else:
        kept = {name: tensors.pop(name) for name in list(tensors) if name.startswith(LEFT_OVER)}
        known = card.kind in KINDS
        wanted = (
            sizes.wanted(card.kind, card.network, tensors)
            if known
            else {name: tensor.shape for name, tensor in tensors.items()}
        )
        # A card may name parameters that it never had.
        allow = [*allow, *(re.escape(path) for path in card.new if path not in tensors)]
    try:
        with progress_bar(len(tensors), description=source.path.name) as bar:
            parameters, left_over, fates = engine.to_ours(format, tensors, wanted, allow, bar)
        names = recognising.normal_names(format, tensors)
        if not parameters:
            raise UserError(
                f"nothing of it was mapped to a parameter of {format.title}, so nothing is left to "
                "write: allow less, or give another file"
            )
        for name, tensor in kept.items():
            left_over[name.removeprefix(LEFT_OVER)] = np.array(tensor.read(), order="C")
        # Orbax writes no arrays without elements.
        if empty := [name for name, a in (parameters | left_over).items() if not a.size]:
            raise UserError(f"there are no numbers in {empty[0]}: take it out of the file")
        if not format.kind and card.digest and tree.digest(parameters) != card.digest:
            raise UserError(
                "the parameters are not those that the card in it was written for (their digests "
                "differ): export them once more"
            )
    except UserError as error:
        raise UserError(f"{source.path}: {error}") from error
    if format.kind:
        card = dataclasses.replace(
            card,
            new={fate.ours[0]: fate.reason for fate in fates if fate.what == "new"},
            left_over={names[f.theirs]: f.reason for f in fates if f.what == "left over"},
            stored_as={
                names[fate.theirs]: fate.dtype
                for fate in fates
                if fate.what == "mapped" and fate.dtype != "float32"
            },
        )
    return Weights(parameters, left_over, card, tuple(fates))


def names_in(source: Source) -> set[str]:
    """All that a pattern may mean of a file: its names, our paths, and what those would be there.

    Of a folder of ours there is nothing to tell before it is read.
    """
    if source.state is None:
        return set()
    if source.card.kind not in KINDS:
        return set(source.state.tensors)
    wanted = sizes.wanted(source.card.kind, source.card.network)
    theirs = {step.theirs for step in plan(source.format, wanted)}
    return {*source.state.tensors, *wanted, *theirs}


def origin_of(sources: Sequence[Source], request: Mapping[str, Any]) -> dict[str, Any]:
    """`Card.origin` of what is made of some sources.

    Args:
      sources: one or more.
      request: what was asked for besides, such as {'window': 7}; plain values.
    """
    origins = [dict(source.card.origin) for source in sources]
    origin = origins[0] if len(origins) == 1 else {"sources": origins}
    if request and sources[0].state is None:
        return {"of": origin, **request}
    return {**origin, **request}


def file_origin(card: Card) -> Mapping[str, Any]:
    """What `Card.origin` says of the file that weights came from, whatever was done since."""
    origin = card.origin
    while "of" in origin:
        origin = origin["of"]
    return origin


def _prefix(format: Format, names: Sequence[str], wrapping: str) -> dict[str, Any]:
    """For `Card.origin`: what recognising takes off the names, and from which not."""
    prefix = recognising.prefix_of(format, names)
    if not prefix:
        return {}
    normal = recognising.normal_names(format, names)
    bare = [normal[name] for name in names if not name.startswith(prefix)]
    said = "; ".join(filter(None, (wrapping, f"prefix {prefix!r}")))
    return {"wrapping": said, "prefix": prefix, "without_prefix": sorted(bare)}


def _is_ours(path: Path) -> bool:
    """Whether it is a folder of weights: others, too, may have a card.json or checkpoints/.

    Raises:
      UserError: it would be if it had a card, without which nobody knows what network it holds.
    """
    if not os.path.isdir(path):
        return False
    theirs = foreign.weight_files(path)
    if (path / cards.FILE).exists() and not set(theirs) & set(foreign.NAMES):
        orbax = (path / PARAMETERS, path / "checkpoints")
        return any(folder.is_dir() for folder in orbax) or not theirs
    if theirs:
        return False
    if (path / "_CHECKPOINT_METADATA").exists() or (path / "checkpoints").exists():
        raise UserError(
            f"{path} holds an Orbax checkpoint without a {cards.FILE}, which says what network it "
            "is of: put the file back, convert the origin once more, or train once more"
        )
    if phases := sorted(path.glob(f"*/*/{cards.FILE}")) or sorted(path.glob(f"*/{cards.FILE}")):
        raise UserError(
            f"{path} holds several folders of weights: name one of them, such as "
            f"{phases[-1].parent}"
        )
    return False


def _carried(path: Path, state: files.StateDict, origin: Mapping[str, Any]) -> Card:
    """The card of a folder of ours that was written as one safetensors file."""
    if CARD not in state.metadata:
        raise UserError(
            "its tensors are named like parameters of aavs_jax, but no card says what network "
            "they are of: write it with python -m aavs_jax.convert DIR --to=safetensors"
        )
    card = cards.from_json(state.metadata[CARD], f"the card in {path}")
    return dataclasses.replace(card, origin={**origin, "of": card.origin})


def _config(path: Path) -> tuple[Path | None, dict[str, Any] | None]:
    """The config.json in a folder, or beside a file which has its name from transformers."""
    named = path.is_dir() or path.name in foreign.NAMES
    file = (path if path.is_dir() else path.parent) / "config.json"
    if not named or not file.is_file():
        return None, None
    try:
        config = json.loads(file.read_bytes()) if file.stat().st_size <= MOST_JSON else None
    except (OSError, ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise UserError("its config.json cannot be read: download it once more")
    return file, config
