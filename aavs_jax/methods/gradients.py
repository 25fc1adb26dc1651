"""A method's loss and its gradient: of a batch at once, or of some pictures after the other."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from aavs_jax.methods.method import Aux, Batch, Method, Parameters


def value_and_gradient(
    method: Method,
    trainable: Parameters,
    rest: Parameters,
    batch: Batch,
    key: jax.Array,
    progress: jax.Array,
    *,
    frames_per_pass: int = 0,
    mesh: Mesh | None = None,
) -> tuple[tuple[jax.Array, Aux], dict[str, jax.Array]]:
    """What `jax.value_and_grad` gives of `Method.loss`, for what trains; the caller jits it.

    In passes only what one of them needs is in memory, and nothing is computed again; pictures that
    have no part in the loss are left out where they fill a pass. Only the order of sums changes. On
    several devices each takes its own share of the pictures, in passes of its own, and the devices
    meet once, at the end.

    Args:
      method: whose loss.
      trainable: parameters by path.
      rest: all others, and running statistics.
      batch: as `Method.loss` has it.
      key: random key.
      progress: as `Method.loss` has it.
      frames_per_pass: pictures at a time on each device; 0: all, as where the method has no slices.
      mesh: of the devices over which the batch is split; None: there is one.

    Returns:
      ((total, Aux), gradients by path).
    """
    if not frames_per_pass or method.slices is None:

        def objective(trainable):
            return method.loss(trainable | rest, batch, key, progress)

        return jax.value_and_grad(objective, has_aux=True)(trainable)
    rows, shared = method.slices.split(batch, key)
    arguments = trainable, rest, rows, shared, progress
    summed = functools.partial(_summed, method.slices.loss, frames_per_pass)
    if mesh is None or mesh.size == 1:
        return summed(*arguments)
    everywhere = jax.shard_map(
        lambda *arguments: jax.lax.psum(summed(*arguments), mesh.axis_names),
        mesh=mesh,
        in_specs=(P(), P(), P(mesh.axis_names), P(), P()),
        out_specs=P(),
        check_vma=False,  # gradients of copied parameters would meet in every pass
    )
    return everywhere(*arguments)


def suitable(frames_per_pass: int) -> int:
    """The `frames_per_pass` that config.train means: -1 is what suits the device."""
    if frames_per_pass >= 0:
        return frames_per_pass
    # One frame's arrays are partly in a CPU's caches; a GPU would wait for so little work.
    return 1 if jax.default_backend() == "cpu" else 5


@functools.cache
def compiler_options() -> dict[str, str]:
    """How a step with such a gradient is best compiled for the device: an argument of `jax.jit`.

    Operations are ordered for memory, not for as many at once as possible: a step asks for its
    memory anew, and the system clears every page of it first, which on two cores costs more than
    operations one beside the other gain. What is computed stays the same.
    """
    options = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
    if jax.default_backend() != "cpu":
        return {}
    try:
        jax.jit(lambda: 0, compiler_options=options)()
    except jax.errors.JaxRuntimeError:  # options of XLA come and go
        return {}
    return options


def _summed(loss, at_once: int, trainable, rest, rows: Batch, shared: Any, progress):
    @jax.jit  # so that it is traced once: for its shapes, and in the loop
    def part(trainable, rest, rows, shared, progress):
        def objective(trainable):
            return loss(trainable | rest, rows, shared, progress)

        return jax.value_and_grad(objective, has_aux=True)(trainable)

    number = len(rows["counts"])
    at_once = min(at_once, number)
    passes = -(-number // at_once)
    if passes == 1:
        return part(trainable, rest, rows, shared, progress)
    # Those that count first, so that the others share passes, which are left out.
    order = jnp.argsort(~rows["counts"], stable=True)
    order = jnp.concatenate([order, order[: passes * at_once - number]])
    rows = jax.tree.map(lambda array: array[order], rows)
    rows["counts"] &= jnp.arange(len(order)) < number
    rows = jax.tree.map(lambda array: array.reshape(passes, at_once, *array.shape[1:]), rows)
    first = jax.tree.map(lambda array: array[0], rows)
    shapes = jax.eval_shape(part, trainable, rest, first, shared, progress)
    nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    def add(total, rows):
        found = jax.lax.cond(
            rows["counts"].any(),
            lambda: part(trainable, rest, rows, shared, progress),
            lambda: nothing,
        )
        return jax.tree.map(jnp.add, total, found), None

    return jax.lax.scan(add, nothing, rows)[0]
