"""A training step of CAVP: each picture with its own sound and with another one."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from aavs_jax.methods.cavp.config import CAVPLoss
from aavs_jax.methods.cavp.network import CAVP
from aavs_jax.methods.cavp.pairing import Pairs, Queue, oldest, pair, put_in, single_class
from aavs_jax.methods.objectives.contrastive import (
    Anchors,
    contrastive_loss,
    draw_anchors,
    draw_ranks,
)
from aavs_jax.methods.objectives.targets import IGNORED
from aavs_jax.methods.parts.layers import resize_bilinear


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Pictures:
    """A batch, arrays of N pictures.

    Attributes:
      frames: uint8 [N,H,W,3].
      sounds: float [N,F,64] or [N,F,64,2], rows of the front end.
      labels: int [N,G,G'], IGNORED where a pixel counts for nothing.
      classes: bool [N,C], what sounds in each, background included; C is K or, of the binary task,
        that of the data set.
    """

    frames: jax.Array
    sounds: jax.Array
    labels: jax.Array
    classes: jax.Array


class Draws(NamedTuple):
    """What is random in a step.

    Attributes:
      order: int [N], a permutation: whose sound each picture is shown with.
      replaced: [N], in which order pairs are drawn to be replaced, lowest first.
      anchors: [2,N h w], see `contrastive.draw_anchors`.
    """

    order: jax.Array
    replaced: jax.Array
    anchors: jax.Array


class Step(NamedTuple):
    """What a step gives, and what lies between.

    Attributes:
      terms: 'cross_entropy' and 'contrastive', scalars.
      queue: after it; None where nothing is ever replaced.
      heard: float [2N,D], sounds as the fusion takes them, the pictures' own first.
      fused: float [2N,h,w,D].
      pairs, anchors: see there.
    """

    terms: dict[str, jax.Array]
    queue: Queue | None
    heard: jax.Array
    fused: jax.Array
    pairs: Pairs | None = None
    anchors: Anchors | None = None


def draw(key: jax.Array, pictures: int, grid: tuple[int, int]) -> Draws:
    """Draws of a step of so many pictures, the height and width of whose features is `grid`."""
    order, replaced, anchors = jax.random.split(key, 3)
    return Draws(
        jax.random.permutation(order, pictures),
        jax.random.uniform(replaced, (pictures,)),
        draw_ranks(anchors, pictures * grid[0] * grid[1]),
    )


def train_step(
    network: CAVP,
    pictures: Pictures,
    draws: Draws,
    loss: CAVPLoss,
    queue: Queue | None,
    replacing: jax.Array,
) -> Step:
    """Cross-entropy under the pictures' own sounds, and the contrastive loss under two of them.

    What is seen, and what of the fusion knows nothing of the sound, is computed once per picture.

    Args:
      network: whose batch norms this moves.
      pictures: the batch.
      draws: what is random.
      loss: settings.
      queue: of sounds; None where nothing is ever replaced.
      replacing: bool scalar, whether it is late enough for that.
    """
    seen = network.look(pictures.frames, training=True)
    asked = network.prepare(seen)
    if not loss.contrastive_weight:
        heard = network.hear(pictures.sounds, training=True)
        fused = network.fusion(asked, heard).reshape(seen.shape)
        logits = network.head(fused, training=True)
        return Step({"cross_entropy": cross_entropy(logits, pictures.labels)}, None, heard, fused)
    pairs, heard, queue = _sounds(network, pictures, draws, loss, queue, replacing)
    twice = jax.tree.map(lambda array: jnp.concatenate([array, array]), asked)
    fused = network.fusion(twice, heard).reshape(-1, *seen.shape[1:])
    # The second half's logits are read by nobody, but batch norm sees them.
    logits = network.head(fused, training=True)[: len(seen)]
    labels = nearest(pictures.labels, seen.shape[1:3])
    other = jnp.where(pairs.match[:, None, None], labels, 0)
    anchors = draw_anchors(labels, other, network.config.num_classes, loss.views, draws.anchors)
    features = fused.reshape(-1, fused.shape[-1])[anchors.pixel]
    terms = {
        "cross_entropy": cross_entropy(logits, pictures.labels),
        "contrastive": contrastive_loss(
            features, anchors.label, anchors.valid, loss.temperature, loss.views
        ),
    }
    return Step(terms, queue, heard, fused, pairs, anchors)


def _sounds(network, pictures, draws, loss, queue, replacing):
    """Who is paired with whom, the sounds of both halves as they are heard, the queue after it."""
    classes, single = single_class(pictures.classes)
    if loss.pairs == "features":
        # The public stereo trainer also passes over what shows no background.
        may = single & pictures.classes[:, 0]
    elif queue is not None:
        lent, there = oldest(queue, classes, loss.silence_in_queue)
        may = single & there
    else:
        may = jnp.zeros_like(single)
    share = jnp.where(replacing, loss.replaced_share, 0.0)
    pairs = pair(pictures.classes, draws.order, draws.replaced, share, may)
    if loss.pairs == "features":
        heard = network.hear(pictures.sounds, training=True)
        return pairs, jnp.concatenate([heard, heard[pairs.other]]), None
    others = pictures.sounds[pairs.other]
    if queue is not None:
        chosen = pairs.replaced.reshape(-1, *[1] * (others.ndim - 1))
        others = jnp.where(chosen, lent, others)
        queue = put_in(queue, pictures.sounds, classes, single)
    heard = network.hear(jnp.concatenate([pictures.sounds, others]), training=True)
    return pairs, heard, queue


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean over all pixels of the batch that are not IGNORED; 0 where all are.

    Args:
      logits: float [N,h,w,K], resized to the labels bilinearly.
      labels: int [N,G,G'].
    """
    likely = jax.nn.log_softmax(resize_bilinear(logits, labels.shape[1:], axes=(1, 2)))
    counts = labels != IGNORED
    chosen = jnp.where(counts, labels, 0)[..., None].astype(jnp.int32)
    right = jnp.take_along_axis(likely, chosen, -1)[..., 0]
    return -(right * counts).sum() / jnp.maximum(counts.sum(), 1)


def nearest(labels: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Labels int [N,G,G'] at another size: of a pixel's first corner."""
    rows, columns = (np.arange(s) * g // s for s, g in zip(size, labels.shape[1:], strict=True))
    return labels[:, rows[:, None], columns]
