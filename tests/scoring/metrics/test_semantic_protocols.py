"""Semantic figures against slow definitions: loops over frames and classes."""

import numpy as np
import pytest

from aavs_jax.scoring import metrics
from aavs_jax.scoring.metrics import PROTOCOLS

CLASSES = (2, 22, 71)


def slow_frame_means(split, classes, padding):
    """IoU and F of each class, averaged over the frames that show or predict it."""
    iou, f, seen = np.zeros(classes), np.zeros(classes), np.zeros(classes)
    for clip in split:
        frames = list(zip(clip["prediction"], clip["labels"], strict=True))
        black = np.zeros_like(clip["labels"][0])
        frames += [(black, black)] * (padding - len(frames))
        for p, t in frames:
            p, t = p[t < classes], t[t < classes]
            for c in range(classes):
                both, union = ((p == c) & (t == c)).sum(), ((p == c) | (t == c)).sum()
                if not union:
                    continue
                seen[c] += 1
                iou[c] += both / union
                if both:
                    precision, recall = both / (p == c).sum(), both / (t == c).sum()
                    f[c] += 1.3 * precision * recall / (0.3 * precision + recall)
    return iou / np.maximum(seen, 1), f / np.maximum(seen, 1), seen


def slow_matrix(frames, classes):
    """Confusion matrix, rows the label; pixels whose label is no class are left out. The last
    column is for predictions that are no class."""
    matrix = np.zeros((classes, classes + 1), np.int64)
    for p, t in frames:
        for wanted, predicted in zip(t.ravel(), p.ravel(), strict=True):
            if wanted < classes:
                matrix[wanted, min(predicted, classes)] += 1
    return matrix


def slow_classes(matrix):
    for c in range(len(matrix)):
        both = matrix[c, c]
        yield both, matrix[:, c].sum() - both, matrix[c].sum() - both


def slow_cavp(matrix):
    """With two classes more than there are, which never occur, as in its table for VPO."""
    counts = [*slow_classes(matrix), (0, 0, 0), (0, 0, 0)]
    iou = [tp / (tp + fp + fn + 1e-16) for tp, fp, fn in counts[:-2]]

    def f(beta_squared):
        return np.nanmean(
            [
                np.divide((1 + beta_squared) * tp, (1 + beta_squared) * tp + beta_squared * fn + fp)
                for tp, fp, fn in counts
            ]
        )

    with np.errstate(invalid="ignore"):
        fdr = np.nanmean([np.divide(fp, fp + tp) for tp, fp, _ in counts])
        miou, f_03 = np.mean(iou), f(0.3)
        return {"mIoU": miou, "F": f_03, "J&F": (miou + f_03) / 2, "F1": f(1.0), "FDR": fdr}


def frames_of(split):
    return [pair for clip in split for pair in zip(clip["prediction"], clip["labels"], strict=True)]


@pytest.fixture(scope="module", params=CLASSES)
def case(request, splits):
    """A split, its number of classes and all figures."""
    split = splits.semantic(request.param, request.param)
    return split, request.param, splits.scores("semantic", split, classes=request.param)


@pytest.mark.parametrize(
    ("name", "padding", "kept"),
    [
        ("stepping_stones", 0, slice(1, None)),
        ("avsbench", 10, slice(None, -1)),
        ("avsegformer", 10, slice(None, -1)),
        ("combo", 0, slice(None, -1)),
    ],
)
def test_frame_means_equal_the_definition(case, name, padding, kept):
    split, classes, figures = case
    found = figures[name]
    iou, f, seen = slow_frame_means(split, classes, padding)
    np.testing.assert_array_equal(found["frames_per_class"], seen)
    for key, values in (("mIoU", iou), ("F", f)):
        np.testing.assert_allclose(found[f"{key}_per_class"], values, atol=2e-7)
        np.testing.assert_allclose(found[key], values.mean(), atol=2e-7)
        np.testing.assert_allclose(found[f"{key}_no_background"], values[kept].mean(), atol=2e-7)


def test_padding_raises_the_background_and_nothing_else(case):
    _, _, figures = case
    padded, real = figures["avsbench"], figures["combo"]
    for key in ("mIoU_per_class", "F_per_class", "frames_per_class"):
        assert padded[key][0] > real[key][0]
        np.testing.assert_array_equal(padded[key][1:], real[key][1:])
    assert padded["frames"] == real["frames"]  # real ones are counted


def test_cavp_equals_the_definition(case):
    split, classes, figures = case
    expected = slow_cavp(slow_matrix(frames_of(split), classes))
    several = [
        (p, t) for p, t in frames_of(split) if sum((t == c).sum() > 100 for c in range(classes)) > 2
    ]
    found = figures["cavp"]
    assert found["frames_multi_source"] == len(several)
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, rtol=1e-12, err_msg=key)
    if several:
        for key, value in slow_cavp(slow_matrix(several, classes)).items():
            np.testing.assert_allclose(found[f"{key}_multi_source"], value, rtol=1e-12)
    else:
        assert classes == 2 and np.isnan(found["mIoU_multi_source"])


