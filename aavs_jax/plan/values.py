"""The config of a run, before anything starts: every key is known, and every value can be.

A config is a Python file, where a mistyped key is simply a new one: `config.chekpoint_every = 5`
would train to the end and change nothing. So all keys are compared with those of configs/base.py.
"""

import dataclasses
import difflib
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from aavs_jax import methods
from aavs_jax.errors import UserError
from aavs_jax.methods.parts.sizes import BACKBONES, NOT_KEYS
from aavs_jax.plan.rules import RULES
from aavs_jax.run.resuming import flatten
from configs import base
from data_pipelines.errors import DataError
from data_pipelines.loading.augment import augmentations

Config = Mapping[str, Any]


def checked(config: Config) -> dict[str, Any]:
    """A config whose keys and values can be, what all stages share put into each of them.

    Args:
      config: as in configs/base.py; plain values or a ConfigDict.

    Returns:
      Nested plain values.

    Raises:
      UserError: a key that nothing reads, with the one that was probably meant; a key that is
        missing; a value of another type, or out of range.
    """
    values = config.to_dict() if hasattr(config, "to_dict") else config
    values = _copied(values)
    _compare(values, _known(values), "")
    _check_values(values)
    values = _shared_out(values)
    if values["as_published"]:
        values["stages"] = {name: _as_published(s) for name, s in values["stages"].items()}
    _check_values(values)
    for name, stage in values["stages"].items():
        _check_stage(name, stage)
    return values


def _copied(values: Any) -> Any:
    if isinstance(values, Mapping):
        return {key: _copied(value) for key, value in values.items()}
    return tuple(map(_copied, values)) if isinstance(values, list | tuple) else values


def _known(config: Config) -> dict[str, Any]:
    """What configs/base.py has for a config with these stages and phases."""
    known = base.base("", small=True).to_dict()
    stages = config.get("stages")
    for name, stage in (stages if isinstance(stages, Mapping) else {}).items():
        described = base.stage("", "binary", small=True).to_dict()
        phases = stage.get("phases") if isinstance(stage, Mapping) else None
        described["phases"] = {
            phase: base.phase((), "", 1, 1.0).to_dict()
            for phase in (phases if isinstance(phases, Mapping) else ())
        }
        method = stage.get("method") if isinstance(stage, Mapping) else None
        module = methods.find(method if isinstance(method, str) else "aavs")
        described |= {"model": _keys(module.SIZES()), "loss": _keys(module.LOSS())}
        known["init"] |= dict.fromkeys(module.PRETRAINED, "")
        known["stages"][name] = described
    return known


def _keys(configuration: Any) -> dict[str, Any]:
    """The keys of a dataclass that a config sets."""
    values = dataclasses.asdict(configuration)
    return _copied({key: value for key, value in values.items() if key not in NOT_KEYS})


def _compare(values: Config, known: Config, path: str) -> None:
    where = f"config.{path}".rstrip(".")
    for key in values.keys() - known.keys():
        close = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
        meant = f"did you mean {close[0]!r}? " if close else ""
        raise UserError(
            f"{where}.{key} is no key that anything reads: {meant}The keys of {where} are "
            f"{', '.join(known)}; to add one of your own, put it with its unit into "
            "configs/base.py"
        )
    for key, reference in known.items():
        if key not in values:
            raise UserError(
                f"{where}.{key} is missing: give it a value; configs/base.py says what it means"
            )
        value = values[key]
        if isinstance(reference, Mapping):
            if not isinstance(value, Mapping):
                raise UserError(f"{where}.{key} is {value!r}: give keys and values, a ConfigDict")
            _compare(value, reference, f"{path}{key}.")
        else:
            wanted = _other_type(value, reference)
            if wanted:
                raise UserError(f"{where}.{key} is {value!r}: give {wanted}")


def _other_type(value: Any, reference: Any) -> str:
    """What to give instead of a value of the wrong type; '' if it is of the right one."""
    if isinstance(reference, bool):
        return "" if isinstance(value, bool) else "True or False"
    if isinstance(reference, int):
        fits = isinstance(value, int) and not isinstance(value, bool)
        return "" if fits else "a whole number"
    if isinstance(reference, float):
        fits = isinstance(value, int | float) and not isinstance(value, bool)
        return "" if fits and math.isfinite(value) else "a finite number"
    if isinstance(reference, tuple | list):
        return "" if isinstance(value, tuple) else "a tuple, as in ('one',) or (1, 2)"
    return "" if isinstance(value, str) else "text in quotation marks"


