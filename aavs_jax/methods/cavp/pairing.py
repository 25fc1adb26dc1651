"""Which other sound a picture is shown with, and the queue of sounds that replace others."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Pairs(NamedTuple):
    """The second half of a batch of pictures, arrays [B].

    Attributes:
      other: int32, the clip whose sound each is shown with.
      match: bool, whether what sounds there is what is seen; replaced ones do.
      replaced: bool, whether that sound is to be replaced by one of the picture's own class.
    """

    other: jax.Array
    match: jax.Array
    replaced: jax.Array


class Queue(NamedTuple):
    """Sounds of each class, a ring: the oldest is overwritten.

    Attributes:
      sounds: float [K,b,...], of class 0 nothing.
      seen: int32 [K], how many were put in.
    """

    sounds: jax.Array
    seen: jax.Array


def classes_shown(labels: jax.Array, num_classes: int) -> jax.Array:
    """bool [B,K], whether a label map, int [B,H,W], shows a class, background included."""
    # Ignored pixels are no class.
    shown = jax.vmap(lambda label: jnp.bincount(label.reshape(-1), length=num_classes + 1))
    return shown(jnp.minimum(labels.astype(jnp.int32), num_classes))[:, :num_classes] > 0


def single_class(classes: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Of classes [B,K] the only one in the foreground, int32 [B], and whether there is one."""
    foreground = classes[:, 1:]
    return 1 + foreground.argmax(1).astype(jnp.int32), foreground.sum(1) == 1


def pair(
    classes: jax.Array, order: jax.Array, ranks: jax.Array, share: jax.Array, may: jax.Array
) -> Pairs:
    """Pairs each picture with another clip's sound.

    Args:
      classes: bool [B,K], what each clip shows; those match that show the same.
      order: int [B], a permutation: whose sound each is shown with.
      ranks: [B], the order in which pairs that do not match are drawn to be replaced.
      share: of them, how many are drawn, rounded down.
      may: bool [B], of which of those drawn the sound may be replaced.
    """
    match = (classes == classes[order]).all(1)
    # How many pairs that do not match come before each.
    before = ((ranks[None] < ranks[:, None]) & ~match[None]).sum(1)
    drawn = ~match & (before < jnp.floor((~match).sum() * share))
    replaced = drawn & may
    return Pairs(order, match | replaced, replaced)


def oldest(queue: Queue, classes: jax.Array, silence: bool) -> tuple[jax.Array, jax.Array]:
    """The sound that each class, int [B], lends: [B,...], and whether there is one, bool [B].

    Args:
      queue: of all classes.
      classes: that are asked.
      silence: whether places that were never filled lend what they hold, silence; else the oldest
        sound is lent that was put in.
    """
    seen, length = queue.seen[classes], queue.sounds.shape[1]
    full = seen >= length
    place = jnp.where(full | silence, seen % length, 0)
    return queue.sounds[classes, place], full | silence | (seen > 0)


def put_in(queue: Queue, sounds: jax.Array, classes: jax.Array, which: jax.Array) -> Queue:
    """The queue after a batch's sounds [B,...], one after the other.

    Args:
      queue: before.
      sounds: of the batch.
      classes: int [B], whose each is.
      which: bool [B], of which to put in.
    """
    length = queue.sounds.shape[1]

    def put(clip, queue):
        kept, seen = queue
        place = (classes[clip], seen[classes[clip]] % length)
        kept = kept.at[place].set(jnp.where(which[clip], sounds[clip], kept[place]))
        return Queue(kept, seen.at[classes[clip]].add(which[clip]))

    return jax.lax.fori_loop(0, len(sounds), put, queue)
