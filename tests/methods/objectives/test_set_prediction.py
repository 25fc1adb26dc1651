"""The set-prediction loss against a slow one (docs/method.md, section 3), and its promises."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from aavs_jax.methods import make_method
from aavs_jax.methods.objectives import point_sampling, set_prediction
from aavs_jax.methods.objectives.set_prediction_config import LossConfig
from aavs_jax.methods.objectives.targets import IGNORED, frame_weights, make_targets
from aavs_jax.scoring import metrics
from data_pipelines.media import labels as stored_labels

D, N, Q, K, M = 3, 4, 5, 6, 4
SMALL, LARGE = (4, 6), (16, 24)
CONFIG = LossConfig(num_points=20, max_targets=M)
GRID = LossConfig(grid=8, max_targets=M)


# Compiled for a few runs: the time goes into compiling.
compiled = functools.partial(
    jax.jit,
    static_argnames="config",
    compiler_options={
        "xla_backend_optimization_level": 0,
        "xla_llvm_disable_expensive_passes": True,
    },
)
assignments = compiled(set_prediction.assignments)


@compiled
def loss_and_gradients(class_logits, mask_logits, labels, weight, config, key=None, draws=None):
    targets = make_targets(labels, config.max_targets, K)

    def total(logits):
        return set_prediction.set_prediction_loss(
            *logits, targets, weight, config, key=key, draws=draws
        )

    return jax.value_and_grad(total, has_aux=True)((class_logits, mask_logits))


@pytest.fixture
def problem():
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 3, (N, 4, 4)) * 2
    coarse[1] = 0
    draws = {
        "matching": rng.random((D, N, 20, 2)),
        "candidates": rng.random((D, N, M, 60, 2)),
        "fresh": rng.random((D, N, M, 5, 2)),
    }
    return {
        "class_logits": rng.normal(size=(D, N, Q, K + 1)).astype(np.float32),
        "mask_logits": (3 * rng.normal(size=(D, N, Q, *SMALL))).astype(np.float32),
        "labels": coarse.repeat(4, axis=1).repeat(6, axis=2).astype(np.uint8),
        "weight": np.array([1, 1, 0, 1], np.float32),
        "draws": {name: value.astype(np.float32) for name, value in draws.items()},
    }


def sample(image, points):
    """Bilinear samples one point after the other, zeros outside, half-pixel centres."""
    values = []
    for x, y in points.astype(np.float64):
        column, row = x * image.shape[1] - 0.5, y * image.shape[0] - 0.5
        value = 0.0
        for i in (int(np.floor(row)), int(np.floor(row)) + 1):
            for j in (int(np.floor(column)), int(np.floor(column)) + 1):
                if 0 <= i < image.shape[0] and 0 <= j < image.shape[1]:
                    value += (1 - abs(row - i)) * (1 - abs(column - j)) * float(image[i, j])
        values.append(value)
    return np.array(values)


def counted(labels, points):
    """How much of each point is not ignored, of what lies inside the image."""
    return sample(labels != IGNORED, points) / sample(np.ones_like(labels), points)


def entropy(x, t, w):
    softplus = np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))
    return (w * softplus - x * t).sum() / w.sum()


def dice(x, t, w):
    p = 1 / (1 + np.exp(-x))
    return 1 - (2 * (p * t).sum() + 1) / ((w * p).sum() + t.sum() + 1)


def slow_loss(class_logits, mask_logits, labels, weight, draws, chosen):
    """Terms "class", "mask", "dice", lists over predictions; matches[d][n] = {class: query}."""
    terms, matches = {"class": [], "mask": [], "dice": []}, []
    frames = [n for n in range(len(labels)) if weight[n]]
    shown = [np.unique(frame[frame != IGNORED]) for frame in labels]
    masks = sum(len(shown[n]) for n in frames)
    for d in range(len(class_logits)):
        log_p = class_logits[d].astype(np.float64)
        log_p = log_p - np.log(np.exp(log_p).sum(-1, keepdims=True))
        nll = weights = mask_sum = dice_sum = 0.0
        matches.append({})
        for n in frames:
            classes = shown[n]
            points = draws["matching"][d, n]
            w = counted(labels[n], points)
            logits = [sample(mask, points) for mask in mask_logits[d, n]]
            truth = [sample(labels[n] == c, points) for c in classes]
            cost = [
                [
                    -np.exp(log_p[n, q, c])
                    + 5 * entropy(logits[q], t, w)
                    + 5 * dice(logits[q], t, w)
                    for c, t in zip(classes, truth, strict=True)
                ]
                for q in range(class_logits.shape[2])
            ]
            rows, columns = linear_sum_assignment(np.array(cost))
            matches[d][n] = {int(classes[m]): int(q) for q, m in zip(rows, columns, strict=True)}
            wanted = np.full(class_logits.shape[2], class_logits.shape[3] - 1)
            for q, m in zip(rows, columns, strict=True):
                wanted[q] = classes[m]
                candidates = draws["candidates"][d, n, m]
                certainty = np.abs(sample(mask_logits[d, n, q], candidates))
                certainty[counted(labels[n], candidates) == 0] = np.inf
                order = np.argsort(certainty, kind="stable")
                points = np.concatenate([candidates[order[:chosen]], draws["fresh"][d, n, m]])
                x = sample(mask_logits[d, n, q], points)
                t = sample(labels[n] == classes[m], points)
                w = counted(labels[n], points)
                mask_sum += entropy(x, t, w)
                dice_sum += dice(x, t, w)
            for q, c in enumerate(wanted):
                importance = 0.1 if c == class_logits.shape[3] - 1 else 1.0
                nll -= importance * log_p[n, q, c]
                weights += importance
        terms["class"].append(2 * nll / weights)
        terms["mask"].append(5 * mask_sum / masks)
        terms["dice"].append(5 * dice_sum / masks)
    return terms, matches


def test_equals_the_slow_implementation(problem):
    (total, terms), _ = loss_and_gradients(config=CONFIG, **problem)
    expected, matches = slow_loss(**problem, chosen=15)
    for name, values in expected.items():
        np.testing.assert_allclose(terms[name], values, rtol=2e-5, err_msg=name)
    np.testing.assert_allclose(total, sum(sum(v) for v in expected.values()), rtol=2e-5)

    targets = make_targets(problem["labels"], M, K)
    query = assignments(
        problem["class_logits"], problem["mask_logits"], targets, CONFIG, draws=problem["draws"]
    )
    assert query.shape == (D, N, M) and query.dtype == jnp.int32
    for d in range(D):
        for n, by_class in matches[d].items():
            present = np.asarray(targets.present[n])
            ours = zip(targets.classes[n][present], query[d, n][present], strict=True)
            assert {int(c): int(q) for c, q in ours} == by_class
            assert (np.asarray(query[d, n])[~present] == -1).all()


def ignoring(config):
    return dataclasses.replace(config, ignores=True)


def test_ignored_pixels_take_no_part(problem):
    """At the border, at edges between labels, and of a class that is seen nowhere else."""
    problem["labels"][0, :8] = problem["labels"][3, 5:11, 7:] = IGNORED
    problem["labels"][1, 3:, :20] = IGNORED
    (total, terms), _ = loss_and_gradients(config=ignoring(CONFIG), **problem)
    expected, _ = slow_loss(**problem, chosen=15)
    for name, values in expected.items():
        np.testing.assert_allclose(terms[name], values, rtol=2e-5, err_msg=name)
    (without, _), _ = loss_and_gradients(config=CONFIG, **problem)
    assert abs(total - without) > 0.01 * total


@pytest.mark.parametrize("config", [CONFIG, GRID], ids=["random", "grid"])
def test_without_ignored_pixels_looking_for_them_changes_nothing(problem, config):
    if config.grid:
        del problem["draws"]
    (total, terms), gradients = loss_and_gradients(config=config, **problem)
    (same, same_terms), others = loss_and_gradients(config=ignoring(config), **problem)
    np.testing.assert_allclose(same, total, rtol=1e-6)
    for name in terms:
        np.testing.assert_allclose(same_terms[name], terms[name], rtol=1e-6)
    for ours, theirs in zip(gradients, others, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)


def test_no_gradient_comes_from_ignored_pixels(problem):
    """The first row of mask logits is seen by points of the first seven rows of labels."""
    problem["labels"][0, :7] = IGNORED
    del problem["draws"]
    config = ignoring(GRID)
    _, (_, gradient) = loss_and_gradients(config=config, **problem)
    seen = np.abs(np.asarray(gradient)).max(axis=(0, 2, 4))  # [N, rows]
    assert seen[0, 0] == 0 and (seen[0, 1:] > 0).all() and (seen[[1, 3]] > 0).all()
    problem["labels"][0] = IGNORED  # says nothing, whoever lets it count
    (total, _), (_, gradient) = loss_and_gradients(config=config, **problem)
    assert np.isfinite(total) and not np.asarray(gradient)[:, 0].any()


def test_everyone_means_the_same_by_ignored():
    assert IGNORED == metrics.IGNORED == stored_labels.IGNORED == 255


def test_grid_equals_drawing_its_points_by_hand(problem):
    centres = (np.arange(8, dtype=np.float32) + 0.5) / 8
    points = np.stack(np.meshgrid(centres, centres), axis=-1).reshape(-1, 2)
    by_hand = LossConfig(num_points=64, importance_ratio=0.0, oversample_ratio=1.0, max_targets=M)
    problem["draws"] = {
        "matching": np.broadcast_to(points, (D, N, 64, 2)),
        "candidates": np.zeros((D, N, M, 64, 2), np.float32),
        "fresh": np.broadcast_to(points, (D, N, M, 64, 2)),
    }
    (_, drawn), drawn_gradients = loss_and_gradients(config=by_hand, **problem)
    del problem["draws"]
    (_, regular), gradients = loss_and_gradients(config=GRID, **problem)
    for name in drawn:
        np.testing.assert_allclose(regular[name], drawn[name], rtol=1e-5)
    for ours, theirs in zip(gradients, drawn_gradients, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max())


@pytest.mark.parametrize(
    "config",
    [pytest.param(CONFIG, id="random", marks=pytest.mark.slow), pytest.param(GRID, id="grid")],
)
def test_padding_changes_nothing(problem, config):
    """Extra target slots and extra frames, which even hold NaN, leave value and gradients alone."""
    key = jax.random.key(1)
    del problem["draws"]
    (total, terms), gradients = loss_and_gradients(config=config, key=key, **problem)

    def padded(array, axis, value):
        widths = [(0, 0)] * array.ndim
        widths[axis] = (0, 2)
        return np.pad(array, widths, constant_values=value)

    more = {
        "class_logits": padded(problem["class_logits"], 1, np.nan),
        "mask_logits": padded(problem["mask_logits"], 1, np.nan),
        "labels": padded(problem["labels"], 0, 3),
        "weight": padded(problem["weight"], 0, 0),
    }
    # 7 slots for 5 queries, too
    slots = LossConfig(grid=config.grid, num_points=config.num_points, max_targets=7)
    (more_total, more_terms), more_gradients = loss_and_gradients(config=slots, key=key, **more)
    np.testing.assert_allclose(more_total, total, rtol=1e-6)
    for name in terms:
        np.testing.assert_allclose(more_terms[name], terms[name], rtol=1e-6)
    for gradient, expected in zip(more_gradients, gradients, strict=True):
        np.testing.assert_allclose(gradient[:, :N], expected, rtol=1e-4, atol=1e-7)
        assert not np.asarray(gradient[:, N:]).any()
        assert np.asarray(gradient[:, [0, 1, 3]]).any() and not np.asarray(gradient[:, 2]).any()


@pytest.mark.parametrize("config", [CONFIG, GRID], ids=["random", "grid"])
def test_no_counted_frame_means_zero(problem, config):
    problem["weight"] = np.zeros(N, np.float32)
    del problem["draws"]
    (total, terms), gradients = loss_and_gradients(config=config, key=jax.random.key(0), **problem)
    assert total == 0 and not any(np.asarray(term).any() for term in terms.values())
    assert not any(np.asarray(gradient).any() for gradient in gradients)


@pytest.mark.parametrize("config", [CONFIG, GRID], ids=["random", "grid"])
@pytest.mark.parametrize("where", ["class_logits", "mask_logits"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_diverged_network_gives_no_finite_loss(problem, config, where, bad):
    problem[where][1, 3] = bad
    del problem["draws"]
    (total, _), _ = loss_and_gradients(config=config, key=jax.random.key(0), **problem)
    assert not np.isfinite(total)


def test_one_query_with_nan_masks_surfaces(problem):
    problem["mask_logits"][0, 0, 2] = np.nan
    (total, _), _ = loss_and_gradients(config=CONFIG, **problem)
    assert np.isnan(total)


def test_gradient_flows_only_through_the_chosen_points():
    """Certain candidates are dropped, and the choice itself has no gradient."""
    config = LossConfig(num_points=2, oversample_ratio=2.0, importance_ratio=1.0, max_targets=1)
    mask = np.full((1, 1, 1, 4, 4), 8.0, np.float32)
    mask[..., 0, 0], mask[..., 3, 2] = 0.5, -0.25
    centre = np.array([[0.5, 0.5], [2.5, 3.5], [1.5, 2.5], [3.5, 1.5]], np.float32) / 4
    draws = {
        "matching": np.zeros((1, 1, 2, 2), np.float32),
        "candidates": centre[None, None, None],
        "fresh": np.zeros((1, 1, 1, 0, 2), np.float32),
    }
    labels = np.zeros((1, 8, 8), np.uint8)
    _, (_, gradient) = loss_and_gradients(
        np.zeros((1, 1, 1, K + 1), np.float32), mask, labels, np.ones(1), config, draws=draws
    )
    touched = np.zeros((4, 4), bool)
    touched[0, 0] = touched[3, 2] = True
    np.testing.assert_array_equal(np.asarray(gradient)[0, 0, 0] != 0, touched)


def test_drawn_points_differ_between_predictions_frames_and_targets():
    source = point_sampling.random_source((D, N), jax.random.key(0), None, ("fresh",))
    per_frame = jax.vmap(jax.vmap(lambda s: point_sampling.draw(s, "fresh", (M, 9, 2))))(source)
    values = np.asarray(per_frame)
    assert len(np.unique(values)) > 0.99 * values.size
    assert values.min() >= 0 and values.max() < 1 and abs(values.mean() - 0.5) < 0.05


def test_more_targets_than_queries(problem):
    """One query, three classes: one target is matched, all three are in the normaliser."""
    config = LossConfig(grid=8, max_targets=M)
    (_, terms), _ = loss_and_gradients(
        problem["class_logits"][:, :1, :1],
        problem["mask_logits"][:, :1, :1],
        problem["labels"][:1],
        np.ones(1),
        config,
    )
    targets = make_targets(problem["labels"][:1], M, K)
    assert targets.present.sum() == 3
    query = assignments(
        problem["class_logits"][:, :1, :1], problem["mask_logits"][:, :1, :1], targets, config
    )
    assert ((np.asarray(query) >= 0).sum(axis=(1, 2)) == 1).all()
    assert (terms["dice"] < 5 / 3).all() and np.isfinite(terms["mask"]).all()


def test_targets_are_the_classes_present_ascending():
    labels = np.zeros((3, 4, 4), np.uint8)
    labels[0, 0, 0], labels[0, 1, 1] = 5, 2
    labels[1] = 4
    labels[2, 0] = 255  # no class at all
    targets = make_targets(labels, 4, K)
    np.testing.assert_array_equal(targets.classes, [[0, 2, 5, 0], [4, 0, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(targets.present.sum(axis=1), [3, 1, 1])
    np.testing.assert_array_equal(make_targets(labels, 2, K).classes[0], [0, 2])
    assert make_targets(labels, 9, K).present.shape == (3, 9)


@pytest.mark.parametrize("size", [(384, 384), (64, 96)])
def test_targets_resize_as_pillow_does(size):
    from PIL import Image

    labels = np.random.default_rng(0).integers(0, K, (1, 224, 224)).astype(np.uint8)
    resized = make_targets(labels, M, K, size=size).labels
    expected = Image.fromarray(labels[0]).resize(size[::-1], Image.Resampling.NEAREST)
    np.testing.assert_array_equal(resized[0], expected)


def test_frame_weights():
    labels = np.zeros((3, 2, 4, 4), np.uint8)
    labels[0, 1, 0, 0] = 1
    labels[2, 0, 0, 0] = 1  # on a frame that is padding
    labelled = np.array([[1, 1], [1, 1], [1, 1]], bool)
    valid = np.array([[1, 1], [1, 0], [0, 1]], bool)
    keep = frame_weights(labels, labelled, valid, drop_empty_clips=False)
    drop = frame_weights(labels, labelled, valid, drop_empty_clips=True)
    np.testing.assert_array_equal(keep, valid.astype(np.float32))
    np.testing.assert_array_equal(drop, [[1, 1], [0, 0], [0, 0]])
    ignored = np.where(labels == 0, IGNORED, labels)  # in place of background
    everything = np.full_like(labels, IGNORED)
    for rule, expected in ((False, [[0, 1], [0, 0], [0, 0]]), (True, [[0, 1], [0, 0], [0, 0]])):
        found = frame_weights(ignored, labelled, valid, drop_empty_clips=rule)
        np.testing.assert_array_equal(found, expected)
        assert not frame_weights(everything, labelled, valid, rule).any()
    half = np.where(np.arange(4) < 2, labels, IGNORED)  # empty clips stay empty
    found = frame_weights(half, labelled, valid, drop_empty_clips=True)
    np.testing.assert_array_equal(found, drop)
    labelled[0] = [True, False]  # S4: the frame that sounds has no label here
    np.testing.assert_array_equal(
        frame_weights(labels, labelled, valid, drop_empty_clips=False)[0], [1, 0]
    )


def test_batches_without_a_counted_frame_are_told_where_empty_clips_are_dropped(tiny_stage):
    dropping, keeping = (
        make_method(tiny_stage("localise", **{"data.drop_empty_clips": drop}), 2)
        for drop in (True, False)
    )
    assert keeping.counts is None
    batch = {
        "labels": np.zeros((2, 3, 4, 4), np.uint8),
        "labelled": np.ones((2, 3), bool),
        "valid": np.ones((2, 3), bool),
    }
    assert not dropping.counts(batch)
    batch["labels"][1, 2, 3, 3] = 1
    assert dropping.counts(batch)
    batch["valid"][1, 2] = False
    assert not dropping.counts(batch)


def test_config_from_dict():
    assert LossConfig.from_dict({"grid": 32}).grid == 32
    with pytest.raises(ValueError, match="num_point;"):
        LossConfig.from_dict({"num_point": 3})


def test_random_points_need_a_source(problem):
    del problem["draws"]
    with pytest.raises(ValueError, match="key or draws"):
        loss_and_gradients(config=CONFIG, **problem)
