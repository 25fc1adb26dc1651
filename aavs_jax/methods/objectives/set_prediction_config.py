"""Weights and sampling of the set-prediction loss, without JAX: configs read them."""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Weights and sampling of the loss; defaults are the paper's.

    Attributes:
        class_weight, mask_weight, dice_weight: weights of the three terms. (The matching cost has
            weights of its own, fixed in `aavs_jax.methods.objectives.matching`.)
        no_object_weight: weight of the "no object" class within the class term.
        num_points: P, points per mask.
        oversample_ratio: candidates drawn per point kept.
        importance_ratio: share of the P points taken from the most uncertain candidates.
        grid: 0 for random points; otherwise grid x grid regular points replace all of them.
        max_targets: M, targets kept per frame.
        ignores: whether label maps may have IGNORED pixels, which then take no part in mask and
            dice terms and matching costs. Where there are none it changes nothing but the time.
    """

    class_weight: float = 2.0
    mask_weight: float = 5.0
    dice_weight: float = 5.0
    no_object_weight: float = 0.1
    num_points: int = 12544
    oversample_ratio: float = 3.0
    importance_ratio: float = 0.75
    grid: int = 0
    max_targets: int = 16
    ignores: bool = False

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "LossConfig":
        """Builds the config from plain values; an unknown key is a ValueError naming it."""
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(
                f"unknown loss setting {', '.join(unknown)}; known are {', '.join(sorted(known))}"
            )
        return cls(**values)
