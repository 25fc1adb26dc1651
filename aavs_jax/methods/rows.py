"""Batches of clips as rows of pictures, each with one or more seconds of sound."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from aavs_jax.methods.method import Batch, Parameters


def frames_of(array: jax.Array) -> jax.Array:
    """[B,T,...] -> [N,...]."""
    return array.reshape(-1, *array.shape[2:])


def frames_or_maps(batch: Batch) -> jax.Array | list[jax.Array]:
    """The pictures of a training batch [N,H,W,3], or in their place the backbone's maps of them."""
    maps = [frames_of(batch[name]) for name in sorted(batch) if name.startswith("features_")]
    return maps or frames_of(batch["frames"])


def regrouped(rows: int, array: jax.Array, axes: int = 1) -> jax.Array:
    """An array whose first axes count frames -> the same with `rows` of them first."""
    return array.reshape(rows, -1, *array.shape[axes:])


def keys_of(key: jax.Array, number: int) -> jax.Array:
    """A random key for each of so many rows."""
    return jax.vmap(lambda row: jax.random.fold_in(key, row))(jnp.arange(number))


def by_clip(
    function: Callable[[Parameters, Batch], Any], names: Sequence[str]
) -> Callable[[Parameters, Batch], Any]:
    """Of clips what a function of frames gives, arrays [N,...] as [B,T,...].

    Frames do not see each other, so that clips of all lengths share what is compiled.

    Args:
      function: (parameters, arrays of N frames) -> arrays [N,...].
      names: of the batch's entries that it reads, `frames` among them.
    """

    def of_clips(parameters: Parameters, batch: Batch) -> Any:
        found = function(parameters, {name: frames_of(batch[name]) for name in names})
        clips = batch["frames"].shape[:2]
        return jax.tree.map(lambda array: array.reshape(*clips, *array.shape[1:]), found)

    return of_clips
