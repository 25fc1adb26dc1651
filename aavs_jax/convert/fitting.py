"""What is done to weights between reading and writing: merged, resized, made a whole network."""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from flax import nnx

from aavs_jax.convert import sizes
from aavs_jax.convert.engine import Fate
from aavs_jax.convert.importing import AUDIO_ENCODER, Weights
from aavs_jax.errors import UserError
from aavs_jax.methods.aavs.config import AAVSConfig
from aavs_jax.methods.aavs.network import abstract_model
from aavs_jax.methods.functional import initial_parameters

# The paper's networks: task -> what it decides.
TASKS = {
    "binary": {"num_classes": 2, "num_queries": 30, "prior": False},
    "semantic": {"num_classes": 71, "num_queries": 100, "prior": True},
}
TABLE = re.compile(r"backbone/stages/(\d+)/blocks/\d+/attention/relative_position_bias")
# Left over of a file, and of no use with windows of another size.
STALE = ("relative_position_index", "attn_mask")
LARGEST_WINDOW = 64  # a table has (2 window - 1)^2 rows; no published Swin has more than 24


def network_for(network: Mapping[str, Any], task: str) -> AAVSConfig:
    """The sizes of a whole network for a task of the paper, of whose parts some are given.

    Raises:
      UserError: the parts do not go together.
    """
    try:
        return AAVSConfig.from_dict({**network, **TASKS[task], "task": task, "dtype": "float32"})
    except (ValueError, TypeError, ArithmeticError) as error:
        raise UserError(f"no network of AAVS has these sizes: {error}") from error


def shapes_for(config: AAVSConfig) -> dict[str, tuple[int, ...]]:
    """Path -> shape of every parameter of a whole network."""
    state = nnx.to_flat_state(nnx.state(abstract_model(config), nnx.Param))
    return {"/".join(map(str, path)): tuple(leaf.shape) for path, leaf in state}


def check_goes_together(kinds: Sequence[str], fit: bool) -> None:
    """Whether sources of these kinds make one folder of weights.

    Raises:
      UserError: they do not; says what would.
    """
    if fit and set(kinds) == {"vggish"}:
        raise UserError(
            "--fit makes a whole network of AAVS, of which an audio encoder alone is too little: "
            "give a Mask2Former, a Swin or an AAVS file besides"
        )
    if len(kinds) > 1 and not fit and set(kinds) != {"aavs", "vggish"}:
        raise UserError(
            f"sources of the kinds {', '.join(kinds)} are no network by themselves: convert them "
            "one by one, as training takes them, or add --fit binary or --fit semantic"
        )


def merged(parts: Sequence[Weights], names: Sequence[str]) -> Weights:
    """Several sources as one.

    Args:
      parts: one or more; `check_goes_together` has been asked.
      names: of the sources, for errors.

    Raises:
      UserError: a parameter or something left over is in two of them, their sizes do not go
        together, or a folder's card is of other parameters than lie in it.
    """
    for name, part in zip(names, parts, strict=True):
        _check_described(name, part)
    if len(parts) == 1:
        return parts[0]
    _check_nothing_twice([part.parameters for part in parts], names, "leave one of them out")
    # They are kept by name, so one of two would be lost, and the way back would be wrong.
    kept = [{**part.left_over, **part.card.left_over} for part in parts]
    _check_nothing_twice(kept, names, "take it out of one of the files")
    types = [part.card.stored_as for part in parts]
    _check_nothing_twice(types, names, "take it out of one of the files")
    # The parts of a network in the order of their weight: the one that says most of it first.
    order = ("aavs", "mask2former", "swin", "vggish")
    cards = sorted((part.card for part in parts), key=lambda card: order.index(card.kind))
    network: dict[str, Any] = {}
    for card in reversed(cards):
        network |= card.network
    for card in cards:
        if card.kind == "vggish":
            _check_width(cards[0], card)
            network["audio"] = card.network["audio"]
    return Weights(
        parameters={path: value for part in parts for path, value in part.parameters.items()},
        left_over={name: value for part in parts for name, value in part.left_over.items()},
        card=dataclasses.replace(
            cards[0],
            network=network,
            classes=next((card.classes for card in cards if card.classes), ()),
            new={path: why for card in cards for path, why in card.new.items()},
            left_over={name: why for card in cards for name, why in card.left_over.items()},
            stored_as={name: dtype for card in cards for name, dtype in card.stored_as.items()},
        ),
        fates=tuple(fate for part in parts for fate in part.fates),
    )


