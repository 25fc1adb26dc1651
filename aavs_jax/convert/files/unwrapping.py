"""Which dict of a checkpoint is the weights, and what lies beside it."""

import re
from typing import Any

from aavs_jax.convert.files.known import Inert, Weight
from aavs_jax.convert.files.tensors import Unreadable, damaged
from aavs_jax.errors import shown

# Where people put a state dict. A dict of tensors elsewhere is taken too, if it is the only one.
USUAL = {
    *("state_dict", "model", "model_state_dict", "model_state", "model_dict", "state", "net"),
    *("net_state_dict", "network", "module", "params", "parameters", "weights"),
}
# What may hold tensors without being weights of the network: what it is -> whole names.
BESIDES = {
    "optimiser state": r"(.*_)?(optim|optimi[sz]er|opt)(s|_(states?|state_dicts?|dict|[gd]))?",
    "schedule state": r"(.*_)?((lr_)?schedulers?|sched|lr)(_states?|_state_dict)?",
    "state of the loss scaling": r"(.*_)?(scaler|grad_scaler|amp)(_states?|_state_dict)?",
    "state of the loss": r"(.*_)?(criterion|loss|loss_fn)(_state|_state_dict)?",
    "state of random numbers": r"(.*_)?rng(_.*)?|random_state",
    "state of the trainer": r"callbacks|loops",
}
PREFIXES = ("module.", "_orig_mod.")
_DEEPEST = 6


def unwrap(value: Any) -> tuple[dict[str, Weight], list[str], dict[str, str]]:
    """Finds the state dict in what a file holds.

    Args:
      value: as the pickle machine gives it: may be nested deeply and refer to itself.

    Returns:
      The weights, where they were, and the rest: its place -> what it is.

    Raises:
      Unreadable: there is none, or more than one.
    """
    weights, under, besides = {}, [], {}
    while True:
        if type(value) is not dict:
            raise Unreadable(
                f"holds {_title(value)} instead of a state dict: have the state dict alone saved "
                "with torch.save"
            )
        place = "".join(f"{name}/" for name in under)
        chosen = _chosen(value, len(under))
        for key, entry in value.items():
            if chosen is None and isinstance(entry, Weight) and type(key) is str:
                weights[key] = entry
            elif key is not chosen:
                besides[place + _shown(key)] = _what(key, entry)
        if chosen is not None:
            under.append(chosen)
            value = value[chosen]
        elif weights:
            return weights, under, besides
        elif _is_optimiser(value) or any(_aside(key) == "optimiser state" for key in value):
            raise Unreadable(
                "holds the state of an optimiser and no weights: give the file of the model instead"
            )
        else:
            some = ", ".join(_shown(key) for key in list(value)[:5]) or "an empty dict"
            raise Unreadable(
                f"holds no weights ({some}): have the state dict saved with torch.save"
            )


def _chosen(value: dict, depth: int) -> str | None:
    """The key under which the weights lie; None if they are this dict's own tensors.

    A figure such as a best accuracy may be a tensor too, and so may class weights: beside a whole
    dict of weights, tensors without a dot in their names are not a state dict.
    """
    own = [
        key
        for key, entry in value.items()
        if isinstance(entry, Weight) and type(key) is str and not _aside(key)
    ]
    inner: dict[str, int] = {}
    counts: dict[int, int] = {}
    for key, entry in value.items():
        if type(entry) is dict and type(key) is str and not _aside(key):
            if count := _weights_in(entry, key in USUAL, _DEEPEST - depth, counts):
                inner[key] = count
    if not inner:
        return None
    if len(inner) > 1:
        raise Unreadable(
            f"holds several sets of weights ({', '.join(map(_shown, list(inner)[:5]))}): save the "
            "one that you mean alone, with torch.save"
        )
    ((chosen, count),) = inner.items()
    if any("." in key for key in own) or sum(_many(value[key]) for key in own) >= count:
        raise Unreadable(
            f"holds weights both by themselves and under {_shown(chosen)}: save the ones that you "
            "mean alone, with torch.save"
        )
    return chosen


def _many(weight: Weight) -> bool:
    return any(size != 1 for size in weight.shape)


def _weights_in(value: dict, usual: bool, depth: int, counts: dict[int, int]) -> int:
    """How many tensors a dict holds that may be weights, itself or as a wrapper of another.

    Under an unusual name, tensors of one number don't count: they are somebody's figures. `counts`
    remembers the dicts that were seen, by identity: a hostile file has them by the thousand.
    """
    if depth <= 0 or _is_optimiser(value):
        return 0
    if id(value) in counts:
        return counts[id(value)]
    counts[id(value)] = count = 0
    for key, entry in value.items():
        if isinstance(entry, Weight):
            count += usual or _many(entry)
        elif type(entry) is dict and type(key) is str and not _aside(key):
            count += _weights_in(entry, usual or key in USUAL, depth - 1, counts)
    counts[id(value)] = count
    return count


def _is_optimiser(value: dict) -> bool:
    return "param_groups" in value and "state" in value


def _aside(key: object) -> str:
    """What an entry is, by its name, that holds no weights; '' if its name doesn't say."""
    if type(key) is not str or len(key) > 100:
        return ""
    return next(
        (title for title, pattern in BESIDES.items() if re.fullmatch(pattern, key.lower())), ""
    )


def _shown(key: object) -> str:
    if type(key) is str and key.isprintable() and len(key) <= 100:
        return key
    return _title(key) if isinstance(key, Inert) else shown(key)


def _title(value: object) -> str:
    """What a value is, without looking into it."""
    if isinstance(value, Weight):
        return f"a tensor, {list(value.shape)}"
    if isinstance(value, Inert):
        return value.title
    if type(value) in (dict, list, tuple):
        return f"a {type(value).__name__} of {len(value)}"
    if type(value) is int and abs(value) > 1e15:
        return "a number"
    if isinstance(value, bytes | bytearray):
        return f"{len(value)} bytes"
    return shown(value) if type(value) is str else str(value)


def _what(key: object, value: object) -> str:
    """What lies beside the weights: by its name, or what it says itself."""
    if type(value) is dict and _is_optimiser(value):
        return "optimiser state"
    plain = isinstance(value, int | float | str | bytes | None)
    return ("" if plain else _aside(key)) or _title(value)


def strip(names: list[str]) -> tuple[dict[str, str], list[str]]:
    """Takes off what DataParallel and torch.compile put before names.

    In front, 'module.' goes only if all names have it, since a network may have a part of that
    name; '_orig_mod.' is nobody's, and goes wherever parts were compiled.

    Args:
      names: of all tensors.

    Returns:
      Old name -> new name, and the prefixes that were taken off.

    Raises:
      Unreadable: two names would become one.
    """
    now = {name: name for name in names}
    taken: list[str] = []
    while prefix := next(
        (p for p in PREFIXES if all(n.startswith(p) and n != p for n in now.values())), None
    ):
        taken.append(prefix)
        now = {name: value.removeprefix(prefix) for name, value in now.items()}
    within = {name: re.sub(r"(?<![^.])_orig_mod\.(?=.)", "", value) for name, value in now.items()}
    if within != now:
        taken.append(PREFIXES[1])
    if len(set(within.values())) < len(within):
        raise damaged("names that differ only in '_orig_mod.'")
    return within, taken