def test_data_set_equals_the_definition(case):
    split, classes, figures = case
    iou, f = [], []
    for tp, fp, fn in slow_classes(slow_matrix(frames_of(split), classes)):
        union = tp + fp + fn
        iou.append(tp / union if union else None)
        f.append(1.3 * tp / (1.3 * tp + 0.3 * fn + fp) if union else None)
    found = figures["data_set"]
    assert found["classes"] == sum(value is not None for value in iou)
    for key, values in (("mIoU", iou), ("F", f)):
        there = [value for value in values if value is not None]
        np.testing.assert_allclose(found[key], np.mean(there), rtol=1e-12)
        there = [value for value in values[1:] if value is not None]
        np.testing.assert_allclose(found[f"{key}_no_background"], np.mean(there), rtol=1e-12)


def test_every_result_names_its_figures_and_counts(case):
    split, classes, figures = case
    assert tuple(figures) == tuple(PROTOCOLS)
    for name, found in figures.items():
        named = PROTOCOLS[name].scores["semantic"]
        assert set(named) < set(found) and all(np.isscalar(found[key]) for key in named)
        assert (found["clips"], found["frames"]) == (len(split), len(frames_of(split)))


def test_the_split_is_as_hard_as_it_should_be(case):
    """Rules that give the same number on these clips would not be told apart by them."""
    split, classes, figures = case
    if classes > 2:
        keys = ("mIoU", "F", "mIoU_no_background")
        values = {tuple(f"{found.get(key)}" for key in keys) for found in figures.values()}
        assert len(values) == len(PROTOCOLS) - 1  # avsbench and avsegformer differ in clips only
        assert figures["data_set"]["classes"] < classes
        assert 0 < figures["cavp"]["frames_multi_source"] < figures["cavp"]["frames"]


@pytest.mark.parametrize(("pixels", "several"), [(100, 0), (101, 1)])
def test_a_source_of_a_hundred_pixels_is_none(splits, pixels, several):
    """Background counts as one of more than two ids; what is no class does not count."""
    labels = np.zeros((1, splits.size**2), np.uint8)
    labels[0, :pixels], labels[0, pixels : pixels + 150] = 1, 2
    labels = labels.reshape(1, splits.size, splits.size)
    clip = {"prediction": labels, "labels": labels}
    found = splits.scores("semantic", [clip], "cavp", classes=5, frames=1)["cavp"]
    assert found["frames_multi_source"] == several
    other = np.where(labels == 2, 255, labels).astype(np.uint8)
    clip = {"prediction": labels, "labels": other}
    found = splits.scores("semantic", [clip], "cavp", classes=5, frames=1)["cavp"]
    assert found["frames_multi_source"] == 0


def test_ids_that_are_no_class(splits):
    """A label of 255 takes a pixel out, and a frame that has no other."""
    labels = np.zeros((1, splits.size, splits.size), np.uint8)
    labels[:, :6] = 255  # a quarter
    clip = {"prediction": np.zeros_like(labels), "labels": labels}
    found = splits.scores("semantic", [clip], classes=3, frames=1)
    assert found["cavp"]["F"] == found["data_set"]["mIoU"] == 1
    assert found["combo"]["mIoU_per_class"][0] == 1
    nothing = np.full_like(labels, metrics.IGNORED)
    more = {
        "prediction": np.concatenate([clip["prediction"], np.ones_like(labels)]),
        "labels": np.concatenate([labels, nothing]),
    }
    for name, figures in splits.scores("semantic", [more], classes=3, frames=2).items():
        np.testing.assert_equal(figures, found[name], err_msg=name)
        assert figures["frames"] == 1
    # A predicted one is a pixel missed, everywhere.
    clip = {"prediction": labels, "labels": np.zeros_like(labels)}
    found = splits.scores("semantic", [clip], classes=3, frames=1)
    for name in ("cavp", "data_set"):
        np.testing.assert_allclose(found[name]["F"], 1.3 * 0.75 / (1.3 * 0.75 + 0.3 * 0.25))
    np.testing.assert_allclose(found["combo"]["mIoU_per_class"][0], 0.75, atol=1e-7)


def test_a_false_alarm_costs_a_frame_or_its_area(splits):
    """Why means over frames are far below those over the set: one stray pixel in one frame."""
    labels = np.ones((10, splits.size, splits.size), np.uint8)
    labels[:, :5] = 0
    prediction = labels.copy()
    prediction[0, 0, 0] = 2
    labels = np.concatenate([labels, np.full_like(labels[:1], 2)])
    prediction = np.concatenate([prediction, np.full_like(prediction[:1], 2)])
    clip = {"prediction": prediction, "labels": labels}
    found = splits.scores("semantic", [clip], classes=3)
    np.testing.assert_allclose(found["combo"]["mIoU_per_class"][2], 0.5, atol=1e-7)
    assert found["data_set"]["mIoU"] > 0.99


def test_nothing_seen_is_no_number(splits):
    split = splits.semantic(0, 5)
    state = metrics.init("semantic", PROTOCOLS, num_classes=5, clips=len(split))
    for batch in splits.batches(split, 3, 12, None):
        state = splits.update(state, **{**batch, "valid": np.zeros_like(batch["valid"])})
    for name, found in metrics.result(state).items():
        assert found["clips"] == found["frames"] == 0
        for key in PROTOCOLS[name].scores["semantic"]:
            assert np.isnan(found[key]), (name, key)
