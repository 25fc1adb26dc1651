"""The protocol `stepping_stones` against slow definitions from docs/method.md, section 6."""

import functools

import jax
import numpy as np
import pytest

from aavs_jax.scoring import metrics
from aavs_jax.scoring.metrics.counting import thresholds_reached

G, K = 12, 7
NAME = metrics.PROTOCOL


def binary_init():
    return metrics.init("binary", (NAME,), num_classes=2, clips=metrics.LARGEST_COUNT)


def semantic_init(classes):
    return metrics.init("semantic", (NAME,), num_classes=classes, clips=metrics.LARGEST_COUNT)


@jax.jit
def binary_update(state, fmap, mask, labels, valid):
    position = np.arange(len(valid))
    return metrics.update(state, mask, labels, valid, position, maps={NAME: fmap})


@jax.jit
def semantic_update(state, prediction, labels, valid):
    return metrics.update(state, prediction, labels, valid, np.arange(len(valid)))


def result_of(state):
    return metrics.result(state)[NAME]


def binary_clip(rng, frames, kind="random"):
    fmap = rng.random((frames, G, G)).astype(np.float32)
    fmap[:, 0] = rng.choice(metrics.thresholds(), (frames, G))  # exactly on thresholds
    labels = (rng.random((frames, G, G)) < 0.3).astype(np.uint8)
    if kind == "some empty":
        labels[::2] = 0
    if kind in ("empty", "full"):
        labels[:] = kind == "full"
    if kind == "nan":
        fmap[:, 3:6] = np.nan
    if kind == "constant":
        fmap[:] = np.float32(rng.choice([0, 1]))
    return fmap, (fmap > 0.5).astype(np.uint8), labels


def slow_binary(clips):
    """J and F over clips [(fmap, mask, labels)], each a loop over frames and thresholds."""
    js, fs = [], []
    for fmap, mask, labels in clips:
        j, f = [], []
        for p, m, t in zip(fmap, mask > 0, labels > 0, strict=True):
            if not t.any():
                j.append((~m & ~t).sum() / (t.size + 1e-7))
                continue
            j.append((m & t).sum() / ((m | t).sum() + 1e-7))
            curve = []
            for threshold in metrics.thresholds():
                positive = p >= threshold
                precision = (positive & t).sum() / (positive.sum() + 1e-20)
                recall = (positive & t).sum() / (t.sum() + 1e-20)
                with np.errstate(invalid="ignore"):
                    curve.append(1.3 * precision * recall / (0.3 * precision + recall))
            f.append(np.nan_to_num(curve))
        js.append(np.mean(j))
        fs.append(np.mean(f, axis=0).max() if f else 0.0)
    return np.mean(js), np.mean(fs)


def slow_semantic(clips, classes):
    iou, f, seen = np.zeros(classes), np.zeros(classes), np.zeros(classes)
    for prediction, labels in clips:
        for p, t in zip(prediction, labels, strict=True):
            for c in range(classes):
                both = ((p == c) & (t == c)).sum()
                union = ((p == c) | (t == c)).sum()
                if not union:
                    continue
                seen[c] += 1
                iou[c] += both / union
                if both:
                    precision, recall = both / (p == c).sum(), both / (t == c).sum()
                    f[c] += 1.3 * precision * recall / (0.3 * precision + recall)
    return iou / np.maximum(seen, 1), f / np.maximum(seen, 1), seen


def batches(clips, batch_size, frames, rng):
    """Clips (tuples of [t, G, G]) padded with rubbish to `frames`, and the last batch with clips
    that do not exist."""
    for start in range(0, len(clips), batch_size):
        group = clips[start : start + batch_size]
        arrays = [
            rng.integers(0, 2, (batch_size, frames, G, G)).astype(part.dtype) for part in clips[0]
        ]
        valid = np.zeros((batch_size, frames), bool)
        for i, clip in enumerate(group):
            valid[i, : len(clip[0])] = True
            for array, part in zip(arrays, clip, strict=True):
                array[i, : len(part)] = part
        yield *arrays, valid


def run(update, state, clips, batch_size, frames):
    for batch in batches(clips, batch_size, frames, np.random.default_rng(9)):
        state = update(state, *batch)
    return jax.tree.map(np.asarray, state)


KINDS = ["random", "some empty", "empty", "full", "nan", "constant"]


@functools.cache
def binary_clips():
    rng = np.random.default_rng(0)
    kinds = [*KINDS, *KINDS, "random"]
    return [binary_clip(rng, (5, 10)[i % 3 == 0], kind) for i, kind in enumerate(kinds)]


@functools.cache
def semantic_clips():
    rng = np.random.default_rng(1)
    shown = np.array([0, 1, 3, 4, 5])  # class 2 is never seen
    clips = []
    for i in range(7):
        labels = rng.choice(shown[: 1 + i % 4], ((5, 10)[i % 2], G, G)).astype(np.uint8)
        prediction = np.where(rng.random(labels.shape) < 0.6, labels, rng.choice(shown))
        clips.append((prediction.astype(np.uint8), labels))
    return clips


@pytest.mark.parametrize("kind", KINDS)
def test_binary_equals_the_definition_per_clip(kind):
    clip = binary_clip(np.random.default_rng(3), 5, kind)
    state = binary_update(binary_init(), *(part[None] for part in clip), np.ones((1, 5), bool))
    result = result_of(state)
    j, f = slow_binary([clip])
    np.testing.assert_allclose([result["J"], result["F"]], [j, f], atol=2e-7)
    if kind == "empty":
        assert result["F"] == 0
    assert (result["clips"], result["frames"]) == (1, 5)


