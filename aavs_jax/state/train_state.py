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

    step: jax.Array  # int32, batches that this phase has trained on
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

    def apply_gradients(
        self, gradients: dict[str, jax.Array], optimizer, counts: jax.Array | None = None
    ) -> "TrainState":
        """One batch further.

        Args:
          gradients: by path, of `trainable`.
          optimizer: an optax transformation.
          counts: bool scalar; where it is False the optimiser makes no step: parameters, moments
            and its own count, and with it the learning rate and weight decay, are as if the batch
            had never been. None: True.
        """
        updates, opt_state = optimizer.update(gradients, self.opt_state, self.trainable)
        trainable = optax.apply_updates(self.trainable, updates)
        if counts is not None:
            trainable, opt_state = jax.tree.map(
                lambda new, old: jnp.where(counts, new, old),
                (trainable, opt_state),
                (self.trainable, self.opt_state),
            )
        return dataclasses.replace(
            self, step=self.step + 1, trainable=trainable, opt_state=opt_state
        )
