"""Tiny networks for the model tests; each is built and compiled once per session."""

import dataclasses
import functools
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from aavs_jax.methods.aavs.config import AAVSConfig
from aavs_jax.methods.aavs.network import abstract_model
from aavs_jax.methods.functional import initial_parameters
from aavs_jax.methods.parts.sizes import AudioConfig, SwinConfig

TINY = AAVSConfig(
    task="semantic",
    num_classes=5,
    num_queries=6,
    backbone=SwinConfig(
        embed_dim=8, depths=(1, 2, 1, 1), num_heads=(1, 2, 2, 4), window_size=4, drop_path_rate=0.5
    ),
    audio=AudioConfig(blocks=((2,), (4,)), fully_connected=(8, 16)),
    feature_size=32,
    num_heads=4,
    encoder_layers=1,
    encoder_ffn=32,
    decoder_layers=2,
    decoder_ffn=32,
    audio_hidden=16,
    prior=True,
)


def split_with_values(model: nnx.Module, parameters: dict[str, np.ndarray]) -> tuple[Any, dict]:
    """(graphdef, nested dict of plain arrays) of a model whose values are given by path."""
    graphdef, state = nnx.split(model)
    flat, structure = jax.tree_util.tree_flatten_with_path(nnx.to_pure_dict(state))
    names = ["/".join(str(key.key) for key in path) for path, _ in flat]
    assert sorted(names) == sorted(parameters)
    return graphdef, jax.tree.unflatten(structure, [jnp.asarray(parameters[n]) for n in names])


@functools.lru_cache
def build(config: AAVSConfig, seed: int = 0):
    """A network with initial values, its call compiled."""
    model = abstract_model(config)
    parameters = initial_parameters(model, seed)
    # Initial adapters are next to nothing; made larger, what is behind them counts in tests.
    parameters = {
        path: array * 10 if "adapter" in path and path.endswith("kernel") else array
        for path, array in parameters.items()
    }
    graphdef, values = split_with_values(model, parameters)

    def apply(values, frames, audio, prior_mask=None, key=None):
        keys = None if key is None else jax.random.split(key, len(frames))
        return nnx.merge(graphdef, values)(frames, audio, prior_mask, keys=keys, taps=True)

    return types.SimpleNamespace(
        config=config, graphdef=graphdef, values=values, apply=apply, jitted=jax.jit(apply)
    )


@pytest.fixture(scope="session")
def tiny():
    """The sizes; vary them with `dataclasses.replace`."""
    return TINY


@pytest.fixture(scope="session")
def network():
    """A function: changes to the tiny configuration -> the network (see `build`)."""
    return lambda **changes: build(dataclasses.replace(TINY, **changes))


@pytest.fixture(scope="session")
def with_values():
    """`split_with_values`, for parts of a network."""
    return split_with_values


@pytest.fixture
def inputs():
    """A function: number of frames, height, width -> frames, audio examples, prior mask."""

    def make(frames: int, height: int, width: int, seed: int = 0):
        rng = np.random.default_rng(seed)
        return (
            rng.integers(0, 256, (frames, height, width, 3), np.uint8),
            rng.normal(size=(frames, 96, 64)).astype(np.float32),
            rng.random((frames, 20, 28), np.float32),
        )

    return make
