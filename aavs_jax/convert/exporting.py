"""Weights -> a folder of ours, or a file in somebody else's layout."""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from aavs_jax.convert import engine, files
from aavs_jax.convert.engine import Fate
from aavs_jax.convert.formats import AUDIO_ENCODER, FORMATS, KINDS, kind_of
from aavs_jax.convert.importing import CARD, LEFT_OVER, Weights, file_origin
from aavs_jax.errors import UserError
from aavs_jax.methods.parts.key_tables import Format
from aavs_jax.state import tree
from aavs_jax.state.parameter_folders import save_parameters
from aavs_jax.weights import card as cards
from aavs_jax.weights.card import Card

# What transformers has is written for it, everything else as a .pth by the name of its kind.
PTH = tuple(kind.name for kind in KINDS.values() if not kind.config)
TARGETS = ("orbax", "huggingface", "safetensors", "origin", *PTH)
FOLDERS = ("orbax", "huggingface")
SWIN_PREFIX = "swin."  # of a Swin in their classifier

Makers = dict[Path, Callable[[Path], object]]


def check_target(to: str, card: Card) -> None:
    """Whether weights of a kind can be written so.

    Raises:
      UserError: they cannot; says what they can be written as.
    """
    kind = kind_of(card)
    possible = ["orbax", "safetensors"]
    possible += ["huggingface" if kind.config else kind.name] if kind.formats else []
    possible += ["vggish"] if kind.hears else []
    possible += ["origin"] if _origin_format(card) else []
    if to not in possible:
        raise UserError(
            f"this is {card.describe()}, which cannot be written with --to={to}: choose "
            + ", ".join(possible)
            + (", or make it AAVS with --fit binary or --fit semantic" if to == "aavs" else "")
        )


def _origin_format(card: Card) -> Format | None:
    """The format of the one file that weights came from, if they came from one."""
    format = FORMATS.get(file_origin(card).get("format"))
    return format if format and format.kind == card.kind else None


def _format(card: Card, to: str) -> Format:
    """The format that is written, but for our own."""
    return _origin_format(card) if to == "origin" else kind_of(card).formats[0]


def is_folder(to: str, card: Card) -> bool:
    """Whether a folder is written."""
    kind = kind_of(card)
    came_as_one = to == "origin" and kind.config and _format(card, to) is kind.formats[0]
    return to in FOLDERS or bool(came_as_one)


def beside(out: Path) -> Path:
    """Where the audio encoder of a network goes that is written to `out`."""
    return out.with_name(out.stem + ".vggish.pth")


def makers(
    out: Path, weights: Weights, to: str, allow: Sequence[str]
) -> tuple[Makers, tuple[Fate, ...]]:
    """What makes the files or the folder asked for.

    Args:
      out: a folder where `is_folder` says so, else a file.
      weights: `check_target` has been asked about their card.
      to: of TARGETS.
      allow: patterns of parameters that may be left behind.

    Returns:
      For `files.write_all`; and what became of each tensor and parameter, () for layouts of ours,
      which take all.

    Raises:
      UserError: a parameter has no place there.
    """
    if to == "orbax":
        return {out: lambda folder: write_folder(folder, weights)}, ()
    if to == "safetensors":
        return {out: lambda path: _write_ours_as_a_file(path, weights)}, ()
    kind = kind_of(weights.card)
    heard = {p: v for p, v in weights.parameters.items() if p.startswith(AUDIO_ENCODER)}
    if to == "vggish":
        if not heard:
            raise UserError(
                f"this is {weights.card.describe()} without an audio encoder: convert it together "
                "with one, as in python -m aavs_jax.convert AAVS.pth vggish.pth --out DIR"
            )
        tensors, fates = _theirs(FORMATS["vggish"], weights, heard, allow)
        return {out: lambda path: files.write_torch(path, tensors)}, fates
    format = _format(weights.card, to)
    seen = {p: v for p, v in weights.parameters.items() if not kind.hears or p not in heard}
    prefix = _prefix(format, weights.card, to)
    tensors, fates = _theirs(format, weights, seen, allow, prefix, to == "huggingface")
    if is_folder(to, weights.card):
        return {out: lambda folder: _write_huggingface(folder, weights, tensors)}, fates
    if to == "origin" and "safetensors" in file_origin(weights.card).get("form", ""):
        return {out: lambda path: files.write_safetensors(path, tensors, {"format": "pt"})}, fates
    found: Makers = {out: lambda path: files.write_torch(path, tensors)}
    if kind.hears and heard:
        # Its authors have the audio encoder in a file of its own.
        theirs, more = _theirs(FORMATS["vggish"], weights, heard, allow)
        found[beside(out)] = lambda path: files.write_torch(path, theirs)
        # What is left over of either is left behind by the other.
        both = dict.fromkeys((*fates, *more))
        placed = {fate.theirs for fate in both if fate.what != "left behind"}
        fates = tuple(
            fate
            for fate in both
            if fate.what != "left behind" or fate.ours or fate.theirs not in placed
        )
    return found, fates


