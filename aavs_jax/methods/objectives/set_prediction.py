"""The set-prediction loss of AAVS (docs/method.md, section 3; Mask2Former, sections 3.2 and 4.1).

All D predictions of the network (one before each decoder layer, one after the last) are treated
alike: match queries to the classes present in a frame, then classification, mask cross-entropy
and dice. Everything has a fixed shape and runs on the device. Masks are compared at points: either
drawn as the paper does, or, with `LossConfig.grid`, all points of a regular grid.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from aavs_jax.methods.objectives import matching, point_sampling
from aavs_jax.methods.objectives.set_prediction_config import LossConfig
from aavs_jax.methods.objectives.targets import IGNORED, Targets


class Shares(NamedTuple):
    """By what the loss divides its sums; see `total_shares`."""

    masks: jax.Array  # float32: targets of frames that count
    queries: jax.Array  # float32: queries, those without a target by the weight of "no object"


def assignments(
    class_logits: jax.Array,
    mask_logits: jax.Array,
    targets: Targets,
    config: LossConfig,
    *,
    key: jax.Array | None = None,
    draws: dict[str, jax.Array] | None = None,
) -> jax.Array:
    """Matches queries to targets, for every prediction and frame. No gradient passes.

    Args:
        class_logits: float [D, N, Q, K+1].
        mask_logits: float [D, N, Q, h, w].
        targets: of N frames.
        config: sampling.
        key: random key, or one for each frame; the same in `set_prediction_loss` gives the same
            matching.
        draws: instead of `key`; only its "matching" is used. See `set_prediction_loss`.

    Returns:
        int32 [D, N, M], the query of each target, -1 for targets without one (padding).
    """
    class_logits = jax.lax.stop_gradient(class_logits).astype(jnp.float32)
    mask_logits = jax.lax.stop_gradient(mask_logits).astype(jnp.float32)
    if config.grid:
        logits = point_sampling.to_grid(mask_logits, config.grid)
        truth = _targets_on_grid(targets, config.grid)
        share = _counted_on_grid(targets, config)
        per_frame = jax.vmap(matching.pairwise_cost)
        cost = jax.vmap(per_frame, (0, 0, None, None, None))(
            class_logits, logits, truth, targets.classes, share
        )
    else:

        def frame_cost(class_logits, mask_logits, source, classes, labels):
            points = point_sampling.draw(source, "matching", (config.num_points, 2))
            logits = point_sampling.sample_maps(mask_logits, points)
            truth = point_sampling.sample_equal(labels, classes[:, None], points)
            share = _counted_at(labels, points, config)
            return matching.pairwise_cost(class_logits, logits, truth, classes, share)

        source = point_sampling.random_source(class_logits.shape[:2], key, draws, ("matching",))
        # One prediction after the other: [N, Q, P] at full size is 50 MB for each of them.
        cost = jax.lax.map(
            lambda d: jax.vmap(frame_cost)(*d, targets.classes, targets.labels),
            (class_logits, mask_logits, source),
        )
    predictions, frames, queries, slots = cost.shape
    present = jnp.broadcast_to(targets.present, (predictions, frames, slots))
    query = matching.match(cost.reshape(-1, queries, slots), present.reshape(-1, slots))
    return query.reshape(predictions, frames, slots)


def set_prediction_loss(
    class_logits: jax.Array,
    mask_logits: jax.Array,
    targets: Targets,
    weight: jax.Array,
    config: LossConfig,
    *,
    key: jax.Array | None = None,
    draws: dict[str, jax.Array] | None = None,
    shares: Shares | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The loss of all predictions, summed.

    Random points come from `key`, separately for every prediction, frame and target, so padding
    frames or targets behind the real ones does not change what the real ones draw. Or they are
    handed in as `draws`, (x, y) in [0, 1]: "matching" float32 [D, N, P, 2], "candidates"
    [D, N, M, int(oversample_ratio * P), 2] and "fresh" [D, N, M, P - int(importance_ratio * P), 2].
    With `config.grid` neither is needed.

    Args:
        class_logits: float [D, N, Q, K+1], the last class meaning "no object".
        mask_logits: float [D, N, Q, h, w].
        targets: of N frames; see `make_targets`.
        weight: bool or float [N]; a frame of weight 0 enters neither a sum nor a normaliser.
        config: weights and sampling.
        key: random key, or one for each frame.
        draws: the random numbers themselves.
        shares: by what sums over frames are divided, where these frames are some of a batch: the
            losses of its parts then add up to its own. None: they are all there are.

    Returns:
        (total, terms): a float32 scalar and {"class", "mask", "dice"}, each float32 [D] and already
        weighted, of which total is the sum. Zero if no frame counts. Not finite if the logits of a
        frame that counts are not.

    Raises:
        ValueError: random points are asked for but neither `key` nor `draws` is given.
    """
    class_logits = class_logits.astype(jnp.float32)
    mask_logits = mask_logits.astype(jnp.float32)
    weight = jnp.asarray(weight).astype(jnp.float32)
    targets = targets._replace(present=targets.present & (weight > 0)[:, None])
    query = assignments(class_logits, mask_logits, targets, config, key=key, draws=draws)

    if shares is None:
        shares = total_shares(targets, weight, class_logits.shape[2], config)
    classification = jax.vmap(_class_loss, (0, 0, None, None, None))(
        class_logits, query, targets.classes, weight, config.no_object_weight
    )

    pair_weight = jnp.where(query >= 0, weight[:, None], 0.0)
    matched = jnp.take_along_axis(mask_logits, jnp.maximum(query, 0)[:, :, :, None, None], axis=2)
    # Replaced, not multiplied by zero: a padded frame's NaN must not reach loss or gradient.
    matched = jnp.where((pair_weight > 0)[..., None, None], matched, 0.0)
    if config.grid:
        logits = point_sampling.to_grid(matched, config.grid)
        share = _counted_on_grid(targets, config)
        share = None if share is None else share[:, None]
        cross_entropy, dice = _pair_losses(logits, _targets_on_grid(targets, config.grid), share)
    else:
        source = point_sampling.random_source(
            class_logits.shape[:2], key, draws, ("candidates", "fresh")
        )
        # As in `assignments` one prediction at a time; only points and logits are kept for the
        # backward pass.
        cross_entropy, dice = jax.lax.map(
            lambda d: _losses_at_points(*d, targets, config), (matched, source)
        )
    masks = shares.masks
    terms = {
        "class": config.class_weight * classification / shares.queries,
        "mask": config.mask_weight * jnp.sum(cross_entropy * pair_weight, axis=(1, 2)) / masks,
        "dice": config.dice_weight * jnp.sum(dice * pair_weight, axis=(1, 2)) / masks,
    }
    return sum(jnp.sum(term) for term in terms.values()), terms


