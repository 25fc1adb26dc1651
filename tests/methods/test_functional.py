"""Sizes of the published networks, and how values are drawn."""

import dataclasses
import math
import re

import numpy as np
import pytest
from flax import nnx

from aavs_jax.methods.aavs.config import AAVSConfig
from aavs_jax.methods.aavs.network import abstract_model
from aavs_jax.methods.functional import initial_parameters
from aavs_jax.methods.parts.initializers import HeUniform, OffsetStar, XavierUniform

AUDIO_PROJECTION = 197_376
VGGISH = 72_141_184

# What the paper trains in each network's first sub-phase, besides the audio MLP.
DECODER_SIDE = [
    "decoder/query_(features|positions)",
    "(pixel_decoder|decoder)/.*adapter/.*",
    "decoder/class_predictor/.*",
]


def sizes(config: AAVSConfig) -> dict[str, int]:
    state = nnx.to_flat_state(nnx.state(abstract_model(config)))
    return {"/".join(map(str, path)): math.prod(leaf.shape) for path, leaf in state}


def count(parameters: dict[str, int], *patterns: str) -> int:
    matched = {pattern: 0 for pattern in patterns}
    total = 0
    for path, size in parameters.items():
        hits = [pattern for pattern in patterns if re.fullmatch(pattern, path)]
        total += size if hits else 0
        for pattern in hits:
            matched[pattern] += 1
    assert all(matched.values()), matched
    return total


def test_binary_network_has_the_published_size():
    parameters = sizes(AAVSConfig())
    assert count(parameters, "(backbone|pixel_decoder|decoder)/.*") == 114_354_299
    assert count(parameters, "audio_proj/.*") == AUDIO_PROJECTION
    assert count(parameters, "audio_encoder/.*") == VGGISH
    assert sum(parameters.values()) == 114_354_299 + AUDIO_PROJECTION + VGGISH


def test_binary_network_trains_what_is_published():
    parameters = sizes(AAVSConfig())
    assert count(parameters, *DECODER_SIDE) == 512_451
    assert count(parameters, *DECODER_SIDE, "backbone/.*adapter/.*") == 7_522_115


def test_semantic_network_has_the_published_size():
    parameters = sizes(AAVSConfig(task="semantic", num_classes=71, num_queries=100, prior=True))
    assert count(parameters, "(backbone|pixel_decoder|decoder)/.*") == 114_408_640
    assert count(parameters, "audio_proj/.*") == AUDIO_PROJECTION
    assert count(parameters, "decoder/(silent|sounding|uncertain)_embed") == 3 * 256


def test_draws_depend_on_seed_and_path_only(tiny):
    first = initial_parameters(abstract_model(tiny), 0)
    again = initial_parameters(abstract_model(tiny), 0)
    other_seed = initial_parameters(abstract_model(tiny), 1)
    without_prior = initial_parameters(
        abstract_model(dataclasses.replace(tiny, prior=False, decoder_layers=1)), 0
    )
    assert set(without_prior) < set(first)
    for path, array in first.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, again[path])
        if path in without_prior:
            np.testing.assert_array_equal(array, without_prior[path])
        if np.ptp(array) and not path.endswith("sampling_offsets/bias"):
            assert not np.array_equal(array, other_seed[path]), path
    drawn = [a.ravel()[:4].tobytes() for p, a in first.items() if p.endswith("query/kernel")]
    assert len(set(drawn)) == len(drawn), "two tensors have the same values"


def test_draws_follow_the_recipe(tiny):
    values = initial_parameters(abstract_model(tiny), 3)
    for path, array in values.items():
        if path.endswith("scale"):
            assert (array == 1).all(), path
        elif path.endswith(("sampling_offsets/kernel", "attention_weights/kernel")):
            assert not array.any(), path
        elif path.endswith("bias") and not re.search(
            "sampling_offsets|relative_position|audio_proj", path
        ):
            assert not array.any(), path
        else:
            assert array.std() > 0, path
    assert values["decoder/query_features"].std() == pytest.approx(0.02, rel=0.2)
    assert values["backbone/stages/2/blocks/0/mlp_hidden/kernel"].std() == pytest.approx(
        0.02, rel=0.1
    )
    bound = 1 / math.sqrt(16)
    hidden = values["audio_proj/hidden/kernel"]
    assert 0.9 * bound < np.abs(hidden).max() <= bound
    assert values["audio_proj/hidden/bias"].any()


def test_uniform_bounds_count_the_window():
    rng = np.random.default_rng(0)
    kernel = XavierUniform().draw(rng, (3, 3, 8, 24))
    assert np.abs(kernel).max() == pytest.approx(math.sqrt(6 / (9 * 32)), rel=0.02)
    kernel = HeUniform().draw(rng, (3, 3, 8, 24))
    assert np.abs(kernel).max() == pytest.approx(math.sqrt(6 / 72), rel=0.02)


def test_offset_star():
    star = OffsetStar(heads=8, levels=3, points=4).draw(np.random.default_rng(0), (192,))
    star = star.reshape(8, 3, 4, 2)
    np.testing.assert_allclose(star[0, 1], [[1, 0], [2, 0], [3, 0], [4, 0]], atol=1e-6)
    np.testing.assert_allclose(star[1, 2, 2], [3, 3], atol=1e-6)  # 45 degrees, on the square
    np.testing.assert_allclose(star[6, 0, 0], [0, -1], atol=1e-6)
