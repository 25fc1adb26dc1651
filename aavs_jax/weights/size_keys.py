"""What to type so that a config's networks have the sizes of given weights."""

import shlex
from collections.abc import Mapping
from typing import Any

from aavs_jax.methods.parts.sizes import BACKBONES
from aavs_jax.run.resuming import flatten

BACKBONE = "backbone."  # beginning of the keys that a preset sets


def flat_sizes(values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested sizes by dotted key; lists as tuples."""
    return {key: _frozen(value) for key, value in flatten(values).items()}


def preset_of(sizes: Mapping[str, Any]) -> str:
    """The name in BACKBONES of a Swin of these sizes, '' if it is none of them.

    Args:
      sizes: by dotted key, as from `flat_sizes`.
    """
    for name, preset in BACKBONES.items():
        if all(sizes.get(BACKBONE + key) == value for key, value in preset.items()):
            return name
    return ""


def size_flags(models: Mapping[str, Mapping[str, Any]], wanted: Mapping[str, Any]) -> list[str]:
    """The flags that give the networks of all stages some sizes; none if they have them.

    A published Swin is one preset for all stages; anything else is a key of each stage.

    Args:
      models: stage -> the sizes that its config has keys for, by dotted key.
      wanted: sizes by dotted key.

    Returns:
      Such as '--config.backbone=swin_t', quoted for a shell.
    """
    flags, preset = [], preset_of(wanted)
    preset_keys = {BACKBONE + key for key in BACKBONES.get(preset, ())}
    if any(model[key] != wanted[key] for model in models.values() for key in preset_keys):
        flags.append(f"--config.backbone={preset}")
    for stage_name, model in models.items():
        for key, value in wanted.items():
            if key not in preset_keys and model.get(key, value) != value:
                text = str(value).replace(" ", "")
                flags.append(shlex.quote(f"--config.stages.{stage_name}.model.{key}={text}"))
    return flags


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value
