"""Small splits with everything that a metric may meet, and a loader that hides nothing."""

import types

import jax
import numpy as np
import pytest

from aavs_jax.scoring import metrics

G = 24
KINDS = ("random", "empty", "full", "some empty", "nan", "hard", "grey", "silent")


def sigmoid(x):
    return (1 / (1 + np.exp(-x.astype(np.float64)))).astype(np.float32)


def binary_clip(rng, frames, kind):
    """Everything `update` takes of a clip, by name; arrays [t, G, G]."""
    background, sounding = rng.random((2, frames, G, G), np.float32) * 1.4
    touched = rng.random((frames, G, G)) < 0.3
    nearest = touched & (rng.random(touched.shape) < 0.7)
    if kind in ("empty", "full"):
        touched[:] = nearest[:] = kind == "full"
    if kind == "some empty":
        touched[::2] = nearest[::2] = False
        nearest[1] = False  # touched by an object that no nearest pixel is of
    if kind == "silent":
        sounding[:] = 0
    touched, nearest = touched.astype(np.uint8), nearest.astype(np.uint8)
    if kind in ("random", "nan", "silent", "some empty"):
        for labels in (touched, nearest):
            labels[:, -5:, 2:9] = metrics.IGNORED
            labels[4] = metrics.IGNORED if kind == "some empty" else labels[4]
    clip = {
        "prediction": (sounding > background).astype(np.uint8),
        "labels": touched,
        "labels_nearest": nearest,
        "stepping_stones": sigmoid(2 * sounding - background),
        "softmax": sigmoid(sounding - background),
    }
    for name in ("stepping_stones", "softmax"):
        clip[name][:, 0] = rng.choice(metrics.thresholds(), (frames, G))  # exactly on thresholds
        if kind == "nan":
            clip[name][:, 3:6] = np.nan
    if kind in ("hard", "grey"):
        grey = rng.integers(0, 256, touched.shape).astype(np.uint8)
        grey = (grey > 90).astype(np.uint8) * 255 if kind == "hard" else grey
        clip["prediction"], maps = metrics.from_grey(grey)
        clip.update(maps)
    return {name: np.asarray(array) for name, array in clip.items()}


def semantic_clip(rng, frames, classes, shown):
    """Blocks of some classes, labels 255 and one beyond the classes, predictions half right."""
    blocks = rng.choice(shown, (frames, 2, 2))
    labels = blocks.repeat(G // 2, 1).repeat(G // 2, 2).astype(np.uint8)
    labels[:, 0, :4] = 255
    labels[0, 1, :3] = classes
    prediction = np.where(rng.random(labels.shape) < 0.6, labels, rng.choice(shown))
    return {"prediction": np.minimum(prediction, classes).astype(np.uint8), "labels": labels}


def make_binary_split(seed, kinds=KINDS):
    rng = np.random.default_rng(seed)
    return [binary_clip(rng, (5, 10, 5)[i % 3], kind) for i, kind in enumerate(kinds)]


def make_semantic_split(seed, classes, clips=7):
    """With clips of 5, 10 and 12 frames. Classes of which one never occurs, if there are enough."""
    rng = np.random.default_rng(seed)
    shown = np.array([c for c in range(classes) if c != 2])
    return [
        semantic_clip(
            rng,
            (5, 10, 12)[i % 3],
            classes,
            rng.choice(shown, 1 + i % 4) if i else np.array([0, classes - 1]),
        )
        for i in range(clips)
    ]


def batches(clips, batch_size, frames, order):
    """Batches of clips in an order, padded with rubbish frames and clips that do not exist."""
    rng = np.random.default_rng(9)
    order = np.arange(len(clips)) if order is None else order
    for start in range(0, len(clips), batch_size):
        positions = order[start : start + batch_size]
        shape = (batch_size, frames, G, G)
        batch = {
            name: rng.integers(0, 2, shape).astype(part.dtype) for name, part in clips[0].items()
        }
        valid = np.zeros((batch_size, frames), bool)
        position = np.full(batch_size, -1, np.int32)
        for row, at in enumerate(positions):
            length = len(clips[at]["prediction"])
            position[row], valid[row, :length] = at, True
            for name, part in clips[at].items():
                batch[name][row, :length] = part
        maps = {name: batch.pop(name) for name in ("stepping_stones", "softmax") if name in batch}
        yield {**batch, "valid": valid, "position": position, **({"maps": maps} if maps else {})}


jitted = jax.jit(metrics.update)


def run(task, clips, protocols="all", classes=2, batch_size=3, frames=12, order=None, jit=True):
    """The state after all clips."""
    state = metrics.init(task, metrics.parse(protocols), num_classes=classes, clips=len(clips))
    for batch in batches(clips, batch_size, frames, order):
        state = (jitted if jit else metrics.update)(state, **batch)
    return jax.device_get(state)


def scores(*arguments, **options):
    return metrics.result(run(*arguments, **options))


@pytest.fixture(scope="session")
def splits():
    """How splits are made and scored."""
    return types.SimpleNamespace(
        binary=make_binary_split,
        semantic=make_semantic_split,
        batches=batches,
        run=run,
        update=jitted,
        scores=scores,
        size=G,
        kinds=KINDS,
    )