def _theirs(
    format: Format,
    weights: Weights,
    parameters: Mapping[str, np.ndarray],
    allow: Sequence[str],
    prefix: str = "",
    complete: bool = False,
) -> tuple[dict[str, np.ndarray], tuple[Fate, ...]]:
    """Their tensors; every parameter has to have a place, unless it is allowed not to.

    `prefix` goes before the names, but for those that had none in the file that they came from.
    """
    tensors, fates = engine.to_theirs(
        format, parameters, weights.left_over, weights.card.stored_as, complete=complete
    )
    allowed = engine.allowance(allow)
    lost = [f.ours[0] for f in fates if f.what == "left behind" and f.ours and not allowed(*f.ours)]
    if lost:
        more = f" and {len(lost) - 3} more" if len(lost) > 3 else ""
        raise UserError(
            f"{format.title} has no place for {', '.join(lost[:3])}{more}: leave them behind with "
            "--allow=PATTERN, or write --to=safetensors, which has"
        )
    bare = file_origin(weights.card).get("without_prefix", ())
    names = {name: name if name in bare else prefix + name for name in tensors}
    return (
        {names[name]: value for name, value in tensors.items()},
        tuple(dataclasses.replace(f, theirs=names.get(f.theirs, f.theirs)) for f in fates),
    )


def _prefix(format: Format, card: Card, to: str) -> str:
    """What recognising took off the names of the same format, as far as its software puts it there:
    a wrapper's is of no use to transformers."""
    origin = file_origin(card)
    prefix = origin.get("prefix", "") if origin.get("format") == format.name else ""
    return prefix if to == "origin" or prefix == SWIN_PREFIX else ""


def write_folder(folder: Path, weights: Weights) -> None:
    """Writes a folder of weights, which is not there yet.

    Raises:
      UserError: the disk is full or the folder cannot be written.
    """
    save_parameters(folder, weights.parameters, weights.left_over)
    digest = tree.digest(weights.parameters)
    cards.write(folder, dataclasses.replace(weights.card, digest=digest))


def _write_huggingface(folder: Path, weights: Weights, tensors: Mapping[str, np.ndarray]) -> None:
    card = weights.card
    config = card.huggingface or kind_of(card).config(card.network, card.classes)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    # transformers asks each file which framework wrote it.
    files.write_safetensors(folder / "model.safetensors", tensors, {"format": "pt"})


def _write_ours_as_a_file(path: Path, weights: Weights) -> None:
    """Our paths, what was left over, and the card, in one file that any tool can open."""
    digest = tree.digest(weights.parameters)
    card = cards.to_json(dataclasses.replace(weights.card, digest=digest))
    left_over = {LEFT_OVER + name: value for name, value in weights.left_over.items()}
    files.write_safetensors(path, {**weights.parameters, **left_over}, {CARD: card})