def _check_values(config: Config) -> None:
    for key, value in flatten(config).items():
        if key in ("data.clips", "data.size") and config["data"]["folder"]:
            continue  # of the built-in data set, which is not made
        for pattern, (can_be, give) in RULES.items():
            if re.fullmatch(pattern.replace(".", r"\.").replace("*", ".*"), key):
                if not _fits(can_be, value):
                    raise UserError(f"config.{key} is {value!r}: {give}")
        if re.fullmatch(r"stages\.[^.]*\.model\..*", key):
            numbers = [n for n in _numbers(value) if isinstance(n, int)]
            if any(number < 1 for number in numbers):
                raise UserError(f"config.{key} is {value!r}: give at least 1")
    _check_shared(config)


def _fits(can_be: Callable[[Any], bool], value: Any) -> bool:
    try:
        return can_be(value)
    except (TypeError, ValueError):  # what a tuple holds may be of any type
        return False


def _check_shared(config: Config) -> None:
    if config["backbone"] and config["backbone"] not in BACKBONES:
        raise UserError(
            f"config.backbone is {config['backbone']!r}: give one of {', '.join(BACKBONES)}, or "
            "'' for the sizes that config.stages.<stage>.model.backbone says"
        )
    for key in ("batch_size", "epochs"):
        if config[key] < 0:
            raise UserError(f"config.{key} is {config[key]}: give more, or 0 for each stage's own")
    if config["dtype"] not in ("", "float32", "bfloat16"):
        raise UserError(
            f"config.dtype is {config['dtype']!r}: give float32 or bfloat16, or '' for each "
            "stage's own"
        )


def _numbers(value: Any) -> Iterator[Any]:
    if isinstance(value, tuple):
        for element in value:
            yield from _numbers(element)
    elif not isinstance(value, bool):
        yield value


def _shared_out(config: dict[str, Any]) -> dict[str, Any]:
    """What all stages share, put into each stage; epochs keep the proportion of the phases."""
    models = [stage["model"] for stage in config["stages"].values()]
    for key in ("backbone", "dtype"):
        # The backbone of other methods is a name, not sizes.
        kind = str if key == "dtype" else dict
        if config[key] and not any(isinstance(model.get(key), kind) for model in models):
            raise UserError(
                f"config.{key} is {config[key]!r}, and no stage's model has such a key: leave it "
                "out"
            )
    for stage in config["stages"].values():
        model = stage["model"]
        if config["backbone"] and isinstance(model.get("backbone"), dict):
            model["backbone"] |= BACKBONES[config["backbone"]]
        if config["dtype"] and "dtype" in model:
            model["dtype"] = config["dtype"]
        if config["batch_size"]:
            stage["data"]["batch_size"] = config["batch_size"]
        if config["epochs"]:
            phases = [stage["phases"][name] for name in stage["order"] if name in stage["phases"]]
            total = sum(phase["epochs"] for phase in phases)
            for phase in phases:
                phase["epochs"] *= config["epochs"] / total
    return config


def _as_published(stage: dict[str, Any]) -> dict[str, Any]:
    """A stage with the keys that its method's public code has otherwise than its paper."""
    module = methods.find(stage["method"])
    return module.as_published(stage) if hasattr(module, "as_published") else stage


def _check_stage(name: str, stage: Config) -> None:
    """What one stage's values have to do with each other."""
    where = f"config.stages.{name}"
    prior = stage["prior"]
    if stage["task"] == "binary" and prior["train"] != "none":
        raise UserError(
            f"{where}.prior.train is {prior['train']!r}, but a binary stage takes no prior masks: "
            "give 'none', or make its task 'semantic'"
        )
    try:
        kept = stage["data"]["features"] != "none"
        # Which clips there are matters later.
        augmentations(stage["data"]["augment"], (), features=kept)
    except DataError as error:
        raise UserError(f"{where}.data.{error}") from None
    except (TypeError, KeyError) as error:
        raise UserError(f"{where}.data.augment cannot be: {error}") from None
