"""What a frame shows, as targets of fixed shapes, and which frames count."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

IGNORED = 255  # in label maps: a pixel that counts for nothing


class Targets(NamedTuple):
    """What a frame shows: its classes in ascending order, padded to M, and its label map.

    Masks are never stored. The mask of target m is `labels == classes[m]`, evaluated only where
    it is looked at: at 384 x 384 the masks themselves would be M times the label map.
    """

    classes: jax.Array  # int32 [N, M], 0 where padded
    present: jax.Array  # bool [N, M]
    labels: jax.Array  # integer [N, H, W]


def make_targets(
    labels: jax.Array, max_targets: int, num_classes: int, size: tuple[int, int] | None = None
) -> Targets:
    """Finds the classes present in each label map, background (class 0) included.

    Args:
        labels: integer [N, G, G'], class ids. Ids of `num_classes` and above, among them IGNORED,
            belong to no target.
        max_targets: M. A map with more classes keeps its M lowest ids: whoever makes the batch has
            to choose M large enough.
        num_classes: K, counted with background; at most IGNORED.
        size: (H, W) to which the maps are brought by nearest neighbour (pixel centres, as Pillow
            does), the size of the frames the network sees; None leaves them as they are.

    Returns:
        Targets with labels [N, H, W].
    """
    labels = jnp.asarray(labels)
    shown = (labels[:, None] == jnp.arange(num_classes)[None, :, None, None]).any(axis=(2, 3))
    classes = jnp.sort(jnp.where(shown, jnp.arange(num_classes), num_classes), axis=1)
    classes = jnp.pad(
        classes[:, :max_targets],
        ((0, 0), (0, max(0, max_targets - num_classes))),
        constant_values=num_classes,
    )
    present = classes < num_classes
    if size is not None:
        labels = labels[:, _nearest(labels.shape[1], size[0])]
        labels = labels[:, :, _nearest(labels.shape[2], size[1])]
    return Targets(jnp.where(present, classes, 0).astype(jnp.int32), present, labels)


def _nearest(source: int, target: int) -> np.ndarray:
    """For each of `target` pixels the source pixel its centre falls into; exact in integers."""
    return (2 * np.arange(target) + 1) * source // (2 * target)


def frame_weights(
    labels: jax.Array, labelled: jax.Array, valid: jax.Array, drop_empty_clips: bool
) -> jax.Array:
    """Which frames count in the loss.

    A frame of which every pixel is IGNORED does not.

    Args:
        labels: integer [B, T, H, W].
        labelled: bool [B, T], frames that have a label map.
        valid: bool [B, T], frames that exist (not padding).
        drop_empty_clips: the MS3 rule: a clip that is background, or IGNORED, in all its counted
            frames contributes nothing.

    Returns:
        float32 [B, T], 1 or 0.
    """
    labels = jnp.asarray(labels)
    counted = labels != IGNORED
    counts = jnp.asarray(labelled, bool) & jnp.asarray(valid, bool) & counted.any(axis=(2, 3))
    if drop_empty_clips:
        sounding = ((labels != 0) & counted).any(axis=(2, 3)) & counts
        counts &= sounding.any(axis=1, keepdims=True)
    return counts.astype(jnp.float32)