def _check_nothing_twice(
    holdings: Sequence[Mapping[str, Any]], names: Sequence[str], advice: str
) -> None:
    owner: dict[str, str] = {}
    for name, holding in zip(names, holdings, strict=True):
        twice = [each for each in holding if each in owner]
        if twice:
            raise UserError(
                f"{owner[twice[0]]} and {name} both hold {twice[0]}"
                + (f" and {len(twice) - 1} more" if len(twice) > 1 else "")
                + f": {advice}"
            )
        owner |= dict.fromkeys(holding, name)


def _check_described(name: str, part: Weights) -> None:
    """Whether a folder's parameters are of the network of its card.

    A file's are held against its sizes when it is read (it has fates), and a phase, whose card has
    no digest, is what training made of the same network.
    """
    card = part.card
    if part.fates or not card.digest:
        return
    wanted = sizes.wanted(card.kind, card.network)
    if card.kind == "aavs" and any(path.startswith(AUDIO_ENCODER) for path in part.parameters):
        wanted = wanted | sizes.wanted("vggish", card.network)
    found = {path: value.shape for path, value in part.parameters.items()}
    wrong = [path for path, shape in found.items() if wanted.get(path) != shape]
    wrong += [path for path in wanted if path not in found and path not in card.new]
    if wrong:
        raise UserError(
            f"the card in {name} describes another network than the parameters beside it are of: "
            f"{wrong[0]} is {list(found[wrong[0]]) if wrong[0] in found else 'missing'} there and "
            f"{list(wanted[wrong[0]]) if wrong[0] in wanted else 'nothing'} by the card; convert "
            "the origin once more"
        )


def _check_width(main, sound) -> None:
    if main.kind != "aavs" or "audio" not in main.network:
        return
    takes = main.network["audio"]["fully_connected"][-1]
    gives = sound.network["audio"]["fully_connected"][-1]
    if takes != gives:
        raise UserError(
            f"the audio encoder gives embeddings of {gives} numbers and the network takes {takes}: "
            "give the audio encoder that it was trained with"
        )


def resized(weights: Weights, window: int) -> tuple[Weights, list[str]]:
    """A Swin's or Mask2Former's relative-position tables for attention windows of another size.

    Returns:
      The weights, with fates that tell of it, and for each stage what was done.

    Raises:
      UserError: there is no backbone in it, or the weights are of a whole AAVS, or there can be no
        such window.
    """
    card = weights.card
    if card.kind not in ("swin", "mask2former"):
        raise UserError(
            f"--window resizes the tables of a Swin or a Mask2Former, and this is "
            f"{card.describe()}: leave --window out"
        )
    if not 2 <= window <= LARGEST_WINDOW:
        raise UserError(f"--window is {window}: give at least 2 tokens, at most {LARGEST_WINDOW}")
    old = AAVSConfig.from_dict(card.network).backbone.window_size
    if window == old:
        return weights, []
    parameters, tables = dict(weights.parameters), {}
    for path, value in weights.parameters.items():
        if match := TABLE.fullmatch(path):
            parameters[path] = sizes.resize_positions(value, window)
            tables.setdefault(match[1], []).append(path)
    change = f"resized from {2 * old - 1}x{2 * old - 1} to {2 * window - 1}x{2 * window - 1}"
    done = [
        f"stage {stage}: the relative positions of {len(paths)} blocks {change}"
        for stage, paths in tables.items()
    ]
    # What is computed from the window's size no longer fits.
    stale = {name for name in {*weights.left_over, *card.left_over} if name.endswith(STALE)}
    backbone = {**card.network.get("backbone", {}), "window_size": window}
    card = dataclasses.replace(
        card,
        network={**card.network, "backbone": backbone},
        left_over={name: why for name, why in card.left_over.items() if name not in stale},
        huggingface=None,
    )
    kept = {name: value for name, value in weights.left_over.items() if name not in stale}
    fates = tuple(_resized(fate, parameters, change, window) for fate in weights.fates)
    return Weights(parameters, kept, card, fates), done


