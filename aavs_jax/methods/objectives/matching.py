"""One-to-one matching of queries to targets (docs/method.md, section 3; Mask2Former, section 3.2).

A set prediction has no order, so before a loss can be taken every target mask is given to the one
query that fits it best. The whole assignment runs on the device and carries no gradient.
"""

import jax
import jax.numpy as jnp
import optax

# Weights inside the matching cost. They are the method's own and differ from the loss weights,
# where the class term counts twice.
CLASS_COST = 1.0
MASK_COST = 5.0
DICE_COST = 5.0

# Costs are a few tens at most. Bounding them keeps the assignment loop finite for diverged logits.
LARGEST_COST = 1e6


def pairwise_cost(
    class_logits: jax.Array,
    mask_logits: jax.Array,
    truth: jax.Array,
    classes: jax.Array,
    share: jax.Array | None = None,
) -> jax.Array:
    """Costs of giving each target of one frame to each query.

    cost = -p(class) + 5 x mean cross-entropy + 5 x dice, both mask terms over the same P points.

    Args:
        class_logits: float32 [Q, K+1], the last class meaning "no object".
        mask_logits: float32 [Q, P], mask logits at the points.
        truth: float32 [M, P] in [0, 1], target masks at the points.
        classes: int32 [M].
        share: float32 [P] in [0, 1], how much of each point counts: `truth` is at most that, and
            the mean cross-entropy is over the points weighted so. None: all of them count.

    Returns:
        float32 [Q, M].
    """
    exact = jax.lax.Precision.HIGHEST
    points = mask_logits.shape[-1] if share is None else points_counted(share)
    probability = jax.nn.softmax(class_logits, axis=-1)[:, classes]
    # sum_p (softplus(x) - x t), split so that no [Q, M, P] array is ever needed
    softplus = jax.nn.softplus(mask_logits)
    softplus = softplus if share is None else softplus * share
    shared = jnp.sum(softplus, axis=-1, keepdims=True)
    cross_entropy = (shared - jnp.dot(mask_logits, truth.T, precision=exact)) / points
    inside = jax.nn.sigmoid(mask_logits)
    overlap = jnp.dot(inside, truth.T, precision=exact)
    inside = inside if share is None else inside * share
    sizes = jnp.sum(inside, axis=-1)[:, None] + jnp.sum(truth, axis=-1)[None, :]
    dice = 1.0 - (2.0 * overlap + 1.0) / (sizes + 1.0)
    return -CLASS_COST * probability + MASK_COST * cross_entropy + DICE_COST * dice


def points_counted(share: jax.Array) -> jax.Array:
    """Over the last axis the sum of the points' shares, to divide by; 1 where none counts."""
    total = jnp.sum(share, axis=-1)
    return jnp.where(total > 0, total, 1.0)


def match(cost: jax.Array, present: jax.Array) -> jax.Array:
    """The cheapest one-to-one assignment for each of N independent problems.

    NaN costs are treated as the cheapest of all: such a query is certain to be matched, so its NaN
    reaches the loss instead of hiding behind healthy queries. Infinities are bounded.

    Args:
        cost: float [N, Q, M].
        present: bool [N, M], which targets are real.

    Returns:
        int32 [N, M], the query of each target; -1 for a padded target, and for those targets that
        go without when there are more of them than queries (the costliest ones then).
    """
    cost = jax.lax.stop_gradient(cost).astype(jnp.float32)
    return jax.vmap(_match_one)(cost, present)


def _match_one(cost: jax.Array, present: jax.Array) -> jax.Array:
    """int32 [M] from cost [Q, M] and present [M]; see `match`."""
    queries, targets = cost.shape
    cost = jnp.nan_to_num(cost, nan=-LARGEST_COST, posinf=LARGEST_COST, neginf=-LARGEST_COST).clip(
        -LARGEST_COST, LARGEST_COST
    )
    # A padded target costs the same with every query, so it cannot influence the real ones.
    rows = jnp.where(present[:, None], cost.T, 0.0)
    if targets > queries:
        # Stand-in queries let every row be assigned. They are dearer for real targets than any
        # rearrangement among real queries could be, and free for padding.
        dear = jnp.max(rows) + (queries + 1.0) * (jnp.max(rows) - jnp.min(rows) + 1.0)
        spare = jnp.where(present[:, None], dear, 0.0)
        rows = jnp.concatenate(
            [rows, jnp.broadcast_to(spare, (targets, targets - queries))], axis=1
        )
    row, column = optax.assignment.hungarian_algorithm(rows)
    query = jnp.zeros(targets, jnp.int32).at[row].set(column.astype(jnp.int32))
    return jnp.where(present & (query < queries), query, -1)
