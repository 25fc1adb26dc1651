"""The table of protocols, names from configs, and the limits of sums."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aavs_jax.scoring import metrics
from aavs_jax.scoring.metrics import PROTOCOLS, set_sums

DOCUMENTATION = Path(__file__).parents[3] / "docs/protocols.md"


def test_names_from_configs():
    assert metrics.parse("all") == metrics.parse(" all ") == tuple(PROTOCOLS)
    assert metrics.parse("cavp, avsbench,cavp,") == ("cavp", "avsbench")


@given(st.lists(st.sampled_from(list(PROTOCOLS)), min_size=1))
def test_any_list_is_read_in_its_order(names):
    assert metrics.parse(",".join(names)) == tuple(dict.fromkeys(names))


@pytest.mark.parametrize(
    ("names", "complaint"), [("tpavi", "no protocol 'tpavi'"), ("", "no protocol is named")]
)
def test_unknown_names_are_told_the_known(names, complaint):
    with pytest.raises(ValueError, match=complaint) as error:
        metrics.parse(names)
    assert all(name in str(error.value) for name in PROTOCOLS)


def test_rows_agree_with_themselves():
    for name, row in PROTOCOLS.items():
        assert row.name == name
        assert row.unit in ("group", "set") and row.decision in ("argmax", "map")
        assert (row.unit == "set") == (not row.map) == (not row.frame_mean)
        assert row.map or row.decision == "argmax"
        for task in metrics.TASKS:
            assert row.averages[task]
            no_background = "mIoU_no_background" in row.scores[task]
            assert no_background == (task == "semantic" and row.no_background is not None)


def test_the_documentation_names_the_same_sources():
    text = DOCUMENTATION.read_text()
    listed = dict(re.findall(r"^\| `(\w+)` \| ([\w-]+/[\w-]+)[,:]", text, re.MULTILINE))
    # The usual measure has no code base.
    assert listed == {
        name: row.source.split(",")[0] for name, row in PROTOCOLS.items() if name != "data_set"
    }


def test_which_labels_protocols_look_at():
    assert metrics.labels_used(("stepping_stones",)) == ("touched",)
    assert metrics.labels_used(PROTOCOLS) == ("touched", "nearest")


def test_a_state_that_cannot_be():
    with pytest.raises(ValueError, match="no task 'avss'; there are binary, semantic"):
        metrics.init("avss", PROTOCOLS, num_classes=71, clips=1)
    with pytest.raises(ValueError, match="no protocol 'iou'"):
        metrics.init("binary", ("iou",), num_classes=2, clips=1)
    with pytest.raises(ValueError, match="room for 524287"):
        metrics.init("binary", PROTOCOLS, num_classes=2, clips=metrics.LARGEST_COUNT + 1)


@pytest.mark.parametrize("task", metrics.TASKS)
def test_states_may_be_donated(task):
    """No two numbers of an empty state share a buffer."""
    leaves = jax.tree.leaves(metrics.init(task, PROTOCOLS, num_classes=3, clips=9))
    assert len({leaf.unsafe_buffer_pointer() for leaf in leaves}) == len(leaves)


def large_sums(frames, pixels):
    """Sums over the set after so many frames that are all of class 0."""
    half = np.zeros((2, 3), np.int32)
    half[:, 0] = frames * (pixels // 4096), frames * (pixels % 4096)
    counts = {"clips": np.int32(frames), "frames": np.int32(frames)}
    sums = {kind: half for kind in ("overlap", "predicted", "wanted")}
    return {"all": {**sums, "frames": counts["frames"]}, "clips": counts["clips"]}


@pytest.mark.parametrize(
    ("frames", "pixels"), [(60_000, 2**20), (metrics.LARGEST_COUNT - 1, 2**24 - 1)]
)
def test_sums_over_the_set_do_not_overflow(frames, pixels):
    """60,000 frames of 1024 x 1024 pixels; and the most there is room for."""
    state = large_sums(frames, pixels)
    counts = {kind: np.array([[pixels, 0, 0]], np.int32) for kind in set_sums._PIXELS}
    counts["wanted"] = np.array([[pixels - 5, 5, 0]], np.int32)
    counts["overlap"] = np.array([[pixels - 5, 0, 0]], np.int32)
    real = np.ones((1, 1), bool)
    state = jax.device_get(set_sums.add_frames(state, counts, real, {"all": real[0]}))
    assert set_sums.counts(state) == {"clips": frames + 1, "frames": frames + 1}
    iou, _ = set_sums.per_class(state["all"])
    whole = pixels * (frames + 1)
    np.testing.assert_array_equal(iou, [(whole - 5) / whole, 0, np.nan])


def test_more_than_there_is_room_for_is_refused():
    def update(state, pictures, valid):
        zeros = np.zeros(1, np.int32)
        return metrics.update(state, pictures, pictures, valid, zeros, maps={})

    state = metrics.init("semantic", ("cavp",), num_classes=3, clips=1)
    valid = jax.ShapeDtypeStruct((1, 1), bool)
    large = jax.ShapeDtypeStruct((1, 1, 4097, 4096), np.uint8)
    with pytest.raises(ValueError, match="16781312 pixels.*at most 16777216"):
        jax.eval_shape(update, state, large, valid)
    state = metrics.init("binary", ("cavp",), num_classes=2, clips=1)
    frames = metrics.LARGEST_CLIP + 1
    long = jax.ShapeDtypeStruct((1, frames, 1, 1), np.uint8)
    with pytest.raises(ValueError, match="128 frames; binary metrics take at most 127"):
        jax.eval_shape(update, state, long, jax.ShapeDtypeStruct((1, frames), bool))
    full = {"semantic": {"data_set": large_sums(metrics.LARGEST_COUNT + 1, 1)}}
    with pytest.raises(ValueError, match="524288 frames.*524287"):
        metrics.result(full)