def total_shares(targets: Targets, weight: jax.Array, queries: int, config: LossConfig) -> Shares:
    """By what the loss of frames divides its sums, which their targets alone decide.

    Args:
        targets: of N frames.
        weight: bool or float [N], as in `set_prediction_loss`.
        queries: Q.
        config: the weight of "no object".
    """
    weight = jnp.asarray(weight).astype(jnp.float32)
    present = jnp.sum(targets.present, axis=1) * (weight > 0)
    # Every target counts among the masks, also one that found no query.
    masks = jnp.sum(present * weight)
    matched = jnp.minimum(present, queries)
    importance = jnp.sum((matched + config.no_object_weight * (queries - matched)) * weight)
    return Shares(*(jnp.where(total > 0, total, 1.0) for total in (masks, importance)))


def _class_loss(
    class_logits: jax.Array,
    query: jax.Array,
    classes: jax.Array,
    weight: jax.Array,
    no_object_weight: float,
) -> jax.Array:
    """Weighted sum of all queries' cross-entropies: [N, Q, K+1], [N, M], [N, M], [N]."""
    frames, queries, no_object = *class_logits.shape[:2], class_logits.shape[2] - 1
    slot = jnp.where(query >= 0, query, queries)  # out of range, so dropped
    wanted = jnp.full((frames, queries), no_object, jnp.int32)
    wanted = wanted.at[jnp.arange(frames)[:, None], slot].set(classes, mode="drop")
    logits = jnp.where((weight > 0)[:, None, None], class_logits, 0.0)
    log_probability = jax.nn.log_softmax(logits, axis=-1)
    loss = -jnp.take_along_axis(log_probability, wanted[..., None], axis=-1)[..., 0]
    importance = jnp.where(wanted == no_object, no_object_weight, 1.0) * weight[:, None]
    return jnp.sum(loss * importance)


