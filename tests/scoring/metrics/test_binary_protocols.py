"""Binary figures against slow definitions: loops over groups, frames and thresholds."""

import functools

import jax
import numpy as np
import pytest

from aavs_jax.scoring import metrics
from aavs_jax.scoring.metrics import PROTOCOLS

# What each protocol looks at, once more and by hand.
LOOKS_AT = {
    "stepping_stones": dict(clips=1, soft="stepping_stones", hard="prediction", truth="labels"),
    "avsbench": dict(clips=4, soft="softmax", hard="softmax", truth="labels_nearest"),
    "avsegformer": dict(clips=2, soft="softmax", hard="softmax", truth="labels_nearest"),
    "combo": dict(clips=1, soft="softmax", hard="softmax", truth="labels_nearest"),
}


def slow_frame_j(mask, truth):
    if not truth.any():
        return (~mask & ~truth).sum() / (truth.size + 1e-7)
    return (mask & truth).sum() / ((mask | truth).sum() + 1e-7)


@functools.cache  # protocols share curves, and these are slow
def slow_frame_curve(soft, truth):
    """Of a map and a target, given as bytes."""
    soft, truth = np.frombuffer(soft, np.float32), np.frombuffer(truth, bool)
    curve = []
    for threshold in metrics.thresholds():
        positive = soft >= threshold
        precision = (positive & truth).sum() / (positive.sum() + 1e-20)
        recall = (positive & truth).sum() / (truth.sum() + 1e-20)
        with np.errstate(invalid="ignore"):
            curve.append(1.3 * precision * recall / (0.3 * precision + recall))
    return np.nan_to_num(curve)


def slow_groups(split, clips, soft, hard, truth):
    """J and F of a split: a loop over its batches, as a test loader that never shuffles makes."""
    js, fs = [], []
    for start in range(0, len(split), clips):
        j, curves = [], []
        for clip in split[start : start + clips]:
            for frame in range(len(clip["labels"])):
                counted = clip[truth][frame] != metrics.IGNORED
                if not counted.any():
                    continue
                decided = clip[hard][frame][counted]
                mask = decided > 0.5 if decided.dtype == np.float32 else decided != 0
                target = clip[truth][frame][counted] != 0
                j.append(slow_frame_j(mask, target))
                if target.any():
                    scores = clip[soft][frame][counted]
                    curves.append(slow_frame_curve(scores.tobytes(), target.tobytes()))
        js.append(sum(j) / len(j))
        fs.append(np.mean(curves, axis=0).max() if curves else 0.0)
    return np.mean(js), np.mean(fs)


def slow_set(split):
    """Confusion matrix of background and foreground, rows the target, pixel by pixel of the set."""
    matrix = np.zeros((2, 2), np.int64)
    for clip in split:
        counted = clip["labels_nearest"] != metrics.IGNORED
        for mask, target in [(clip["prediction"][counted] != 0, clip["labels_nearest"][counted])]:
            for wanted in (0, 1):
                for predicted in (0, 1):
                    matrix[wanted, predicted] += ((target == wanted) & (mask == predicted)).sum()
    return matrix


def slow_iou(matrix, c):
    both = matrix[c, c]
    return both / (matrix[c].sum() + matrix[:, c].sum() - both)


def slow_f(matrix, c, beta_squared):
    both, missed = matrix[c, c], matrix[c].sum() - matrix[c, c]
    false = matrix[:, c].sum() - both
    return (1 + beta_squared) * both / ((1 + beta_squared) * both + beta_squared * missed + false)


@pytest.fixture(scope="module")
def split(splits):
    """Nine clips: two groups of four are full, one clip is left over."""
    return splits.binary(0, (*splits.kinds, "random"))


@pytest.fixture(scope="module")
def figures(splits, split):
    return splits.scores("binary", split)


@pytest.mark.parametrize("name", LOOKS_AT)
def test_groups_equal_the_definition(figures, split, name):
    j, f = slow_groups(split, **LOOKS_AT[name])
    found = figures[name]
    np.testing.assert_allclose(
        [found["J"], found["F"], found["J&F"]], [j, f, (j + f) / 2], atol=2e-7
    )


