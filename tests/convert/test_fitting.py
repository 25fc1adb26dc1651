"""Between reading and writing: sources merged, windows resized, cards held against parameters."""

import types

import numpy as np
import pytest

from aavs_jax.convert import engine, fitting, sizes, windows
from aavs_jax.convert.engine import Fate
from aavs_jax.convert.formats import FORMATS
from aavs_jax.convert.importing import Weights
from aavs_jax.errors import UserError
from aavs_jax.weights.card import Card

SWIN = {
    "backbone": {
        "embed_dim": 4,
        "depths": [1, 1, 1, 1],
        "num_heads": [1, 1, 2, 2],
        "window_size": 2,
        "mlp_ratio": 2.0,
    }
}
SOUND = {"audio": {"blocks": [[2], [3]], "fully_connected": [5, 6]}}
WHOLE = SWIN | {"task": "binary", "num_classes": 2, "num_queries": 5, "prior": False}
NAMES = ("aavs.pth", "vggish.pth")


def fake(value: np.ndarray) -> types.SimpleNamespace:
    """What the engine needs of a tensor in a file."""
    return types.SimpleNamespace(
        shape=value.shape, dtype=value.dtype, read=lambda: value, release=lambda: None
    )


def weights(kind, paths, left_over=None, **more) -> Weights:
    """A source of few parameters; what is left over is known by name alone if it has no value."""
    left_over = left_over or {}
    return Weights(
        parameters={path: np.ones(3, np.float32) for path in paths},
        left_over={name: value for name, value in left_over.items() if value is not None},
        card=Card(kind, SOUND if kind == "vggish" else WHOLE, left_over=left_over, **more),
        fates=(Fate("x", (), (), (), "", "left over"),),
    )


# ---------------------------------------------------------------------------------------- merged


def test_two_sources_become_one():
    aavs = weights("aavs", ["decoder/a"], {"steps": np.array(7)}, stored_as={"a": "float16"})
    sound = weights("vggish", ["audio_encoder/a"], {"pca": np.array(8)}, stored_as={"b": "float16"})
    for parts in ([aavs, sound], [sound, aavs]):
        whole = fitting.merged(parts, NAMES)
        assert set(whole.parameters) == {"decoder/a", "audio_encoder/a"}
        assert whole.left_over == {"steps": np.array(7), "pca": np.array(8)}
        assert set(whole.card.stored_as) == {"a", "b"}
        assert whole.card.kind == "aavs" and whole.card.network == WHOLE | SOUND


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"left_over": {"steps": np.array(7)}}, {"left_over": {"steps": np.array(8)}}),
        ({"left_over": {"steps": None}}, {"left_over": {"steps": np.array(8)}}),
        ({"left_over": {"steps": None}}, {"left_over": {"steps": None}}),
        ({"stored_as": {"steps": "float16"}}, {"stored_as": {"steps": "bfloat16"}}),
    ],
)
def test_what_two_sources_hold_is_an_error(ours, theirs):
    """The parts of each are kept by name: one of two would be lost."""
    parts = [weights("aavs", ["decoder/a"], **ours), weights("vggish", ["audio/a"], **theirs)]
    with pytest.raises(UserError, match="^aavs.pth and vggish.pth both hold steps: take it out"):
        fitting.merged(parts, NAMES)


def test_a_parameter_that_two_sources_hold():
    parts = [weights("aavs", ["a", "b", "c"]), weights("vggish", ["c", "b"])]
    with pytest.raises(UserError, match="both hold c and 1 more: leave one of them out"):
        fitting.merged(parts, NAMES)


# --------------------------------------------------------------------------------------- windows


@pytest.fixture
def swin():
    """A Swin of Microsoft's release as it is read, with what is computed from the window's size."""
    format = FORMATS["swin_microsoft"]
    wanted = sizes.wanted("swin", SWIN)
    rng = np.random.default_rng(0)
    values = {path: rng.normal(size=shape).astype(np.float32) for path, shape in wanted.items()}
    tensors, _ = engine.to_theirs(format, values, {}, {})
    tensors["layers.0.blocks.0.attn.relative_position_index"] = np.zeros((4, 4), int)
    tensors["layers.0.blocks.0.attn_mask"] = np.zeros((1, 4, 4), np.float32)
    tensors["norm.weight"] = np.ones(32, np.float32)
    fakes = {f"net.{name}": fake(value) for name, value in tensors.items()}
    parameters, left_over, fates = engine.to_ours(format, fakes, wanted)
    reasons = {f.theirs.removeprefix("net."): f.reason for f in fates if f.what == "left over"}
    return Weights(parameters, left_over, Card("swin", SWIN, left_over=reasons), tuple(fates))


def test_fates_tell_of_another_window(swin):
    weights, done = windows.resized(swin, 3)
    assert weights.card.network["backbone"]["window_size"] == 3
    assert done[0] == "stage 0: the relative positions of 1 blocks resized from 3x3 to 5x5"
    assert set(weights.left_over) == set(weights.card.left_over) == {"norm.weight"}
    assert len(weights.fates) == len(swin.fates)
    changed = {new.theirs.removeprefix("net."): new for new in set(weights.fates) - set(swin.fates)}
    stale = [name for name in changed if name.endswith(("position_index", "attn_mask"))]
    tables = [name for name in changed if name.endswith("relative_position_bias_table")]
    assert len(stale) == 2 and len(tables) == 4 and len(changed) == 6
    for name in stale:
        assert (changed[name].what, changed[name].reason) == (
            "left behind",
            "computed from the window's size, not learned, which is 3 now",
        )
    for name in tables:
        fate = changed[name]
        assert (fate.what, fate.reason) == ("mapped", "resized from 3x3 to 5x5")
        assert fate.shape[0] == 9 and fate.our_shapes == ((25, fate.shape[1]),)
        assert weights.parameters[fate.ours[0]].shape == fate.our_shapes[0]


@pytest.mark.parametrize("window", [-1, 0, 1, 65, 2000, 10**30])
def test_windows_that_cannot_be(swin, window):
    with pytest.raises(
        UserError, match=f"--window is {window}: give at least 2 tokens, at most 64"
    ):
        windows.resized(swin, window)


def test_the_same_window_changes_nothing(swin):
    assert windows.resized(swin, 2) == (swin, [])
    assert windows.resized(swin, 64)[0].parameters.keys() == swin.parameters.keys()
