"""Sizes and loss of two AAVS networks that train together: frozen, hashable values."""

import dataclasses

from aavs_jax.methods.aavs.config import AAVSConfig
from aavs_jax.methods.objectives.set_prediction_config import LossConfig


@dataclasses.dataclass(frozen=True)
class JointConfig(AAVSConfig):
    """Both networks, alike but for their queries; `num_queries` are those of the second."""

    task: str = "semantic"
    num_queries: int = 100
    prior_keys: str = "linear"  # so that a gradient passes from what is told to who tells it
    localise_queries: int = 30  # of the first
    # One backbone, pixel decoder and audio encoder for both; what the first network's queries hold
    # of what sounds goes into those of the second.
    shared: bool = False
    # Whether the second is told what the first draws, its soft mask, as prior mask.
    tells: bool = True

    def __post_init__(self):
        super().__post_init__()
        if not (self.shared or self.tells):
            raise ValueError(
                "the first network tells the second nothing: set shared or tells to True"
            )

    @property
    def localise(self) -> AAVSConfig:
        """Of the network that says where it sounds."""
        own = {"task": "binary", "num_classes": 2, "num_queries": self.localise_queries}
        return AAVSConfig(**{**self._alike, **own, "prior": False})

    @property
    def understand(self) -> AAVSConfig:
        """Of the network that says what it is."""
        return AAVSConfig(**{**self._alike, "prior": self.tells})

    @property
    def _alike(self) -> dict:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(AAVSConfig)}


@dataclasses.dataclass(frozen=True)
class JointLoss(LossConfig):
    """The loss of both networks.

    Attributes:
        localise_weight: of the first network's own loss.
        guard: by how much the first network's J on the validation split may fall below that of the
            phase it starts from; a checkpoint with less is never the best.
    """

    localise_weight: float = 0.5
    guard: float = 0.01


SIZES = JointConfig
TITLE = "AAVS in one step"