@pytest.mark.parametrize(
    ("inside", "outside"), [(1.0, np.nextafter(1, 0, dtype=np.float32)), (0.0, np.nan)]
)
def test_first_and_last_threshold_take_part(inside, outside):
    """Only the threshold 1 (0, where NaN counts for nothing) tells target and rest apart."""
    labels = (np.random.default_rng(0).random((1, 1, G, G)) < 0.3).astype(np.uint8)
    fmap = np.where(labels, inside, outside).astype(np.float32)
    state = binary_update(binary_init(), fmap, labels, labels, np.ones((1, 1), bool))
    np.testing.assert_allclose(result_of(state)["F"], 1, atol=1e-7)


def test_binary_equals_the_definition_over_clips():
    clips = binary_clips()
    result = result_of(run(binary_update, binary_init(), clips, 4, 10))
    j, f = slow_binary(clips)
    np.testing.assert_allclose(
        [result["J"], result["F"], result["J&F"]], [j, f, (j + f) / 2], atol=2e-7
    )
    assert result["clips"] == len(clips)
    assert result["frames"] == sum(len(clip[0]) for clip in clips)


def test_semantic_equals_the_definition():
    clips = semantic_clips()
    result = result_of(run(semantic_update, semantic_init(K), clips, 3, 10))
    iou, f, seen = slow_semantic(clips, K)
    np.testing.assert_array_equal(result["frames_per_class"], seen)
    assert seen[2] == 0 and result["mIoU_per_class"][2] == 0
    for name, per_class in (("mIoU", iou), ("F", f)):
        np.testing.assert_allclose(result[f"{name}_per_class"], per_class, atol=2e-7)
        np.testing.assert_allclose(result[name], per_class.mean(), atol=2e-7)
        np.testing.assert_allclose(result[f"{name}_no_background"], per_class[1:].mean(), atol=2e-7)
    assert result["clips"] == len(clips)
    assert result["frames"] == sum(len(clip[0]) for clip in clips)


def test_a_clip_without_valid_frames_is_not_counted():
    fmap, mask, labels = (part[None] for part in binary_clip(np.random.default_rng(0), 5))
    nothing = np.zeros((1, 5), bool)
    state = binary_update(binary_init(), fmap, mask, labels, nothing)
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(state))
    assert np.isnan(result_of(state)["J&F"])
    state = semantic_update(semantic_init(K), labels, labels, nothing)
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(state))
    assert np.isnan(result_of(state)["mIoU"])


def test_pixels_labelled_beyond_the_classes_are_left_out():
    labels = np.zeros((1, 1, G, G), np.uint8)
    labels[..., :3, :] = 255
    prediction = np.zeros_like(labels)
    state = semantic_update(semantic_init(K), prediction, labels, np.ones((1, 1), bool))
    result = result_of(state)
    np.testing.assert_array_equal(result["frames_per_class"], [1] + [0] * (K - 1))
    assert result["mIoU_per_class"][0] == 1
    masks = labels // 255  # foreground, where nobody looks
    state = binary_update(binary_init(), masks.astype(np.float32), masks, labels, np.ones((1, 1)))
    assert result_of(state)["J"] == 1


def test_perfect_scores_are_one():
    labels = (np.random.default_rng(0).random((3, 5, G, G)) < 0.4).astype(np.uint8)
    valid = np.ones((3, 5), bool)
    state = binary_update(binary_init(), labels.astype(np.float32), labels, labels, valid)
    result = result_of(state)
    assert result["J"] == 1 and abs(result["F"] - 1) < 1e-7
    result = result_of(semantic_update(semantic_init(2), labels, labels, valid))
    assert result["mIoU"] == 1 and abs(result["F"] - 1) < 1e-7


def test_thresholds_are_torch_linspace():
    torch = pytest.importorskip("torch")
    np.testing.assert_array_equal(metrics.thresholds(), torch.linspace(0, 1 - 1e-10, 255).numpy())


def test_threshold_levels_equal_the_comparisons():
    thresholds = metrics.thresholds()
    scores = np.concatenate(
        [
            thresholds,
            np.nextafter(thresholds[1:], np.float32(-1)),  # below 0 XLA has no denormals
            np.nextafter(thresholds, np.float32(2)),
            np.random.default_rng(0).random(20000).astype(np.float32),
            np.array([np.nan, np.inf, -np.inf, -0.5, 1.5, -0.0], np.float32),
        ]
    )
    expected = (scores[:, None] >= thresholds).sum(axis=1)
    np.testing.assert_array_equal(thresholds_reached(scores), expected)


def test_sums_do_not_overflow():
    """Far more frames than AVSBench has: both halves of the sum stay within int32."""
    state = semantic_init(2)
    many = metrics.LARGEST_COUNT - 1
    half = np.int32(many * 4096)
    sums = state["semantic"][NAME]
    sums |= {"iou": np.array([[half, 0], [0, 0]], np.int32), "seen": np.array([many, 0], np.int32)}
    labels = np.zeros((1, 1, G, G), np.uint8)
    result = result_of(semantic_update(state, labels, labels, np.ones((1, 1), bool)))
    assert result["mIoU_per_class"][0] == 1 and result["frames_per_class"][0] == many + 1


def test_a_clip_too_long_is_refused():
    frames = metrics.LARGEST_CLIP + 1
    images = np.zeros((1, frames, 1, 1), np.uint8)
    with pytest.raises(ValueError, match="at most 127"):
        binary_update(binary_init(), images, images, images, np.ones((1, frames), bool))
