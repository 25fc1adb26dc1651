"""Matching against SciPy's solver, and its behaviour on costs that no solver accepts."""

import jax
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from aavs_jax.methods.objectives import matching

match = jax.jit(matching.match)


def check(cost, present):
    """Every present target has a query of its own and the total equals SciPy's optimum."""
    found = np.asarray(match(cost.astype(np.float32), present))
    queries = cost.shape[1]
    for one_cost, one_present, one_found in zip(cost, present, found, strict=True):
        assert (one_found[~one_present] == -1).all()
        real = one_cost[:, one_present]
        chosen = one_found[one_present]
        served = chosen >= 0
        assert served.sum() == min(queries, one_present.sum())
        assert len(set(chosen[served])) == served.sum()
        rows, columns = linear_sum_assignment(real)
        ours = real[chosen[served], np.flatnonzero(served)].sum()
        np.testing.assert_allclose(ours, real[rows, columns].sum(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("queries", "slots"), [(10, 4), (30, 16), (4, 4), (3, 6), (1, 1)])
@pytest.mark.parametrize("kind", ["random", "ties", "equal"])
def test_optimal(queries, slots, kind):
    rng = np.random.default_rng(queries * slots)
    cost = {
        "random": rng.normal(scale=10, size=(40, queries, slots)),
        "ties": rng.integers(0, 3, size=(40, queries, slots)).astype(float),
        "equal": np.full((40, queries, slots), 2.5),
    }[kind]
    check(cost, np.ones((40, slots), bool))
    check(cost, rng.random((40, slots)) < 0.5)


def test_padding_costs_do_not_matter():
    rng = np.random.default_rng(0)
    cost = rng.normal(size=(20, 6, 5)).astype(np.float32)
    present = np.arange(5)[None] < rng.integers(0, 6, size=20)[:, None]
    wild = np.where(present[:, None], cost, rng.normal(scale=1e4, size=cost.shape))
    wild[0, :, ~present[0]] = np.nan
    np.testing.assert_array_equal(match(cost, present), match(wild.astype(np.float32), present))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e38])
def test_ends_and_stays_one_to_one_whatever_the_costs(bad):
    rng = np.random.default_rng(1)
    cost = rng.normal(size=(3, 6, 4)).astype(np.float32)
    cost[0] = bad
    cost[1, 2] = bad
    cost[2, :, 1] = bad
    found = np.asarray(match(cost, np.ones((3, 4), bool)))
    assert all(len(set(row)) == 4 and row.min() >= 0 for row in found)


def test_a_query_with_nan_costs_is_matched():
    cost = np.random.default_rng(2).normal(size=(1, 6, 2)).astype(np.float32)
    cost[0, 3] = np.nan
    assert 3 in np.asarray(match(cost, np.ones((1, 2), bool)))


def test_pairwise_cost_is_the_papers():
    rng = np.random.default_rng(3)
    class_logits, mask_logits = rng.normal(size=(5, 4)), 3 * rng.normal(size=(5, 7))
    truth, classes = rng.random((2, 7)), np.array([0, 2])
    cost = matching.pairwise_cost(
        *(np.float32(a) for a in (class_logits, mask_logits, truth)), classes
    )
    for q in range(5):
        softmax = np.exp(class_logits[q]) / np.exp(class_logits[q]).sum()
        p = 1 / (1 + np.exp(-mask_logits[q]))
        for m in range(2):
            t = truth[m]
            entropy = -np.mean(t * np.log(p) + (1 - t) * np.log(1 - p))
            dice = 1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1)
            expected = -softmax[classes[m]] + 5 * entropy + 5 * dice
            np.testing.assert_allclose(cost[q, m], expected, rtol=2e-5)
