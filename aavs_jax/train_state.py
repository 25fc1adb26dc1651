"""What a training step changes, and what it only reads."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Plain arrays; parameters by path (see `tree.py`).

    Only `trainable` is differentiated and has moments, so a frozen backbone costs neither.
    """

    step: jax.Array  # int32, optimiser steps done in this phase
    trainable: dict[str, jax.Array]
    frozen: dict[str, jax.Array]
    opt_state: Any

    @classmethod
    def create(
        cls, trainable: dict[str, jax.Array], frozen: dict[str, jax.Array], optimizer
    ) -> "TrainState":
        """The state a phase starts from: a fresh optimiser state."""
        return cls(jnp.zeros((), jnp.int32), trainable, frozen, optimizer.init(trainable))

    @property
    def parameters(self) -> dict[str, jax.Array]:
        """All parameters of the network."""
        return self.trainable | self.frozen

    def apply_gradients(self, gradients: dict[str, jax.Array], optimizer) -> "TrainState":
        """One optimiser step further."""
        updates, opt_state = optimizer.update(gradients, self.opt_state, self.trainable)
        return dataclasses.replace(
            self,
            step=self.step + 1,
            trainable=optax.apply_updates(self.trainable, updates),
            opt_state=opt_state,
        )