@pytest.mark.parametrize("name", LOOKS_AT)
@pytest.mark.parametrize("kind", ["empty", "full", "some empty", "hard", "nan"])
def test_a_split_of_one_kind_equals_the_definition(splits, name, kind):
    split = splits.binary(1, [kind] * 3)
    found = splits.scores("binary", split)[name]
    j, f = slow_groups(split, **LOOKS_AT[name])
    np.testing.assert_allclose([found["J"], found["F"]], [j, f], atol=2e-7)
    if kind == "empty":
        assert found["F"] == 0


def test_cavp_equals_the_definition(figures, split):
    matrix, found = slow_set(split), figures["cavp"]
    j = np.mean([slow_iou(matrix, c) for c in (0, 1)])
    f = np.mean([slow_f(matrix, c, 0.3) for c in (0, 1)])
    fdr = np.mean([matrix[1 - c, c] / matrix[:, c].sum() for c in (0, 1)])
    expected = [j, f, (j + f) / 2, np.mean([slow_f(matrix, c, 1) for c in (0, 1)]), fdr]
    np.testing.assert_allclose(
        [found[key] for key in ("J", "F", "J&F", "F1", "FDR")], expected, rtol=1e-12
    )


def test_data_set_equals_the_definition(figures, split):
    matrix, found = slow_set(split), figures["data_set"]
    j, f = slow_iou(matrix, 1), slow_f(matrix, 1, 0.3)
    expected = [j, f, (j + f) / 2, np.mean([slow_iou(matrix, c) for c in (0, 1)])]
    np.testing.assert_allclose(
        [found[key] for key in ("J", "F", "J&F", "mIoU")], expected, rtol=1e-12
    )


def test_sets_without_any_foreground(splits):
    """CAVP's mean IoU counts the absent class 0, its F leaves it out; J of nothing is no number."""
    split = splits.binary(1, ["empty"])
    split[0]["prediction"] = np.zeros_like(split[0]["prediction"])
    figures = splits.scores("binary", split)
    found = figures["cavp"]
    assert (found["J"], found["F"], found["F1"], found["FDR"]) == (0.5, 1, 1, 0)
    found = figures["data_set"]
    assert found["mIoU"] == 1 and np.isnan(found["J"]) and np.isnan(found["F"])


def test_the_split_is_as_hard_as_it_should_be(split, figures):
    """Rules that give the same number on these clips would not be told apart by them."""
    assert len({round(figures[name]["J&F"], 5) for name in PROTOCOLS}) == len(PROTOCOLS)
    decided = [(clip["softmax"] > 0.5) != (clip["prediction"] != 0) for clip in split]
    assert any(found.any() for found in decided)


def test_every_result_names_its_figures_and_counts(figures, split):
    counted = [clip["labels"] != metrics.IGNORED for clip in split]
    frames = sum(found.any(axis=(1, 2)).sum() for found in counted)
    assert frames < sum(map(len, counted))
    assert tuple(figures) == tuple(PROTOCOLS)
    for name, found in figures.items():
        assert tuple(found) == (*PROTOCOLS[name].scores["binary"], "clips", "frames"), name
        assert (found["clips"], found["frames"]) == (len(split), frames)


def test_larger_groups_cannot_raise_f_where_all_frames_have_targets(splits):
    """The maximum of a mean is at most the mean of maxima; J of equal clips does not mind."""
    split = splits.binary(3, ["random"] * 8)
    for clip in split:
        for name in clip:
            clip[name] = clip[name][:5]
    found = splits.scores("binary", split)
    f = [found[name]["F"] for name in ("avsbench", "avsegformer", "combo")]
    assert f[0] < f[1] < f[2]
    j = [found[name]["J"] for name in ("avsbench", "avsegformer", "combo")]
    np.testing.assert_allclose(j, j[0], atol=2e-7)


def test_empty_clips_lower_f_where_they_stand_alone(splits):
    """A batch without any target counts as F = 0; in a larger one such clips are not seen."""
    split = splits.binary(4, ["full", "empty", "empty", "empty"])
    split[0]["softmax"] = np.ones_like(split[0]["softmax"])
    found = splits.scores("binary", split)
    f = [found[name]["F"] for name in ("avsbench", "avsegformer", "combo")]
    np.testing.assert_allclose(f, [1, 0.5, 0.25], atol=1e-6)


