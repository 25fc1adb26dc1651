"""What is wrong with a card that a stranger may have written; its answer takes no time."""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

from aavs_jax.errors import shown
from aavs_jax.methods import METHODS, module_of
from aavs_jax.methods.parts.sizes import PVTConfig, ResNetConfig, from_dict


@dataclasses.dataclass(frozen=True)
class PartSizes:
    """Sizes of backbones alone that AAVS does not have."""

    pvt: PVTConfig = PVTConfig()
    resnet: ResNetConfig = ResNetConfig()


CONFIGS = {name: module_of(name, "config") for name in METHODS}
KINDS = {
    **{name: f"{c.TITLE}, without or with its audio encoder" for name, c in CONFIGS.items()},
    "mask2former": "a Mask2Former",
    "swin": "a Swin backbone alone",
    "pvt": "a PVT-v2 backbone alone",
    "resnet": "a ResNet backbone alone",
    "vggish": "an audio encoder alone",
}
# Kinds that are one part of a network -> what their only size is called.
PARTS = {"swin": "backbone", "pvt": "pvt", "resnet": "resnet", "vggish": "audio"}
# What a kind's sizes are of: the form that they have, and what is not said.
EXAMPLES: Mapping[str, Any] = {
    **{name: config.SIZES() for name, config in CONFIGS.items()},
    **dict.fromkeys(("mask2former", "swin", "vggish"), CONFIGS["aavs"].SIZES()),
    **dict.fromkeys(("pvt", "resnet"), PartSizes()),
}
# Bounds of what a stranger's card may ask to build; published networks stay below a tenth of them.
WIDEST = 65536  # of any size
DEEPEST = 300  # blocks and layers together
NESTED = 64  # origins of origins
# Without these a kind's network is unknown.
REQUIRED = {
    **dict.fromkeys(METHODS, ("task", "num_classes", "prior")),
    "mask2former": ("num_classes", "num_queries"),
    **{kind: (size,) for kind, size in PARTS.items()},
}
# Of the kinds that share AAVS's sizes, whose cards say these parts in full.
REQUIRED_WITHIN = {
    "backbone": ("embed_dim", "depths", "num_heads", "window_size"),
    "audio": ("fully_connected",),
}
TOLD = {"kind": ("hard", "soft"), "view": ("predicted", "unknown", "both")}
STORED_AS = ("float16", "bfloat16")  # the types besides float32 that a weight may come in


def fault_in(values: Mapping[str, Any]) -> str:
    """What is wrong with a card's values, '' if nothing is; they may be anything that JSON can."""
    fields = list(_FITS)
    if missing := [name for name in fields if name not in values]:
        return f"it lacks {missing[0]!r}"
    if unknown := [name for name in values if name not in fields]:
        return f"it has {shown(unknown[0])}, which no card has"
    for name, fits in _FITS.items():
        if not fits(values[name]):
            return f"its {name!r} cannot be {shown(values[name])}"
    kind, network = values["kind"], values["network"]
    if kind not in KINDS:
        return ""  # what its sizes may be the method says, when it is made
    if missing := [key for key in REQUIRED[kind] if key not in network]:
        return f"its network lacks {missing[0]!r}, which {KINDS[kind]} has"
    if kind in PARTS and len(network) > 1:
        return f"its network has more than {REQUIRED[kind][0]!r} and is to be {KINDS[kind]}"
    if fault := fault_of(kind, network):
        return f"its network cannot be: {fault}"
    full = EXAMPLES[kind] == EXAMPLES["aavs"]
    for part, keys in REQUIRED_WITHIN.items() if full else ():
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
    "kind": lambda value: (
        isinstance(value, str) and (value in KINDS or bool(re.fullmatch(r"\w+(\.\w+)*", value)))
    ),
    "network": lambda value: isinstance(value, dict) and _is_shallow(value),
    "classes": _are_names,
    "origin": _is_origin,
    "image_size": _is_side,
    "label_size": _is_side,
    "told": lambda value: (
        isinstance(value, dict) and all(value[key] in TOLD.get(key, ()) for key in value)
    ),
    "new": _are_words,
    "left_over": _are_words,
    "stored_as": lambda value: _are_words(value) and set(value.values()) <= set(STORED_AS),
    "huggingface": lambda v: v is None or (isinstance(v, dict) and _is_shallow(v)),
    "digest": lambda value: isinstance(value, str),
    "versions": _are_words,
}


def fault_of(kind: str, network: Mapping[str, Any]) -> str:
    """What is wrong with the sizes of a network; '' if nothing is.

    To be asked of sizes that a stranger gave before anything is built from them: its answer takes
    no time, whatever they are.

    Args:
      kind: of KINDS.
      network: as `Card.network`; what it does not say is as in EXAMPLES.
    """
    if fault := _misfit(network, EXAMPLES[kind], ""):
        return fault
    try:
        config = from_dict(type(EXAMPLES[kind]), network)
    except (ValueError, TypeError, ArithmeticError) as error:
        return _shortened(str(error))
    layers = _layers(config)
    return f"it has {layers} layers, and {DEEPEST} are the most" if layers > DEEPEST else ""


def _layers(config: Any) -> int:
    """How many layers and blocks there are in a configuration, and in those inside it."""
    number = 0
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            number += _layers(value)
        elif field.name.endswith("_layers"):
            number += value
        elif field.name == "depths":
            number += sum(value)
        elif field.name in ("blocks", "fully_connected"):
            number += sum(len(each) if isinstance(each, tuple) else 1 for each in value)
    return number


def _shortened(text: str) -> str:
    return text if len(text) <= 200 else text[:200] + "..."
