"""Sources -> parameters and their card -> a folder of weights."""

import contextlib
import dataclasses
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aavs_jax.convert import engine, files, recognising, sizes
from aavs_jax.convert.engine import Fate
from aavs_jax.convert.files.placing import cannot_write, staged
from aavs_jax.convert.naming import plan
from aavs_jax.convert.tables import Format
from aavs_jax.errors import UserError
from aavs_jax.run.progress import progress_bar
from aavs_jax.state import tree
from aavs_jax.state.checkpoint import PARAMETERS, load_left_over, save_parameters
from aavs_jax.weights import card as cards
from aavs_jax.weights.card import Card

CARD = "card"  # key of a safetensors file's metadata, where the file holds a folder of ours
LEFT_OVER = "left_over/"  # before the names of what was left over, in such a file
AUDIO_ENCODER = "audio_encoder/"  # before its parameters' paths
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


# ------------------------------------------------------------------------------------ reading


def open_source(path: Path) -> Source:
    """Recognises a file or a folder.

    Args:
      path: a file of weights, a folder with one, or a folder of ours (`card.weights`).

    Raises:
      UserError: there is nothing readable, or nothing that is known.
    """
    path = Path(path)
    if _is_ours(path):
        return Source(path, cards.read(path))
    if os.path.isdir(path) and not files.weight_files(path):
        _refuse_folders_without_a_card(path)
    state = files.read_state_dict(path)
    names = [name for name in state.tensors if not name.startswith(LEFT_OVER)]
    try:
        format = engine.recognise(names)
        origin: dict[str, Any] = {"files": files.digest(state.files), "format": format.name}
        if state.wrapping:
            origin["wrapping"] = state.wrapping
        if not format.kind:  # a folder of ours as one file
            return Source(path, _carried(path, state, origin), state, format)
        origin |= _prefix(format, names, state.wrapping)
        config_file = _config_file(path)
        config = _config(config_file)
        shapes = {name: tensor.shape for name, tensor in state.tensors.items()}
        network = sizes.network_of(format, shapes, config)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    card = Card(
        kind=format.kind,
        network=network,
        classes=sizes.classes_of(config),
        origin=origin | {"form": state.form},
        huggingface=config,
    )
    beside = config_file if config is not None and config_file.parent != path else None
    return Source(path, card, state, format, beside)


def read(source: Source, allow: Sequence[str] = ()) -> Weights:
    """Reads and accounts for every tensor, showing a bar.

    Args:
      source: from `open_source`; its tensors are let go of, and with them the mapped file.
      allow: patterns of names and paths that may be left over or missing.

    Raises:
      UserError: a tensor or parameter that is not accounted for; nothing readable.
    """
    card = source.card
    if source.state is None:
        parameters, _ = cards.weights(source.path)
        return Weights(parameters, load_left_over(source.path), card)
    tensors, kept = {}, {}
    for name, tensor in source.state.tensors.items():
        ours = not source.format.kind and name.startswith(LEFT_OVER)
        (kept if ours else tensors)[name] = tensor
    wanted = sizes.wanted(card.kind, card.network)
    if not source.format.kind:
        if card.kind == "aavs" and any(name.startswith(AUDIO_ENCODER) for name in tensors):
            wanted = wanted | sizes.wanted("vggish", card.network)
        # A card may name parameters that it never had.
        allow = [*allow, *(re.escape(path) for path in card.new if path not in tensors)]
    try:
        with progress_bar(len(tensors), description=source.path.name) as bar:
            parameters, left_over, fates = engine.to_ours(
                source.format, _in_turn(tensors), wanted, allow, bar
            )
    except UserError as error:
        raise UserError(f"{source.path}: {error}") from error
    if not parameters:
        raise UserError(
            f"{source.path}: nothing of it was mapped to a parameter of {source.format.title}, so "
            "nothing is left to write: allow less, or give another file"
        )
    reasons = {fate.theirs: fate.reason for fate in fates if fate.what == "left over"}
    for name, tensor in kept.items():
        left_over[name.removeprefix(LEFT_OVER)] = np.array(tensor.read(), order="C")
    _refuse_nothing(source.path, parameters | left_over)
    if not source.format.kind:
        if card.digest and tree.digest(parameters) != card.digest:
            raise UserError(
                f"the parameters in {source.path} are not those its card was written for (their "
                "digests differ): export them once more"
            )
        return Weights(parameters, left_over, card, tuple(fates))
    names = engine.normal_names(source.format, source.state.tensors)
    source.state.tensors.clear()
    card = dataclasses.replace(
        card,
        new={path: fate.reason for fate in fates if fate.what == "new" for path in fate.ours},
        left_over={names[name]: reason for name, reason in reasons.items()},
        stored_as={
            names[fate.theirs]: fate.dtype
            for fate in fates
            if fate.what == "mapped" and fate.dtype != "float32"
        },
    )
    return Weights(parameters, left_over, card, tuple(fates))


