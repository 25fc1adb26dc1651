"""CAVP's pixel-wise contrastive loss ("Unraveling Instance Associations", CVPR 2024).

Of pictures under their own sound pixels of every class are drawn, and of the background; of the
same pictures under other sounds objects are drawn, too, which are background where that sound is
not theirs. All of these anchors are compared with each other: what sounds keeps away from what does
not, be it no object or one that is silent.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from aavs_jax.methods.objectives.targets import IGNORED


class Anchors(NamedTuple):
    """The pixels that are compared, arrays of one length A, V (classes there is room for + 2).

    Attributes:
      pixel: int32 [A], index into the flat [2B,h,w], pictures under their own sounds first.
      label: int32 [A].
      valid: bool [A]; the others are padding.
    """

    pixel: jax.Array
    label: jax.Array
    valid: jax.Array


def draw_ranks(key: jax.Array, pixels: int) -> jax.Array:
    """Random numbers [2,pixels] for `draw_anchors`."""
    return jax.random.uniform(key, (2, pixels))


def draw_anchors(
    labels: jax.Array, other_labels: jax.Array, num_classes: int, views: int, ranks: jax.Array
) -> Anchors:
    """Which pixels are compared.

    Of each class with at least V pixels V of them, by class; n of the background, where n is the
    least of V and of how many pixels there are of any class and of the background; n of the
    pictures under other sounds, where there is an object of any class. Without a class of at least
    V pixels there are none.

    Args:
      labels: int [B,h,w], IGNORED or below K.
      other_labels: int [B,h,w], what sounds in the same pictures under other sounds.
      num_classes: K, background, 0, counted.
      views: V.
      ranks: [2,B h w], the order in which pixels are drawn, lowest first: of their class; and of
        all objects, under other sounds.
    """
    flat, other = labels.reshape(-1), other_labels.reshape(-1)
    pixels, ahead = flat.size, jnp.arange(views)

    def at(order, places):
        return order[jnp.minimum(places, pixels - 1)]

    # Class by class, each in its order; ignored pixels behind all others.
    group = jnp.where(flat == IGNORED, num_classes, flat)
    by_class = jnp.lexsort((ranks[0], group))
    counts = jnp.bincount(group, length=num_classes + 1)
    starts = jnp.cumsum(counts) - counts
    enough = counts[1:num_classes] >= views
    room = min(num_classes - 1, pixels // views)
    classes = 1 + jnp.argsort(~enough, stable=True)[:room]
    used = enough[classes - 1]
    of_classes = at(by_class, starts[classes][:, None] + ahead)

    objects = counts[1:num_classes].sum()
    few = ahead < jnp.minimum(views, jnp.minimum(objects, counts[0]))
    is_object = (group > 0) & (group < num_classes)
    foreground = at(jnp.lexsort((ranks[1], ~is_object)), ahead)

    pixel = jnp.concatenate([of_classes.reshape(-1), at(by_class, ahead), pixels + foreground])
    label = jnp.concatenate([jnp.repeat(classes, views), 0 * ahead, other[foreground]])
    valid = jnp.concatenate([jnp.repeat(used, views), few, few]) & used.any()
    return Anchors(*(a.astype(jnp.int32) for a in (pixel, label)), valid)


def contrastive_loss(
    features: jax.Array, label: jax.Array, valid: jax.Array, temperature: float, at_once: int
) -> jax.Array:
    """Each anchor's positives against all of its negatives, never against other positives.

    -log(exp s_ij / (exp s_ij + sum over negatives of exp s_ik)), s a cosine over the temperature,
    is averaged over the positives j of each anchor i, and then over all anchors; those without
    positives count, as 0.

    Args:
      features: float [A,D], of any length.
      label: int [A].
      valid: bool [A]; others take no part.
      temperature: above 0.
      at_once: how many anchors, which divides A, are compared with all others at a time; only that
        is kept in memory, and where none is valid nothing is computed.

    Returns:
      Scalar; 0 where nothing is valid.
    """
    unit = unit_length(features)

    def of_some(unit, rows):
        mine, own, place, counts = rows
        similar = mine @ unit.T / temperature
        greatest = jnp.where(valid, similar, -jnp.inf).max(1, keepdims=True)
        similar -= jax.lax.stop_gradient(greatest)
        same = own[:, None] == label
        negatives = (jnp.exp(similar) * (~same & valid)).sum(1, keepdims=True)
        likely = similar - jnp.log(jnp.exp(similar) + negatives)
        positive = same & valid & (place[:, None] != jnp.arange(len(unit)))
        of_anchor = (likely * positive).sum(1) / (positive.sum(1) + 1e-12)
        return -(of_anchor * counts).sum()

    def add(total, rows):
        some = jax.checkpoint(of_some)
        return total + jax.lax.cond(
            rows[-1].any(), some, lambda unit, rows: jnp.zeros((), unit.dtype), unit, rows
        ), None

    rows = unit, label, jnp.arange(len(unit)), valid
    rows = jax.tree.map(lambda array: array.reshape(-1, at_once, *array.shape[1:]), rows)
    total, _ = jax.lax.scan(add, jnp.zeros((), unit.dtype), rows)
    return total / jnp.maximum(valid.sum(), 1)


def unit_length(features: jax.Array) -> jax.Array:
    """[...,D] over their length, which counts as 1e-12 at least."""
    # Floored under the root, so that a vector of zeros has a gradient, too.
    length = jnp.sqrt(jnp.maximum(jnp.square(features).sum(-1, keepdims=True), 1e-24))
    return features / length
