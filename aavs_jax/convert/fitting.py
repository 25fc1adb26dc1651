"""Sources merged, and a whole network of AAVS made of parts."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from aavs_jax.convert.engine import Fate, fate_of_ours
from aavs_jax.convert.formats import KINDS
from aavs_jax.convert.importing import Weights
from aavs_jax.errors import UserError
from aavs_jax.methods.aavs.config import AAVSConfig
from aavs_jax.methods.aavs.network import abstract_model
from aavs_jax.methods.aavs.weights import whole_shapes
from aavs_jax.methods.functional import initial_parameters

FITTING = {"aavs", "mask2former", "swin", "vggish"}  # kinds of what becomes a network of AAVS
# The paper's networks: task -> what it decides.
TASKS = {
    "binary": {"num_classes": 2, "num_queries": 30, "prior": False},
    "semantic": {"num_classes": 71, "num_queries": 100, "prior": True},
}


def network_for(network: Mapping[str, Any], task: str) -> AAVSConfig:
    """The sizes of a whole network for a task of the paper, of whose parts some are given.

    Raises:
      UserError: the parts do not go together.
    """
    try:
        return AAVSConfig.from_dict({**network, **TASKS[task], "task": task, "dtype": "float32"})
    except (ValueError, TypeError, ArithmeticError) as error:
        raise UserError(f"no network of AAVS has these sizes: {error}") from error


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
    known = list(KINDS)
    if fit and not set(kinds) <= FITTING:
        raise UserError("--fit makes networks of AAVS, and this is of another method: leave it out")
    if len(kinds) == 1:
        return
    main, *others = sorted(kinds, key=lambda kind: known.index(kind) if kind in known else -1)
    if main not in KINDS or not fit and not (KINDS[main].hears and others == ["vggish"]):
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
      UserError: a parameter or something left over is in two of them, or their sizes do not go
        together.
    """
    if len(parts) == 1:
        return parts[0]
    _check_nothing_twice([part.parameters for part in parts], names, "leave one of them out")
    # They are kept by name, so one of two would be lost, and the way back would be wrong.
    kept = [{**part.left_over, **part.card.left_over, **part.card.stored_as} for part in parts]
    _check_nothing_twice(kept, names, "take it out of one of the files")
    # The kind that says most of a network comes first, and wins.
    cards = sorted((part.card for part in parts), key=lambda card: list(KINDS).index(card.kind))
    main, sound = cards[0], cards[-1]
    network = _union(card.network for card in reversed(cards))
    if sound.kind == "vggish":
        network["audio"] = sound.network["audio"]
        gives = sound.network["audio"]["fully_connected"][-1]
        takes = main.network.get("audio", {}).get("fully_connected", [gives])[-1]
        if takes != gives:
            raise UserError(
                f"the audio encoder gives embeddings of {gives} numbers and the network takes "
                f"{takes}: give the audio encoder that it was trained with"
            )
    return Weights(
        parameters=_union(part.parameters for part in parts),
        left_over=_union(part.left_over for part in parts),
        card=dataclasses.replace(
            main,
            network=network,
            classes=next((card.classes for card in cards if card.classes), ()),
            new=_union(card.new for card in cards),
            left_over=_union(card.left_over for card in cards),
            stored_as=_union(card.stored_as for card in cards),
        ),
        fates=tuple(fate for part in parts for fate in part.fates),
    )


def _union(mappings) -> dict[str, Any]:
    return {key: value for mapping in mappings for key, value in mapping.items()}


def _check_nothing_twice(
    holdings: Sequence[Mapping[str, Any]], names: Sequence[str], advice: str
) -> None:
    owner: dict[str, str] = {}
    for name, holding in zip(names, holdings, strict=True):
        twice = [each for each in holding if each in owner]
        if twice:
            more = f" and {len(twice) - 1} more" if len(twice) > 1 else ""
            raise UserError(f"{owner[twice[0]]} and {name} both hold {twice[0]}{more}: {advice}")
        owner |= dict.fromkeys(holding, name)


def fitted(weights: Weights, task: str, seed: int) -> Weights:
    """A whole network for a task: what does not fit or is not there is initialised at random.

    Args:
      weights: of any kind but an audio encoder alone.
      task: of TASKS.
      seed: of the random values; each depends on it and its path only.

    Raises:
      UserError: nothing of it fits, or its sizes are not those of any network of AAVS.
    """
    card, given = weights.card, weights.parameters
    config = network_for(card.network, task)
    shapes = whole_shapes(config)
    misfits = {
        path: f"{list(value.shape)} in the origin, {list(shapes[path])} here"
        if path in shapes
        else "the network has no such parameter"
        for path, value in given.items()
        if shapes.get(path) != value.shape
    }
    new = {
        path: f"{misfits.get(path, 'not in the origin')}; initialised at random, seed {seed}"
        for path in shapes
        if path not in given or path in misfits
    }
    if len(new) == len(shapes):
        raise UserError("nothing in the sources fits the network: name others")
    random = initial_parameters(abstract_model(config), seed, only=new)
    whole = card.kind == "aavs" and not misfits
    return Weights(
        parameters={path: random[path] if path in new else given[path] for path in shapes},
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
            *(fate_of_ours(path, shapes[path], "new", reason) for path, reason in new.items()),
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
