"""What the keys of a config can be, whatever the others are."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from aavs_jax.methods.parts.sizes import DROP_PATH_OPTIONS
from aavs_jax.plan.folds import BY_OTHERS
from aavs_jax.state.optimizer import OF_A_GROUP
from data_pipelines.loader import PRIORS, SOUNDS, VIEWS
from data_pipelines.loading.decoding import RESIZES
from data_pipelines.loading.request import SAMPLINGS
from data_pipelines.making.audible_shapes.plan import MIN_CLIPS
from data_pipelines.making.writer import MAX_CLIPS, MAX_SIZE, MIN_SIZE

Rule = tuple[Callable[[Any], bool], str]  # whether a value can be, and what to give

MOST_PIXELS = 4096  # of a side of what is seen, or scored


def _least(least: int) -> Rule:
    return (lambda value: value >= least), f"give at least {least}"


def _between(low: float, high: float, what: str = "") -> Rule:
    return (lambda value: low <= value <= high), f"give {low} to {high}{what}"


def _one_of(*choices: str) -> Rule:
    return (lambda value: value in choices), f"give one of {', '.join(choices)}"


def _some_of(*choices: str) -> Rule:
    def can_be(values) -> bool:
        return 0 < len(values) == len(set(values)) and set(values) <= set(choices)

    return can_be, f"give some of {', '.join(choices)}, each once"


POSITIVE: Rule = (lambda value: value > 0), "give more than 0"
SHARE = _between(0, 1)
BELOW_ONE: Rule = (lambda value: 0 <= value < 1), "give 0, or a share below 1"
NAMES: Rule = (
    lambda values: all(isinstance(v, str) and v for v in values) and len(values) == len({*values}),
    "give names, each once",
)
PATTERNS: Rule = (
    lambda values: all(isinstance(value, str) for value in values),
    "give regular expressions, as in ('decoder/.*',)",
)
BETAS: Rule = (
    lambda values: len(values) == 2 and all(0 <= value < 1 for value in values),
    "give two shares below 1, as in (0.9, 0.999)",
)
MULTIPLIERS: Rule = (
    lambda pairs: all(
        isinstance(pattern, str) and 0 < factor < math.inf for pattern, factor in pairs
    ),
    "give pairs of a regular expression and a factor above 0, as in (('backbone/.*', 0.1),); what "
    "shall not train is left out of the phase's trains",
)
GROUPS: Rule = (
    lambda pairs: all(isinstance(p, str) and _may_be_a_group(keys) for p, keys in pairs),
    "give pairs of a regular expression and keys of the optimiser with values that it takes, as in "
    "(('audio_encoder/.*', {'name': 'adam'}),)",
)

# Keys, * standing for the name of any stage or phase, or for any rest of a key -> their values.
RULES: dict[str, Rule] = {
    "seed": _least(0),
    "log_every": _least(1),
    "checkpoint_every": _least(1),
    "data.num_workers": _least(0),
    "data.clips": _between(MIN_CLIPS, MAX_CLIPS, " (with fewer some split of a subset is empty)"),
    "data.size": _between(MIN_SIZE, MAX_SIZE, " pixels"),
    "data.seed": _least(0),
    "train.frames_per_pass": (lambda value: value >= -1, "give 0 for all, -1 for the device's own"),
    "train.remat": _one_of("none", "blocks", "everything"),
    "mesh.fsdp": _least(1),
    "matmul_precision": _one_of("default", "high", "highest"),
    "init.allow": PATTERNS,
    "eval.frames_per_batch": _least(1),
    "eval.sounds": _some_of(*SOUNDS),
    "eval.examples": _least(0),
    "schedule": (lambda values: values and NAMES[0](values), "name the stages to run, each once"),
    "stages.*.task": _one_of("binary", "semantic"),
    "stages.*.best_over_phases": _one_of("last", "all"),
    "stages.*.order": (lambda values: values and NAMES[0](values), "name its phases, each once"),
    "stages.*.loss.*_weight": _least(0),
    "stages.*.loss.num_points": _least(1),
    "stages.*.loss.oversample_ratio": _least(1),
    "stages.*.loss.importance_ratio": SHARE,
    "stages.*.loss.grid": _least(0),
    "stages.*.data.subsets": NAMES,
    "stages.*.data.image_size": _between(1, MOST_PIXELS, " pixels"),
    "stages.*.data.label_size": _between(1, MOST_PIXELS, " pixels"),
    "stages.*.data.max_targets": _least(1),
    "stages.*.data.batch_size": _least(1),
    "stages.*.data.sampling": _one_of(*SAMPLINGS),
    "stages.*.data.resize": _one_of(*RESIZES),
    "stages.*.data.seconds": _least(1),
    "stages.*.data.features": _one_of("none", "memory", "disk"),
    "stages.*.data.features_gib": POSITIVE,
    "stages.*.prior.train": _one_of(*PRIORS, *BY_OTHERS),
    "stages.*.prior.mixture": SHARE,
    "stages.*.prior.dropout": SHARE,
    "stages.*.prior.evaluate": _some_of(*VIEWS),
    "stages.*.prior.kind": _one_of("hard", "soft"),
    "stages.*.folds": (lambda value: value == 0 or value >= 2, "give at least 2, or 0 for none"),
    "stages.*.earlier": SHARE,
    "stages.*.phases.*.trains": PATTERNS,
    "stages.*.phases.*.fresh": PATTERNS,
    "stages.*.phases.*.zero": PATTERNS,
    "stages.*.phases.*.epochs": POSITIVE,
    "stages.*.phases.*.validate_every_epochs": POSITIVE,
    "stages.*.phases.*.optimizer.name": _one_of("adamw", "adam", "sgd"),
    "stages.*.phases.*.optimizer.betas": BETAS,
    "stages.*.phases.*.optimizer.eps": POSITIVE,
    "stages.*.phases.*.optimizer.momentum": BELOW_ONE,
    "stages.*.phases.*.optimizer.learning_rate": POSITIVE,
    "stages.*.phases.*.optimizer.schedule": _one_of("constant", "cosine", "poly"),
    "stages.*.phases.*.optimizer.power": POSITIVE,
    "stages.*.phases.*.optimizer.warmup_steps": _least(0),
    "stages.*.phases.*.optimizer.schedule_lag": _least(0),
    "stages.*.phases.*.optimizer.groups": GROUPS,
    "stages.*.phases.*.optimizer.multipliers": MULTIPLIERS,
    "stages.*.phases.*.optimizer.weight_decay": _least(0),
    "stages.*.phases.*.optimizer.no_decay": PATTERNS,
    "stages.*.phases.*.optimizer.clip_norm": _least(0),
    "stages.*.model.dtype": _one_of("float32", "bfloat16"),
    "stages.*.model.backbone.drop_path_rate": BELOW_ONE,
    **{
        f"stages.*.model.backbone.{key}": _one_of(*choices)
        for key, choices in DROP_PATH_OPTIONS.items()
    },
}


def _may_be_a_group(keys: Any) -> bool:
    """Whether these are keys of an optimiser, each with a value that it may have."""
    if not isinstance(keys, Mapping):
        return False
    for key, value in keys.items():
        allowed, _ = RULES.get(f"stages.*.phases.*.optimizer.{key}", (bool, ""))
        try:
            if key not in OF_A_GROUP or not allowed(value):
                return False
        except TypeError:  # of another type than that key's
            return False
    return True
