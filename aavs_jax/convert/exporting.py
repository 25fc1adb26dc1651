"""Weights -> a folder of ours, or a file in somebody else's layout."""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aavs_jax.convert import engine, files, sizes
from aavs_jax.convert.engine import Fate
from aavs_jax.convert.files.placing import cannot_write
from aavs_jax.convert.importing import (
    AUDIO_ENCODER,
    CARD,
    LEFT_OVER,
    Weights,
    appearing,
    file_origin,
    write_folder,
)
from aavs_jax.convert.tables import BY_NAME, Format
from aavs_jax.errors import UserError
from aavs_jax.state import tree
from aavs_jax.weights import card as cards
from aavs_jax.weights.card import Card

TARGETS = ("orbax", "aavs", "huggingface", "safetensors", "vggish", "origin")
# Formats in which transformers loads a kind.
HUGGINGFACE = {"mask2former": "mask2former", "swin": "swin_transformers"}
SWIN_PREFIX = "swin."  # of a Swin in their classifier


def check_target(to: str, card: Card) -> None:
    """Whether weights of a kind can be written so.

    Raises:
      UserError: they cannot; says what they can be written as.
    """
    kind, what = card.kind, card.describe()
    if to == "huggingface" and kind == "aavs":
        raise UserError(
            f"this is {what}, and the Mask2Former of transformers has no place for adapters and "
            "sound: write it with --to=aavs or --to=safetensors"
        )
    if to == "huggingface" and kind not in HUGGINGFACE:
        raise UserError(f"this is {what}, which transformers does not have: write --to=vggish")
    if to == "aavs" and kind != "aavs":
        instead = {"vggish": "vggish"}.get(kind, "huggingface")
        raise UserError(
            f"this is {what} and no network of AAVS: write it with --to={instead}"
            + ("" if kind == "vggish" else ", or make it one with --fit binary or --fit semantic")
        )
    if to == "vggish" and kind not in ("vggish", "aavs"):
        raise UserError(f"this is {what}, without an audio encoder: write --to=huggingface")
    if to == "origin":
        origin_format(card)


def origin_format(card: Card) -> Format:
    """The format of the file that weights came from.

    Raises:
      UserError: they came from none, or from several.
    """
    format = BY_NAME.get(file_origin(card).get("format"))
    if format is None or format.kind != card.kind:
        raise UserError(
            f"--to=origin writes the layout that one file came in, and this is {card.describe()} "
            "of another making: name the layout, one of " + ", ".join(TARGETS[1:-1])
        )
    return format


def write(out: Path, weights: Weights, to: str, allow: Sequence[str]) -> tuple[Fate, ...]:
    """Writes what was asked for, whole or not at all.

    Args:
      out: a folder for 'orbax' and 'huggingface' (and what came from there), else a file.
      weights: `check_target` has been asked about their card.
      to: of TARGETS.
      allow: patterns of parameters that may be left behind.

    Returns:
      What became of each tensor and parameter; () for a folder of ours, which takes all.

    Raises:
      UserError: a parameter has no place there; the disk is full or `out` cannot be written.
    """
    if to == "orbax":
        write_folder(out, weights)
        return ()
    if to == "safetensors":
        return _write_ours_as_a_file(out, weights)
    if to == "aavs":
        return _write_aavs(out, weights, allow)
    if to == "vggish":
        parameters = _of(weights, sound=True)
        if not parameters:
            raise UserError(
                f"this is {weights.card.describe()} without an audio encoder: convert it together "
                "with one, as in python -m aavs_jax.convert AAVS.pth vggish.pth --out DIR"
            )
        tensors, fates = _theirs(BY_NAME["vggish"], weights, parameters, allow)
        _write_files({out: lambda path: files.write_torch(path, tensors)})
        return fates
    kind = weights.card.kind
    format = origin_format(weights.card) if to == "origin" else BY_NAME[HUGGINGFACE[kind]]
    if format.name == "aavs":
        return _write_aavs(out, weights, allow, _prefix(format, weights.card, to))
    tensors, fates = _theirs(
        format,
        weights,
        weights.parameters,
        allow,
        _prefix(format, weights.card, to),
        complete=to != "origin",
    )
    if format.name == HUGGINGFACE.get(kind):
        _write_huggingface(out, weights, tensors)
    elif "safetensors" in file_origin(weights.card).get("form", ""):
        _write_files({out: lambda path: files.write_safetensors(path, tensors, {"format": "pt"})})
    else:
        _write_files({out: lambda path: files.write_torch(path, tensors)})
    return fates


