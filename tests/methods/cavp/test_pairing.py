"""Who is shown with whose sound, and the queue."""

import jax.numpy as jnp
import numpy as np
import pytest

from aavs_jax.methods.cavp.pairing import (
    Queue,
    classes_shown,
    oldest,
    pair,
    put_in,
    single_class,
)

# Background and one class, but for the last: of two, and of none.
CLASSES = np.array([[1, 1, 0], [1, 1, 0], [1, 0, 1], [1, 0, 1], [1, 1, 1], [1, 0, 0]], bool)
ORDER = np.array([1, 2, 0, 4, 5, 3])


def test_classes_of_labels():
    labels = np.array([[[0, 2], [255, 2]], [[255, 255], [255, 255]], [[1, 1], [1, 1]]])
    np.testing.assert_array_equal(
        classes_shown(jnp.asarray(labels), 3), [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    )
    only, single = single_class(jnp.asarray(CLASSES))
    np.testing.assert_array_equal(single, [1, 1, 1, 1, 0, 0])
    np.testing.assert_array_equal(only[:4], [1, 1, 2, 2])


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_pairs(share):
    ranks = np.array([0.5, 0.4, 0.3, 0.2, 0.1, 0.0])
    may = np.array([1, 1, 1, 1, 0, 0], bool)
    found = pair(jnp.asarray(CLASSES), ORDER, ranks, jnp.asarray(share), may)
    right = (CLASSES == CLASSES[ORDER]).all(1)
    np.testing.assert_array_equal(right, [1, 0, 0, 0, 0, 0])
    # Of the five wrong ones the two of lowest rank, which may not be replaced; or all.
    replaced = {0.0: [], 0.5: [], 1.0: [1, 2, 3]}[share]
    np.testing.assert_array_equal(np.flatnonzero(found.replaced), replaced)
    np.testing.assert_array_equal(found.match, right | found.replaced)
    np.testing.assert_array_equal(found.other, ORDER)
    upward = pair(jnp.asarray(CLASSES), ORDER, ranks[::-1], jnp.asarray(share), may)
    assert upward.replaced.sum() == {0.0: 0, 0.5: 2, 1.0: 3}[share]


def test_queue():
    queue = Queue(jnp.full((3, 2, 1), -1.0), jnp.zeros(3, jnp.int32))

    def lent(queue, silence):
        sound, there = oldest(queue, jnp.array([1, 2]), silence)
        return sound[:, 0].tolist(), there.tolist()

    assert lent(queue, False)[1] == [False, False]
    assert lent(queue, True) == ([-1, -1], [True, True])
    for number, (sounds, classes, which) in enumerate(
        [([10, 20], [1, 2], [1, 0]), ([11, 12, 13], [1, 1, 1], [1, 1, 0])]
    ):
        sounds = jnp.array(sounds, jnp.float32)[:, None]
        queue = put_in(queue, sounds, jnp.array(classes), jnp.array(which, bool))
        if not number:
            # A place that is not filled yet lends silence, or what there is.
            assert lent(queue, True) == ([-1, -1], [True, True])
            assert lent(queue, False) == ([10, -1], [True, False])
    np.testing.assert_array_equal(queue.seen, [0, 3, 0])
    assert lent(queue, False)[0][0] == lent(queue, True)[0][0] == 11  # 10 is forgotten
