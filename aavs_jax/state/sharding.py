"""Where arrays live: a mesh with the axes `data` and `fsdp`, the same code on 1, 8 or many devices.

The batch is split over both axes. Parameters and optimiser state are copied along `data` and, where
`fsdp` is larger than 1, cut along it; XLA inserts the collectives.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from aavs_jax.errors import UserError
from aavs_jax.run.progress import say

# Below this many numbers cutting an array costs more than it saves.
SMALLEST_CUT = 2**14


def make_mesh(fsdp: int = 1, batch_sizes: Sequence[int] = ()) -> Mesh:
    """The devices as [data, fsdp].

    One process alone takes as many of its devices as can share every batch evenly; many processes
    take all of theirs.

    The axes are Auto: Swin's window partition merges the batch with windows in a reshape, which
    JAX's default, Explicit axes, refuses.

    Args:
      fsdp: devices over which parameters are cut.
      batch_sizes: rows of the batches that are to be shared.

    Raises:
      UserError: `fsdp` does not divide the number of devices.
    """
    there = taken = jax.device_count()
    if fsdp < 1 or there % fsdp:
        raise UserError(f"mesh.fsdp is {fsdp}, but there are {there} devices: make it a divisor")
    if jax.process_count() == 1:
        fitting = (n for n in range(there, 0, -fsdp) if not any(size % n for size in batch_sizes))
        taken = next(fitting, there)
    if taken < there:
        say(
            f"uses {taken} of {there} devices, which is how many can share a batch of "
            f"{' or '.join(map(str, sorted(set(batch_sizes))))}: to use all of them, change "
            "data.batch_size of the stages"
        )
    return jax.make_mesh(
        (taken // fsdp, fsdp),
        ("data", "fsdp"),
        axis_types=(AxisType.Auto,) * 2,
        devices=jax.devices()[:taken],
    )


def everyone_is_here(where: str) -> None:
    """Waits for all processes; `where` has to be the same text in each."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(where)


def state_shardings(state: Any, mesh: Mesh) -> Any:
    """For each array of a tree its NamedSharding: its largest divisible axis is cut along fsdp."""
    cuts = mesh.shape["fsdp"]

    def sharding(array) -> NamedSharding:
        if cuts > 1 and math.prod(array.shape) >= SMALLEST_CUT:
            sizes = sorted(((size, axis) for axis, size in enumerate(array.shape)), reverse=True)
            for size, axis in sizes:
                if size % cuts == 0:
                    return NamedSharding(mesh, P(*[None] * axis, "fsdp"))
        return NamedSharding(mesh, P())

    return jax.tree.map(sharding, state)


def put_state(state: Any, mesh: Mesh) -> Any:
    """Puts a tree of host arrays, the same on every process, onto the mesh."""

    def put(array, sharding):
        host = np.asarray(array)
        return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])

    return jax.tree.map(put, state, state_shardings(state, mesh))


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Puts this process's share of a global batch onto the mesh, split along the first axis.

    Raises:
      UserError: the global batch cannot be shared evenly by the devices.
    """
    sharding = NamedSharding(mesh, P(("data", "fsdp")))
    for name, array in batch.items():
        rows = array.shape[0] * jax.process_count()
        if rows % mesh.size:
            raise UserError(
                f"a batch of {rows} rows ({name}) cannot be shared by {mesh.size} devices: "
                "make the batch size a multiple"
            )
    return {
        name: jax.make_array_from_process_local_data(sharding, array)
        for name, array in batch.items()
    }


def local_rows(array: jax.Array) -> np.ndarray:
    """This process's rows of an array that is split along its first axis, in order."""
    shards = {shard.index[0].start or 0: shard.data for shard in array.addressable_shards}
    return np.concatenate([np.asarray(shards[start]) for start in sorted(shards)])