def beside(out: Path) -> Path:
    """Where the audio encoder of a network goes that is written to `out` as AAVS does."""
    return out.with_name(out.stem + ".vggish.pth")


def is_folder(to: str, card: Card) -> bool:
    """Whether `write` makes a folder."""
    if to == "origin":
        return origin_format(card).name == HUGGINGFACE.get(card.kind)
    return to in ("orbax", "huggingface")


def places(out: Path, weights: Weights, to: str) -> list[Path]:
    """The files or the folder that `write` makes."""
    aavs = to == "aavs" or (to == "origin" and origin_format(weights.card).name == "aavs")
    return [out, beside(out)] if aavs and _of(weights, sound=True) else [out]


def _of(weights: Weights, *, sound: bool) -> dict[str, np.ndarray]:
    return {
        path: value
        for path, value in weights.parameters.items()
        if path.startswith(AUDIO_ENCODER) == sound
    }


def _write_aavs(
    out: Path, weights: Weights, allow: Sequence[str], prefix: str = ""
) -> tuple[Fate, ...]:
    """The network and, as its authors have it, the audio encoder in a file of its own."""
    tensors, fates = _theirs(BY_NAME["aavs"], weights, _of(weights, sound=False), allow, prefix)
    makers = {out: lambda path: files.write_torch(path, tensors)}
    if sound := _of(weights, sound=True):
        heard, more = _theirs(BY_NAME["vggish"], weights, sound, allow)
        makers[beside(out)] = lambda path: files.write_torch(path, heard)
        # What is left over of either is left behind by the other.
        placed = {fate.theirs for fate in (*fates, *more) if fate.what != "left behind"}
        fates = tuple(
            dict.fromkeys(
                fate
                for fate in (*fates, *more)
                if fate.what != "left behind" or fate.ours or fate.theirs not in placed
            )
        )
    _write_files(makers)
    return fates


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
    lost = [fate.ours[0] for fate in fates if fate.what == "left behind" and fate.ours]
    allowed = engine.allowance(allow)
    lost = [path for path in lost if not allowed(path)]
    if lost:
        raise UserError(
            f"{format.title} has no place for {', '.join(lost[:3])}"
            + (f" and {len(lost) - 3} more" if len(lost) > 3 else "")
            + ": leave them behind with --allow=PATTERN, or write --to=safetensors, which has"
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


def _write_huggingface(out: Path, weights: Weights, tensors: Mapping[str, np.ndarray]) -> None:
    card = weights.card
    config: Mapping[str, Any] = card.huggingface or sizes.huggingface_config(
        card.network, card.classes
    )
    with appearing(out) as folder:
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        # transformers asks each file which framework wrote it.
        files.write_safetensors(folder / "model.safetensors", tensors, {"format": "pt"})


def _write_ours_as_a_file(out: Path, weights: Weights) -> tuple[Fate, ...]:
    """Our paths, what was left over, and the card, in one file that any tool can open."""
    digest = tree.digest(weights.parameters)
    card = cards.to_json(dataclasses.replace(weights.card, digest=digest))
    left_over = {LEFT_OVER + name: value for name, value in weights.left_over.items()}
    tensors = {**weights.parameters, **left_over}
    _write_files({out: lambda path: files.write_safetensors(path, tensors, {CARD: card})})
    return ()


def _write_files(makers: Mapping[Path, Callable[[Path], None]]) -> None:
    """All of some files, or none."""
    done: list[Path] = []
    try:
        for path, make in makers.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            make(path)
            done.append(path)
    except BaseException as error:
        for path in done:
            path.unlink()
        if isinstance(error, OSError):
            raise cannot_write(next(iter(makers)), error) from error
        raise
