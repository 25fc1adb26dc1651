"""Patterns on parameter paths."""

import numpy as np
import pytest

from aavs_jax.errors import UserError
from aavs_jax.state import tree

VALUES = {
    "backbone/blocks/0/adapter/kernel": np.zeros((4, 2)),
    "backbone/blocks/0/adapter/bias": np.zeros(2),
    "backbone/blocks/0/kernel": np.zeros((4, 4)),
    "decoder/queries": np.zeros((5, 4)),
}


def test_a_pattern_has_to_match_the_whole_path():
    assert tree.matching(VALUES, (r".*/kernel",), "x") == {
        "backbone/blocks/0/adapter/kernel",
        "backbone/blocks/0/kernel",
    }
    with pytest.raises(UserError):
        tree.matching(VALUES, (r"backbone",), "x")


def test_patterns_add_up_and_may_overlap():
    assert tree.matching(VALUES, (r".*adapter.*", r"decoder/.*", r".*bias"), "x") == {
        "backbone/blocks/0/adapter/kernel",
        "backbone/blocks/0/adapter/bias",
        "decoder/queries",
    }


def test_no_patterns_match_nothing_and_that_is_fine():
    assert tree.matching(VALUES, (), "x") == set()


def test_a_pattern_without_a_match_is_named_even_beside_one_that_matches():
    with pytest.raises(UserError, match=r"'nothing_like_this' of 'localise/a trains' matches none"):
        tree.matching(VALUES, (r".*", "nothing_like_this"), "localise/a trains")


def test_what_is_no_regular_expression_is_named():
    with pytest.raises(UserError, match=r"'\(' of 'localise/a zero' is no regular expression"):
        tree.matching(VALUES, ("(",), "localise/a zero")


def test_partition_loses_nothing_and_keeps_the_order():
    chosen, rest = tree.partition(VALUES, (r".*adapter.*",), "x")
    assert list(chosen) == [path for path in VALUES if "adapter" in path]
    assert list(rest) == [path for path in VALUES if "adapter" not in path]
    assert all((chosen | rest)[path] is value for path, value in VALUES.items())


def test_count_and_table():
    assert tree.count(VALUES) == 8 + 2 + 16 + 20
    assert tree.count({"scalar": np.zeros(())}) == 1
    chosen, rest = tree.partition(VALUES, (r".*adapter.*",), "x")
    rows = {line.split()[0]: line.split()[1:] for line in tree.table(chosen, rest).splitlines()}
    assert rows["backbone"] == ["10", "16"]
    assert rows["decoder"] == ["0", "20"]
    assert rows["total"] == ["10", "36"]