def _pair_losses(
    logits: jax.Array, truth: jax.Array, share: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """Mean cross-entropy and dice over the last axis, P points; leading axes broadcast.

    `share` is how much of each point counts, None: all of it. What is left of a point that is
    partly ignored has the target truth / share, so that only the softplus is to be weighted.
    """
    if share is None:
        cross_entropy = jnp.mean(jax.nn.softplus(logits) - logits * truth, axis=-1)
    else:
        entropy = jax.nn.softplus(logits) * share - logits * truth
        cross_entropy = jnp.sum(entropy, axis=-1) / matching.points_counted(share)
    inside = jax.nn.sigmoid(logits)
    overlap = jnp.sum(inside * truth, axis=-1)
    inside = inside if share is None else inside * share
    sizes = jnp.sum(inside, axis=-1) + jnp.sum(truth, axis=-1)
    return cross_entropy, 1.0 - (2.0 * overlap + 1.0) / (sizes + 1.0)


def _losses_at_points(
    matched: jax.Array, source: dict[str, jax.Array], targets: Targets, config: LossConfig
) -> tuple[jax.Array, jax.Array]:
    """Cross-entropy and dice [N, M] of one prediction from its matched mask logits [N, M, h, w]."""
    chosen = int(config.importance_ratio * config.num_points)
    slots = matched.shape[1]

    def choose(logits, source, labels):
        candidates = point_sampling.draw(
            source, "candidates", (slots, int(config.oversample_ratio * config.num_points), 2)
        )
        fresh = point_sampling.draw(source, "fresh", (slots, config.num_points - chosen, 2))
        certainty = jnp.abs(jax.vmap(point_sampling.sample_map)(logits, candidates))
        if (share := _counted_at(labels, candidates, config)) is not None:
            certainty = jnp.where(share > 0, certainty, jnp.inf)  # taken last
        _, best = jax.lax.top_k(-certainty, chosen)
        kept = jnp.take_along_axis(candidates, best[..., None], axis=1)
        return jnp.concatenate([kept, fresh], axis=1)

    @jax.checkpoint
    def losses(logits, points, classes, labels):
        return _pair_losses(
            jax.vmap(point_sampling.sample_map)(logits, points),
            jax.vmap(point_sampling.sample_equal, (None, 0, 0))(labels, classes, points),
            _counted_at(labels, points, config),
        )

    points = jax.vmap(choose)(jax.lax.stop_gradient(matched), source, targets.labels)
    return jax.vmap(losses)(matched, points, targets.classes, targets.labels)


def _targets_on_grid(targets: Targets, grid: int) -> jax.Array:
    """Target masks [N, M, grid * grid] at the regular grid's points."""
    masks = targets.labels[:, None] == targets.classes[:, :, None, None]
    return point_sampling.to_grid(masks.astype(jnp.float32), grid)


def _counted_at(labels: jax.Array, points: jax.Array, config: LossConfig) -> jax.Array | None:
    """How much of each point [..., P, 2] of a label map [H, W] is not ignored, float32 [..., P]."""
    if not config.ignores:
        return None
    return 1.0 - point_sampling.share_equal(labels, IGNORED, points)


def _counted_on_grid(targets: Targets, config: LossConfig) -> jax.Array | None:
    """The same of the regular grid's points, float32 [N, grid * grid]."""
    if not config.ignores:
        return None
    ignored = (targets.labels == IGNORED).astype(jnp.float32)
    inside = point_sampling.to_grid(jnp.ones_like(ignored[0]), config.grid)
    return jnp.maximum(1.0 - point_sampling.to_grid(ignored, config.grid) / inside, 0.0)