@dataclasses.dataclass(frozen=True)
class _InTurn:
    """A tensor of a file that is gone through once."""

    tensor: files.Tensor
    before: list[files.Tensor]  # the one read last; of all of them

    @property
    def shape(self) -> tuple[int, ...]:
        return self.tensor.shape

    @property
    def dtype(self) -> np.dtype:
        return self.tensor.dtype

    def read(self) -> np.ndarray:
        while self.before:
            self.before.pop().release()
        self.before.append(self.tensor)
        return self.tensor.read()


def _in_turn(tensors: Mapping[str, files.Tensor]) -> dict[str, _InTurn]:
    """The same, of which reading one lets the memory of the one before go."""
    before: list[files.Tensor] = []
    return {name: _InTurn(tensor, before) for name, tensor in tensors.items()}


def names_in(source: Source) -> set[str]:
    """All that a pattern may mean of a file: its names, our paths, and what those would be there.

    Of a folder of ours there is nothing to tell before it is read.
    """
    if source.state is None:
        return set()
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
    """Whether it is a folder of weights: others, too, may have a card.json or checkpoints/."""
    if not os.path.isdir(path) or not (path / cards.FILE).exists():
        return False
    if any((path / name).exists() for name in files.NAMES):
        return False
    orbax = (path / PARAMETERS, path / "checkpoints")
    return any(folder.is_dir() for folder in orbax) or not files.weight_files(path)


def _refuse_folders_without_a_card(path: Path) -> None:
    """Orbax's folders are known by their looks; what is in them is not known without a card."""
    for orbax in (path / "_CHECKPOINT_METADATA", path / "checkpoints"):
        if orbax.exists():
            raise UserError(
                f"{path} holds an Orbax checkpoint without a {cards.FILE}, which says what network "
                "it is of: put the file back, convert the origin once more, or train once more"
            )
    phases = sorted(path.glob(f"*/*/{cards.FILE}")) or sorted(path.glob(f"*/{cards.FILE}"))
    if phases:
        raise UserError(
            f"{path} holds several folders of weights: name one of them, such as "
            f"{phases[-1].parent}"
        )


def _carried(path: Path, state: files.StateDict, origin: Mapping[str, Any]) -> Card:
    """The card of a folder of ours that was written as one safetensors file."""
    if CARD not in state.metadata:
        raise UserError(
            "its tensors are named like parameters of aavs_jax, but no card says what network "
            "they are of: write it with python -m aavs_jax.convert DIR --to=safetensors"
        )
    card = cards.from_json(state.metadata[CARD], f"the card in {path}")
    return dataclasses.replace(card, origin={**origin, "of": card.origin})


def _config_file(path: Path) -> Path | None:
    """Where a folder's config.json is, or that of a file which has its name from transformers."""
    if path.is_dir():
        return path / "config.json"
    return path.with_name("config.json") if path.name in files.NAMES else None


def _config(file: Path | None) -> dict[str, Any] | None:
    """What a config.json says."""
    if file is None or not file.is_file():
        return None
    try:
        if file.stat().st_size > MOST_JSON:
            raise ValueError("far too large")
        config = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"its config.json cannot be read ({type(error).__name__}): download it once more"
        ) from error
    if not isinstance(config, dict):
        raise UserError("its config.json holds no sizes: download it once more")
    return config


def _refuse_nothing(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Orbax writes no arrays without elements."""
    for name, array in arrays.items():
        if not array.size:
            raise UserError(
                f"{path}: {name} has the shape {list(array.shape)}, so nothing is in it and "
                "nothing can be kept of it: take it out of the file"
            )


# ------------------------------------------------------------------------------------ writing


def write_folder(out: Path, weights: Weights) -> None:
    """Writes a folder of weights that appears whole or not at all.

    Args:
      out: must not be there, or be empty.
      weights: what to write.

    Raises:
      UserError: the disk is full or the folder cannot be written.
    """
    with appearing(out) as folder:
        save_parameters(folder, weights.parameters, weights.left_over)
        digest = tree.digest(weights.parameters)
        cards.write(folder, dataclasses.replace(weights.card, digest=digest))


@contextlib.contextmanager
def appearing(out: Path) -> Iterator[Path]:
    """A folder to write into, which takes its name when all is well and else vanishes.

    Args:
      out: its name; must not be there, or be an empty folder.

    Yields:
      The path of a folder that does not exist yet.

    Raises:
      UserError: the disk is full or `out` cannot be written, or is there meanwhile.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with staged(out) as folder:
            yield folder
    except OSError as error:
        raise cannot_write(out, error) from error
    except UserError as error:
        # Those who wrote may have given advice for other commands, and the name of a part.
        cause = error.__cause__ or error.__context__
        if isinstance(cause, Exception):
            raise cannot_write(out, cause) from error
        raise