def test_neighbours_in_the_split_share_a_group(splits, split):
    """Whoever they arrive with: other positions are other groups, and another figure."""
    state = metrics.init("binary", ("avsbench",), num_classes=2, clips=len(split))
    for batch in splits.batches(split, 3, 12, None):
        batch["position"] = np.where(batch["position"] < 0, 0, len(split) - 1 - batch["position"])
        state = splits.update(state, **batch)
    j, f = slow_groups(split[::-1], **LOOKS_AT["avsbench"])
    found = metrics.result(state)["avsbench"]
    np.testing.assert_allclose([found["J"], found["F"]], [j, f], atol=2e-7)
    assert abs(f - slow_groups(split, **LOOKS_AT["avsbench"])[1]) > 1e-4


def test_without_nearest_labels_the_others_are_taken(splits, split):
    both = [dict(clip, labels_nearest=clip["labels"]) for clip in split]
    without = [{k: v for k, v in clip.items() if k != "labels_nearest"} for clip in split]
    assert splits.scores("binary", both) == splits.scores("binary", without)


def test_grey_masks_are_maps_and_decisions():
    grey = np.array([0, 127, 128, 255], np.uint8)
    prediction, maps = metrics.from_grey(grey)
    np.testing.assert_array_equal(prediction, [False, False, True, True])
    assert sorted(maps) == sorted({row.map for row in PROTOCOLS.values() if row.map})
    for found in maps.values():
        np.testing.assert_array_equal(found, grey.astype(np.float32) / np.float32(255))
        assert found[-1] == 1  # reaches the last threshold


def test_no_protocol_looks_at_ignored_pixels(splits):
    """Whatever is predicted there; where a frame has no others it is not there at all."""
    split = splits.binary(5, ["some empty", "random", "hard"])
    rng = np.random.default_rng(0)
    other = [dict(clip) for clip in split]
    for clip in other:
        ignored = clip["labels"] == metrics.IGNORED
        for name in ("prediction", "stepping_stones", "softmax"):
            noise = rng.permutation(clip[name].ravel()).reshape(clip[name].shape)
            clip[name] = np.where(ignored, noise, clip[name])
    assert any((a["softmax"] != b["softmax"]).any() for a, b in zip(split, other, strict=True))
    figures = splits.scores("binary", split)
    assert figures == splits.scores("binary", other)
    for clip in split:
        seen = (clip["labels"] != metrics.IGNORED).any(axis=(1, 2))
        clip.update({name: part[seen] for name, part in clip.items()})
    assert figures == splits.scores("binary", split)


def test_nothing_seen_is_no_number(splits, split):
    state = metrics.init("binary", PROTOCOLS, num_classes=2, clips=len(split))
    empty = jax.device_get(state)
    for batch in splits.batches(split, 3, 12, None):
        state = splits.update(state, **{**batch, "valid": np.zeros_like(batch["valid"])})
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state), empty)
    for name, found in metrics.result(state).items():
        for key in PROTOCOLS[name].scores["binary"]:
            assert np.isnan(found[key]), (name, key)


def test_a_missing_map_is_named(splits, split):
    (batch, *_) = splits.batches(split, 3, 12, None)
    state = metrics.init("binary", ("avsbench", "cavp"), num_classes=2, clips=len(split))
    batch["maps"].pop("softmax")
    with pytest.raises(ValueError, match="avsbench.*'softmax'"):
        metrics.update(state, **batch)
    state = metrics.init("binary", ("cavp", "data_set"), num_classes=2, clips=len(split))
    metrics.update(state, **{**batch, "maps": None})  # these look at no map


@pytest.mark.parametrize("wrong", [9, 0])
def test_positions_outside_or_taken_twice_are_refused(splits, split, wrong):
    state = metrics.init("binary", ("avsegformer",), num_classes=2, clips=len(split))
    for batch in splits.batches(split, 1, 12, None):
        if batch["position"][0] in (4, 5):
            batch["position"][0] = 10 if wrong == 9 else 0
        state = splits.update(state, **batch)
    with pytest.raises(ValueError, match="positions outside their split"):
        metrics.result(state)
