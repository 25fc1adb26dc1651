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
    mutable: dict[str, jax.Array]  # running statistics, which the loss gives anew
    opt_state: Any
    memory: dict[str, jax.Array] = dataclasses.field(default_factory=dict)  # `Method.memory`

    @classmethod
    def create(
        cls,
        trainable: dict[str, jax.Array],
        frozen: dict[str, jax.Array],
        optimizer,
        mutable: dict[str, jax.Array] | None = None,
        memory: dict[str, jax.Array] | None = None,
    ) -> "TrainState":
        """The state a phase starts from: a fresh optimiser state."""
        step = jnp.zeros((), jnp.int32)
        opt_state = optimizer.init(trainable)
        return cls(step, trainable, frozen, mutable or {}, opt_state, memory or {})

    @property
    def parameters(self) -> dict[str, jax.Array]:
        """All parameters and running statistics of the network."""
        return self.trainable | self.frozen | self.mutable

    def apart(self) -> tuple["TrainState", dict[str, jax.Array]]:
        """The state without the frozen parameters, and these."""
        return dataclasses.replace(self, frozen={}), self.frozen

    def beside(self, frozen: dict[str, jax.Array]) -> "TrainState":
        """The inverse of `apart`."""
        return dataclasses.replace(self, frozen=frozen)

    def apply_gradients(
        self,
        gradients: dict[str, jax.Array],
        optimizer,
        counts: jax.Array | None = None,
        mutable: dict[str, jax.Array] | None = None,
        memory: dict[str, jax.Array] | None = None,
    ) -> "TrainState":
        """One batch further.

        Args:
          gradients: by path, of `trainable`.
          optimizer: an optax transformation.
          counts: bool scalar; where it is False the optimiser makes no step: parameters, moments
            and its own count, and with it the learning rate and weight decay, are as if the batch
            had never been, and running statistics and memory stay. None:
            True.
          mutable: the running statistics after this batch; None: there are none.
          memory: what the loss remembers after this batch; None: nothing.
        """
        updates, opt_state = optimizer.update(gradients, self.opt_state, self.trainable)
        trainable = optax.apply_updates(self.trainable, updates)
        changed = trainable, mutable or {}, opt_state, memory or {}
        if counts is not None:
            before = self.trainable, self.mutable, self.opt_state, self.memory
            changed = jax.tree.map(lambda new, old: jnp.where(counts, new, old), changed, before)
        trainable, mutable, opt_state, memory = changed
        return TrainState(self.step + 1, trainable, self.frozen, mutable, opt_state, memory)