def _resized(fate: Fate, parameters: Mapping[str, np.ndarray], change: str, window: int) -> Fate:
    """What became of a tensor where windows have another size now."""
    if fate.what == "left over" and fate.theirs.endswith(STALE):
        reason = f"{fate.reason}, which is {window} now"
        return dataclasses.replace(fate, what="left behind", reason=reason)
    if any(TABLE.fullmatch(path) and path in parameters for path in fate.ours):
        return dataclasses.replace(
            fate,
            our_shapes=tuple(parameters[path].shape for path in fate.ours),
            reason="; ".join(filter(None, (fate.reason, change))),
        )
    return fate


def fitted(weights: Weights, task: str, seed: int) -> Weights:
    """A whole network for a task: what does not fit or is not there is drawn.

    Args:
      weights: of any kind but an audio encoder alone.
      task: of TASKS.
      seed: of the draws; each depends on it and its path only.

    Raises:
      UserError: nothing of it fits, or its sizes are not those of any network of AAVS.
    """
    config = network_for(weights.card.network, task)
    shapes = shapes_for(config)
    given = weights.parameters
    misfits = {
        path: f"{list(value.shape)} in the origin, {list(shapes[path])} here"
        if path in shapes
        else "the network has no such parameter"
        for path, value in given.items()
        if shapes.get(path) != value.shape
    }
    new = {
        path: f"{misfits.get(path, 'not in the origin')}; drawn from seed {seed}"
        for path in shapes
        if path not in given or path in misfits
    }
    taken = {path: value for path, value in given.items() if path not in misfits}
    if not taken:
        raise UserError("nothing in the sources fits the network: name others")
    drawn = initial_parameters(abstract_model(config), seed, only=new)
    whole = weights.card.kind == "aavs" and not misfits
    card = weights.card
    return Weights(
        parameters={path: taken.get(path, drawn.get(path)) for path in shapes},
        left_over=weights.left_over if whole else {},
        card=dataclasses.replace(
            card,
            kind="aavs",
            network=dataclasses.asdict(config),
            classes=card.classes if len(card.classes) == config.num_classes else (),
            new=new,
            left_over=card.left_over if whole else {},
            stored_as=card.stored_as if whole else {},
            huggingface=None,
        ),
        fates=(
            *(_refit(fate, misfits) for fate in weights.fates if fate.what != "new"),
            *_drawn(new, shapes),
        ),
    )


def _refit(fate: Fate, misfits: Mapping[str, str]) -> Fate:
    """A tensor that was mapped to what then did not fit."""
    wrong = [misfits[path] for path in fate.ours if path in misfits]
    if not wrong:
        return fate
    return dataclasses.replace(
        fate, ours=(), our_shapes=(), what="left behind", reason=f"does not fit: {wrong[0]}"
    )


def _drawn(new: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]]) -> list[Fate]:
    return [Fate("", (path,), (), (shapes[path],), "", "new", why) for path, why in new.items()]


def missing_for(weights: Weights, task: str) -> tuple[list[str], list[str], int]:
    """What training a task's network would draw afresh.

    Returns:
      Paths of parameters that are not there; of those whose shape does not fit; how many numbers
      are taken.
    """
    shapes = shapes_for(network_for(weights.card.network, task))
    absent = [path for path in shapes if path not in weights.parameters]
    misfit = [
        path
        for path, value in weights.parameters.items()
        if path in shapes and shapes[path] != value.shape
    ]
    left = {*absent, *misfit}
    return absent, misfit, sum(math.prod(shapes[path]) for path in shapes if path not in left)
